//! A request for vectors, top to bottom: the rooms of [`super::relay`] in the same order, but for plugins, whose interface
//! knows calls for text and their events.

use super::reply::collect;
use super::{Asked, Body, Rooms, admit, head, intake, open_tab, plain_response, refuse, unless_cut, way};
use crate::backend::{EmbedSource, SentEmbed};
use crate::canon::{Fault, Usage};
use crate::ledger::Tab;
use crate::wire::embed::{EmbedApi, EmbedReply, EmbedRequest};
use crate::wire::{Glance, Written};
use bytes::Bytes;
use http::Response;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// Answers a request for vectors. Whatever happens, one record is left.
pub async fn embed(now: Arc<Rooms>, asked: Asked, api: EmbedApi) -> Response<Body> {
    let dialect = asked.dialect;
    let mut tab = open_tab(&now, &asked.head.headers, dialect, &asked.endpoint);
    let answered = unless_cut(&now, pin!(answer(&now, asked, api, &mut tab))).await;
    match answered {
        Ok((body, written)) => {
            let mut response = plain_response(200, "application/json", body);
            let headers = response.headers_mut();
            head::describe(headers, dialect, &tab);
            head::name_list(headers, "x-tidegate-dropped", &written.dropped);
            tab.answered(200);
            tab.done();
            response
        }
        Err(fault) => refuse(dialect, &fault, tab),
    }
}

async fn answer(now: &Rooms, asked: Asked, api: EmbedApi, tab: &mut Tab) -> Result<(Bytes, Written), Fault> {
    let headers = &asked.head.headers;
    let caller = admit(now, headers, tab)?;
    let body = intake::read(headers, asked.body, asked.dialect, now.limits).await?;
    let arrived = Instant::now();
    let request = EmbedRequest::read(api, body)?;
    let model = &request.call.model;
    tab.asked(now.routes.named(model), false, request.user());
    let route = way::open_to(now, &caller, model)?;
    let sent = way::embed(now, &route, &request, headers, arrived, tab).await?;
    finish(&request, sent, tab).await
}

/// The whole answer, booked and as the client wants it.
async fn finish(request: &EmbedRequest, sent: SentEmbed, tab: &mut Tab) -> Result<(Bytes, Written), Fault> {
    let SentEmbed { reply, written, backend, .. } = sent;
    let reply = match reply {
        EmbedSource::Http(api, mut body) => {
            let text = collect(&mut body).await?;
            let arrived = Instant::now();
            let reply = request.reply(api, text).inspect_err(|fault| {
                tracing::warn!(request_id = tab.request_id(), error = fault.message, "a backend made no vectors");
            });
            tab.spent(arrived.elapsed());
            reply.map_err(|mut fault| {
                backend.hide_key(&mut fault);
                fault
            })?
        }
        EmbedSource::Here(vectors) => EmbedReply { body: request.answer(&vectors), usage: vectors.usage, times: None },
    };
    let nothing =
        request.call.inputs.is_empty().then_some(Usage { input: Some(0), output: Some(0), ..Usage::default() });
    tab.see(&Glance { usage: Some(nothing.unwrap_or(reply.usage)), times: reply.times, ..Glance::default() });
    Ok((reply.body, written))
}
