//! The request, top to bottom, on one page.
//!
//! The only place where the rooms meet: each is asked in order and knows nothing of the others.

mod ask;
mod body;
mod carried;
mod clock;
mod count;
mod embed;
mod head;
mod intake;
mod models;
mod opaque;
mod party;
mod reply;
mod way;

pub use body::Body;
pub use count::count;
pub use embed::embed;
pub use head::{fault_response, plain_response};
pub use models::{list_models, list_running, show_model, tell_of_model};
pub use opaque::carry;
pub use party::ending;

use crate::backend::Backends;
use crate::canon::{Fault, FaultKind};
use crate::gate::{Admitted, Gate};
use crate::ledger::{Ledger, Tab};
use crate::plugin::{Judged, Plugins};
use crate::queue::Queues;
use crate::route::Routes;
use crate::wire::Dialect;
use crate::wire::request::Request;
use http::request::Parts;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Everything a request meets, built from one configuration. Requests in flight keep the one they began with.
pub struct Rooms {
    /// Who is calling.
    pub gate: Gate,
    /// Where a model is.
    pub routes: Routes,
    /// Whose turn it is.
    pub queues: Queues,
    /// Who looks in.
    pub plugins: Plugins,
    /// What serves it.
    pub backends: Backends,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// Bounds on what clients send, on how long they hear nothing, and on what backends send.
    pub limits: Limits,
    /// Add DeepFellow's misspelt usage key to replies we write.
    pub deepfellow: bool,
    /// Ends streams that outlast the drain.
    pub cut: CancellationToken,
}

/// Bounds on what clients send, on how long they hear nothing, and on what backends send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request body, after decompression.
    pub body: usize,
    /// Longest pause within a request body.
    pub body_idle: Duration,
    /// Longest silence within a stream; zero: as long as the backend's.
    pub keep_alive: Option<Duration>,
    /// Bytes of a line within the stream of a backend.
    pub line: usize,
}

/// A request as the server hands it over.
pub struct Asked {
    /// Its head.
    pub head: Parts,
    /// Its body.
    pub body: Incoming,
    /// What its path speaks.
    pub dialect: Dialect,
    /// Path class for the books.
    pub endpoint: Arc<str>,
}

/// Answers a generating request. Whatever happens, one record is left.
pub async fn relay(now: Arc<Rooms>, asked: Asked) -> Response<Body> {
    let dialect = asked.dialect;
    let mut tab = open_tab(&now, &asked.head.headers, dialect, &asked.endpoint);
    let answered = unless_cut(&now, pin!(answer(&now, asked, &mut tab))).await;
    match answered {
        Ok(begun) => begun.into_response(tab),
        Err(fault) => refuse(dialect, &fault, tab),
    }
}

async fn answer(now: &Arc<Rooms>, asked: Asked, tab: &mut Tab) -> Result<reply::Begun, Fault> {
    let headers = &asked.head.headers;
    let caller = admit(now, headers, tab)?;
    let body = intake::read(headers, asked.body, asked.dialect, now.limits).await?;
    let arrived = Instant::now();
    let request = Request::read(asked.dialect, body)?;
    tab.asked(now.routes.named(&request.model), request.stream, request.user());
    if !way::is_open(now, &caller, &request.model) {
        return Err(Fault::model_not_found(&request.model));
    }
    let party = party::invite(now, &caller, &request, headers, &asked.endpoint, tab);
    let judged = match &party {
        Some(party) => party.on_call(way::meant(now, request)?).await?,
        None => Judged::untouched(request),
    };
    let request = judged.request;
    if request.model != request.asked && !way::is_open(now, &caller, &request.model) {
        return Err(way::not_found(&request, tab));
    }
    if let Some(answered) = judged.answer {
        return reply::answered(now, request, answered, party, tab).await;
    }
    let route = way::find(now, &request, judged.backend.as_deref(), tab)?;
    let sent = way::send(now, &route, &request, headers, arrived, tab).await?;
    party.iter().for_each(|party| party.routed(&route, tab));
    reply::begin(now, request, sent, party, tab).await
}

/// A whole reply can take longer than the gateway may take to stop. Pinned where it is: what a request is would be copied
/// whole with each call that takes it.
async fn unless_cut<T>(now: &Rooms, answer: Pin<&mut impl Future<Output = Result<T, Fault>>>) -> Result<T, Fault> {
    tokio::select! {
        biased;
        answered = answer => answered,
        () = now.cut.cancelled() => Err(Fault::stopping()),
    }
}

/// Drops what this thread keeps for configurations that are gone: connections, instances of plugins.
pub fn tidy() {
    crate::backend::tidy();
    crate::plugin::tidy();
}

/// Opens the books for a request of any kind.
pub fn open_tab(now: &Rooms, headers: &HeaderMap, dialect: Dialect, endpoint: &Arc<str>) -> Tab {
    now.ledger.open_tab(head::request_id(headers), endpoint, dialect.family())
}

/// Lets the caller in, if the gateway can keep its books.
///
/// # Errors
/// The gate's, or 503 while the disk takes no records.
pub fn admit(now: &Rooms, headers: &HeaderMap, tab: &mut Tab) -> Result<Admitted, Fault> {
    accepts(now)?;
    match now.gate.admit(headers) {
        Ok(admitted) => {
            tab.admitted(&admitted.caller);
            Ok(admitted)
        }
        Err(denied) => {
            denied.caller.iter().for_each(|caller| tab.admitted(caller));
            Err(*denied.fault)
        }
    }
}

/// Requests are taken while their books can be kept.
fn accepts(now: &Rooms) -> Result<(), Fault> {
    let full = "The gateway cannot write its usage records and takes no requests until it can.";
    if now.ledger.accepts() {
        return Ok(());
    }
    // Room is made by a person or by another program, not within moments.
    Err(Fault { retry_after: Some(Duration::from_secs(5)), ..Fault::new(FaultKind::Overloaded, full) })
}

/// Answers with a fault and closes the books on it.
pub fn refuse(dialect: Dialect, fault: &Fault, mut tab: Tab) -> Response<Body> {
    let mut response = fault_response(dialect, fault, tab.request_id());
    head::describe(response.headers_mut(), dialect, &tab);
    tab.answered(response.status().as_u16());
    tab.failed(fault, false);
    response
}
