//! Where a call may go: what `route` decides and `backend` carries out.

use super::{Fault, FaultKind, Hedge, Prices};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A model of the configuration, resolved for one request.
#[derive(Debug, Clone)]
pub struct Route {
    /// The configured name or pattern: a closed set, fit for metric labels.
    pub name: Arc<str>,
    /// Places that serve it, lower priority first.
    pub hops: Vec<Hop>,
    /// How many of the hops are the model's own; the rest are its fallbacks, each with a priority of its own.
    pub own: usize,
    /// The model's own had no room, and are left out.
    pub full: bool,
    /// How to choose among hops of one priority.
    pub policy: Policy,
    /// Whose turn it is, for policies that take turns.
    pub turn: Turn,
    /// Further tries over the model's own hops, before the first byte.
    pub retries: u32,
    /// When a stream is asked of a second target, if ever.
    pub hedge: Option<Hedge>,
    /// What tokens cost, except where the hop that serves it says otherwise.
    pub price: Option<Prices>,
    /// Output limit of the model, towards dialects that must state one.
    pub max_output: Option<u64>,
}

impl Route {
    /// The names of its fallbacks, in order.
    pub fn fallbacks(&self) -> impl Iterator<Item = &Arc<str>> {
        let hops = &self.hops[self.own..];
        let first = |(at, hop): &(usize, &Hop)| *at == 0 || hops[at - 1].of != hop.of;
        hops.iter().enumerate().filter(first).map(|(_, hop)| &hop.of)
    }

    /// The same with this fallback and those behind it only.
    pub fn fallen_back(&self, to: &Arc<str>) -> Arc<Self> {
        let hops = self.hops[self.own..].iter().skip_while(|hop| hop.of != *to).cloned().collect();
        Arc::new(Self { own: 0, full: true, hops, ..self.clone() })
    }

    /// The same with the hops of one backend only.
    ///
    /// # Errors
    /// That backend does not serve this model.
    pub fn only(&self, backend: &str) -> Result<Self, Fault> {
        let (own, fallbacks) = self.hops.split_at(self.own);
        let of = |hops: &[Hop]| hops.iter().filter(|hop| *hop.backend == *backend).cloned().collect::<Vec<_>>();
        let (own, fallbacks) = (of(own), of(fallbacks));
        if own.is_empty() && fallbacks.is_empty() {
            let message = "A plugin sent this request to a backend that does not serve its model.";
            return Err(Fault::new(FaultKind::PluginFailed, message));
        }
        Ok(Self { own: own.len(), hops: [own, fallbacks].concat(), ..self.clone() })
    }
}

/// One place that serves a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// The configured name of the model it is a target of: the route's own, or that of a fallback.
    pub of: Arc<str>,
    /// Backend by its configured name.
    pub backend: Arc<str>,
    /// The model's name there.
    pub model: Arc<str>,
    /// Share of the traffic among its priority.
    pub weight: u32,
    /// Lower is tried first.
    pub priority: u32,
    /// What tokens cost there, where that is not the price of the model asked for.
    pub price: Option<Prices>,
}

/// How to choose among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The better of two drawn at random by weight: requests in flight, and time to first token of late.
    #[default]
    LeastLoad,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Weighted,
    /// A session stays where it is: by a header, `prompt_cache_key` or the end user.
    Session,
    /// Where prompts that begin alike went, unless there is too much to do.
    Prefix,
}

/// How many turns there were: shared by all requests of a route.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// Takes one.
    pub fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// How much a model can do with at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests at work.
    pub at_work: usize,
    /// Requests that may wait for their turn.
    pub waiting: usize,
    /// How long each of them may.
    pub wait: Duration,
}
