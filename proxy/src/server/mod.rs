//! The door: listeners, worker threads, HTTP/1.1 and HTTP/2, limits, drain.
//!
//! One thread accepts and hands each connection to the worker with the fewest; a worker is a current-thread runtime that
//! keeps a connection for its life, with backend connections of its own (docs/decisions/0003-threads.md).

mod connection;
mod limit;
mod pace;
mod paths;
mod timer;
mod worker;

pub use worker::{Followers, Workers};

use crate::canon::{Period, Size};
use schemars::JsonSchema;
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// `[server]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Server")]
pub struct Config {
    /// Address of the API.
    pub listen: SocketAddr,
    /// Largest request body, after decompression.
    pub body_limit: Size,
    /// How long streams may go on after SIGTERM.
    pub drain: Period,
    /// How long new connections are still taken after SIGTERM, while readiness already fails.
    pub drain_delay: Period,
    /// A request's head must arrive within this.
    pub header_timeout: Period,
    /// Longest pause within a request's body.
    pub body_timeout: Period,
    /// A client that takes nothing of its reply for so long is let go (HTTP/1.1: on Linux).
    pub write_timeout: Period,
    /// A stream in which there is silence for so long gets a sign of life; `0s`: never.
    pub keep_alive: Period,
    /// Requests at the same time, streams included; further ones get 503.
    pub max_in_flight: usize,
    /// Threads that serve requests; all cores where absent.
    pub workers: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = |seconds| Period(Duration::from_secs(seconds));
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_limit: Size(32 << 20),
            drain: seconds(30),
            drain_delay: Period(Duration::from_millis(500)),
            header_timeout: seconds(10),
            body_timeout: seconds(30),
            write_timeout: seconds(60),
            keep_alive: seconds(15),
            max_in_flight: 10_000,
            workers: None,
        }
    }
}

impl Config {
    /// Threads that serve requests.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}

/// Binds a listener.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let open = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Takes connections until `stop`, and gives each to the worker that has the fewest.
pub async fn accept(listener: TcpListener, workers: &Workers, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => workers.give(stream),
            Err(error) => {
                // Out of file descriptors, mostly: some will be closed soon.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
