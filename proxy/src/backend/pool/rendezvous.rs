//! Highest random weight (Thaler and Ravishankar, 1998): for each key, every member draws a number, and the best one has it.
//!
//! When a member leaves, only its own keys move, each to whoever was second for it, and they come back with it. Nothing is
//! kept. Unlike a ring it needs no virtual nodes to be even and to obey weights.

use super::Member;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The best member for a key among those that are `eligible`.
pub(super) fn best<M: Member>(members: &[M], key: u64, eligible: impl Fn(&M) -> bool) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, member) in members.iter().enumerate() {
        if !eligible(member) {
            continue;
        }
        let drawn = xxh3_64_with_seed(&member.key().to_le_bytes(), key);
        // Times to an event of a rate: the first to happen is member i with the probability of its share of the weights.
        let uniform = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let when = -uniform.ln() / f64::from(member.weight());
        if best.is_none_or(|(_, first)| when < first) {
            best = Some((index, when));
        }
    }
    best.map(|(index, _)| index)
}
