//! The plugins of one request, in their order: each sees the call as the one before left it, and the reply as the one behind
//! it left that.
//!
//! An instance is one request's alone from its first hook to its last, so that whatever happens to it happens to nobody else.
//! A guest that answered without an exchange has no further part in the request.

mod guest;

use super::bindings::hooks::{Subscriptions, Verdict};
use super::config::OnFailure;
use super::convert;
use super::instance::Failure;
use super::load::Plugin;
use super::series::Hook;
use super::state::About;
use crate::canon::event::Grammar;
use crate::canon::{Event, Fault, Record};
use crate::wire::request::Request;
use guest::{Guest, Stopped};
use std::sync::Arc;

/// The plugins of one request.
pub struct Guests {
    about: Arc<About>,
    guests: Vec<Guest>,
}

/// What the chain made of a call.
pub struct Judged {
    /// The request, with what they changed.
    pub request: Request,
    /// A plugin answered it.
    pub answer: Option<Answered>,
    /// A plugin chose the backend.
    pub backend: Option<String>,
}

impl Judged {
    /// Nobody was there to judge it.
    pub fn untouched(request: Request) -> Self {
        Self { request, answer: None, backend: None }
    }
}

/// An answer that no backend gave.
pub struct Answered {
    /// By which plugin.
    pub plugin: Arc<str>,
    /// The whole reply.
    pub events: Vec<Event>,
}

/// What the chain made of a batch of events.
#[derive(Debug)]
pub enum Seen {
    /// Nothing: it goes on as it came.
    Pass(Vec<Event>),
    /// These go on instead.
    Change(Vec<Event>),
    /// The reply ends here.
    End(Fault),
}

impl Guests {
    pub(super) fn new(plugins: Vec<Arc<Plugin>>, about: Arc<About>) -> Self {
        Self { about, guests: plugins.into_iter().map(Guest::new).collect() }
    }

    /// The request as they are told of it.
    pub fn about(&self) -> &Arc<About> {
        &self.about
    }

    /// Shows them the call.
    ///
    /// # Errors
    /// A refusal, a failure that must not be passed over, or a call that turned out to be invalid.
    pub async fn on_call(&mut self, request: Request) -> Result<Judged, Fault> {
        let mut seen = 0;
        let judged = self.judge(request, &mut seen).await;
        if !matches!(&judged, Ok(Judged { answer: None, .. })) {
            // Those further down never saw the call: its end is none of their business.
            self.guests.truncate(seen);
        }
        judged
    }

    /// `seen`: how many of them were reached.
    async fn judge(&mut self, mut request: Request, seen: &mut usize) -> Result<Judged, Fault> {
        // And the model it was chosen for: another model's backends are others.
        let mut chosen: Option<(String, String)> = None;
        for guest in &mut self.guests {
            *seen += 1;
            if !guest.plugin.described().hooks.contains(Subscriptions::ON_CALL) {
                continue;
            }
            let before = (guest.plugin.on_failure == OnFailure::Open).then(|| request.clone());
            let verdict = match guest.ask_call(&self.about, request).await? {
                Ok((judged, verdict)) => {
                    request = judged;
                    verdict
                }
                Err(failure) => {
                    guest.fail(&self.about, Hook::Call, &failure)?;
                    let lost = || Fault::internal("a request was lost between plugins");
                    request = before.ok_or_else(lost)?;
                    continue;
                }
            };
            match verdict {
                Verdict::Pass => {}
                Verdict::Change => guest.acted(&self.about, "change"),
                Verdict::Route(destination) => {
                    guest.acted(&self.about, "route");
                    chosen = destination.backend.map(|backend| (backend, request.model.clone())).or(chosen);
                }
                Verdict::Refuse(refusal) => {
                    guest.acted(&self.about, "refuse");
                    return Err(convert::refusal(&guest.plugin.name, &refusal));
                }
                Verdict::Respond(events) => {
                    let events =
                        convert::events_back(events, None).and_then(|events| Grammar::check(&events).map(|()| events));
                    match events {
                        Ok(events) => {
                            guest.acted(&self.about, "respond");
                            let answer = Answered { plugin: guest.plugin.name.clone(), events };
                            return Ok(Judged { request, answer: Some(answer), backend: None });
                        }
                        Err(wrong) => {
                            guest.fail(&self.about, Hook::Call, &Failure::rejected(format!("its answer: {wrong}")))?
                        }
                    }
                }
            }
        }
        let backend = chosen.filter(|(_, model)| *model == request.model).map(|(backend, _)| backend);
        Ok(Judged { request, answer: None, backend })
    }

    /// Whether any of them still wants to see replies.
    pub fn watch(&self) -> bool {
        self.guests.iter().any(|guest| !guest.out && guest.plugin.described().hooks.contains(Subscriptions::ON_EVENTS))
    }

    /// Shows them a batch of events, the last of the chain first.
    pub async fn on_events(&mut self, events: Vec<Event>) -> Seen {
        let mut events = events;
        let mut changed = false;
        let came = events.iter().find_map(|event| match event {
            Event::Fault(fault) => Some(fault.clone()),
            _ => None,
        });
        for guest in self.guests.iter_mut().rev() {
            if guest.out || !guest.plugin.described().hooks.contains(Subscriptions::ON_EVENTS) {
                continue;
            }
            if events.is_empty() {
                break;
            }
            match guest.ask_events(&self.about, &events, came.as_ref()).await {
                Ok(None) => {}
                Ok(Some(others)) => {
                    guest.acted(&self.about, "rewrite");
                    changed = true;
                    events = others;
                }
                Err(Stopped::Refused(fault)) => {
                    guest.acted(&self.about, "refuse");
                    return Seen::End(fault);
                }
                Err(Stopped::Failed(failure)) => {
                    if let Err(fault) = guest.fail(&self.about, Hook::Events, &failure) {
                        return Seen::End(fault);
                    }
                }
            }
        }
        if changed { Seen::Change(events) } else { Seen::Pass(events) }
    }

    /// Tells them how it ended, and gives their instances back.
    pub fn on_end(self, record: &Record) -> impl Future<Output = ()> + use<> {
        let end = convert::end(record);
        async move {
            for mut guest in self.guests.into_iter().filter(|guest| !guest.out) {
                match guest.ask_end(&self.about, &end).await {
                    Ok(()) => {
                        if let Some(instance) = guest.instance.take() {
                            instance.give(&self.about.caller.organization);
                        }
                    }
                    Err(failure) => drop(guest.fail(&self.about, Hook::End, &failure)),
                }
            }
        }
    }
}
