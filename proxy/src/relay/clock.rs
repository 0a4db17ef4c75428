//! The time limits of a reply on its way: between two reads, for all of it, for how long its client hears nothing, and until
//! the gateway stops.
//!
//! Arming a timer for every read would cost more than reading: one is left running and looks, when it fires, at when the last
//! read was.

use crate::canon::{Fault, FaultKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// See the module.
pub(super) struct Clock {
    sleep: Pin<Box<Sleep>>,
    last: Instant,
    limit: Duration,
    /// Since when nothing is read, whatever the backend sends.
    paused: Option<Instant>,
    /// When all of it must have come.
    until: Option<Instant>,
    /// When the client last got something, and how long it may get nothing.
    told: Instant,
    keep_alive: Option<Duration>,
    /// The gateway waits for no reply any more.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What it is time for.
pub(super) enum Due {
    /// The client has heard nothing for a while.
    KeepAlive,
    /// The reply has failed.
    Over(Fault),
}

impl Clock {
    /// From now on. `limit`: for the first read; `keep_alive`: how long the client may hear nothing, if it can be told so.
    pub fn new(limit: Duration, until: Option<Instant>, keep_alive: Option<Duration>, cut: &CancellationToken) -> Self {
        let now = Instant::now();
        let (sleep, cut) = (Box::pin(tokio::time::sleep(Duration::ZERO)), Box::pin(cut.clone().cancelled_owned()));
        let mut clock = Self { sleep, last: now, limit, paused: None, until, told: now, keep_alive, cut };
        clock.arm();
        clock
    }

    /// Something came.
    pub fn saw(&mut self, now: Instant) {
        self.last = now;
    }

    /// The reply has begun: from one read to the next it may take so long.
    pub fn began(&mut self, limit: Duration) {
        if self.limit != limit {
            self.limit = limit;
            self.arm();
        }
    }

    /// Nothing is read from now on: the backend cannot be late. All other limits go on.
    pub fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    /// It is read again: the time in between is not the backend's.
    pub fn resume(&mut self) {
        if let Some(since) = self.paused.take() {
            self.last += since.elapsed();
            self.arm();
        }
    }

    /// The client gets what came last.
    pub fn tells(&mut self) {
        self.told = self.told.max(self.last);
    }

    fn arm(&mut self) {
        let silent = self.keep_alive.map(|limit| self.told + limit);
        let from = if self.paused.is_some() { Instant::now() } else { self.last };
        let first = silent.into_iter().chain(self.until).fold(from + self.limit, Instant::min);
        self.sleep.as_mut().reset(first.into());
    }

    /// Ready when it is time for something.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let over = |fault| Poll::Ready(Due::Over(fault));
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.paused.is_none() && self.last + self.limit <= now {
                let message = "The backend stopped sending in the middle of its reply.";
                return over(Fault::new(FaultKind::BackendTimeout, message));
            }
            if self.until.is_some_and(|until| until <= now) {
                return over(Fault::too_long());
            }
            let silent = self.keep_alive.is_some_and(|limit| self.told + limit <= now);
            if silent {
                self.told = now;
            }
            self.arm();
            if silent {
                return Poll::Ready(Due::KeepAlive);
            }
        }
        ready!(self.cut.as_mut().poll(cx));
        over(Fault::stopping())
    }
}
