//! The body of a reply: whole, or a stream that closes the books on its way out.
//!
//! A stream ends three ways. *Done*: the record is written before the last bytes are handed over. *Failed*: the client's
//! dialect says so in an event of its own, and the record says `cut`. *Dropped*: hyper drops the body when the client leaves;
//! the backend's body goes with it, which closes that connection, and the tab writes its record by being dropped.

use super::carried::{Broken, Carried};
use super::clock::{Clock, Due};
use super::party::Party;
use crate::backend::{Backend, http};
use crate::canon::{Event, Fault};
use crate::ledger::Tab;
use crate::plugin::Seen;
use crate::wire::reply::{self, Passed, Pipe};
use crate::wire::watch::Watch;
use crate::wire::{Dialect, Glance};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

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

impl Source {
    /// Who looks at it on its way.
    fn watch(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Http(_, pipe) => pipe.watch(),
            Self::Events(_, watch, _) => Some(watch),
            Self::Over => None,
        }
    }

    /// The frame that ends the client's stream with this fault, from whoever wrote it so far.
    fn write_fault(&mut self, dialect: Dialect, fault: &Fault, request_id: &str) -> Bytes {
        let (own, reply_id) = match self {
            Self::Http(_, pipe) => (pipe.write_fault(fault), pipe.reply_id()),
            Self::Events(_, watch, _) => (watch.write_fault(fault), None),
            Self::Over => (None, None),
        };
        own.unwrap_or_else(|| dialect.codec().write_fault_frame(fault, request_id, reply_id))
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
                self.clock.tells();
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
        let Poll::Ready(seen) = asking.seen.as_mut().poll(cx) else {
            self.clock.pause();
            return Poll::Pending;
        };
        self.clock.resume();
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
        let written = watch.write(&events, &mut out);
        passed.bytes = out.freeze();
        if let Err(fault) = written {
            passed.end = false;
            passed.fault.get_or_insert(fault);
            return passed;
        }
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
                let (began, mut token) = (Instant::now(), false);
                self.clock.saw(began);
                let mut see = |glance: &Glance| {
                    token |= glance.token;
                    tab.see(glance);
                };
                let passed = match read {
                    Some(Ok(bytes)) => pipe.push(bytes, &mut see),
                    // A connection that breaks and one that ends are the same if the reply has not ended.
                    Some(Err(_)) | None => pipe.finish(&mut see),
                };
                if token {
                    // Not before: a server may say who speaks, or that it is alive, and read the prompt for minutes.
                    self.clock.began(self.backend.timeouts().idle.0);
                }
                tab.spent(began.elapsed());
                Poll::Ready(passed)
            }
            Source::Events(events, watch, batch) => {
                if batch.is_empty() && ready!(events.poll_recv_many(cx, batch, 64)) == 0 {
                    batch.push(Event::Fault(Fault::cut()));
                }
                let began = Instant::now();
                // Until the first token the request waits for a place in the engine: that is what `first_token` bounds.
                // Then what is held back, as a call is until it is complete, is told by counts.
                if batch.iter().any(Event::tells_of_output) {
                    self.clock.saw(began);
                    self.clock.began(self.backend.timeouts().idle.0);
                }
                let mut passed = Passed::default();
                reply::see_events(batch, &mut |glance| tab.see(glance), &mut passed, watch);
                tab.spent(began.elapsed());
                Poll::Ready(passed)
            }
            Source::Over => Poll::Pending,
        }
    }

    /// Waiting: has the reply taken too long, or the client heard nothing?
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        Poll::Ready(match ready!(self.clock.poll(cx)) {
            // Between two frames: what there is of an unfinished one is held back.
            Due::KeepAlive => Passed { bytes: Bytes::from_static(self.dialect.keep_alive()), ..Passed::default() },
            Due::Over(fault) => Passed { fault: Some(fault), ..Passed::default() },
        })
    }

    /// Closes the books when these are the last bytes.
    fn settle(&mut self, passed: Passed) -> Bytes {
        let Passed { mut bytes, end, fault } = passed;
        if let Some(fault) = fault {
            if let Some(mut tab) = self.tab.take() {
                let frame = self.source.write_fault(self.dialect, &fault, tab.request_id());
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
