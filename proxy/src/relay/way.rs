//! From a model's name to a backend that has taken the request.
//!
//! A client is told of the name it asked for and of no other: where a plugin sent its request is for the log.

use super::Rooms;
use crate::backend::{Carried, Counted, Origin, Sent, SentEmbed, Step};
use crate::canon::header::{X_STAINLESS_READ_TIMEOUT, X_STAINLESS_TIMEOUT};
use crate::canon::{Fault, Route};
use crate::gate::Admitted;
use crate::ledger::Tab;
use crate::wire::embed::EmbedRequest;
use crate::wire::opaque::Parcel;
use crate::wire::request::Request;
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The route of a model that the caller may use.
pub(super) fn open_to(now: &Rooms, caller: &Admitted, model: &str) -> Result<Arc<Route>, Fault> {
    let route = now.routes.pick(model)?;
    if caller.may_use(model) { Ok(route) } else { Err(Fault::model_not_found(model)) }
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
    tab.routed(route);
    let queued = take_place(now, route, headers, tab).await?;
    let (request_id, organization) = (tab.request_id().to_owned(), tab.organization().clone());
    let prompt = request.estimate_input();
    let origin = Origin { request_id: &request_id, organization: &organization };
    let sent = now.backends.send(route, request, headers, origin, &mut note(tab, Some(prompt))).await?;
    tab.spent(arrived.elapsed().saturating_sub(queued + sent.waited));
    Ok(sent)
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
    tab.routed(route);
    let queued = take_place(now, route, headers, tab).await?;
    let (request_id, prompt) = (tab.request_id().to_owned(), request.estimate());
    let sent = now.backends.embed(route, request, headers, &request_id, &mut note(tab, Some(prompt))).await?;
    tab.spent(arrived.elapsed().saturating_sub(queued + sent.waited));
    Ok(sent)
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
    let request_id = tab.request_id().to_owned();
    let counted = now.backends.measure(route, request, headers, &request_id, &mut note(tab, None)).await?;
    tab.spent(arrived.elapsed().saturating_sub(counted.waited));
    Ok(counted)
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
    tab.routed(route);
    let queued = take_place(now, route, headers, tab).await?;
    let request_id = tab.request_id().to_owned();
    let carried = now.backends.carry(route, parcel, headers, &request_id, &mut note(tab, None)).await?;
    tab.spent(arrived.elapsed().saturating_sub(queued + carried.waited));
    Ok(carried)
}

/// Waits for the request's turn where its model has a limit, and says for how long; the place is its tab's.
///
/// # Errors
/// 429 or 503: there is no room to wait, or the turn did not come in time.
async fn take_place(now: &Rooms, route: &Route, headers: &HeaderMap, tab: &mut Tab) -> Result<Duration, Fault> {
    let Some(queue) = now.queues.of(&route.name).filter(|_| !tab.is_placed()) else { return Ok(Duration::ZERO) };
    tab.waits();
    // Boxed: a request to a model without a limit should not be as large as one with it.
    let place = Box::pin(queue.enter(tab.organization(), patience(headers))).await?;
    Ok(tab.placed(Box::new(place)))
}

/// How long the client waits to hear of its reply, where it says so: OpenAI's and Anthropic's libraries do.
fn patience(headers: &HeaderMap) -> Duration {
    let said = |name| {
        let seconds: f64 = headers.get(&name)?.to_str().ok()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
    };
    [X_STAINLESS_TIMEOUT, X_STAINLESS_READ_TIMEOUT].into_iter().filter_map(said).min().unwrap_or(Duration::MAX)
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
        Step::Try(at) => tab.tried(at.backend, at.target, at.model, at.provider, at.attempt),
        Step::Handed => prompt.into_iter().for_each(|tokens| tab.estimate_input(tokens)),
    }
}
