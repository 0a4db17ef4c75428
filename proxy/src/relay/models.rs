//! `GET /v1/models`: what a caller may use, in the shape it expects.

use super::{Body, Rooms, admit, head, open_tab, plain_response, refuse};
use crate::canon::Fault;
use crate::gate::Admitted;
use crate::wire::{Dialect, anthropic, openai};
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use std::sync::Arc;

/// The models of the caller's project.
pub fn list_models(now: &Arc<Rooms>, asked: &Parts, dialect: Dialect, endpoint: &Arc<str>) -> Response<Body> {
    answer(now, asked, dialect, endpoint, |caller| {
        let names: Vec<_> = now.routes.names().into_iter().filter(|name| caller.may_use(name)).collect();
        Ok(match dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Completions => openai::models::write_list(&names),
            Dialect::Messages => anthropic::models::write_list(&names),
        })
    })
}

/// One model, by a name that may hold slashes and colons.
pub fn show_model(now: &Arc<Rooms>, asked: &Parts, dialect: Dialect, endpoint: &Arc<str>, id: &str) -> Response<Body> {
    answer(now, asked, dialect, endpoint, |caller| {
        now.routes.pick(id).ok().filter(|_| caller.may_use(id)).ok_or_else(|| Fault::model_not_found(id))?;
        Ok(match dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Completions => openai::models::write(id),
            Dialect::Messages => anthropic::models::write(id),
        })
    })
}

fn answer(
    now: &Arc<Rooms>,
    asked: &Parts,
    dialect: Dialect,
    endpoint: &Arc<str>,
    write: impl FnOnce(&Admitted) -> Result<Bytes, Fault>,
) -> Response<Body> {
    let mut tab = open_tab(now, &asked.headers, dialect, endpoint);
    let written = admit(now, &asked.headers, &mut tab).and_then(|caller| write(&caller));
    match written {
        Ok(bytes) => {
            let mut response = plain_response(200, "application/json", bytes);
            head::describe(response.headers_mut(), dialect, &tab);
            tab.answered(200);
            tab.done();
            response
        }
        Err(fault) => refuse(dialect, &fault, tab),
    }
}
