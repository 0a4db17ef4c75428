//! From a model's name to a backend that has taken the request.
//!
//! A client is told of the name it asked for and of no other: where a plugin sent its request is for the log.

use super::Rooms;
use crate::backend::{Sent, Step};
use crate::canon::{Fault, Route};
use crate::ledger::Tab;
use crate::wire::request::Request;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Instant;

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
    let (request_id, prompt) = (tab.request_id().to_owned(), request.estimate_input());
    let organization = tab.organization().clone();
    let sent = now.backends.send(route, request, headers, &request_id, &organization, &mut note(tab, prompt)).await?;
    tab.spent(arrived.elapsed().saturating_sub(sent.waited));
    Ok(sent)
}

/// Tells the books how far a request has come. `prompt`: its tokens by rule of thumb.
pub(super) fn note(tab: &mut Tab, prompt: u64) -> impl FnMut(Step<'_>) {
    move |step| match step {
        Step::Try(at) => tab.tried(at.backend, at.target, at.model, at.provider, at.attempt),
        Step::Handed => tab.estimate_input(prompt),
    }
}
