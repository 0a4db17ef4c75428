//! How many further tries a backend can bear: a share of the first ones, and a few a second besides.
//!
//! Without it, a fault that meets all requests at once would send each of them on, and what is left would get a multiple of
//! the load that it could just serve.

use super::standing::now;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Further tries for each first one.
const SHARE: f64 = 0.2;
/// Further tries a second that are always allowed: else a quiet gateway could not afford any.
const FLOOR: f64 = 10.0;
/// What can be saved up.
const MOST: f64 = 10.0 * FLOOR;

/// The further tries that one backend may get.
#[derive(Debug)]
pub(super) struct Budget {
    first: AtomicU32,
    saved: Mutex<(f64, u64)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { first: AtomicU32::new(0), saved: Mutex::new((MOST, now())) }
    }
}

impl Budget {
    /// A request goes there first.
    pub fn first(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one further try, if there is one. `now` in milliseconds.
    pub fn take(&self, now: u64) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let (tries, since) = *saved;
        let earned = f64::from(self.first.swap(0, Ordering::Relaxed)) * SHARE;
        let tries = (tries + earned + now.saturating_sub(since) as f64 / 1e3 * FLOOR).min(MOST);
        let taken = tries >= 1.0;
        *saved = (if taken { tries - 1.0 } else { tries }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_to_a_share_and_a_floor() {
        for (a_second, at_most) in [(0_u64, 10.0), (100, 30.0), (10_000, 2010.0)] {
            let (budget, began) = (Budget::default(), now());
            let mut taken = 0_u64;
            // Every request wants a further try, for a minute.
            for millis in 0..60_000 {
                if a_second > 0 && millis % 1000 < a_second.min(1000) {
                    (0..(a_second / 1000).max(1)).for_each(|_| budget.first());
                }
                for _ in 0..(a_second / 1000).max(1) {
                    taken += u64::from(budget.take(began + millis));
                }
            }
            let bound = at_most * 60.0 + MOST + 1.0;
            assert!((taken as f64) <= bound && taken as f64 > bound * 0.9, "{a_second}: {taken} of {bound}");
        }
    }
}
