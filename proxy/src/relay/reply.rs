//! From a backend's reply to the client's: streamed or whole, alike or across dialects.

use super::body::{Body, Seat, Source, Stream};
use super::clock::Clock;
use super::party::Party;
use super::{Rooms, head};
use crate::backend::{Backend, Reply, Sent, http};
use crate::canon::{Answer, Event, Fault, FaultKind};
use crate::ledger::Tab;
use crate::plugin::{Answered, Seen};
use crate::wire::object::Object;
use crate::wire::reply::{Pipe, fold, glance_event, read_lines_up_to, rename_answer};
use crate::wire::request::{Outgoing, Request};
use crate::wire::watch::Watch;
use crate::wire::{Dialect, Glance, ReplyHead, Unasked, Written};
use ::http::{HeaderValue, Response, header};
use bytes::{Bytes, BytesMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A whole reply of a backend may be this large.
const WHOLE: usize = 64 << 20;

/// A reply that is known well enough to send its head.
pub(super) struct Begun {
    now: Arc<Rooms>,
    dialect: Dialect,
    /// The client asked for a stream and gets one, even where all of it is there already.
    stream: bool,
    outgoing: Outgoing,
    way: Way,
}

enum Way {
    Whole(Bytes),
    Stream(Source, Option<Seat>, Arc<Backend>, Option<Instant>),
}

/// Takes the backend's reply as far as its head can be answered for: a whole one to its end, a stream to its beginning.
pub(super) async fn begin(
    now: &Arc<Rooms>,
    request: Request,
    sent: Sent,
    party: Option<Rc<Party>>,
    tab: &mut Tab,
) -> Result<Begun, Fault> {
    let watching = party.filter(|party| party.watches());
    let Sent { outgoing, reply, backend, until, .. } = sent;
    let verbatim = outgoing.dialect == request.dialect && !request.stream && watching.is_none();
    let verbatim = verbatim && matches!(&reply, Reply::Http(response, _) if !is_stream(response, outgoing.dialect));
    let head = if verbatim { ReplyHead::default() } else { reply_head(now, &request, tab) };
    let way = match reply {
        Reply::Http(response, body) if request.stream && is_stream(&response, outgoing.dialect) => {
            let mut pipe = if outgoing.dialect == request.dialect {
                Pipe::alike(request.dialect, &request.asked, outgoing.unasked)
            } else {
                Pipe::across(request.dialect, outgoing.dialect, head.clone())
            };
            pipe = pipe.lines_up_to(now.limits.line);
            if watching.is_some() {
                pipe = pipe.watched(request.dialect, head);
            }
            Way::Stream(Source::Http(body, Box::new(pipe)), watching.map(Seat::new), backend, until)
        }
        Reply::Http(response, mut body) => {
            let lines = is_stream(&response, outgoing.dialect).then_some(now.limits.line);
            let text = within(until, collect(&mut body)).await?;
            let arrived = Instant::now();
            let whole = whole(&request, &outgoing, head, text, lines, watching, tab).await;
            let whole = whole.map_err(|mut fault| {
                backend.hide_key(&mut fault);
                fault
            })?;
            tab.spent(arrived.elapsed());
            Way::Whole(whole)
        }
        Reply::Events(mut events) => {
            // What the engine refuses, it refuses in its first event: that still is an answer of its own.
            let limit = if request.stream { backend.timeouts().first_token.0 } else { Duration::MAX };
            let slow =
                || Event::Fault(Fault::new(FaultKind::BackendTimeout, "The model did not begin to answer in time."));
            let first = within(until, async { Ok(tokio::time::timeout(limit, events.recv()).await) }).await?;
            let first = first.map_or_else(|_| slow(), |event| event.unwrap_or_else(|| Event::Fault(Fault::cut())));
            if let Event::Fault(fault) = first {
                return Err(fault);
            }
            if request.stream {
                let watch = Watch::new(request.dialect, None, head);
                let source = Source::Events(events, Box::new(watch), vec![first]);
                Way::Stream(source, watching.map(Seat::new), backend, until)
            } else {
                let mut all = vec![first];
                within(until, drain(&mut events, &mut all)).await?;
                book(&all, tab)?;
                Way::Whole(write(&request, head, seen(watching, all).await?)?)
            }
        }
    };
    Ok(Begun { now: now.clone(), dialect: request.dialect, stream: request.stream, outgoing, way })
}

/// All of a reply, booked like any other and written for nobody: a plugin has asked for it.
pub(super) async fn whole_answer(now: &Rooms, sent: Sent, tab: &mut Tab) -> Result<Answer, Fault> {
    let Sent { outgoing, reply, backend, until, .. } = sent;
    let answer = async {
        let events = match reply {
            Reply::Http(response, mut body) => {
                let text = within(until, collect(&mut body)).await?;
                read_whole(outgoing.dialect, text, is_stream(&response, outgoing.dialect).then_some(now.limits.line))?
            }
            Reply::Events(mut events) => {
                let mut all = Vec::new();
                within(until, drain(&mut events, &mut all)).await?;
                all
            }
        };
        book(&events, tab)?;
        fold(events)
    };
    answer.await.map_err(|mut fault| {
        backend.hide_key(&mut fault);
        fault
    })
}

/// The reply that a plugin gave by itself. Those before it in the chain see it as they would see any other.
pub(super) async fn answered(
    now: &Arc<Rooms>,
    request: Request,
    answered: Answered,
    party: Option<Rc<Party>>,
    tab: &mut Tab,
) -> Result<Begun, Fault> {
    tab.answered_by(&answered.plugin);
    if let Ok(route) = now.routes.pick(&request.model) {
        tab.routed(&route);
        party.iter().for_each(|party| party.routed(&route, tab));
    }
    if let Some(Event::Stop(reason)) = answered.events.last() {
        tab.see(&Glance { stop: Some(reason.clone()), ..Glance::default() });
    }
    let head = reply_head(now, &request, tab);
    let events = seen(party.filter(|party| party.watches()), answered.events).await?;
    let way = Way::Whole(write(&request, head, events)?);
    let outgoing = Outgoing { dialect: request.dialect, written: Written::default(), unasked: Unasked::None };
    Ok(Begun { now: now.clone(), dialect: request.dialect, stream: request.stream, outgoing, way })
}

impl Begun {
    /// The reply, with the tab in it or closed.
    pub(super) fn into_response(self, mut tab: Tab) -> Response<Body> {
        let mut response = Response::new(Body::whole(Bytes::new()));
        let headers = response.headers_mut();
        head::describe(headers, self.dialect, &tab);
        head::name_list(headers, "x-tidegate-dropped", &self.outgoing.written.dropped);
        head::name_list(headers, "x-tidegate-adjusted", &self.outgoing.written.adjusted);
        tab.answered(200);
        if self.stream {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.dialect.framing().content_type()));
            head::stream(headers);
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match self.way {
            Way::Whole(bytes) => {
                tab.done();
                *response.body_mut() = Body::whole(bytes);
            }
            Way::Stream(source, seat, backend, until) => {
                let keep_alive = self.now.limits.keep_alive.filter(|_| !self.dialect.keep_alive().is_empty());
                let clock = Clock::new(backend.timeouts().first_token.0, until, keep_alive, &self.now.cut);
                let (tab, dialect) = (Some(tab), self.dialect);
                *response.body_mut() = Body::stream(Stream { source, tab, dialect, backend, clock, seat });
            }
        }
        response
    }
}

/// What a backend sends, if all of it is there in time.
async fn within<T>(until: Option<Instant>, reply: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match until {
        Some(until) => tokio::time::timeout_at(until.into(), reply).await.unwrap_or_else(|_| Err(Fault::too_long())),
        None => reply.await,
    }
}

/// All the events there are.
async fn drain(events: &mut mpsc::Receiver<Event>, all: &mut Vec<Event>) -> Result<(), Fault> {
    while events.recv_many(all, 256).await > 0 {}
    Ok(())
}

/// A whole body for the client, from whatever came. `lines`: it came as a stream, whose lines may be that long.
async fn whole(
    request: &Request,
    outgoing: &Outgoing,
    head: ReplyHead,
    text: Bytes,
    lines: Option<usize>,
    watching: Option<Rc<Party>>,
    tab: &mut Tab,
) -> Result<Bytes, Fault> {
    let backend = outgoing.dialect.codec();
    if outgoing.dialect != request.dialect || lines.is_some() || request.stream {
        let events = read_whole(outgoing.dialect, text.clone(), lines)?;
        if let Some(times) = backend.times(&text) {
            tab.see(&Glance { times: Some(times), ..Glance::default() });
        }
        book(&events, tab)?;
        return write(request, head, seen(watching, events).await?);
    }
    let object = Object::read(text)
        .map_err(|_| Fault::new(FaultKind::BackendError, "The backend's reply is not a JSON object."))?;
    let glance = backend.glance_answer(&object);
    if let Some(fault) = glance.fault {
        return Err(fault);
    }
    tab.see(&glance);
    let counted = glance.usage.is_some_and(|usage| usage.is_complete());
    let events = if counted && watching.is_none() { Vec::new() } else { backend.read_object(&object)? };
    if !counted {
        tab.estimate_output(estimate(&events));
    }
    tab.estimate_more(glance.uncounted.div_ceil(4));
    let untouched = rename_answer(&object, &request.asked);
    let Some(party) = watching else { return Ok(untouched) };
    match party.on_events(events).await {
        Seen::Pass(_) => Ok(untouched),
        Seen::Change(events) => write(request, head, events),
        Seen::End(fault) => Err(fault),
    }
}

/// A whole body, or a stream that is all there, as events.
fn read_whole(dialect: Dialect, text: Bytes, lines: Option<usize>) -> Result<Vec<Event>, Fault> {
    match lines {
        Some(limit) => read_lines_up_to(limit, dialect, [text]),
        None => dialect.codec().read_answer(&text),
    }
}

/// Shows a whole reply to those who want to see it.
async fn seen(watching: Option<Rc<Party>>, events: Vec<Event>) -> Result<Vec<Event>, Fault> {
    let Some(party) = watching else { return Ok(events) };
    match party.on_events(events).await {
        Seen::Pass(events) | Seen::Change(events) => Ok(events),
        Seen::End(fault) => Err(fault),
    }
}

/// Tells the books of a whole reply.
fn book(events: &[Event], tab: &mut Tab) -> Result<(), Fault> {
    events.iter().for_each(|event| tab.see(&Glance { token: false, ..glance_event(event) }));
    let usage = fold(events.iter().cloned())?.usage;
    tab.see(&Glance { token: true, usage: Some(usage), ..Glance::default() });
    if !usage.is_complete() {
        tab.estimate_output(estimate(events));
    }
    Ok(())
}

/// Writes a whole reply as the client wants it; one that asked for a stream gets one, all at once.
fn write(request: &Request, head: ReplyHead, events: Vec<Event>) -> Result<Bytes, Fault> {
    let answer = fold(events)?;
    let codec = request.dialect.codec();
    if !request.stream {
        return codec.write_answer(&answer, &head);
    }
    let (mut writer, mut out) = (codec.writer(head), BytesMut::new());
    answer.unfold().iter().for_each(|event| writer.write(event, &mut out));
    writer.fault().map_or_else(|| Ok(out.freeze()), Err)
}

/// Generated tokens by rule of thumb, where nobody reports them: four bytes a token.
fn estimate(events: &[Event]) -> u64 {
    use crate::canon::Delta;
    let bytes: usize = events
        .iter()
        .map(|event| match event {
            Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => text.len(),
            _ => 0,
        })
        .sum();
    (bytes as u64).div_ceil(4)
}

/// All of a backend's whole reply.
pub(super) async fn collect(body: &mut http::Body) -> Result<Bytes, Fault> {
    let too_large = || Fault::new(FaultKind::BackendError, "The backend's reply is larger than 64 MiB.");
    body.whole(WHOLE).await.map_err(|_| Fault::cut())?.ok_or_else(too_large)
}

fn is_stream(response: &Response<()>, dialect: Dialect) -> bool {
    let stream = dialect.framing().content_type().as_bytes();
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(stream))
}

/// What a reply of ours says at its head.
fn reply_head(now: &Rooms, request: &Request, tab: &Tab) -> ReplyHead {
    ReplyHead {
        id: tab.id().simple().to_string(),
        model: request.asked.clone(),
        created: tab.started_at() as u64 / 1000,
        stream_usage: request.stream_usage(),
        input_estimate: tab.input_estimate(),
        deepfellow: now.deepfellow,
        request: request.body().clone(),
        loads: request.loads(),
    }
}
