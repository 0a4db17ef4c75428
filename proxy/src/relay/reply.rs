//! From a backend's reply to the client's: streamed or whole, alike or across dialects.

use super::body::{Body, Clock, Source, Stream};
use super::{Rooms, head};
use crate::backend::{Reply, Sent, http};
use crate::canon::{Event, Fault, FaultKind};
use crate::ledger::Tab;
use crate::wire::object::Object;
use crate::wire::reply::{Passed, Pipe, fold, glance_event, rename_answer, write_events};
use crate::wire::request::{Outgoing, Request};
use crate::wire::{Dialect, Glance, ReplyHead};
use ::http::{HeaderName, HeaderValue, Response, header};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    Stream(Source, crate::backend::Timeouts),
}

/// Takes the backend's reply as far as its head can be answered for: a whole one to its end, a stream to its beginning.
pub(super) async fn begin(now: &Arc<Rooms>, request: Request, sent: Sent, tab: &mut Tab) -> Result<Begun, Fault> {
    let Sent { outgoing, reply, timeouts, .. } = sent;
    let verbatim = outgoing.dialect == request.dialect && !request.stream;
    let verbatim = verbatim && matches!(&reply, Reply::Http(response, _) if !is_stream(response));
    let head = if verbatim { ReplyHead::default() } else { reply_head(now, &request, tab) };
    let way = match reply {
        Reply::Http(response, body) if request.stream && is_stream(&response) => {
            let pipe = if outgoing.dialect == request.dialect {
                Pipe::alike(request.dialect, &request.model, outgoing.hide_usage)
            } else {
                Pipe::across(request.dialect, outgoing.dialect, head)
            };
            Way::Stream(Source::Http(body, Box::new(pipe)), timeouts)
        }
        Reply::Http(response, mut body) => {
            let began = is_stream(&response);
            let text = collect(&mut body).await?;
            let arrived = Instant::now();
            let whole = whole(&request, &outgoing, head, text, began, tab)?;
            tab.spent(arrived.elapsed());
            Way::Whole(whole)
        }
        Reply::Events(mut events) => {
            // What the engine refuses, it refuses in its first event: that still is an answer of its own.
            let limit = if request.stream { timeouts.first_token.0 } else { Duration::MAX };
            let slow =
                || Event::Fault(Fault::new(FaultKind::BackendTimeout, "The model did not begin to answer in time."));
            let first = tokio::time::timeout(limit, events.recv()).await;
            let first = first.map_or_else(|_| slow(), |event| event.unwrap_or_else(|| Event::Fault(Fault::cut())));
            if let Event::Fault(fault) = first {
                return Err(fault);
            }
            if request.stream {
                Way::Stream(Source::Events(events, request.dialect.codec().writer(head), vec![first]), timeouts)
            } else {
                let mut all = vec![first];
                while events.recv_many(&mut all, 256).await > 0 {}
                Way::Whole(answer(&request, &head, all, tab)?)
            }
        }
    };
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
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            // nginx in front of us would hold the stream back otherwise.
            headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match self.way {
            Way::Whole(bytes) => {
                tab.done();
                *response.body_mut() = Body::whole(bytes);
            }
            Way::Stream(source, timeouts) => {
                let clock = Clock::new(timeouts.first_token.0);
                let cut = Box::pin(self.now.cut.clone().cancelled_owned());
                *response.body_mut() =
                    Body::stream(Stream { source, tab: Some(tab), dialect: self.dialect, timeouts, cut, clock });
            }
        }
        response
    }
}

/// A whole body for the client, from whatever came.
fn whole(
    request: &Request,
    outgoing: &Outgoing,
    head: ReplyHead,
    text: Bytes,
    streamed: bool,
    tab: &mut Tab,
) -> Result<Bytes, Fault> {
    let backend = outgoing.dialect.codec();
    if outgoing.dialect == request.dialect && !streamed && !request.stream {
        let object = Object::read(text.clone())
            .map_err(|_| Fault::new(FaultKind::BackendError, "The backend's reply is not a JSON object."))?;
        let glance = backend.glance_answer(&object);
        if let Some(fault) = glance.fault {
            return Err(fault);
        }
        tab.see(&glance);
        if glance.usage.is_none_or(|usage| !usage.is_complete()) {
            tab.estimate_output(estimate(&backend.read_answer(&text)?));
        }
        return Ok(rename_answer(&object, &request.model));
    }
    let events = if streamed { read_stream(outgoing.dialect, text)? } else { backend.read_answer(&text)? };
    if request.stream {
        // The client asked for a stream and the backend answered whole: the same events, all at once.
        let mut events = fold(events)?.unfold();
        let (mut out, mut passed) = (BytesMut::new(), Passed::default());
        write_events(
            &mut events,
            request.dialect.codec().writer(head).as_mut(),
            &mut |glance| tab.see(glance),
            &mut out,
            &mut passed,
        );
        return passed.fault.map_or(Ok(out.freeze()), Err);
    }
    answer(request, &head, events, tab)
}

/// A whole answer from events.
fn answer(request: &Request, head: &ReplyHead, events: Vec<Event>, tab: &mut Tab) -> Result<Bytes, Fault> {
    let estimated = estimate(&events);
    events.iter().for_each(|event| tab.see(&Glance { token: false, ..glance_event(event) }));
    let answer = fold(events)?;
    tab.see(&Glance { token: true, usage: Some(answer.usage), ..Glance::default() });
    if !answer.usage.is_complete() {
        tab.estimate_output(estimated);
    }
    Ok(request.dialect.codec().write_answer(&answer, head))
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

fn read_stream(dialect: Dialect, text: Bytes) -> Result<Vec<Event>, Fault> {
    let (mut frames, mut reader, mut events) =
        (crate::wire::frame::Frames::default(), dialect.codec().reader(), Vec::new());
    frames.feed(text);
    frames.finish();
    while let Some(frame) =
        frames.next().map_err(|_| Fault::new(FaultKind::BackendError, "The backend sent a line of more than 8 MiB."))?
    {
        reader.read(&frame, &mut events);
    }
    reader.end(&mut events);
    Ok(events)
}

async fn collect(body: &mut http::Body) -> Result<Bytes, Fault> {
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(read) = body.data().await {
        let data = read.map_err(|_| Fault::cut())?;
        if whole.len() + joined.len() + data.len() > WHOLE {
            return Err(Fault::new(FaultKind::BackendError, "The backend's reply is larger than 64 MiB."));
        }
        if whole.is_empty() && joined.is_empty() {
            whole = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut whole));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

fn is_stream(response: &Response<()>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// What a reply of ours says at its head.
fn reply_head(now: &Rooms, request: &Request, tab: &Tab) -> ReplyHead {
    ReplyHead {
        id: tab.id().simple().to_string(),
        model: request.model.clone(),
        created: tab.started_at() as u64 / 1000,
        stream_usage: request.stream_usage(),
        input_estimate: tab.input_estimate(),
        deepfellow: now.deepfellow,
    }
}
