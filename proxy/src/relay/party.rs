//! The plugins of one request between the rooms: shared by whoever carries the reply and by the tab, which tells them the end.

use super::Rooms;
use super::ask::Asker;
use crate::canon::{Event, Fault, Record, Route};
use crate::gate::Admitted;
use crate::ledger::{AtClose, Tab};
use crate::plugin::{About, Guests, Hop, Judged, Seen};
use crate::wire::request::Request;
use http::HeaderMap;
use parking_lot::Mutex;
use std::cell::{Cell, LazyCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

/// See the module. Empty while they are being asked; for ever, if that was cut short.
pub(super) struct Party {
    about: Arc<About>,
    guests: RefCell<Option<Guests>>,
    /// The request has a place among those at work: what is asked for its sake must not wait for one.
    placed: Arc<AtomicBool>,
}

/// The plugins attached to this request, if there are any. The tab will tell them its end.
pub(super) fn invite(
    now: &Arc<Rooms>,
    admitted: &Admitted,
    request: &Request,
    headers: &HeaderMap,
    endpoint: &Arc<str>,
    tab: &mut Tab,
) -> Option<Rc<Party>> {
    let (caller, placed) = (&admitted.caller, LazyCell::new(Arc::<AtomicBool>::default));
    let about = |ask: bool| About {
        id: tab.request_id().to_owned(),
        caller: caller.clone(),
        endpoint: endpoint.clone(),
        family: request.dialect.words(),
        model: request.asked.clone(),
        stream: request.stream,
        user: request.user(),
        headers: headers.clone(),
        route: Mutex::default(),
        notes: Mutex::default(),
        asker: ask.then(|| Asker::boxed(now, admitted, &placed)),
    };
    let model = now.routes.named(&request.model);
    let guests = now.plugins.invite(&caller.organization, &caller.project, model, about)?;
    let about = guests.about().clone();
    let party = Rc::new(Party { about, guests: RefCell::new(Some(guests)), placed: placed.clone() });
    tab.at_close(party.clone());
    Some(party)
}

impl Party {
    /// Shows the plugins the call.
    ///
    /// # Errors
    /// A refusal, or a failure that must not be passed over.
    pub async fn on_call(&self, request: Request) -> Result<Judged, Fault> {
        let guests = self.guests.borrow_mut().take();
        let Some(mut guests) = guests else { return Ok(Judged::untouched(request)) };
        // Boxed: a request without plugins should not be as large as one with them.
        let judged = Box::pin(guests.on_call(request)).await;
        self.guests.replace(Some(guests));
        judged
    }

    /// Whether any of them wants to see the reply.
    pub fn watches(&self) -> bool {
        self.guests.borrow().as_ref().is_some_and(Guests::watch)
    }

    /// Shows them a piece of the reply.
    pub async fn on_events(self: Rc<Self>, events: Vec<Event>) -> Seen {
        let guests = self.guests.borrow_mut().take();
        let Some(mut guests) = guests else { return Seen::Pass(events) };
        let seen = Box::pin(guests.on_events(events)).await;
        self.guests.replace(Some(guests));
        seen
    }

    /// Says what serves the request.
    pub fn routed(&self, route: &Route, tab: &Tab) {
        let hop = Hop {
            name: route.name.to_string(),
            backend: tab.backend().to_owned(),
            model: tab.model().to_owned(),
            attempt: tab.attempts(),
        };
        self.placed.store(tab.is_placed(), Ordering::Relaxed);
        *self.about.route.lock() = Some(hop);
    }
}

impl AtClose for Party {
    fn acted(&self) -> Vec<String> {
        let notes = self.about.notes.lock();
        notes.acted.iter().map(ToString::to_string).collect()
    }

    fn tags(&self) -> Vec<String> {
        let notes = self.about.notes.lock();
        notes.acted.iter().map(|plugin| format!("plugin:{plugin}")).chain(notes.tags.iter().cloned()).collect()
    }

    fn closed(&self, record: &Record) {
        self.placed.store(false, Ordering::Relaxed);
        let guests = self.guests.borrow_mut().take();
        let Some(guests) = guests else { return };
        let mut told = Box::pin(guests.on_end(record));
        // Most are told in a moment, which is less than a task of their own would cost. Whoever needs longer gets one, at the
        // latest after a tick of the plugins' clock.
        if told.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let ending = Ending::begin();
            tokio::task::spawn_local(async move {
                told.await;
                drop(ending);
            });
        }
    }
}

thread_local! { static ENDING: Cell<usize> = const { Cell::new(0) }; }

/// Plugins on this thread that are being told of an end: a worker that stops waits for them.
pub fn ending() -> usize {
    ENDING.get()
}

struct Ending;

impl Ending {
    fn begin() -> Self {
        ENDING.set(ENDING.get() + 1);
        Self
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        ENDING.set(ENDING.get() - 1);
    }
}
