//! In which order targets are tried.

use super::{Backend, Backends, Endpoint};
use crate::canon::{Hop, Policy, Route};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One address of one backend for one model.
pub(super) struct Candidate<'a> {
    pub hop: &'a Hop,
    pub backend: &'a Arc<Backend>,
    /// `None`: this process.
    pub endpoint: Option<&'a Arc<Endpoint>>,
}

impl Candidate<'_> {
    pub fn label(&self) -> &Arc<str> {
        self.endpoint.map_or(&self.backend.name, |endpoint| &endpoint.label)
    }

    fn load(&self) -> usize {
        self.endpoint.map_or(0, |endpoint| endpoint.in_flight.load(Ordering::Relaxed))
    }
}

/// All targets of a route: by priority, and by the route's policy among equals.
pub(super) fn order<'a>(backends: &'a Backends, route: &'a Route) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::with_capacity(route.hops.len());
    for hop in &route.hops {
        let Some(backend) = backends.by_name.get(&hop.backend) else { continue };
        if backend.endpoints.is_empty() {
            candidates.push(Candidate { hop, backend, endpoint: None });
        }
        candidates.extend(backend.endpoints.iter().map(|endpoint| Candidate {
            hop,
            backend,
            endpoint: Some(endpoint),
        }));
    }
    let mut start = 0;
    while start < candidates.len() {
        let priority = candidates[start].hop.priority;
        let end = start + candidates[start..].iter().take_while(|candidate| candidate.hop.priority == priority).count();
        arrange(&mut candidates[start..end], route.policy, backends);
        start = end;
    }
    candidates
}

/// Puts the choice first; the others follow for retries.
fn arrange(equals: &mut [Candidate<'_>], policy: Policy, backends: &Backends) {
    if equals.len() < 2 {
        return;
    }
    let first = match policy {
        Policy::RoundRobin => backends.turn.fetch_add(1, Ordering::Relaxed) % equals.len(),
        Policy::Weighted => draw(equals, None),
        // Two random choices: nearly as good as looking at all of them, and no herd on the one that looks idle.
        Policy::LeastLoad => {
            let one = draw(equals, None);
            let two = draw(equals, Some(one));
            let load = |at: usize| (equals[at].load() + 1) as f64 / f64::from(equals[at].hop.weight);
            if load(two) < load(one) { two } else { one }
        }
    };
    equals[..=first].rotate_right(1);
}

/// One at random by weight, other than `but`.
fn draw(equals: &[Candidate<'_>], but: Option<usize>) -> usize {
    let weight = |(at, candidate): (usize, &Candidate<'_>)| if Some(at) == but { 0 } else { candidate.hop.weight };
    let total: u32 = equals.iter().enumerate().map(weight).sum();
    let mut left = fastrand::u32(..total.max(1));
    for pair in equals.iter().enumerate() {
        let weight = weight(pair);
        if left < weight {
            return pair.0;
        }
        left -= weight;
    }
    but.unwrap_or(0)
}
