//! The time limit of a request's head, cheap enough to be set for every request.
//!
//! hyper asks for a timer before each head and drops it when the head is there, mostly at once; registering and cancelling
//! one with tokio every time costs as much as reading the head. A connection has one timer here, which is left running: a
//! head's limit is a moment to compare with when it fires.

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The timer of one connection, for limits that are all of one length.
#[derive(Clone)]
pub(super) struct OneTimer(Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>);

impl OneTimer {
    /// Begins to run now.
    pub fn new(limit: Duration) -> Self {
        Self(Arc::new(Mutex::new(Box::pin(tokio::time::sleep(limit)))))
    }
}

impl Timer for OneTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { timer: self.clone(), deadline })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

struct Until {
    timer: OneTimer,
    deadline: Instant,
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.timer.0.lock();
        loop {
            // Limits of one length end in the order they began: what runs never ends later than this one.
            ready!(sleep.as_mut().poll(cx));
            if self.deadline <= self.timer.now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(self.deadline.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_limit_ends_at_its_own_time() {
        let limit = Duration::from_millis(500);
        let timer = OneTimer::new(limit);
        // One that is dropped early, one that is asked for later, one after all have ended.
        drop(timer.sleep(limit));
        tokio::time::sleep(limit / 3).await;
        for pause in [Duration::ZERO, 2 * limit] {
            tokio::time::sleep(pause).await;
            let began = timer.now();
            timer.sleep(limit).await;
            let took = timer.now() - began;
            assert!((limit..10 * limit).contains(&took), "{took:?}");
        }
    }
}
