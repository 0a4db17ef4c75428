//! How an address stands with us: what its breaker, its probes and its own words say, and how fast it began its last streams.
//!
//! It belongs to the address, so it outlives configurations. What is asked for each request is read without a lock.

use super::breaker::{Breaker, Ended, Rules};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a target is left alone that is full and does not say for how long.
const FULL: Duration = Duration::from_secs(1);
/// No target is left alone longer for its own word: it may say a day.
const LONGEST: Duration = Duration::from_secs(60);
/// An old first token says less and less: after so many seconds a third of it.
const FADES: f64 = 30.0;
/// The share of a new first token in the average.
const SHARE: f64 = 0.2;
/// Probes in a row without an answer, and no other sign of life in between.
const SILENT: u8 = 2;

/// Milliseconds since this process first asked; never 0.
pub(super) fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// It answers.
    Up,
    /// It says that it cannot serve: llama.cpp while a model is loaded.
    NotReady,
    /// No connection, or one that broke.
    Down,
    /// No answer in time: busy or frozen.
    Silent,
}

/// Why a target goes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// Its breaker is open.
    Failing,
    /// Its last probe failed.
    Down,
    /// Its last probe was told that it is not ready.
    NotReady,
    /// It said that it is full.
    Full,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub breaker: Breaker,
    /// It is full until then; 0: it is not.
    full: AtomicU64,
    /// 0: nothing against it; else what probes found ([`Aside`] as a number).
    probed: AtomicU8,
    silent: AtomicU8,
    /// Something came from it since the last probe.
    heard: AtomicBool,
    /// Average time to the first token: seconds as `f32`, and in the lower half when it was last one, milliseconds.
    first_token: AtomicU64,
}

impl Standing {
    /// There is nothing against it: no clock is needed to see that.
    pub fn is_clear(&self) -> bool {
        self.breaker.is_closed() && self.full.load(Ordering::Relaxed) == 0 && self.probed.load(Ordering::Relaxed) == 0
    }

    /// Why it goes last, if it does.
    pub fn aside(&self, now: u64) -> Option<Aside> {
        if self.breaker.is_open(now) {
            return Some(Aside::Failing);
        }
        match self.probed.load(Ordering::Relaxed) {
            0 => (self.full.load(Ordering::Relaxed) > now).then_some(Aside::Full),
            1 => Some(Aside::Down),
            _ => Some(Aside::NotReady),
        }
    }

    /// Milliseconds until it may be better, as far as that is known.
    pub fn better_in(&self, now: u64) -> Option<u64> {
        let wait = self.breaker.opens_in(now).max(self.full.load(Ordering::Relaxed).saturating_sub(now));
        (wait > 0).then_some(wait)
    }

    /// A request has ended. True if that changed the breaker.
    pub fn report(&self, ended: Ended, now: u64, rules: &Rules) -> bool {
        if ended != Ended::Broken {
            self.heard();
            // A server that replies is up, whatever became of its probe.
            if ended == Ended::Well && self.probed.load(Ordering::Relaxed) != 0 {
                self.probed.store(0, Ordering::Relaxed);
            }
        }
        self.breaker.report(ended, now, rules)
    }

    /// It is full, and says for how long.
    pub fn full(&self, now: u64, wait: Option<Duration>) {
        self.heard();
        let wait = wait.unwrap_or(FULL).min(LONGEST).as_millis() as u64;
        self.full.fetch_max(now + wait, Ordering::Relaxed);
    }

    /// Something came from it.
    pub fn heard(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// A probe has ended. Load alone must not look like death: no answer in time only counts if nothing else came, either.
    pub fn probed(&self, found: Probe, now: u64) {
        let heard = self.heard.swap(false, Ordering::Relaxed);
        let silent =
            if found == Probe::Silent && !heard { self.silent.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.silent.store(silent, Ordering::Relaxed);
        match found {
            Probe::Up => {
                self.probed.store(0, Ordering::Relaxed);
                self.breaker.hasten(now);
            }
            Probe::Down => self.probed.store(1, Ordering::Relaxed),
            Probe::NotReady => self.probed.store(2, Ordering::Relaxed),
            Probe::Silent if silent >= SILENT => self.probed.store(1, Ordering::Relaxed),
            Probe::Silent => {}
        }
    }

    /// It is not probed any more: what was found last must not stand for ever.
    pub fn unprobed(&self) {
        self.probed.store(0, Ordering::Relaxed);
    }

    /// A stream began after so long.
    pub fn began(&self, after: Duration, now: u64) {
        let (average, _) = unpack(self.first_token.load(Ordering::Relaxed));
        let new = after.as_secs_f64();
        let average = if average == 0.0 { new } else { average + SHARE * (new - average) };
        // Two at once may lose one of them: it is an average.
        self.first_token.store(u64::from((average as f32).to_bits()) << 32 | (now & 0xffff_ffff), Ordering::Relaxed);
    }

    /// Seconds to the first token of late, fading to 0 when nothing is heard: a target that was slow once is tried again.
    pub fn first_token(&self, now: u64) -> f64 {
        let (average, at) = unpack(self.first_token.load(Ordering::Relaxed));
        if average == 0.0 {
            return 0.0;
        }
        let age = f64::from((now as u32).wrapping_sub(at)) / 1e3;
        average * (-age / FADES).exp()
    }
}

fn unpack(packed: u64) -> (f64, u32) {
    (f64::from(f32::from_bits((packed >> 32) as u32)), packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, errors: 0.5, minimum: 20, window: 30_000, aside: 5_000 };

    #[test]
    fn it_is_left_alone_for_as_long_as_it_asked_but_not_for_ever() {
        for (asked, seconds) in [(None, 1), (Some(7), 7), (Some(86_400), 60)] {
            let standing = Standing::default();
            standing.full(1000, asked.map(Duration::from_secs));
            assert_eq!(standing.aside(1000 + seconds * 1000 - 1), Some(Aside::Full), "{asked:?}");
            assert_eq!(standing.aside(1000 + seconds * 1000), None, "{asked:?}");
            assert_eq!(standing.better_in(1000), Some(seconds * 1000));
        }
        // Being full is not failing.
        let standing = Standing::default();
        (0..1000).for_each(|_| standing.full(1, None));
        assert!(standing.breaker.is_closed());
    }

    #[test]
    fn probes_count_and_load_does_not_look_like_death() {
        use Probe::{Down, NotReady, Silent, Up};
        for (probes, aside) in [
            (vec![Up], None),
            (vec![Down], Some(Aside::Down)),
            (vec![NotReady], Some(Aside::NotReady)),
            (vec![Down, Up], None),
            (vec![Silent], None),
            (vec![Silent, Silent], Some(Aside::Down)),
            (vec![Silent, Up, Silent], None),
        ] {
            let standing = Standing::default();
            probes.iter().for_each(|&found| standing.probed(found, 1));
            assert_eq!(standing.aside(1), aside, "{probes:?}");
        }
        // It is slow to answer probes and still sends tokens.
        let standing = Standing::default();
        for _ in 0..10 {
            standing.heard();
            standing.probed(Silent, 1);
        }
        assert_eq!(standing.aside(1), None);
        // It serves although its probe fails.
        standing.probed(Down, 1);
        standing.report(Ended::Well, 1, &RULES);
        assert!(standing.is_clear());
    }

    #[test]
    fn first_tokens_are_averaged_and_fade() {
        let standing = Standing::default();
        assert_eq!(standing.first_token(1), 0.0);
        standing.began(Duration::from_secs(2), 1000);
        standing.began(Duration::from_secs(1), 1000);
        assert!((standing.first_token(1000) - 1.8).abs() < 1e-3);
        assert!((standing.first_token(31_000) - 1.8 / std::f64::consts::E).abs() < 1e-3);
        assert!(standing.first_token(1_000_000) < 1e-6);
    }
}
