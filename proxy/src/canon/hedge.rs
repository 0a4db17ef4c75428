//! When a stream that has not begun is asked of a second target: after most others of its model had.
//!
//! What is usual is counted, in steps of a fifth of a second's logarithm, and old counts fade: a model that became slower is not
//! asked twice for ever. Counters, no lock: requests of all threads meet here, and one lost among hundreds changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Steps for each doubling: a step is a fifth longer than the one before.
const STEPS: f64 = 4.0;
/// The first step ends at a millisecond, the last after two hours.
const COUNTS: usize = 92;
/// Nothing is known of what is usual before.
const ENOUGH: u32 = 20;
/// So many count; then all of them by half.
const MOST: u32 = 1000;

/// See the module. Shared by all requests of a route.
#[derive(Debug, Clone)]
pub struct Hedge(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    /// The share of streams that have begun by then, below 1.
    share: f64,
    least: Duration,
    counts: [AtomicU32; COUNTS],
    all: AtomicU32,
}

impl Hedge {
    /// After this share of streams has begun, and not before `least`.
    pub fn new(share: f64, least: Duration) -> Self {
        let counts = [const { AtomicU32::new(0) }; COUNTS];
        Self(Arc::new(Seen { share, least, counts, all: AtomicU32::new(0) }))
    }

    /// A stream began after so long; or was not waited for any longer.
    pub fn saw(&self, after: Duration) {
        let Seen { counts, all, .. } = &*self.0;
        let step = (after.as_secs_f64() * 1e3).max(1.0).log2() * STEPS;
        counts[(step.ceil() as usize).min(COUNTS - 1)].fetch_add(1, Ordering::Relaxed);
        // Exactly one thread sees this number, and brings it far below.
        if all.fetch_add(1, Ordering::Relaxed) == MOST {
            let halved = counts.iter().map(|count| {
                let half = count.load(Ordering::Relaxed) / 2;
                count.store(half, Ordering::Relaxed);
                half
            });
            all.store(halved.sum(), Ordering::Relaxed);
        }
    }

    /// How long to wait before a second target is asked; `None` while too little is known.
    pub fn after(&self) -> Option<Duration> {
        let Seen { share, least, counts, all } = &*self.0;
        let all = all.load(Ordering::Relaxed);
        if all < ENOUGH {
            return None;
        }
        let (mut begun, enough) = (0, share * f64::from(all));
        let usual = counts.iter().position(|count| {
            begun += count.load(Ordering::Relaxed);
            f64::from(begun) >= enough
        });
        let millis = (usual? as f64 / STEPS).exp2();
        Some(Duration::from_secs_f64(millis / 1e3).max(*least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_as_long_as_most_take() {
        let millis = Duration::from_millis;
        let hedge = Hedge::new(0.95, millis(5));
        (1..=19).for_each(|_| hedge.saw(millis(100)));
        assert_eq!(hedge.after(), None, "too few");
        (20..=94).for_each(|_| hedge.saw(millis(100)));
        (95..=100).for_each(|_| hedge.saw(millis(3000)));
        let after = |hedge: &Hedge| hedge.after().unwrap().as_secs_f64();
        assert!((3.0..3.6).contains(&after(&hedge)), "{:?}: six in a hundred are slow", hedge.after());
        (0..100).for_each(|_| hedge.saw(millis(100)));
        assert!((0.1..0.12).contains(&after(&hedge)), "{:?}: three in a hundred are", hedge.after());
        // It has become slower, and that is soon usual.
        (0..2000).for_each(|_| hedge.saw(millis(2000)));
        assert!((2.0..2.4).contains(&after(&hedge)), "{:?}", hedge.after());
        (0..4000).for_each(|_| hedge.saw(Duration::ZERO));
        assert_eq!(hedge.after(), Some(millis(5)), "not sooner than is allowed");
        hedge.saw(Duration::MAX);
    }
}
