//! Whether an address is fit to be asked, from how requests to it ended.
//!
//! Two signals open a breaker: connection-level failures in a row, and the share of errors in a window with enough requests in
//! it. Neither can come from load alone, nor from what clients got wrong: slow replies, full queues and the client's own
//! errors are not told to it at all. After a while one request is let through as a trial; how it ends decides.
//!
//! Time is an argument: milliseconds of [`super::standing::now`].

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What it takes to open, per backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// Connection-level failures in a row.
    pub failures: u32,
    /// Share of errors, between 0 and 1.
    pub errors: f64,
    /// Requests in a window that are enough to speak of a share.
    pub minimum: u32,
    /// Length of a window, milliseconds.
    pub window: u64,
    /// How long it stays open at first, milliseconds; twice as long each time it opens again soon.
    pub aside: u64,
}

/// How a request ended, as far as that says something of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a reply that is no error.
    Well,
    /// With a refusal that is the request's own fault: the connection, at least, works.
    Refused,
    /// With an error of the server's.
    Failed,
    /// Without a reply: no connection, or one that broke.
    Broken,
}

/// What an operator sees of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Requests go there.
    Closed = 0,
    /// A trial is due, or under way.
    HalfOpen = 1,
    /// Only if there is nowhere else to go.
    Open = 2,
}

/// It never stays open longer than this without a trial.
const LONGEST: u64 = 60_000;
/// A trial that has not ended after this is nobody's any more (its client left): the next may begin.
const TRIAL: u64 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// When the next trial may begin; 0: closed.
    until: AtomicU64,
    /// Requests that count in this window.
    total: AtomicU32,
    /// Connection-level failures in a row.
    row: AtomicU32,
    seldom: Mutex<Seldom>,
}

/// What changes only when something fails.
#[derive(Debug, Default)]
struct Seldom {
    window: u64,
    errors: u32,
    /// Connections failed, which a probe can disprove; else replies were errors, which it cannot.
    connection: bool,
    trial: bool,
    /// Times it opened without having been closed for a while.
    times: u32,
    closed: u64,
}

impl Breaker {
    /// Requests may go there without a second thought.
    pub fn is_closed(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0
    }

    /// Not even a trial is due.
    pub fn is_open(&self, now: u64) -> bool {
        self.until.load(Ordering::Relaxed) > now
    }

    /// Milliseconds until a trial may be made.
    pub fn opens_in(&self, now: u64) -> u64 {
        self.until.load(Ordering::Relaxed).saturating_sub(now)
    }

    /// For operators.
    pub fn state(&self, now: u64) -> State {
        match self.until.load(Ordering::Relaxed) {
            0 => State::Closed,
            until if until > now && !self.seldom.lock().trial => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// A request is about to go there: true if it may, which makes it the trial if one is due.
    pub fn enter(&self, now: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let mut seldom = self.seldom.lock();
        let due = until <= now
            && self.until.compare_exchange(until, now + TRIAL, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        seldom.trial |= due;
        due
    }

    /// A request has ended. True if that changed whether requests go there.
    pub fn report(&self, ended: Ended, now: u64, rules: &Rules) -> bool {
        match ended {
            Ended::Well => {
                self.total.fetch_add(1, Ordering::Relaxed);
                self.connected();
                !self.is_closed() && self.recover(now)
            }
            Ended::Refused => {
                self.connected();
                false
            }
            Ended::Failed => {
                self.total.fetch_add(1, Ordering::Relaxed);
                self.connected();
                self.count(false, now, rules)
            }
            Ended::Broken => {
                self.total.fetch_add(1, Ordering::Relaxed);
                self.row.fetch_add(1, Ordering::Relaxed);
                self.count(true, now, rules)
            }
        }
    }

    /// A reply that had begun broke off: its request counts as an error after all.
    pub fn cut(&self, now: u64, rules: &Rules) -> bool {
        self.count(false, now, rules)
    }

    /// A probe was answered: where connections were what failed, the next request may try.
    pub fn hasten(&self, now: u64) {
        let seldom = self.seldom.lock();
        if seldom.connection && !seldom.trial && self.is_open(now) {
            self.until.store(now.max(1), Ordering::Relaxed);
        }
    }

    fn connected(&self) {
        if self.row.load(Ordering::Relaxed) != 0 {
            self.row.store(0, Ordering::Relaxed);
        }
    }

    /// Counts an error and opens if that is one too many.
    fn count(&self, connection: bool, now: u64, rules: &Rules) -> bool {
        let mut seldom = self.seldom.lock();
        if !self.is_closed() {
            // Those that began before it opened, and those that had nowhere else to go, change nothing.
            return std::mem::take(&mut seldom.trial) && self.open(&mut seldom, connection, now, rules);
        }
        if now.saturating_sub(seldom.window) > rules.window {
            (seldom.window, seldom.errors) = (now, 0);
            self.total.store(1, Ordering::Relaxed);
        }
        seldom.errors += 1;
        let in_a_row = connection && self.row.load(Ordering::Relaxed) >= rules.failures;
        let total = self.total.load(Ordering::Relaxed);
        let share = total >= rules.minimum && f64::from(seldom.errors) >= rules.errors * f64::from(total);
        (in_a_row || share) && self.open(&mut seldom, in_a_row, now, rules)
    }

    fn open(&self, seldom: &mut Seldom, connection: bool, now: u64, rules: &Rules) -> bool {
        let soon = !self.is_closed() || now.saturating_sub(seldom.closed) <= rules.window.max(LONGEST);
        seldom.times = if soon { seldom.times + 1 } else { 1 };
        seldom.connection = connection;
        let aside = rules.aside.saturating_mul(1 << (seldom.times - 1).min(16)).min(LONGEST.max(rules.aside));
        self.until.store(now + aside.max(1), Ordering::Relaxed);
        true
    }

    /// A reply came while it was open: a trial's, or one that shows that connections work again.
    fn recover(&self, now: u64) -> bool {
        let mut seldom = self.seldom.lock();
        if self.is_closed() || !(seldom.trial || seldom.connection) {
            return false;
        }
        (seldom.trial, seldom.closed, seldom.window, seldom.errors) = (false, now, now, 0);
        self.total.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ended::{Broken, Failed, Refused, Well};

    const RULES: Rules = Rules { failures: 3, errors: 0.5, minimum: 20, window: 30_000, aside: 5_000 };

    /// Each of these many times, ten milliseconds apart.
    fn after(breaker: &Breaker, now: &mut u64, ends: &[(Ended, usize)]) {
        for &(ended, times) in ends {
            for _ in 0..times {
                *now += 10;
                breaker.report(ended, *now, &RULES);
            }
        }
    }

    #[test]
    fn what_opens_it_and_what_does_not() {
        for (ends, open) in [
            (vec![(Broken, 2)], false),
            (vec![(Broken, 3)], true),
            (vec![(Broken, 2), (Well, 1), (Broken, 2)], false),
            // A refusal of a request says that the connection works, and nothing else.
            (vec![(Broken, 2), (Refused, 1), (Broken, 2)], false),
            (vec![(Refused, 500)], false),
            (vec![(Failed, 19)], false),
            (vec![(Failed, 20)], true),
            (vec![(Well, 40), (Failed, 39)], false),
            (vec![(Well, 40), (Failed, 40)], true),
            // A client's own errors do not dilute the share.
            (vec![(Well, 10), (Refused, 500), (Failed, 10)], true),
            // Flapping: never three in a row.
            (
                vec![
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                    (Well, 1),
                    (Broken, 2),
                ],
                true,
            ),
        ] {
            let (breaker, mut now) = (Breaker::default(), 1);
            after(&breaker, &mut now, &ends);
            assert_eq!(!breaker.is_closed(), open, "{ends:?}");
        }
    }

    #[test]
    fn old_errors_are_forgotten() {
        let (breaker, mut now) = (Breaker::default(), 1);
        for _ in 0..10 {
            after(&breaker, &mut now, &[(Failed, 15)]);
            now += 31_000;
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn one_trial_at_a_time_decides_and_the_pause_doubles() {
        let (breaker, mut now) = (Breaker::default(), 1);
        after(&breaker, &mut now, &[(Broken, 3)]);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(!breaker.enter(now) && breaker.state(now) == State::Open);
            // Whoever had nowhere else to go does not prolong it.
            let left = breaker.opens_in(now);
            breaker.report(Broken, now, &RULES);
            assert_eq!(breaker.opens_in(now), left);
            pauses.push(left / 1000);
            now += left;
            assert_eq!(breaker.state(now), State::HalfOpen);
            assert!(breaker.enter(now), "a trial is due");
            assert!(!breaker.enter(now), "and only one");
            assert_eq!(breaker.state(now), State::HalfOpen);
            breaker.report(Broken, now, &RULES);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        now += 60_000;
        assert!(breaker.enter(now) && breaker.report(Well, now, &RULES));
        assert!(breaker.is_closed() && breaker.enter(now));
    }

    #[test]
    fn a_trial_whose_client_left_does_not_bar_the_next() {
        let (breaker, mut now) = (Breaker::default(), 1);
        after(&breaker, &mut now, &[(Failed, 20)]);
        now += 5_000;
        assert!(breaker.enter(now) && !breaker.enter(now + TRIAL - 1) && breaker.enter(now + TRIAL));
    }

    #[test]
    fn probes_disprove_failed_connections_but_not_errors() {
        for (ends, due) in [((Broken, 3), true), ((Failed, 20), false)] {
            let (breaker, mut now) = (Breaker::default(), 1);
            after(&breaker, &mut now, &[ends]);
            breaker.hasten(now);
            assert_eq!(breaker.enter(now), due, "{ends:?}");
        }
        // A late reply to a request from before it opened proves that connections work, and does not undo errors.
        for (ends, closed) in [((Broken, 3), true), ((Failed, 20), false)] {
            let (breaker, mut now) = (Breaker::default(), 1);
            after(&breaker, &mut now, &[ends, (Well, 1)]);
            assert_eq!(breaker.is_closed(), closed, "{ends:?}");
        }
    }

    #[test]
    fn replies_that_break_off_count() {
        let (breaker, mut now) = (Breaker::default(), 1);
        for _ in 0..20 {
            after(&breaker, &mut now, &[(Well, 1)]);
            breaker.cut(now, &RULES);
        }
        assert!(!breaker.is_closed());
    }
}
