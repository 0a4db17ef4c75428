//! Where models live: HTTP servers of several kinds, and this process itself.
//!
//! [`Backends::send`] carries a request to the first target that takes it. Everything that may be tried again is tried before
//! the first byte goes to the client, never after.

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
mod said;
mod series;
mod standing;
mod tries;
mod verdict;

pub use carry::Carried;
pub use config::{Config, Health, RetryBudget, Settings, Timeouts};
pub use count::Counted;
pub use embed::{EmbedSource, SentEmbed};
pub use endpoint::Endpoint;
pub use kept::Kept;
pub use kind::{Kind, Traits};
pub use tries::{Step, Try};

use crate::canon::{About, Event, Fault, FaultKind, Route, Secret, StopReason, Usage};
use crate::trust;
use crate::wire::embed::EmbedApi;
use crate::wire::request::{Outgoing, Request};
use crate::wire::{Dialect, Written};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response};
use arc_swap::ArcSwap;
use breaker::{Ended, Rules};
use budget::Budget;
use catalog::Catalog;
use endpoint::Address;
use endpoints::Endpoints;
use foldhash::HashMap;
use health::Watch;
use kind::Lists;
use pool::Affinity;
use said::Said;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tries::Tries;
use verdict::Verdict;

/// How often a model that is being loaded is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a start, or a reload, waits for names to be looked up.
const RESOLVE: Duration = Duration::from_secs(2);

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
    /// Time spent waiting for backends.
    pub waited: Duration,
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

    /// Builds the backends, with what is kept of those before. Models of `local` ones that are not loaded are loaded by a
    /// thread of their own; until then they answer 503.
    ///
    /// # Errors
    /// Place and sentence of everything that is wrong.
    pub fn build(config: &Config, kept: &Kept) -> Result<Self, Vec<(String, String)>> {
        let (mut backends, mut errors) = (Vec::new(), Vec::new());
        for (name, settings) in config {
            match Backend::read(name, settings, kept) {
                Ok(backend) => backends.push((backend, settings)),
                Err(more) => errors.extend(more),
            }
        }
        // No model is loaded for a configuration that cannot be used.
        if !errors.is_empty() {
            return Err(errors);
        }
        let (mut by_name, mut loading) = (HashMap::default(), Vec::new());
        for (mut backend, settings) in backends {
            let (name, mut is_new) = (backend.name.clone(), false);
            if let Some(weights) = &settings.weights {
                let (local, fresh) = kept.model(&name, weights, settings);
                (backend.local, is_new) = (Some(local), fresh);
            }
            let backend = Arc::new(backend);
            if is_new {
                loading.push(backend.clone());
            }
            by_name.insert(name, backend);
        }
        let named = by_name.values().any(|backend| matches!(backend.endpoints, Endpoints::Named(_)));
        Ok(Self { by_name, loading, named, watch: kept.watch() })
    }

    /// Waits until the models that were not loaded already are.
    ///
    /// # Errors
    /// Place and sentence of those that cannot be.
    pub async fn loaded(&self) -> Result<(), Vec<(String, String)>> {
        let mut errors = Vec::new();
        for backend in &self.loading {
            let Some(local) = &backend.local else { continue };
            while !local.settled() {
                tokio::time::sleep(LOOK).await;
            }
            if let Some(error) = local.error() {
                errors.push((format!("backends.{}.weights", backend.name), error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Waits until each name has been looked up, but not long: one that does not resolve must not keep the others from
    /// serving.
    pub async fn resolved(&self) {
        let asked = |backend: &Arc<Backend>| match &backend.endpoints {
            Endpoints::Named(name) => name.is_asked(),
            Endpoints::Fixed(_) => true,
        };
        let began = Instant::now();
        while !self.by_name.values().all(asked) && began.elapsed() < RESOLVE {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything that is wrong with a configuration, without loading a model or connecting to anything.
    pub fn check(config: &Config) -> Vec<(String, String)> {
        let kept = Kept::default();
        config.iter().filter_map(|(name, settings)| Backend::read(name, settings, &kept).err()).flatten().collect()
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

    /// True when every model of this process has been loaded, or has failed to.
    pub fn settled(&self) -> bool {
        self.by_name.values().filter_map(|backend| backend.local.as_ref()).all(|local| local.settled())
    }

    /// The backends whose model could not be loaded into this process, in order.
    pub fn failed(&self) -> Vec<&str> {
        let failed =
            |backend: &Arc<Backend>| backend.local.as_ref().is_some_and(|local| local.settled() && !local.is_ready());
        let mut names: Vec<&str> =
            self.by_name.values().filter(|backend| failed(backend)).map(|backend| &*backend.name).collect();
        names.sort_unstable();
        names
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
                    let (asked, first) = (Instant::now(), (candidate, &target));
                    let (winner, answer) = Box::pin(hedge::race(&mut tries, first, request, hedge, note)).await;
                    tries.waited += asked.elapsed();
                    candidate = winner;
                    answer
                }
                (None, None) => {
                    let asked = pin!(hedge::ask(candidate, request, &target, origin, || note(Step::Handed)));
                    tries.waiting(asked).await
                }
            };
            match answer {
                Ok((outgoing, reply)) => {
                    let (waited, backend) = (tries.waited, candidate.backend);
                    return Ok(Sent { outgoing, reply, waited, backend: backend.clone(), until: tries.until(backend) });
                }
                Err(verdict) => tries.failed(candidate, verdict)?,
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
    (Outgoing { dialect: Dialect::Chat, written: Written::default(), hide_usage: false }, Reply::Events(receiver))
}

/// Drops what this thread keeps for backends that no configuration names any more.
pub fn tidy() {
    http::tidy();
}

impl Backend {
    /// The names its addresses have in the books; its own where it is this process, or where none is known.
    fn targets(&self) -> impl Iterator<Item = Arc<str>> {
        let endpoints = self.endpoints();
        let own = endpoints.is_empty().then(|| self.name.clone());
        let labels: Vec<_> = own.into_iter().chain(endpoints.iter().map(|endpoint| endpoint.label.clone())).collect();
        labels.into_iter()
    }

    /// Limits for its replies.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Nobody knows where it is.
    fn nowhere(&self) -> Verdict {
        let why = match &self.endpoints {
            Endpoints::Named(name) => name.lacks(),
            Endpoints::Fixed(_) => "none is configured",
        };
        let message = format!("The backend `{}` has no address at the moment: {why}.", self.name);
        let retry_after = Some(Duration::from_secs(1));
        Verdict::Another(Fault { retry_after, ..Fault::new(FaultKind::BackendUnavailable, message) })
    }

    /// Takes the gateway's key there out of what this backend said is wrong.
    pub fn hide_key(&self, fault: &mut Fault) {
        fault.message = verdict::without_key(&fault.message, self.key.as_ref());
    }

    /// Says it to one address; `handed` is called when there is a connection.
    async fn call(
        &self,
        address: &Arc<Address>,
        said: &Said<'_>,
        mut handed: impl FnMut(),
    ) -> Result<(Response<()>, http::Body), Verdict> {
        let message = || {
            handed();
            said.message(address, self.credentials.as_ref())
        };
        let began = said.stream.then(standing::now);
        let sending = http::send(address, message, self.traits.idle, self.timeouts.connect.0);
        // Only a stream owes a first token: a whole reply is as long in coming as it is long.
        let first = said.stream.then_some(self.timeouts.first_token.0);
        let sent = match first.into_iter().chain(self.timeouts.total.map(|total| total.0)).min() {
            Some(limit) => tokio::time::timeout(limit, sending).await.unwrap_or(Err(http::Failure::Slow)),
            None => sending.await,
        };
        let (head, mut body) = sent.map_err(|failure| {
            if !matches!(failure, http::Failure::Slow) {
                self.report(address, Ended::Broken);
            }
            verdict::unreachable(&failure)
        })?;
        if head.status().is_success() {
            self.report(address, Ended::Well);
            body.watch(began, self.rules.clone());
            return Ok((head, body));
        }
        match verdict::says(&head) {
            verdict::Says::Ended(ended) => self.report(address, ended),
            verdict::Says::Full(wait) => address.standing.full(standing::now(), wait),
            verdict::Says::Nothing => address.standing.heard(),
        }
        Err(Box::pin(verdict::refused(said.dialect, head, body, self.key.as_ref())).await)
    }

    /// Tells an address's standing how a request ended.
    fn report(&self, address: &Address, ended: Ended) {
        if address.standing.report(ended, standing::now(), &self.rules) {
            let closed = address.standing.breaker.is_closed();
            tracing::warn!(
                backend = &*self.name,
                address = address.id,
                closed,
                "the breaker of a backend's address changed"
            );
        }
    }

    /// Where its addresses are asked whether they can serve.
    fn probe(&self) -> Option<&'static str> {
        self.traits.health.filter(|_| self.probed)
    }
}
