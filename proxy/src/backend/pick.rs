//! In which order targets are tried.

use super::{Backend, Backends, Endpoint};
use crate::canon::{Hop, Policy, Route};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One address of one backend for one model.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub hop: &'a Hop,
    pub backend: &'a Arc<Backend>,
    /// `None`: this process.
    pub endpoint: Option<&'a Endpoint>,
}

impl<'a> Candidate<'a> {
    pub fn label(&self) -> &'a Arc<str> {
        self.endpoint.map_or(&self.backend.name, |endpoint| &endpoint.label)
    }

    fn load(&self) -> usize {
        let local = || self.backend.local.as_ref().map_or(0, |local| local.in_flight());
        self.endpoint.map_or_else(local, |endpoint| endpoint.address.in_flight.load(Ordering::Relaxed))
    }
}

/// The targets to try, in order: the model's own by priority and by the route's policy among equals, as many as its retries
/// allow; then one for each fallback. Those whose backend cannot do it are not there.
pub(super) fn order<'a>(
    backends: &'a Backends,
    route: &'a Route,
    can: impl Fn(&Backend) -> bool,
) -> Vec<Candidate<'a>> {
    let (own, fallbacks) = route.hops.split_at(route.own);
    let mut candidates = ranked(backends, own, route.policy, &can);
    candidates.truncate(1 + route.retries as usize);
    for hop in fallbacks {
        candidates.extend(ranked(backends, std::slice::from_ref(hop), route.policy, &can).into_iter().next());
    }
    candidates
}

/// All addresses of these hops, best first.
fn ranked<'a>(
    backends: &'a Backends,
    hops: &'a [Hop],
    policy: Policy,
    can: &dyn Fn(&Backend) -> bool,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::with_capacity(hops.len());
    for hop in hops {
        let Some(backend) = backends.by_name.get(&hop.backend).filter(|backend| can(backend)) else { continue };
        if backend.endpoints.is_empty() {
            candidates.push(Candidate { hop, backend, endpoint: None });
        }
        let addresses = backend.endpoints.iter();
        candidates.extend(addresses.map(|endpoint| Candidate { hop, backend, endpoint: Some(endpoint) }));
    }
    for equals in candidates.chunk_by_mut(|one, next| one.hop.priority == next.hop.priority) {
        arrange(equals, policy, backends);
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
