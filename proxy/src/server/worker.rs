//! Worker threads: each a current-thread runtime with connections of its own.

use super::Config;
use super::connection::{self, Door};
use crate::cork;
use crate::relay::{Rooms, ending, tidy};
use crate::trust::Handshakes;
use arc_swap::ArcSwap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long plugins may take to hear of the last replies when the gateway stops.
const LAST_ENDS: Duration = Duration::from_secs(2);

/// The threads that serve requests.
pub struct Workers {
    door: Arc<Door>,
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<()>>,
}

struct Lane {
    errands: mpsc::UnboundedSender<Errand>,
    open: Arc<AtomicUsize>,
}

/// What a worker is told to do.
enum Errand {
    /// Serve this connection.
    Serve(TcpStream),
    /// Drop what is kept for configurations that are gone.
    Tidy,
}

/// What of the workers follows a configuration. Does not keep them.
pub struct Followers {
    door: Arc<Door>,
    lanes: Vec<mpsc::WeakUnboundedSender<Errand>>,
}

impl Followers {
    /// The rooms were exchanged, and these are the server's settings from now on.
    pub fn settle(&self, config: &Config) {
        self.door.settle(config);
        for lane in self.lanes.iter().filter_map(mpsc::WeakUnboundedSender::upgrade) {
            // A lane that is closed has dropped all it kept.
            let _ = lane.send(Errand::Tidy);
        }
    }
}

impl Workers {
    /// Starts the threads. Every request meets what `rooms` holds when it begins.
    ///
    /// # Errors
    /// A thread or its runtime could not be started.
    pub fn start(
        config: &Config,
        rooms: Arc<ArcSwap<Rooms>>,
        tls: Arc<Handshakes>,
        registry: &prometheus::Registry,
        drain: &CancellationToken,
    ) -> Result<Self, String> {
        let ledger = rooms.load().ledger.clone();
        let door = Arc::new(Door::new(config, rooms, tls, registry));
        let mut workers = Self { door: door.clone(), lanes: Vec::new(), threads: Vec::new() };
        for number in 0..config.workers() {
            let (errands, mut incoming) = mpsc::unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_park(cork::turn)
                .build()
                .map_err(|error| format!("cannot start a worker's runtime: {error}"))?;
            let (lane_open, door, drain, ledger) = (open.clone(), door.clone(), drain.clone(), ledger.clone());
            let serve = move || {
                // Dropped last: what the last connections leave is written, too.
                let _gathering = ledger.gather();
                cork::first(move || ledger.write_gathered());
                let local = tokio::task::LocalSet::new();
                // Ends when the lane is closed and every connection is done; idle backend connections go with the thread.
                local.block_on(&runtime, async move {
                    while let Some(errand) = incoming.recv().await {
                        let Errand::Serve(stream) = errand else {
                            tidy();
                            continue;
                        };
                        let open = Open { lane: lane_open.clone(), door: door.clone() };
                        let drain = drain.clone();
                        tokio::task::spawn_local(async move { connection::serve(stream, &open.door, &drain).await });
                    }
                    while lane_open.load(Ordering::Relaxed) > 0 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    // Plugins are told of the last replies, too; each within its own limits.
                    let began = Instant::now();
                    while ending() > 0 && began.elapsed() < LAST_ENDS {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(serve)
                .map_err(|error| format!("cannot start a worker thread: {error}"))?;
            workers.lanes.push(Lane { errands, open });
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// What of them follows a configuration.
    pub fn followers(&self) -> Followers {
        Followers { door: self.door.clone(), lanes: self.lanes.iter().map(|lane| lane.errands.downgrade()).collect() }
    }

    /// Gives a connection to the worker that has the fewest.
    pub(super) fn give(&self, stream: TcpStream) {
        if let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) {
            lane.open.fetch_add(1, Ordering::Relaxed);
            self.door.connections.begin();
            // A lane is closed only by `finish`, after the last connection was taken.
            let _ = lane.errands.send(Errand::Serve(stream));
        }
    }

    /// No other connection may be given to them.
    pub(super) fn are_full(&self) -> bool {
        self.door.connections.are_full()
    }

    /// From now on replies of HTTP/1.1 say that they are the last of their connection.
    pub fn leave(&self) {
        self.door.leave();
    }

    /// Connections that are not closed yet.
    pub fn open(&self) -> usize {
        self.lanes.iter().map(|lane| lane.open.load(Ordering::Relaxed)).sum()
    }

    /// Lets the threads end, and waits for them as long as this.
    pub async fn finish(self, limit: Duration) {
        drop(self.lanes);
        let began = Instant::now();
        while began.elapsed() < limit && !self.threads.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Counts a connection until it is dropped, however that comes.
struct Open {
    lane: Arc<AtomicUsize>,
    door: Arc<Door>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.door.connections.end();
        self.lane.fetch_sub(1, Ordering::Relaxed);
    }
}
