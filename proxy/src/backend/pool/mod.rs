//! Which of several equal targets a request goes to: one file a policy.
//!
//! Policies see targets as [`Member`]s and decide from numbers: nothing here waits, locks, allocates or knows of HTTP, so that
//! the simulation in `benches/pools.rs` drives the same code as requests do.

mod key;
mod least_load;
mod prefix;
mod rendezvous;
mod round_robin;
mod session;
mod weighted;

pub use key::Affinity;
pub(super) use key::of;

use crate::canon::{Policy, Turn};

/// A target as policies see it.
pub trait Member {
    /// What it is recognized by, in every process and after every reload.
    fn key(&self) -> u64;
    /// Its share, at least 1.
    fn weight(&self) -> u32;
    /// Requests it has and has not finished.
    fn in_flight(&self) -> usize;
    /// Seconds to the first token of late; 0: unknown.
    fn first_token(&self) -> f64;
}

/// The index of the one to ask. `key` is what the request has in common with those that should go the same way
/// ([`Affinity::key`]); without one, load decides. There must be members.
pub fn choose(policy: Policy, members: &[impl Member], turn: &Turn, key: Option<u64>) -> usize {
    match (policy, key) {
        _ if members.len() < 2 => 0,
        (Policy::RoundRobin, _) => round_robin::choose(members, turn.next()),
        (Policy::Weighted, _) => weighted::choose(members),
        (Policy::Session, Some(key)) => session::choose(members, key),
        (Policy::Prefix, Some(key)) => prefix::choose(members, key),
        (Policy::LeastLoad | Policy::Session | Policy::Prefix, _) => least_load::choose(members),
    }
}

/// The sum of weights, which is more than a weight can be.
fn total(members: &[impl Member]) -> u64 {
    members.iter().map(|member| u64::from(member.weight())).sum()
}

/// Where a point on the line of all weights laid end to end falls.
fn at(members: &[impl Member], mut point: u64) -> usize {
    for (index, member) in members.iter().enumerate() {
        let weight = u64::from(member.weight());
        if point < weight {
            return index;
        }
        point -= weight;
    }
    0
}

#[cfg(test)]
mod tests;
