//! The requests of a connection, and when it may be closed without a client noticing.
//!
//! HTTP/1.1 has no word with which a server ends a connection between two requests: a request that is on the way while it
//! closes is lost, and a client cannot know whether anything came of it. So a gateway that stops says `connection: close`
//! with its replies, and closes a connection that it could not tell so, because its last reply had begun before, only when
//! it has been idle for a moment: who was going to send the next request at once has done so by then, and is told.
//!
//! HTTP/2 has such a word (GOAWAY). There a connection is left to itself as long as its client answers pings, which takes no
//! key, so one that has been idle for long is told to go.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a client is given for a request that it may be about to send.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    open: Cell<usize>,
    /// Since when there is none.
    since: Cell<Instant>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { open: Cell::new(0), since: Cell::new(Instant::now()) }
    }
}

impl Requests {
    /// A request has come.
    pub fn begin(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// Its reply is over.
    pub fn end(&self) {
        self.open.set(self.open.get() - 1);
        self.since.set(Instant::now());
    }

    /// Whether the connection has been idle for a moment.
    pub fn are_over(&self) -> bool {
        self.left(GRACE).is_none()
    }

    /// Waits until the connection has been idle for a moment.
    pub async fn idle(&self) {
        self.idle_for(GRACE).await;
    }

    /// Waits until it has been idle for so long. One timer, set anew when it fires.
    pub async fn idle_for(&self, length: Duration) {
        loop {
            match self.left(length) {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    }

    /// What is left of that time.
    fn left(&self, length: Duration) -> Option<Duration> {
        let idle = if self.open.get() > 0 { Duration::ZERO } else { self.since.get().elapsed() };
        length.checked_sub(idle).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_connection_is_idle_a_moment_after_its_last_reply() {
        let requests = Requests::default();
        requests.begin();
        assert!(tokio::time::timeout(GRACE * 2, requests.idle()).await.is_err(), "a reply is under way");
        requests.end();
        let began = Instant::now();
        requests.idle().await;
        assert!(began.elapsed() >= GRACE && began.elapsed() < GRACE * 10, "{:?}", began.elapsed());
        assert!(requests.idle().now_or_never().is_some(), "it still is");
    }
}
