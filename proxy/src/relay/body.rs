//! The body of a reply: whole, or a stream that closes the books on its way out.
//!
//! A stream ends three ways. *Done*: the record is written before the last bytes are handed over. *Failed*: the client's
//! dialect says so in an event of its own, and the record says `cut`. *Dropped*: hyper drops the body when the client leaves;
//! the backend's body goes with it, which closes that connection, and the tab writes its record by being dropped.

use super::carried::{Broken, Carried};
use super::party::Party;
use crate::backend::{Backend, http};
use crate::canon::{Event, Fault, FaultKind};
use crate::ledger::Tab;
use crate::plugin::Seen;
use crate::wire::Dialect;
use crate::wire::reply::{self, Passed, Pipe};
use crate::wire::watch::Watch;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// What a client receives.
pub struct Body(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
    Carried(Box<Carried>),
}

/// A reply on its way.
pub(super) struct Stream {
    pub source: Source,
    pub tab: Option<Tab>,
    pub dialect: Dialect,
    pub backend: Arc<Backend>,
    pub cut: Pin<Box<WaitForCancellationFutureOwned>>,
    pub clock: Clock,
    pub seat: Option<Seat>,
}

/// Where plugins sit that watch the stream.
pub(super) struct Seat {
    party: Rc<Party>,
    asking: Option<Box<Asking>>,
}

/// They are being asked about what came; nothing more is read meanwhile.
struct Asking {
    seen: Pin<Box<dyn Future<Output = Seen>>>,
    passed: Passed,
}

impl Seat {
    pub fn new(party: Rc<Party>) -> Self {
        Self { party, asking: None }
    }
}

/// Where the bytes come from, and how they become the client's.
pub(super) enum Source {
    /// A server's stream.
    Http(http::Body, Box<Pipe>),
    /// This process's events.
    Events(mpsc::Receiver<Event>, Box<Watch>, Vec<Event>),
    /// Nothing more.
    Over,
}

/// The time limits of a stream: between two reads, for all of it, and for how long the client hears nothing. Arming a timer for
/// every read would cost more than reading: one is left running and looks, when it fires, at when the last read was.
pub(super) struct Clock {
    sleep: Pin<Box<Sleep>>,
    last: Instant,
    limit: Duration,
    /// When all of it must have come.
    until: Option<Instant>,
    /// When the client last got something, and how long it may get nothing.
    told: Instant,
    keep_alive: Option<Duration>,
}

/// What it is time for.
pub(super) enum Due {
    /// Nothing has come for too long.
    Silent,
    /// It has not ended in time.
    Late,
    /// The client has heard nothing for a while.
    KeepAlive,
}

impl Clock {
    pub fn new(limit: Duration, until: Option<Instant>, keep_alive: Option<Duration>) -> Self {
        let now = Instant::now();
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut clock = Self { sleep, last: now, limit, until, told: now, keep_alive };
        clock.arm();
        clock
    }

    /// Something came; the next may take until `limit` from now.
    pub fn saw(&mut self, now: Instant, limit: Duration) {
        self.last = now;
        if self.limit != limit {
            self.limit = limit;
            self.arm();
        }
    }

    fn arm(&mut self) {
        let silent = self.keep_alive.map(|limit| self.told + limit);
        let first = silent.into_iter().chain(self.until).fold(self.last + self.limit, Instant::min);
        self.sleep.as_mut().reset(first.into());
    }

    /// Ready when it is time for something.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.last + self.limit <= now {
                return Poll::Ready(Due::Silent);
            }
            if self.until.is_some_and(|until| until <= now) {
                return Poll::Ready(Due::Late);
            }
            let silent = self.keep_alive.is_some_and(|limit| self.told + limit <= now);
            if silent {
                self.told = now;
            }
            self.arm();
            if silent {
                return Poll::Ready(Due::KeepAlive);
            }
        }
    }
}

impl Source {
    /// Who looks at it on its way.
    fn watch(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Http(_, pipe) => pipe.watch(),
            Self::Events(_, watch, _) => Some(watch),
            Self::Over => None,
        }
    }

    /// See [`Pipe::write_fault`].
    fn write_fault(&mut self, fault: &Fault) -> Option<Bytes> {
        match self {
            Self::Http(_, pipe) => pipe.write_fault(fault),
            Self::Events(_, watch, _) => watch.write_fault(fault),
            Self::Over => None,
        }
    }
}

impl Body {
    /// A body that is all there.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes)))
    }

    pub(super) fn stream(stream: Stream) -> Self {
        Self(Kind::Stream(Box::new(stream)))
    }

    pub(super) fn carried(carried: Carried) -> Self {
        Self(Kind::Carried(Box::new(carried)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Carried(carried) => carried.poll(cx).map(|read| read.map(|read| read.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(_) => false,
            Kind::Carried(carried) => carried.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
            Kind::Carried(carried) => carried.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Stream {
    /// The next bytes for the client.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.tab.is_none() {
                self.leave(cx);
                return Poll::Ready(None);
            }
            let passed = match self.poll_source(cx) {
                Poll::Ready(passed) => passed,
                Poll::Pending => ready!(self.poll_limits(cx)),
            };
            let bytes = self.settle(passed);
            if !bytes.is_empty() {
                self.clock.told = self.clock.told.max(self.clock.last);
                return Poll::Ready(Some(bytes));
            }
        }
    }

    /// What came, as the plugins left it.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        if self.seat.as_ref().is_none_or(|seat| seat.asking.is_none()) {
            let mut passed = ready!(self.poll_read(cx));
            // Neither a plugin nor the client is told our key there.
            passed.fault.iter_mut().for_each(|fault| self.backend.hide_key(fault));
            let Some(watch) = self.source.watch() else { return Poll::Ready(passed) };
            let mut events = watch.take();
            if let Some(Event::Fault(fault)) = events.last_mut() {
                self.backend.hide_key(fault);
            }
            let Some(seat) = self.seat.as_mut().filter(|_| !events.is_empty()) else {
                return Poll::Ready(self.merge(passed, Seen::Pass(events)));
            };
            let seen = Box::pin(seat.party.clone().on_events(events));
            seat.asking = Some(Box::new(Asking { seen, passed }));
        }
        let Some(asking) = self.seat.as_mut().and_then(|seat| seat.asking.as_mut()) else { return Poll::Pending };
        let seen = ready!(asking.seen.as_mut().poll(cx));
        let asked = self.seat.as_mut().and_then(|seat| seat.asking.take());
        let Some(asked) = asked else { return Poll::Pending };
        Poll::Ready(self.merge(asked.passed, seen))
    }

    /// What goes to the client of what came and of what the plugins made of it.
    fn merge(&mut self, mut passed: Passed, seen: Seen) -> Passed {
        let Some(watch) = self.source.watch() else { return passed };
        let events = match seen {
            Seen::End(fault) => return Passed { fault: Some(fault), ..Passed::default() },
            Seen::Pass(events) if !watch.is_written() => {
                watch.passed(&events);
                return passed;
            }
            Seen::Pass(events) | Seen::Change(events) => events,
        };
        let mut out = BytesMut::new();
        watch.write(&events, &mut out);
        passed.bytes = out.freeze();
        let stopped = matches!(events.last(), Some(Event::Stop(_)));
        if passed.end && !stopped {
            // No plugin may take an end away (the chain sees to it): one of our readers has.
            passed.fault.get_or_insert_with(|| Fault::internal("The gateway lost the end of this reply."));
        } else if stopped && !passed.end {
            // A plugin ended the reply: nobody wants the rest.
            self.source = Source::Over;
        }
        passed.end = stopped;
        passed
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        let Some(tab) = &mut self.tab else { return Poll::Pending };
        match &mut self.source {
            Source::Http(body, pipe) => {
                let read = ready!(body.poll_data(cx));
                let began = Instant::now();
                self.clock.saw(began, self.backend.timeouts().idle.0);
                let passed = match read {
                    Some(Ok(bytes)) => pipe.push(bytes, &mut |glance| tab.see(glance)),
                    // A connection that breaks and one that ends are the same if the reply has not ended.
                    Some(Err(_)) | None => pipe.finish(&mut |glance| tab.see(glance)),
                };
                tab.spent(began.elapsed());
                Poll::Ready(passed)
            }
            Source::Events(events, watch, batch) => {
                if batch.is_empty() && ready!(events.poll_recv_many(cx, batch, 64)) == 0 {
                    batch.push(Event::Fault(Fault::cut()));
                }
                let began = Instant::now();
                // Until the first token the request waits for a place in the engine: that is what `first_token` bounds.
                if batch.iter().any(|event| matches!(event, Event::Delta(_))) {
                    self.clock.saw(began, self.backend.timeouts().idle.0);
                }
                let mut passed = Passed::default();
                reply::see_events(batch, &mut |glance| tab.see(glance), &mut passed, watch);
                tab.spent(began.elapsed());
                Poll::Ready(passed)
            }
            Source::Over => Poll::Pending,
        }
    }

    /// Waiting: has the backend been silent or busy for too long, or the client heard nothing, or is the gateway stopping?
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        let fault = match self.clock.poll(cx) {
            Poll::Ready(Due::KeepAlive) => {
                // Between two frames: what there is of an unfinished one is held back.
                let bytes = Bytes::from_static(self.dialect.keep_alive());
                return Poll::Ready(Passed { bytes, ..Passed::default() });
            }
            Poll::Ready(Due::Silent) => {
                Fault::new(FaultKind::BackendTimeout, "The backend stopped sending in the middle of its reply.")
            }
            Poll::Ready(Due::Late) => Fault::too_long(),
            Poll::Pending => {
                ready!(self.cut.as_mut().poll(cx));
                let message = "The gateway is stopping and could not wait for the rest of this reply.";
                Fault::new(FaultKind::Overloaded, message)
            }
        };
        Poll::Ready(Passed { fault: Some(fault), ..Passed::default() })
    }

    /// Closes the books when these are the last bytes.
    fn settle(&mut self, passed: Passed) -> Bytes {
        let Passed { mut bytes, end, fault } = passed;
        if let Some(fault) = fault {
            if let Some(mut tab) = self.tab.take() {
                let frame = self.source.write_fault(&fault).unwrap_or_else(|| {
                    let reply_id = if let Source::Http(_, pipe) = &self.source { pipe.reply_id() } else { None };
                    self.dialect.codec().write_fault_frame(&fault, tab.request_id(), reply_id)
                });
                bytes = [&bytes[..], &frame[..]].concat().into();
                tab.failed(&fault, true);
            }
            self.source = Source::Over;
        } else if end && let Some(mut tab) = self.tab.take() {
            tab.done();
        }
        bytes
    }

    /// The reply is complete, but its transfer may not be: a connection is only worth keeping once its end has been read.
    fn leave(&mut self, cx: &mut Context<'_>) {
        let Source::Http(mut body, _) = std::mem::replace(&mut self.source, Source::Over) else { return };
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return,
                Poll::Pending => break,
            }
        }
        tokio::task::spawn_local(async move {
            let rest = async { while let Some(Ok(_)) = body.data().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
        });
    }
}
