//! How long a request has waited for backends: added up while it does, so that it is known whatever comes of it, also where
//! nobody waits any longer.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct Waited(Cell<Duration>);

impl Waited {
    /// The waits that are over.
    pub fn so_far(&self) -> Duration {
        self.0.get()
    }

    /// It waits from now on, until this goes.
    pub(super) fn begin(&self) -> Wait<'_> {
        Wait { sum: &self.0, since: Instant::now() }
    }
}

/// One wait.
pub(super) struct Wait<'a> {
    sum: &'a Cell<Duration>,
    since: Instant,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.sum.set(self.sum.get() + self.since.elapsed());
    }
}
