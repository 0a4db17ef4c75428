//! From a model's name to a backend that has taken the request.
//!
//! A client is told of the name it asked for and of no other: where a plugin sent its request is for the log.

use super::Rooms;
use crate::backend::{Carried, Counted, Origin, Sent, SentEmbed, Step, Waited};
use crate::canon::header::{X_STAINLESS_READ_TIMEOUT, X_STAINLESS_TIMEOUT};
use crate::canon::{Fault, Route};
use crate::gate::Admitted;
use crate::ledger::Tab;
use crate::queue::{Place, Queue};
use crate::wire::edit::quoted;
use crate::wire::embed::EmbedRequest;
use crate::wire::opaque::Parcel;
use crate::wire::request::Request;
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether the caller may use the model that is meant by this name.
pub(super) fn is_open(now: &Rooms, caller: &Admitted, model: &str) -> bool {
    caller.may_use(now.routes.named(model))
}

/// The request under the name that is meant: plugins go by those of the configuration.
pub(super) fn meant(now: &Rooms, request: Request) -> Result<Request, Fault> {
    let named = now.routes.named(&request.model);
    if named == request.model {
        return Ok(request);
    }
    request.with_members(&[("model", Some(&quoted(named)))])
}

/// The route of a model that the caller may use.
pub(super) fn open_to(now: &Rooms, caller: &Admitted, model: &str) -> Result<Arc<Route>, Fault> {
    let route = now.routes.pick(model)?;
    if is_open(now, caller, model) { Ok(route) } else { Err(Fault::model_not_found(model)) }
}

/// Where the request goes; `backend`: the one that a plugin chose.
pub(super) fn find(now: &Rooms, request: &Request, backend: Option<&str>, tab: &Tab) -> Result<Arc<Route>, Fault> {
    let route = now.routes.pick(&request.model).map_err(|_| not_found(request, tab))?;
    let Some(backend) = backend else { return Ok(route) };
    route.only(backend).map(Arc::new).inspect_err(|_| {
        let (request_id, model) = (tab.request_id(), &request.model);
        tracing::warn!(request_id, model, backend, "a plugin routed to a backend that does not serve the model");
    })
}

/// No such model for this caller.
pub(super) fn not_found(request: &Request, tab: &Tab) -> Fault {
    if request.model != request.asked {
        tracing::warn!(
            request_id = tab.request_id(),
            model = request.model,
            asked = request.asked,
            "a plugin routed to a model that does not exist or that the caller may not use"
        );
    }
    Fault::model_not_found(&request.asked)
}

/// Carries a request to a backend that takes it; the books know of each try.
pub(super) async fn send(
    now: &Rooms,
    route: &Arc<Route>,
    request: &Request,
    headers: &HeaderMap,
    arrived: Instant,
    tab: &mut Tab,
) -> Result<Sent, Fault> {
    let asker = Asker::of(tab, headers, arrived);
    let (route, queued) = take_place(now, route, &asker, tab).await?;
    let prompt = request.estimate_input();
    let silence = now.limits.keep_alive.filter(|_| !request.dialect.keep_alive().is_empty());
    let origin = Origin { silence, ..asker.origin(headers) };
    let own = OwnTime { tab, asker: &asker, queued };
    now.backends.send(&route, request, origin, &mut note(own.tab, Some(prompt))).await
}

/// Has vectors made.
pub(super) async fn embed(
    now: &Rooms,
    route: &Arc<Route>,
    request: &EmbedRequest,
    headers: &HeaderMap,
    arrived: Instant,
    tab: &mut Tab,
) -> Result<SentEmbed, Fault> {
    let asker = Asker::of(tab, headers, arrived);
    let (route, queued) = take_place(now, route, &asker, tab).await?;
    let prompt = request.estimate();
    let own = OwnTime { tab, asker: &asker, queued };
    now.backends.embed(&route, request, asker.origin(headers), &mut note(own.tab, Some(prompt))).await
}

/// Has the prompt of a request counted, which is charged to nobody and needs no turn: nothing is generated.
pub(super) async fn count(
    now: &Rooms,
    route: &Arc<Route>,
    request: &Request,
    headers: &HeaderMap,
    arrived: Instant,
    tab: &mut Tab,
) -> Result<Counted, Fault> {
    tab.routed(route);
    let asker = Asker::of(tab, headers, arrived);
    let own = OwnTime { tab, asker: &asker, queued: Duration::ZERO };
    now.backends.measure(route, request, asker.origin(headers), &mut note(own.tab, None)).await
}

/// Carries a body that is not understood, and of which nothing can be estimated.
pub(super) async fn carry(
    now: &Rooms,
    route: &Arc<Route>,
    parcel: &Parcel,
    headers: &HeaderMap,
    arrived: Instant,
    tab: &mut Tab,
) -> Result<Carried, Fault> {
    let asker = Asker::of(tab, headers, arrived);
    let (route, queued) = take_place(now, route, &asker, tab).await?;
    let own = OwnTime { tab, asker: &asker, queued };
    now.backends.carry(&route, parcel, asker.origin(headers), &mut note(own.tab, None)).await
}

/// Who asks, apart from the books that are written meanwhile.
struct Asker {
    request_id: String,
    organization: Arc<str>,
    /// When all of the request was there.
    arrived: Instant,
    /// When the client will have left, where it says so.
    deadline: Option<Instant>,
    waited: Waited,
}

impl Asker {
    fn of(tab: &Tab, headers: &HeaderMap, arrived: Instant) -> Self {
        let deadline = patience(headers).and_then(|patience| arrived.checked_add(patience));
        let (request_id, organization) = (tab.request_id().to_owned(), tab.organization().clone());
        Self { request_id, organization, arrived, deadline, waited: Waited::default() }
    }

    fn origin<'a>(&'a self, headers: &'a HeaderMap) -> Origin<'a> {
        let Self { request_id, organization, deadline, waited, .. } = self;
        Origin { headers, request_id, organization, deadline: *deadline, silence: None, waited }
    }

    /// Waits for a turn, but not for longer than the client does.
    async fn enter(&self, queue: &Arc<Queue>) -> Result<Place, Fault> {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        queue.enter(&self.organization, self.deadline.map_or(Duration::MAX, left)).await
    }
}

/// The gateway's own time on a request until a backend has answered: what has passed without the waiting. It is booked when
/// this goes, so that requests that failed or were given up are no faster than others.
struct OwnTime<'a> {
    tab: &'a mut Tab,
    asker: &'a Asker,
    /// How long it waited for its turn.
    queued: Duration,
}

impl Drop for OwnTime<'_> {
    fn drop(&mut self) {
        let waited = self.queued + self.asker.waited.so_far();
        self.tab.spent(self.asker.arrived.elapsed().saturating_sub(waited));
    }
}

/// Waits for the request's turn where its model has a limit, and says for how long; the place is its tab's. Where there is none
/// to be had, the request goes to the first of the model's fallbacks that takes it, under that one's limit if it has one.
///
/// # Errors
/// 429 or 503: there is no room to wait, or the turn did not come in time; not at the fallbacks, either.
async fn take_place(
    now: &Rooms,
    route: &Arc<Route>,
    asker: &Asker,
    tab: &mut Tab,
) -> Result<(Arc<Route>, Duration), Fault> {
    tab.routed(route);
    let Some(queue) = now.queues.of(&route.name).filter(|_| !tab.is_placed()) else {
        return Ok((route.clone(), Duration::ZERO));
    };
    tab.waits();
    // Boxed: a request to a model without a limit should not be as large as one with it.
    let refused = match Box::pin(asker.enter(queue)).await {
        Ok(place) => return Ok((route.clone(), tab.placed(Box::new(place)))),
        Err(refused) => refused,
    };
    for model in route.fallbacks() {
        if asker.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            break;
        }
        let Some(queue) = now.queues.of(model) else { return Ok((route.fallen_back(model), tab.went_on())) };
        if let Ok(place) = Box::pin(asker.enter(queue)).await {
            return Ok((route.fallen_back(model), tab.placed(Box::new(place))));
        }
    }
    Err(refused)
}

/// How long the client waits to hear of its reply, where it says so: OpenAI's and Anthropic's libraries do.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let said = |name| {
        let seconds: f64 = headers.get(&name)?.to_str().ok()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
    };
    [X_STAINLESS_TIMEOUT, X_STAINLESS_READ_TIMEOUT].into_iter().filter_map(said).min()
}

/// The same without waiting, for a question that a request at work depends on.
pub(super) fn step_in(now: &Rooms, route: &Route, tab: &mut Tab) {
    if let Some(queue) = now.queues.of(&route.name) {
        tab.placed(Box::new(queue.step_in(tab.organization())));
    }
}

/// Tells the books how far a request has come. `prompt`: its tokens by rule of thumb, where they are charged.
fn note(tab: &mut Tab, prompt: Option<u64>) -> impl FnMut(Step<'_>) {
    move |step| match step {
        Step::Try(at) => tab.tried(at.backend, at.target, at.model, at.provider, at.attempt, at.price),
        Step::Handed => prompt.into_iter().for_each(|tokens| tab.estimate_input(tokens)),
        Step::Untried => tab.untried(),
        Step::Over { worked } => tab.abandoned(worked),
    }
}
