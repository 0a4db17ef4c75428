//! Worker threads: each a current-thread runtime with connections of its own.

use super::Config;
use super::connection::{self, Door};
use crate::relay::Rooms;
use arc_swap::ArcSwap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The threads that serve requests.
pub struct Workers {
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<()>>,
    door: Arc<Door>,
}

struct Lane {
    connections: mpsc::UnboundedSender<TcpStream>,
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts the threads. Every request meets what `rooms` holds when it begins.
    ///
    /// # Errors
    /// A thread or its runtime could not be started.
    pub fn start(
        config: &Config,
        rooms: Arc<ArcSwap<Rooms>>,
        registry: &prometheus::Registry,
        drain: &CancellationToken,
    ) -> Result<Self, String> {
        let door = Arc::new(Door::new(config, rooms, registry));
        let mut workers = Self { lanes: Vec::new(), threads: Vec::new(), door: door.clone() };
        for number in 0..config.workers() {
            let (connections, mut incoming) = mpsc::unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| format!("cannot start a worker's runtime: {error}"))?;
            let (lane_open, door, drain) = (open.clone(), door.clone(), drain.clone());
            let serve = move || {
                let local = tokio::task::LocalSet::new();
                local.spawn_local(async move {
                    while let Some(stream) = incoming.recv().await {
                        let (open, door, drain) = (lane_open.clone(), door.clone(), drain.clone());
                        tokio::task::spawn_local(async move {
                            connection::serve(stream, &door, &drain).await;
                            open.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                });
                // Ends when the lane is closed and every connection is done.
                runtime.block_on(local);
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(serve)
                .map_err(|error| format!("cannot start a worker thread: {error}"))?;
            workers.lanes.push(Lane { connections, open });
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Gives a connection to the worker that has the fewest.
    pub(super) fn give(&self, stream: TcpStream) {
        if let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) {
            lane.open.fetch_add(1, Ordering::Relaxed);
            // A lane is closed only by `finish`, after the last connection was taken.
            let _ = lane.connections.send(stream);
        }
    }

    /// Requests and streams being served.
    pub fn in_flight(&self) -> usize {
        self.door.in_flight()
    }

    /// Lets the threads end; those that have nothing more to do are waited for.
    pub fn finish(self) {
        drop(self.lanes);
        for thread in self.threads {
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}
