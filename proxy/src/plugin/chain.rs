//! The plugins of one request, in their order: each sees the call as the one before left it, and the reply as the one behind
//! it left that.
//!
//! An instance is one request's alone from its first hook to its last, so that whatever happens to it happens to nobody else.
//! A guest that answered without an exchange has no further part in the request.

use super::bindings::hooks::{self, Interests, Rewrite, Subscriptions, Verdict};
use super::config::OnFailure;
use super::convert;
use super::instance::{Failure, Instance};
use super::load::Plugin;
use super::series::Hook;
use super::state::About;
use super::view::View;
use crate::canon::event::Grammar;
use crate::canon::{Event, Fault, Part, Record};
use crate::wire::request::Request;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::{Resource, ResourceAny};

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

struct Guest {
    plugin: Arc<Plugin>,
    instance: Option<Instance>,
    exchange: Option<ResourceAny>,
    /// It takes no further part.
    out: bool,
    /// It has changed the reply: it cannot be left out any more.
    woven: bool,
    /// The kind of the part that is open in what it is shown.
    open: Interests,
    /// What it answered so far keeps to the grammar.
    grammar: Grammar,
}

impl Guests {
    pub(super) fn new(plugins: Vec<Arc<Plugin>>, about: Arc<About>) -> Self {
        let guests = plugins
            .into_iter()
            .map(|plugin| Guest {
                plugin,
                instance: None,
                exchange: None,
                out: false,
                woven: false,
                open: Interests::empty(),
                grammar: Grammar::default(),
            })
            .collect();
        Self { about, guests }
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

enum Stopped {
    Refused(Fault),
    Failed(Failure),
}

impl Guest {
    /// Its instance, which it gets when it is first asked.
    async fn instance(&mut self, about: &Arc<About>) -> Result<&mut Instance, Failure> {
        if self.instance.is_none() {
            self.instance = Some(Instance::take(&self.plugin, &about.caller.organization).await?);
        }
        self.instance.as_mut().ok_or_else(|| Failure::host("it has no instance"))
    }

    fn timed<T>(&self, hook: Hook, began: Instant, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Some(series) = self.plugin.series() {
            series.took(hook, began.elapsed().as_secs_f64());
        }
        result
    }

    /// What it makes of a call: the request as it left it, and its verdict. The outer error is the request's own fault.
    async fn ask_call(
        &mut self,
        about: &Arc<About>,
        request: Request,
    ) -> Result<Result<(Request, Verdict), Failure>, Fault> {
        let began = Instant::now();
        let asked = async {
            let instance = self.instance(about).await?;
            let state = instance.state();
            state.call = Some(View::new(request, state.plugin.limits.output.0));
            let admission = instance
                .call(Some(about), async |world, store| {
                    world.tidegate_plugin_hooks().call_on_call(store, Resource::new_borrow(0)).await
                })
                .await;
            let view = instance.state().call.take();
            let left = view.map(View::leave).ok_or_else(|| Failure::rejected("it kept the call"))?;
            Ok((admission, left))
        }
        .await;
        let (admission, left) = match self.timed(Hook::Call, began, asked) {
            Ok(asked) => asked,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(fault) = left.invalid {
            // It was shown an empty call: what it made of that does not count, be it that it fell over it.
            match admission {
                Ok(admission) => self.exchange = admission.exchange,
                Err(_) => (self.out, self.instance) = (true, None),
            }
            return Err(fault);
        }
        let admission = match admission {
            Ok(admission) => admission,
            Err(failure) => return Ok(Err(failure)),
        };
        self.exchange = admission.exchange;
        if self.exchange.is_none() {
            self.leave(about);
        }
        let edited = match (&admission.verdict, left.edited) {
            (Verdict::Change | Verdict::Route(_), Some(edited)) => match edited {
                Ok(edited) => edited,
                Err(fault) => {
                    return Ok(Err(Failure::rejected(format!("its edits make no valid call: {}", fault.message))));
                }
            },
            _ => left.request,
        };
        let request = match &admission.verdict {
            Verdict::Route(hooks::Destination { model: Some(model), .. }) => {
                let member = crate::wire::edit::quoted(model);
                match edited.with_members(&[("model", Some(&member))]) {
                    Ok(routed) => routed,
                    Err(fault) => return Ok(Err(Failure::rejected(fault.message))),
                }
            }
            _ => edited,
        };
        Ok(Ok((request, admission.verdict)))
    }

    /// What it makes of a batch; `None`: nothing.
    async fn ask_events(
        &mut self,
        about: &Arc<About>,
        events: &[Event],
        came: Option<&Fault>,
    ) -> Result<Option<Vec<Event>>, Stopped> {
        if !self.interested(events) {
            // It has not seen these, but its answers must fit to them.
            self.follow(events).map_err(Stopped::Failed)?;
            return Ok(None);
        }
        let began = Instant::now();
        let shown = convert::events(events);
        let asked = self.show(about, &shown).await;
        let rewrite = self.timed(Hook::Events, began, asked).map_err(Stopped::Failed)?;
        let answer = match rewrite {
            Rewrite::Pass => None,
            Rewrite::Refuse(refusal) => return Err(Stopped::Refused(convert::refusal(&self.plugin.name, &refusal))),
            Rewrite::Change(events) => {
                let events = convert::events_back(events, came);
                Some(events.map_err(|wrong| Stopped::Failed(Failure::rejected(format!("its events: {wrong}"))))?)
            }
        };
        if let Some(fault) = came
            && answer.as_ref().is_some_and(|answer| !matches!(answer.last(), Some(Event::Fault(_))))
        {
            return Err(Stopped::Failed(Failure::rejected(format!("it hid a fault: {}", fault.message))));
        }
        let stops = |events: &[Event]| matches!(events.last(), Some(Event::Stop(_)));
        if stops(events) && answer.as_ref().is_some_and(|answer| !stops(answer)) {
            return Err(Stopped::Failed(Failure::rejected("it left the reply without an end")));
        }
        self.follow(answer.as_deref().unwrap_or(events)).map_err(Stopped::Failed)?;
        self.woven |= answer.is_some();
        Ok(answer)
    }

    async fn show(&mut self, about: &Arc<About>, events: &[super::bindings::types::Event]) -> Result<Rewrite, Failure> {
        let exchange = self.exchange(about).await?;
        let instance = self.instance(about).await?;
        instance
            .call(Some(about), async |world, store| {
                world.tidegate_plugin_hooks().exchange().call_on_events(store, exchange, events).await
            })
            .await
    }

    /// Its exchange; one that did not see the call gets it here.
    async fn exchange(&mut self, about: &Arc<About>) -> Result<ResourceAny, Failure> {
        if let Some(exchange) = self.exchange {
            return Ok(exchange);
        }
        let instance = self.instance(about).await?;
        let exchange = instance
            .call(Some(about), async |world, store| {
                world.tidegate_plugin_hooks().exchange().call_constructor(store).await
            })
            .await?;
        self.exchange = Some(exchange);
        Ok(exchange)
    }

    async fn ask_end(&mut self, about: &Arc<About>, end: &hooks::End) -> Result<(), Failure> {
        if !self.plugin.described().hooks.contains(Subscriptions::ON_END) {
            let (Some(exchange), Some(instance)) = (self.exchange.take(), self.instance.as_mut()) else {
                return Ok(());
            };
            return instance.call(Some(about), async |_, store| exchange.resource_drop_async(store).await).await;
        }
        let began = Instant::now();
        let asked = async {
            let exchange = self.exchange(about).await?;
            self.exchange = None;
            let instance = self.instance(about).await?;
            instance
                .call(Some(about), async |world, store| {
                    world.tidegate_plugin_hooks().call_on_end(store, exchange, end).await
                })
                .await
        }
        .await;
        self.timed(Hook::End, began, asked)
    }

    /// Does the batch hold an event of a kind it named? Walks its own picture of the reply along.
    fn interested(&mut self, events: &[Event]) -> bool {
        let wants = self.plugin.described().events;
        let mut wanted = false;
        for event in events {
            let kind = match event {
                Event::Open(part) => {
                    self.open = kind_of(part);
                    self.open
                }
                Event::Delta(_) => self.open,
                Event::Close => std::mem::replace(&mut self.open, Interests::empty()),
                Event::Usage(_) => Interests::USAGE,
                Event::Start { .. } | Event::Stop(_) | Event::Fault(_) => Interests::BOUNDARIES,
            };
            wanted |= wants.intersects(kind);
        }
        wanted
    }

    /// Walks the grammar of what it lets out.
    fn follow(&mut self, events: &[Event]) -> Result<(), Failure> {
        events.iter().try_for_each(|event| {
            self.grammar
                .walk(event)
                .map_err(|rule| Failure::rejected(format!("its events break the grammar of a reply: {rule}")))
        })
    }

    /// Notes that it did something.
    fn acted(&self, about: &About, action: &'static str) {
        if let Some(series) = self.plugin.series() {
            series.acted(action);
        }
        self.note(about);
    }

    /// Leaves its name.
    fn note(&self, about: &About) {
        let mut notes = about.notes.lock();
        if !notes.acted.contains(&self.plugin.name) {
            notes.acted.push(self.plugin.name.clone());
        }
    }

    /// It takes no further part; its instance is free for others.
    fn leave(&mut self, about: &About) {
        self.out = true;
        if let Some(instance) = self.instance.take() {
            instance.give(&about.caller.organization);
        }
    }

    /// It failed: the instance is thrown away, and the request goes on without it or not at all.
    fn fail(&mut self, about: &About, hook: Hook, failure: &Failure) -> Result<(), Fault> {
        if let Some(series) = self.plugin.series() {
            series.failed(hook, failure.kind);
        }
        self.out = true;
        self.instance = None;
        let open = self.plugin.on_failure == OnFailure::Open && !self.woven;
        tracing::warn!(
            plugin = &*self.plugin.name,
            request_id = about.id,
            hook = hook.label(),
            kind = failure.kind,
            error = failure.message,
            goes_on = open,
            "a plugin failed"
        );
        if open {
            return Ok(());
        }
        self.note(about);
        Err(failure.told(&self.plugin.name))
    }
}

fn kind_of(part: &Part) -> Interests {
    match part {
        Part::Text => Interests::TEXT,
        Part::Thinking | Part::RedactedThinking { .. } => Interests::THINKING,
        Part::Refusal => Interests::REFUSAL,
        Part::ToolCall { .. } => Interests::TOOL_CALLS,
        Part::Other { .. } => Interests::OTHER,
    }
}
