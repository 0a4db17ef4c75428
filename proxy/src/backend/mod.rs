//! Where models live: HTTP servers of several kinds, and this process itself.
//!
//! [`Backends::send`] carries a request to the first target that takes it. Everything that may be tried again is tried before
//! the first byte goes to the client, never after.

mod ask;
mod breaker;
mod budget;
mod build;
mod carry;
mod catalog;
mod config;
mod count;
mod embed;
mod endpoint;
mod endpoints;
mod health;
mod hedge;
pub mod http;
mod inprocess;
mod kept;
mod kind;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod listing;
#[cfg(feature = "local")]
pub mod local;
mod names;
mod pick;
pub mod pool;
mod ready;
mod said;
mod series;
mod standing;
mod tries;
mod verdict;
mod waited;

pub use carry::Carried;
pub use config::{Config, Health, RetryBudget, Settings, Timeouts};
pub use count::Counted;
pub use embed::{EmbedSource, SentEmbed};
pub use endpoint::Endpoint;
pub use kept::Kept;
pub use kind::{Kind, Traits};
pub use tries::{Step, Try};
pub use waited::Waited;

use crate::canon::{About, Event, Fault, Route, Secret, StopReason, Usage};
use crate::wire::embed::EmbedApi;
use crate::wire::request::{Outgoing, Request};
use crate::wire::{Dialect, Unasked, Written};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response};
use arc_swap::ArcSwap;
use breaker::Rules;
use budget::Budget;
use catalog::Catalog;
use endpoints::Endpoints;
use foldhash::HashMap;
use health::Watch;
use kind::Lists;
use pool::Affinity;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tries::Tries;

/// The backends of one configuration.
pub struct Backends {
    by_name: HashMap<Arc<str>, Arc<Backend>>,
    /// Those whose model was not loaded already.
    loading: Vec<Arc<Backend>>,
    /// Some have a name instead of addresses.
    named: bool,
    /// Where tries are counted.
    watch: Option<Arc<Watch>>,
}

/// One backend.
pub struct Backend {
    name: Arc<str>,
    /// What it is recognized by in every process.
    id: u64,
    /// The further tries it may get.
    budget: Arc<Budget>,
    /// How they are earned.
    bears: RetryBudget,
    /// What opens the breakers of its addresses.
    rules: Arc<Rules>,
    /// Its addresses are probed, if its kind can be.
    probed: bool,
    traits: &'static Traits,
    dialects: Vec<Dialect>,
    /// What it speaks about vectors; empty: it makes none.
    embeds: Vec<EmbedApi>,
    endpoints: Endpoints,
    /// How often its name is looked up, if it has one.
    refresh: Duration,
    /// What its addresses are asked for the models they have, and how often.
    lists: Option<Lists>,
    relist: Duration,
    /// Which of them has which, where they are asked.
    catalog: Option<ArcSwap<Catalog>>,
    /// The headers that carry the gateway's key there, ready to be copied.
    credentials: Option<(HeaderName, HeaderValue)>,
    key: Option<Secret>,
    timeouts: Timeouts,
    local: Option<Arc<inprocess::Local>>,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Whose it is.
    pub organization: &'a Arc<str>,
    /// When its client will have left, where it says so.
    pub deadline: Option<Instant>,
    /// How long its client may hear nothing of a stream, where it can be told to wait.
    pub silence: Option<Duration>,
    /// How long it has waited for backends.
    pub waited: &'a Waited,
}

impl Origin<'_> {
    /// How long its client still waits, where that is known.
    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// A reply that has begun.
pub struct Sent {
    /// What was said to the backend, and what had to be dropped for it.
    pub outgoing: Outgoing,
    /// The reply.
    pub reply: Reply,
    /// Who sends it.
    pub backend: Arc<Backend>,
    /// When it must be complete.
    pub until: Option<Instant>,
}

/// Where a reply comes from.
pub enum Reply {
    /// A server, as bytes of the dialect in [`Sent::outgoing`].
    Http(Response<()>, http::Body),
    /// This process, as events.
    Events(tokio::sync::mpsc::Receiver<Event>),
}

impl Backends {
    /// What is known of the model that a backend has loaded into this process.
    pub fn about(&self, backend: &str) -> Option<About> {
        self.by_name.get(backend)?.local.as_ref()?.about()
    }

    /// Whether a backend is a model in this process that makes vectors and no text, loaded or not.
    pub fn only_embeds(&self, backend: &str) -> bool {
        self.by_name.get(backend).and_then(|backend| backend.local.as_ref()).is_some_and(|local| local.embeds())
    }

    /// Names of those that go to other addresses or to another model than the one of their name before; new ones, too.
    pub fn fresh<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let same = |backend: &Backend, old: &Backend| {
            let model = |of: &Backend| of.local.as_ref().map(Arc::as_ptr);
            backend.endpoints.all_of(&old.endpoints) && model(backend) == model(old)
        };
        let fresh = move |(name, backend): &(&Arc<str>, &Arc<Backend>)| {
            before.by_name.get(*name).is_none_or(|old| !same(backend, old))
        };
        self.by_name.iter().filter(fresh).map(|(name, _)| name)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Carries the request to the first target that takes it.
    ///
    /// # Errors
    /// The fault of the last target, when none did; a feature no target can express; everything the request itself gets wrong.
    pub async fn send(
        &self,
        route: &Route,
        request: &Request,
        origin: Origin<'_>,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<Sent, Fault> {
        let Origin { headers, organization, .. } = origin;
        let here = self.here(route);
        let mut tries = Tries::over(&here, origin).alike(Affinity { request, headers, organization });
        while let Some((mut candidate, target)) = tries.next(note) {
            let backend = candidate.backend;
            let answer = match (&backend.local, route.hedge.as_ref().filter(|_| request.stream && candidate.own)) {
                _ if request.loads().is_some() && !backend.dialects.contains(&request.dialect) => Ok(nothing_to_do()),
                (Some(local), _) => local.send(request, &target, organization).inspect(|_| note(Step::Handed)),
                (None, Some(hedge)) => {
                    let first = (candidate, &target);
                    let (winner, answer) = Box::pin(hedge::race(&mut tries, first, request, hedge, note)).await;
                    candidate = winner;
                    answer
                }
                (None, None) => {
                    // Pinned where it is: it would be copied otherwise.
                    pin!(ask::ask(candidate, request, &target, origin, || note(Step::Handed))).await
                }
            };
            match answer {
                Ok((outgoing, reply)) => {
                    let backend = candidate.backend;
                    return Ok(Sent { outgoing, reply, backend: backend.clone(), until: tries.until(backend) });
                }
                Err(verdict) => tries.failed(candidate, verdict, note)?,
            }
        }
        Err(tries.exhausted())
    }
}

/// What a backend would answer that is always ready: no text, no tokens.
fn nothing_to_do() -> (Outgoing, Reply) {
    let events = [
        Event::Start { id: None, model: None },
        Event::Usage(Usage { input: Some(0), output: Some(0), ..Usage::default() }),
        Event::Stop(StopReason::EndTurn),
    ];
    let (sender, receiver) = tokio::sync::mpsc::channel(events.len());
    for event in events {
        // There is room for all of them.
        let _ = sender.try_send(event);
    }
    (Outgoing { dialect: Dialect::Chat, written: Written::default(), unasked: Unasked::None }, Reply::Events(receiver))
}

/// Drops what this thread keeps for backends that no configuration names any more.
pub fn tidy() {
    http::tidy();
}

impl Backend {
    /// Limits for its replies.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Where its addresses are asked whether they can serve.
    fn probe(&self) -> Option<&'static str> {
        self.traits.health.filter(|_| self.probed)
    }
}
