//! Whose turn it is: a line for each organization, first come first served within one, shares by weight between them.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996). Each line has a virtual time at which it may go next; the earliest goes,
//! and is charged what its turn costs divided by its weight. A line that was empty begins at the present, not in the past: who
//! asked for nothing has saved up nothing. What a turn costs is the time for which the organization's requests usually hold a
//! place, since places are what is scarce: one whose requests take ten times as long gets a tenth as many turns. It is the
//! usual time and not the true one because a turn is charged when it begins; so whoever had the model to itself for an hour
//! owes nothing for that.
//!
//! No clock and no lock: both are the caller's.

use foldhash::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Shares of turns by organization; 1 where none is named.
pub type Weights = HashMap<Arc<str>, u32>;

/// A turn costs something however short it is, in seconds: else who fails at once would be served for ever.
const LEAST: f64 = 0.001;
/// How much the newest holding time counts in the usual one.
const NEWEST: f64 = 0.125;

/// Those who wait, and what came before. See the module.
pub(super) struct Turns<T> {
    lines: HashMap<Arc<str>, Line<T>>,
    weights: Arc<Weights>,
    /// The virtual time of the turn that was taken last.
    present: f64,
    waiting: usize,
    tickets: u64,
    /// How long a place is held usually, in seconds, over all organizations.
    usual: Option<f64>,
}

struct Line<T> {
    /// The virtual time at which it may go.
    next: f64,
    usual: Option<f64>,
    waiting: VecDeque<(u64, T)>,
}

impl<T> Turns<T> {
    pub fn new(weights: Arc<Weights>) -> Self {
        Self { lines: HashMap::default(), weights, present: 0.0, waiting: 0, tickets: 0, usual: None }
    }

    /// Shares turns so from now on, among those who wait, too.
    pub fn weigh(&mut self, weights: Arc<Weights>) {
        self.lines.retain(|organization, line| !line.waiting.is_empty() || weights.contains_key(organization));
        self.weights = weights;
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them are this organization's.
    pub fn waiting_of(&self, organization: &str) -> usize {
        self.lines.get(organization).map_or(0, |line| line.waiting.len())
    }

    /// How long a place is held usually, in seconds.
    pub fn usual(&self) -> Option<f64> {
        self.usual
    }

    /// Takes a turn without waiting.
    pub fn go(&mut self, organization: &Arc<str>) {
        self.line(organization);
        self.charge(organization);
    }

    /// Waits at the end of its organization's line; the number is for [`Turns::leave`].
    pub fn join(&mut self, organization: &Arc<str>, who: T) -> u64 {
        self.tickets += 1;
        self.waiting += 1;
        let ticket = self.tickets;
        self.line(organization).waiting.push_back((ticket, who));
        ticket
    }

    /// Waits no more. False: it had been called already.
    pub fn leave(&mut self, organization: &str, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(organization) else { return false };
        let Ok(at) = line.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return false };
        line.waiting.remove(at);
        self.waiting -= 1;
        true
    }

    /// Calls who is next.
    pub fn call(&mut self) -> Option<T> {
        let first = |line: &Line<T>| line.waiting.front().map(|(ticket, _)| *ticket);
        let lines = self.lines.iter().filter_map(|(organization, line)| Some((line.next, first(line)?, organization)));
        let (.., organization) = lines.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        let organization = organization.clone();
        let (_, who) = self.lines.get_mut(&organization)?.waiting.pop_front()?;
        self.waiting -= 1;
        self.charge(&organization);
        Some(who)
    }

    /// A place was held for so many seconds.
    pub fn held(&mut self, organization: &str, seconds: f64) {
        let learn = |usual: &mut Option<f64>| {
            *usual = Some(usual.map_or(seconds, |usual| usual + NEWEST * (seconds - usual)));
        };
        learn(&mut self.usual);
        self.lines.get_mut(organization).into_iter().for_each(|line| learn(&mut line.usual));
    }

    /// Its line, which begins at the present at the earliest.
    fn line(&mut self, organization: &Arc<str>) -> &mut Line<T> {
        let new = || Line { next: 0.0, usual: None, waiting: VecDeque::new() };
        let line = self.lines.entry(organization.clone()).or_insert_with(new);
        if line.waiting.is_empty() {
            line.next = line.next.max(self.present);
        }
        line
    }

    fn charge(&mut self, organization: &str) {
        let weight = f64::from(self.weights.get(organization).copied().unwrap_or(1).max(1));
        let Some(line) = self.lines.get_mut(organization) else { return };
        self.present = self.present.max(line.next);
        line.next += line.usual.or(self.usual).unwrap_or(1.0).max(LEAST) / weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[(&str, u32)]) -> Turns<&'static str> {
        Turns::new(Arc::new(weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect()))
    }

    fn called(turns: &mut Turns<&'static str>, count: usize) -> String {
        (0..count).map_while(|_| turns.call()).collect()
    }

    #[test]
    fn turns_are_shared_by_weight_and_within_a_line_by_arrival() {
        let mut turns = turns(&[("a", 1), ("b", 3)]);
        for _ in 0..100 {
            turns.join(&"a".into(), "a");
            turns.join(&"b".into(), "b");
        }
        let first = called(&mut turns, 80);
        assert!((59..=61).contains(&first.matches('b').count()), "{first}");
        for window in first.as_bytes().windows(8) {
            assert!(window.iter().filter(|who| **who == b'a').count() >= 1, "nobody waits for long: {first}");
        }
        let mut one = Turns::new(Arc::default());
        let tickets: Vec<u64> = ["1", "2", "3", "4"].map(|who| one.join(&"a".into(), who)).into();
        assert!(one.leave("a", tickets[1]) && !one.leave("a", tickets[1]) && !one.leave("b", 9));
        assert_eq!((called(&mut one, 9).as_str(), one.waiting()), ("134", 0));
    }

    #[test]
    fn who_had_nothing_to_ask_has_saved_up_nothing_and_owes_nothing() {
        let mut turns = turns(&[]);
        for _ in 0..1000 {
            turns.go(&"a".into());
        }
        for _ in 0..20 {
            turns.join(&"a".into(), "a");
            turns.join(&"b".into(), "b");
        }
        let first = called(&mut turns, 10);
        assert_eq!(first.matches('a').count(), 5, "neither is behind or ahead: {first}");
    }

    #[test]
    fn long_requests_get_fewer_turns() {
        let mut turns = turns(&[]);
        for organization in ["a", "b"] {
            turns.go(&organization.into());
        }
        turns.held("a", 10.0);
        turns.held("b", 1.0);
        for _ in 0..200 {
            turns.join(&"a".into(), "a");
            turns.join(&"b".into(), "b");
        }
        let first = called(&mut turns, 110);
        assert!((9..=11).contains(&first.matches('a').count()), "a tenth as many: {first}");
    }

    #[test]
    fn a_change_of_weights_counts_for_those_who_wait() {
        let mut turns = turns(&[]);
        for _ in 0..40 {
            turns.join(&"a".into(), "a");
            turns.join(&"b".into(), "b");
        }
        assert_eq!(called(&mut turns, 10).matches('b').count(), 5);
        turns.weigh(Arc::new([("b".into(), 4)].into_iter().collect()));
        assert_eq!(called(&mut turns, 20).matches('b').count(), 16);
    }

    /// Four places that each request holds for a second, on a clock of its own. `asks` says who asks at a second; returned is how
    /// long each waited.
    fn simulate(
        weights: &[(&str, u32)],
        seconds: u32,
        asks: impl Fn(u32) -> Vec<&'static str>,
    ) -> Vec<(&'static str, u32)> {
        let mut turns = Turns::new(Arc::new(weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect()));
        let (mut at_work, mut waits): (Vec<&'static str>, Vec<_>) = (Vec::new(), Vec::new());
        for now in 0..seconds {
            at_work.drain(..).for_each(|organization| turns.held(organization, 1.0));
            for organization in asks(now) {
                turns.join(&organization.into(), (organization, now));
            }
            while at_work.len() < 4
                && let Some((organization, since)) = turns.call()
            {
                at_work.push(organization);
                waits.push((organization, now - since));
            }
        }
        waits
    }

    #[test]
    fn a_burst_does_not_delay_a_trickle() {
        for weights in [[("burst", 1), ("quiet", 3)], [("burst", 3), ("quiet", 1)]] {
            // A thousand at once, and meanwhile one every other second: far below its share.
            let asks = |now| match now {
                0 => vec!["burst"; 1000],
                now if now % 2 == 1 => vec!["quiet"],
                _ => vec![],
            };
            let waits = simulate(&weights, 400, asks);
            let longest = |who| waits.iter().filter(|(other, _)| *other == who).map(|(_, wait)| *wait).max();
            assert_eq!(longest("quiet"), Some(0), "{weights:?}: the next place is its");
            assert!((250..300).contains(&longest("burst").unwrap()), "{weights:?}: nor does the burst starve");
            assert_eq!(waits.len(), 1200);
        }
    }

    #[test]
    fn a_trickle_beyond_its_share_gets_its_share() {
        let both = |_| [vec!["a"; 8], vec!["b"; 8]].concat();
        let waits = simulate(&[("a", 1), ("b", 3)], 100, both);
        let (a, b): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(who, _)| *who == "a");
        assert!((98..=102).contains(&a.len()) && a.len() + b.len() == 400, "{} and {}", a.len(), b.len());
    }
}
