//! The door: listeners, TLS, worker threads, HTTP/1.1 and HTTP/2, limits, drain.
//!
//! One thread accepts and hands each connection to the worker with the fewest; a worker is a current-thread runtime that
//! keeps a connection for its life, with backend connections of its own (docs/decisions/0003-threads.md).

mod connection;
mod cors;
mod limit;
mod linger;
mod listener;
mod pace;
mod paths;
mod requests;
mod timer;
mod worker;

pub use cors::Origins;
pub use limit::raise_open_files;
pub use listener::{Bound, Inherited, Listener, bind};
pub use worker::{Followers, Workers};

use crate::canon::{Period, Size};
use crate::trust;
use crate::wire::frame::LINE_LIMIT;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;

/// `[server]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Server")]
pub struct Config {
    /// Address of the API.
    pub listen: SocketAddr,
    /// Certificate and key of the API. Plain HTTP where absent.
    pub tls: Option<trust::Files>,
    /// Another gateway may listen on the same address, and use the same ledger: the one that is to take over from this one.
    pub reuse_port: bool,
    /// Origins of pages in browsers that may ask; `*` for all.
    pub cors: Origins,
    /// Largest request body, after decompression.
    pub body_limit: Size,
    /// Longest line in the stream of a backend.
    pub line_limit: Size,
    /// How long streams may go on after SIGTERM.
    pub drain: Period,
    /// How long new connections are still taken after SIGTERM, while readiness already fails and replies say `connection: close`.
    pub drain_delay: Period,
    /// A request's head must arrive within this.
    pub header_timeout: Period,
    /// A connection of HTTP/2 that has had no request for so long is told to go (GOAWAY).
    pub idle_timeout: Period,
    /// Longest pause within a request's body.
    pub body_timeout: Period,
    /// A client that takes nothing of its reply for so long is let go (HTTP/1.1: on Linux).
    pub write_timeout: Period,
    /// A stream in which there is silence for so long gets a sign of life; `0s`: never.
    pub keep_alive: Period,
    /// Connections at the same time, idle ones included; further ones wait until one ends. Half of what the limit of open files
    /// leaves where absent.
    pub max_connections: Option<usize>,
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
            tls: None,
            reuse_port: false,
            cors: Origins::default(),
            body_limit: Size(32 << 20),
            line_limit: Size(LINE_LIMIT),
            drain: seconds(30),
            drain_delay: Period(Duration::from_millis(500)),
            header_timeout: seconds(10),
            idle_timeout: seconds(300),
            body_timeout: seconds(30),
            write_timeout: seconds(60),
            keep_alive: seconds(15),
            max_connections: None,
            max_in_flight: 10_000,
            workers: None,
        }
    }
}

impl Config {
    /// What serde cannot see: limits that hardly a request keeps.
    pub fn errors(&self) -> Vec<(String, String)> {
        let what = "with 0 hardly a request could be served; leave it out for the default";
        let limits = [
            ("body_limit", self.body_limit.0 == 0),
            ("line_limit", self.line_limit.0 == 0),
            ("header_timeout", self.header_timeout.0.is_zero()),
            ("idle_timeout", self.idle_timeout.0.is_zero()),
            ("body_timeout", self.body_timeout.0.is_zero()),
            ("max_connections", self.max_connections == Some(0)),
            ("max_in_flight", self.max_in_flight == 0),
        ];
        let zeros = limits.into_iter().filter(|(_, zero)| *zero);
        zeros.map(|(key, _)| (format!("server.{key}"), what.to_owned())).collect()
    }

    /// Connections that there may be.
    fn connections(&self) -> usize {
        self.max_connections.unwrap_or_else(limit::connections_by_files)
    }

    /// Threads that serve requests.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}
