//! The better of two drawn at random by weight: nearly as good as looking at all of them, and no herd on the one that looks
//! idle.
//!
//! Better is what a request can expect to wait: the target's time to first token of late, once for each request before it,
//! a heavy target counting its requests as fewer.

use super::{Member, at, total, weighted};

/// Differences far below this are not worth a preference, seconds.
const TOUCH: f64 = 0.05;

/// See the module.
pub(super) fn choose(members: &[impl Member]) -> usize {
    let one = weighted::choose(members);
    let two = other(members, one);
    if wait(&members[two]) < wait(&members[one]) { two } else { one }
}

fn wait(member: &impl Member) -> f64 {
    (1.0 + member.in_flight() as f64 / f64::from(member.weight())) * (TOUCH + member.first_token())
}

/// One at random by weight that is not this one.
fn other(members: &[impl Member], but: usize) -> usize {
    let before: u64 = members[..but].iter().map(|member| u64::from(member.weight())).sum();
    let own = u64::from(members[but].weight());
    let point = fastrand::u64(..(total(members) - own).max(1));
    at(members, if point < before { point } else { point + own })
}
