//! How much a plugin may write into the gateway's log: so many lines a second, over all its instances together.
//!
//! One that counted for itself would let a plugin with a thousand instances write a thousand times as much.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines in a second.
const LINES: u32 = 50;

/// What is left of this second's lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Option<(Instant, u32)>>);

impl Lines {
    /// Whether one more may be written.
    pub fn take(&self, now: Instant) -> bool {
        let mut second = self.0.lock();
        let (began, written) = second.get_or_insert((now, 0));
        if now.saturating_duration_since(*began) >= Duration::from_secs(1) {
            (*began, *written) = (now, 0);
        }
        *written = written.saturating_add(1);
        *written <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_takes_from_one_allowance() {
        let (lines, now) = (Lines::default(), Instant::now());
        let written = |after: u64| (0..60).filter(|_| lines.take(now + Duration::from_millis(after))).count();
        assert_eq!((written(0), written(999), written(1000), written(1500), written(2100)), (50, 0, 50, 0, 50));
    }
}
