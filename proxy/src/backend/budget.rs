//! How many further tries a backend can bear: a share of the first ones, and a few a second besides.
//!
//! Without it, a fault that meets all requests at once would send each of them on, and what is left would get a multiple of
//! the load that it could just serve.

use super::config::RetryBudget;
use super::standing::now;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// What can be saved up.
const MOST: f64 = 100.0;
/// Seconds of the steady part that are there at the beginning.
const FIRST: f64 = 10.0;

/// The further tries that one backend may get.
#[derive(Debug)]
pub(super) struct Budget {
    first: AtomicU32,
    /// Further tries, and when they were counted, in milliseconds; `None`: nobody has asked for one yet.
    saved: Mutex<(Option<f64>, u64)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { first: AtomicU32::new(0), saved: Mutex::new((None, now())) }
    }
}

impl Budget {
    /// A request goes there first.
    pub fn first(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one further try, if there is one. `now` in milliseconds.
    pub fn take(&self, now: u64, rules: RetryBudget) -> bool {
        let mut saved = self.saved.lock();
        let (tries, since) = *saved;
        let earned = f64::from(self.first.swap(0, Ordering::Relaxed)) * rules.share;
        let steady = now.saturating_sub(since) as f64 / 1e3 * rules.per_second;
        let tries = (tries.unwrap_or(FIRST * rules.per_second) + earned + steady).min(MOST);
        let taken = tries >= 1.0;
        *saved = (Some(if taken { tries - 1.0 } else { tries }), now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_to_a_share_and_a_floor() {
        let rules = |share, per_second| RetryBudget { share, per_second };
        let (usual, none, little) = (RetryBudget::default(), rules(0.0, 0.0), rules(0.0, 0.1));
        for (rules, a_second, at_most) in
            [(usual, 0_u64, 10.0), (usual, 100, 30.0), (usual, 10_000, 2010.0), (none, 100, 0.0), (little, 100, 0.1)]
        {
            let (budget, began) = (Budget::default(), now());
            let mut taken = 0_u64;
            // Every request wants a further try, for a minute.
            for millis in 0..60_000 {
                if a_second > 0 && millis % 1000 < a_second.min(1000) {
                    (0..(a_second / 1000).max(1)).for_each(|_| budget.first());
                }
                for _ in 0..(a_second / 1000).max(1) {
                    taken += u64::from(budget.take(began + millis, rules));
                }
            }
            let (steady, saved) = (at_most * 60.0, (FIRST * rules.per_second).min(MOST));
            let bounds = (steady + saved) * 0.99 - 1.0..=steady + saved + 1.0;
            assert!(bounds.contains(&(taken as f64)), "{rules:?} {a_second}: {taken} of {bounds:?}");
        }
    }
}
