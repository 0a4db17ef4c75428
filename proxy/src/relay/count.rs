//! `POST /v1/messages/count_tokens` and `POST /v1/responses/input_tokens`: how long a prompt is. The rooms of a generating
//! request in the same order, but for the plugins, who see what is generated; nothing is, and nothing is charged.

use super::{Asked, Body, Rooms, admit, head, intake, open_tab, plain_response, refuse, unless_cut, way};
use crate::backend::Counted;
use crate::canon::{Fault, header as name};
use crate::ledger::Tab;
use crate::wire::request::Request;
use http::{HeaderValue, Response};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// Answers how many tokens a request's prompt has.
pub async fn count(now: Arc<Rooms>, asked: Asked) -> Response<Body> {
    let dialect = asked.dialect;
    let mut tab = open_tab(&now, &asked.head.headers, dialect, &asked.endpoint);
    let answered = unless_cut(&now, pin!(answer(&now, asked, &mut tab))).await;
    match answered {
        Ok(counted) => {
            let mut response = plain_response(200, "application/json", counted.answer);
            head::describe(response.headers_mut(), dialect, &tab);
            let source = HeaderValue::from_static(counted.source.as_str());
            response.headers_mut().insert(name::X_TIDEGATE_USAGE_SOURCE, source);
            tab.answered(200);
            tab.done();
            response
        }
        Err(fault) => refuse(dialect, &fault, tab),
    }
}

async fn answer(now: &Rooms, asked: Asked, tab: &mut Tab) -> Result<Counted, Fault> {
    let headers = &asked.head.headers;
    let caller = admit(now, headers, tab)?;
    let body = intake::read(headers, asked.body, asked.dialect, now.limits).await?;
    let arrived = Instant::now();
    let request = Request::read(asked.dialect, body)?;
    tab.asked(now.routes.named(&request.model), false, request.user());
    if !way::is_open(now, &caller, &request.model) {
        return Err(Fault::model_not_found(&request.model));
    }
    let route = way::find(now, &request, None, tab)?;
    way::count(now, &route, &request, headers, arrived, tab).await
}
