//! The body of a reply that is only carried: its bytes as they come.
//!
//! It ends in the three ways of a stream, but that no protocol is known in which a failure could be told: then the connection
//! breaks off, as the backend's did, so that no client takes a part for the whole.

use super::Rooms;
use super::clock::{Clock, Due};
use crate::backend::{self, Backend, http};
use crate::canon::Fault;
use crate::canon::header::essence;
use crate::ledger::Tab;
use crate::wire::Glance;
use crate::wire::skim::Skim;
use ::http::{Response, header};
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// See the module.
pub(super) struct Carried {
    body: http::Body,
    /// Bytes to come, where the backend declared them.
    left: Option<u64>,
    tab: Option<Tab>,
    /// It has failed, and the client's connection has not been told yet.
    broken: bool,
    /// Looks for usage, where it can be read.
    skim: Option<Skim>,
    backend: Arc<Backend>,
    clock: Clock,
}

/// The reply broke off.
#[derive(Debug, Clone, Copy)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reply broke off")
    }
}

impl std::error::Error for Broken {}

impl Carried {
    /// Of a reply that has begun.
    pub fn new(now: &Rooms, carried: backend::Carried, tab: Tab) -> Self {
        let backend::Carried { head, body, backend, until, .. } = carried;
        let readable = is(&head, b"application/json") && !head.headers().contains_key(header::CONTENT_ENCODING);
        // These have none, and nobody would ask for it.
        let none = matches!(head.status().as_u16(), 204 | 205);
        let mut carried = Self {
            left: if none { Some(0) } else { body.declared() },
            body,
            tab: Some(tab),
            broken: false,
            skim: readable.then(Skim::default),
            clock: Clock::new(backend.timeouts().idle.0, until, None, &now.cut),
            backend,
        };
        if carried.left == Some(0) {
            carried.done();
        }
        carried
    }

    /// Whether a reply is one of events.
    pub fn is_stream(head: &Response<()>) -> bool {
        is(head, b"text/event-stream")
    }

    /// All of it has been handed over.
    pub fn is_over(&self) -> bool {
        self.tab.is_none() && !self.broken
    }

    /// Bytes to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// The next bytes for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Some(tab) = &mut self.tab else {
            return Poll::Ready(std::mem::take(&mut self.broken).then_some(Err(Broken)));
        };
        let Poll::Ready(read) = self.body.poll_data(cx) else {
            return match ready!(self.clock.poll(cx)) {
                Due::Over(fault) => self.fail(&fault, cx),
                // None was asked for: there is no sign of life in bytes that are not understood.
                Due::KeepAlive => Poll::Pending,
            };
        };
        match read {
            Some(Ok(bytes)) => {
                let began = Instant::now();
                self.clock.saw(began);
                self.clock.began(self.backend.timeouts().idle.0);
                if let Some(skim) = &mut self.skim {
                    skim.push(&bytes);
                }
                tab.spent(began.elapsed());
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                // The books are closed before the last bytes are handed over.
                if self.left == Some(0) {
                    self.done();
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Err(_)) => self.fail(&Fault::cut(), cx),
            None => {
                self.done();
                Poll::Ready(None)
            }
        }
    }

    fn done(&mut self) {
        let Some(mut tab) = self.tab.take() else { return };
        if let Some(usage) = self.skim.as_ref().and_then(Skim::usage) {
            tab.see(&Glance { usage: Some(usage), ..Glance::default() });
        }
        tab.done();
    }

    /// Closes the books. The connection is told at the next turn: hyper throws away what it has not written when a body fails,
    /// and the head of this reply may be among it.
    fn fail(&mut self, fault: &Fault, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(mut tab) = self.tab.take() {
            tab.failed(fault, true);
        }
        self.broken = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn is(head: &Response<()>, kind: &[u8]) -> bool {
    let said = head.headers().get(header::CONTENT_TYPE).map_or(b"".as_slice(), |value| value.as_bytes());
    essence(said).eq_ignore_ascii_case(kind)
}
