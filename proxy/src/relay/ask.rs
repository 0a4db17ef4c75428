//! A plugin asks another model: a request without a client, on the account of the one whose request the plugin is at.
//!
//! It is routed, sent and booked like any other, by the same functions, but for two things: nobody is authenticated again, and
//! no plugin is invited. So a plugin cannot come to itself this way, nor to another.

use super::{Rooms, accepts, reply, way};
use crate::canon::{Answer, Call, Fault, FaultKind, Record};
use crate::gate::Admitted;
use crate::ledger::{AtClose, Tab};
use crate::plugin::{About, Ask, Asking};
use crate::wire::Dialect;
use crate::wire::request::Request;
use http::HeaderMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The endpoint in records and metrics.
const ENDPOINT: &str = "plugin/ask";
thread_local! { static CLASS: Arc<str> = ENDPOINT.into(); }

/// Asks on one caller's account.
pub(super) struct Asker {
    now: Arc<Rooms>,
    caller: Admitted,
    /// The request has a place among those at work on its model.
    placed: Arc<AtomicBool>,
}

impl Asker {
    pub fn boxed(now: &Arc<Rooms>, caller: &Admitted, placed: &Arc<AtomicBool>) -> Box<dyn Ask> {
        Box::new(Self { now: now.clone(), caller: caller.clone(), placed: placed.clone() })
    }
}

impl Ask for Asker {
    fn ask(&self, about: &About, plugin: &Arc<str>, call: Call) -> Asking {
        let mut tab = self.now.ledger.open_tab(Some(&about.id), &CLASS.with(Arc::clone), Dialect::Chat.family());
        tab.admitted(&self.caller.caller);
        tab.asked(&call.model, false, about.user.clone());
        tab.at_close(Rc::new(Questioner(plugin.clone())));
        let (now, caller, placed) = (self.now.clone(), self.caller.clone(), self.placed.load(Ordering::Relaxed));
        // What a backend is spoken to with never leaves its thread, and what a guest waits for could. So the question is a task
        // of this worker's own, which ends when nobody waits for it any more.
        let task = tokio::task::spawn_local(async move {
            let asked = put(&now, &caller, call, placed, &mut tab).await;
            match &asked {
                Ok(_) => {
                    tab.answered(200);
                    tab.done();
                }
                Err(fault) => {
                    tab.answered(fault.status());
                    tab.failed(fault, false);
                }
            }
            asked
        });
        let task = AbortOnDropHandle::new(task);
        Box::pin(async { task.await.unwrap_or_else(|_| Err(Fault::internal("The gateway lost this question."))) })
    }
}

async fn put(now: &Rooms, caller: &Admitted, call: Call, placed: bool, tab: &mut Tab) -> Result<Answer, Fault> {
    let arrived = Instant::now();
    accepts(now)?;
    if !way::is_open(now, caller, &call.model) {
        let message = format!("The project of the caller may not use the model `{}`.", call.model);
        return Err(Fault::new(FaultKind::Forbidden, message));
    }
    let request = Request::compose(call)?;
    let route = way::find(now, &request, None, tab)?;
    if placed {
        // It would wait for a place while it keeps one from others: with one place, for ever.
        way::step_in(now, &route, tab);
    }
    let sent = way::send(now, &route, &request, &HeaderMap::new(), arrived, tab).await?;
    reply::whole_answer(now, sent, tab).await
}

/// Who asked, for the record.
struct Questioner(Arc<str>);

impl AtClose for Questioner {
    fn acted(&self) -> Vec<String> {
        vec![self.0.to_string()]
    }

    fn tags(&self) -> Vec<String> {
        vec![format!("plugin:{}", self.0)]
    }

    fn closed(&self, _: &Record) {}
}
