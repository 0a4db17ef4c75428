//! Which target is tried next: those that stand well before those that are set aside, the model's own before its fallbacks,
//! by priority, and among equals as the route's policy says.

use super::catalog::Presence;
use super::pool::{self, Affinity, Member};
use super::standing::now;
use super::{Backend, Endpoint, endpoints::Here};
use crate::canon::{Hop, Route};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Requests at an address beyond which one that must load the model first is as good: about what Ollama computes at a time.
const ROOM: usize = 4;

/// One address of one backend for one model.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub hop: &'a Hop,
    pub backend: &'a Arc<Backend>,
    /// `None`: this process, or a name that stands for no address.
    pub endpoint: Option<&'a Endpoint>,
    /// Of the model itself; else of a fallback.
    pub own: bool,
    /// The moment it was taken, somebody else had the only trial it allows: like one that is set aside.
    barred: bool,
    /// Whether it has the model.
    presence: Presence,
}

impl Candidate<'_> {
    pub fn label(&self) -> &Arc<str> {
        self.endpoint.map_or(&self.backend.name, |endpoint| &endpoint.label)
    }

    /// Others list the model, and it does not.
    pub fn lacks_model(&self) -> bool {
        self.presence == Presence::Lacks
    }

    /// Nothing speaks against it, and no trial is needed to know.
    pub fn stands_well(&self) -> bool {
        let closed = self.endpoint.is_some_and(|endpoint| endpoint.address.standing.breaker.is_closed());
        closed && !self.is_aside() && !self.lacks_model()
    }

    /// Where it goes is where the other goes.
    pub fn is_at(&self, other: &Candidate<'_>) -> bool {
        let address = |of: &Candidate<'_>| of.endpoint.map(|endpoint| Arc::as_ptr(&endpoint.address));
        address(self) == address(other)
    }

    /// It goes last.
    pub fn is_aside(&self) -> bool {
        match (self.endpoint, &self.backend.local) {
            (Some(endpoint), _) => {
                let standing = &endpoint.address.standing;
                self.barred || !standing.is_clear() && standing.aside(now()).is_some()
            }
            (None, Some(local)) => !local.is_ready(),
            (None, None) => true,
        }
    }

    /// It is about to be tried: false if that is one trial too many.
    fn enter(&self) -> bool {
        let breaker = self.endpoint.map(|endpoint| &endpoint.address.standing.breaker);
        breaker.is_none_or(|breaker| breaker.is_closed() || breaker.enter(now()))
    }

    /// Which of the tries allowed it takes: the model's own share theirs, each fallback has one.
    fn share(&self) -> Option<u32> {
        (!self.own).then_some(self.hop.priority)
    }
}

impl Member for Candidate<'_> {
    fn key(&self) -> u64 {
        self.endpoint.map_or(self.backend.id, |endpoint| endpoint.address.key)
    }

    fn weight(&self) -> u32 {
        self.hop.weight
    }

    fn in_flight(&self) -> usize {
        let local = || self.backend.local.as_ref().map_or(0, |local| local.in_flight());
        self.endpoint.map_or_else(local, |endpoint| endpoint.address.in_flight.load(Ordering::Relaxed))
    }

    fn first_token(&self) -> f64 {
        self.endpoint.map_or(0.0, |endpoint| endpoint.address.standing.first_token(now()))
    }
}

/// All targets of a route, as configured, whose backend can do it.
pub(super) fn all<'a>(here: &'a Here<'_>, can: impl Fn(&Backend) -> bool) -> Vec<Candidate<'a>> {
    let route = here.route;
    let (mut candidates, mut told) = (Vec::with_capacity(route.hops.len()), false);
    for (at, hop) in route.hops.iter().enumerate() {
        let Some(backend) = here.backends.by_name.get(&hop.backend).filter(|backend| can(backend)) else { continue };
        let candidate = |endpoint| {
            let (own, presence) = (at < route.own, Presence::Unknown);
            Candidate { hop, backend, endpoint, own, barred: false, presence }
        };
        let endpoints = here.endpoints(at, backend);
        if endpoints.is_empty() {
            candidates.push(candidate(None));
        }
        let from = candidates.len();
        candidates.extend(endpoints.iter().map(|endpoint| candidate(Some(endpoint))));
        // Who has no other does not have to know.
        if let Some(catalog) = backend.catalog.as_ref().filter(|_| route.hops.len() + endpoints.len() > 2) {
            told = true;
            let catalog = catalog.load();
            let of = catalog.of_model(&hop.model);
            for candidate in &mut candidates[from..] {
                candidate.presence = candidate.endpoint.map_or(Presence::Unknown, |at| of.at(at.address.id));
            }
        }
    }
    if told {
        believe(&mut candidates);
    }
    candidates
}

/// A model that none of those lists which share their tries may be at each of them: lists do not tell of every name.
fn believe(candidates: &mut [Candidate<'_>]) {
    // They stand together.
    for those in candidates.chunk_by_mut(|one, next| one.share() == next.share()) {
        if !those.iter().any(|candidate| matches!(candidate.presence, Presence::Loaded | Presence::Cold)) {
            those.iter_mut().for_each(|candidate| candidate.presence = Presence::Unknown);
        }
    }
}

/// Puts the one to try next at `tried`, behind those that were tried before. False: there is none left that may be tried, or it
/// is not `fit`. That is asked before a breaker's only trial is taken, which would be lost otherwise.
pub(super) fn next(
    candidates: &mut [Candidate<'_>],
    tried: usize,
    route: &Route,
    affinity: Option<Affinity<'_>>,
    fit: impl Fn(&Candidate<'_>) -> bool,
) -> bool {
    // The usual case: one target, whatever may be said of it.
    if let [only] = &*candidates {
        if tried == 0 {
            only.enter();
        }
        return tried == 0;
    }
    let (done, rest) = candidates.split_at_mut(tried);
    loop {
        let allowed = |candidate: &Candidate<'_>| {
            let used = done.iter().filter(|other| other.share() == candidate.share()).count();
            used < if candidate.own { 1 + route.retries as usize } else { 1 }
        };
        let rank = |candidate: &Candidate<'_>| {
            allowed(candidate)
                .then(|| (candidate.lacks_model(), candidate.is_aside(), !candidate.own, candidate.hop.priority))
        };
        let Some(best) = rest.iter().filter_map(rank).min() else { return false };
        let mut equals = 0;
        for at in 0..rest.len() {
            if rank(&rest[at]) == Some(best) {
                rest.swap(equals, at);
                equals += 1;
            }
        }
        let equals = warm(&mut rest[..equals]);
        let chosen = if equals < 2 { 0 } else { choose(&rest[..equals], route, affinity) };
        rest.swap(0, chosen);
        if !fit(&rest[0]) {
            return false;
        }
        // One that is set aside is tried for want of anything better.
        if rest[0].enter() || best.1 {
            return true;
        }
        rest[0].barred = true;
    }
}

/// Puts those first that need not load the model, and says how many are to choose from: only they, while one of them has room.
fn warm(equals: &mut [Candidate<'_>]) -> usize {
    if !equals.iter().any(|candidate| candidate.presence == Presence::Cold) {
        return equals.len();
    }
    let (mut warm, mut room) = (0, false);
    for at in 0..equals.len() {
        if equals[at].presence != Presence::Cold {
            // Of one that nobody knows anything of it cannot be said that it is better.
            room |= equals[at].presence == Presence::Loaded && equals[at].in_flight() < ROOM;
            equals.swap(warm, at);
            warm += 1;
        }
    }
    if room { warm } else { equals.len() }
}

fn choose(equals: &[Candidate<'_>], route: &Route, affinity: Option<Affinity<'_>>) -> usize {
    let key = affinity.and_then(|affinity| affinity.key(route.policy));
    pool::choose(route.policy, equals, &route.turn, key)
}
