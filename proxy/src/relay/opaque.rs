//! The APIs that are only carried: rankings, sound, pictures, moderation. The rooms of a generating request in the same order, but
//! for the plugins, who would not know what they see.
//!
//! A body is read to its end before it is sent: its model may be named last, and another target may have to be tried with it
//! (docs/decisions/0016-counting-and-carrying.md).

use super::carried::Carried;
use super::{Asked, Body, Rooms, admit, head, intake, open_tab, refuse, unless_cut, way};
use crate::backend;
use crate::canon::Fault;
use crate::ledger::Tab;
use crate::wire::opaque::{Opaque, Parcel};
use http::{Response, header};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// Carries a request to its model and the reply back.
pub async fn carry(now: Arc<Rooms>, asked: Asked, to: &'static Opaque) -> Response<Body> {
    let dialect = asked.dialect;
    let mut tab = open_tab(&now, &asked.head.headers, dialect, &asked.endpoint);
    let answered = unless_cut(&now, pin!(answer(&now, asked, to, &mut tab))).await;
    match answered {
        Ok((carried, dropped)) => {
            let mut response = Response::new(Body::whole(bytes::Bytes::new()));
            *response.status_mut() = carried.head.status();
            let headers = response.headers_mut();
            // What its body is.
            for name in [header::CONTENT_TYPE, header::CONTENT_DISPOSITION, header::CONTENT_ENCODING] {
                headers.extend(carried.head.headers().get(&name).map(|value| (name, value.clone())));
            }
            if Carried::is_stream(&carried.head) {
                head::stream(headers);
            }
            head::describe(headers, dialect, &tab);
            head::name_list(headers, "x-tidegate-dropped", &dropped);
            tab.answered(response.status().as_u16());
            *response.body_mut() = Body::carried(Carried::new(&now, carried, tab));
            response
        }
        Err(fault) => refuse(dialect, &fault, tab),
    }
}

async fn answer(
    now: &Rooms,
    asked: Asked,
    to: &'static Opaque,
    tab: &mut Tab,
) -> Result<(backend::Carried, Vec<String>), Fault> {
    let headers = &asked.head.headers;
    let caller = admit(now, headers, tab)?;
    let shape = to.takes(headers.get(header::CONTENT_TYPE))?;
    let body = intake::whole(headers, asked.body, now.limits).await?;
    let arrived = Instant::now();
    let parcel = Parcel::read(to, shape, body)?;
    tab.asked(now.routes.named(&parcel.model), parcel.stream, parcel.user.clone());
    let route = way::open_to(now, &caller, &parcel.model)?;
    let carried = way::carry(now, &route, &parcel, headers, arrived, tab).await?;
    Ok((carried, parcel.dropped))
}
