//! How long a request has waited for backends: added up while it does, so that it is known whatever comes of it, also where
//! nobody waits any longer.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct Waited {
    sum: Cell<Duration>,
    /// How many it waits for: of two that are asked at the same time the time counts once.
    waits: Cell<u32>,
    since: Cell<Option<Instant>>,
}

impl Waited {
    /// The waits that are over.
    pub fn so_far(&self) -> Duration {
        self.sum.get()
    }

    /// It waits from now on, until this goes.
    pub(super) fn begin(&self) -> Wait<'_> {
        if self.waits.replace(self.waits.get() + 1) == 0 {
            self.since.set(Some(Instant::now()));
        }
        Wait(self)
    }
}

/// One wait.
pub(super) struct Wait<'a>(&'a Waited);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Waited { sum, waits, since } = self.0;
        waits.set(waits.get() - 1);
        if waits.get() == 0
            && let Some(since) = since.take()
        {
            sum.set(sum.get() + since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_at_the_same_time_count_once() {
        let waited = Waited::default();
        let (one, began) = (waited.begin(), Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        let two = waited.begin();
        drop(one);
        assert_eq!(waited.so_far(), Duration::ZERO, "it still waits");
        std::thread::sleep(Duration::from_millis(2));
        drop(two);
        assert!(waited.so_far() >= Duration::from_millis(4) && waited.so_far() <= began.elapsed());
        let before = waited.so_far();
        drop(waited.begin());
        assert!(waited.so_far() >= before);
    }
}
