//! A prompt goes where prompts that begin like it went, whose keys and values are in that server's cache, unless that one has
//! clearly more to do than its share (bounded load: Mirrokni, Thorup and Zadimoghaddam, 2018).
//!
//! What is turned away goes to the next one of the same order, so that a beginning has few homes, not all.

use super::{Member, rendezvous, total};

/// A target takes this much more than its share before others do.
const BOUND: f64 = 1.25;
/// Up to so many requests at once nobody is sent away: a server works on several at a time, and shares of few requests are
/// all noise.
const FREE: f64 = 8.0;

/// See the module.
pub(super) fn choose(members: &[impl Member], key: u64) -> usize {
    let load = 1 + members.iter().map(Member::in_flight).sum::<usize>();
    let each = BOUND * load as f64 / total(members).max(1) as f64;
    let has_room =
        |member: &_| (Member::in_flight(member) as f64) < (each * f64::from(Member::weight(member))).max(FREE).ceil();
    rendezvous::best(members, key, has_room).unwrap_or(0)
}
