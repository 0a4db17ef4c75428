//! One plugin in one request: what it is asked, and what becomes of it when it fails.

use crate::canon::event::Grammar;
use crate::canon::{Event, Fault, Part};
use crate::plugin::bindings::hooks::{self, Interests, Rewrite, Subscriptions, Verdict};
use crate::plugin::bindings::types;
use crate::plugin::config::OnFailure;
use crate::plugin::convert;
use crate::plugin::instance::{Failure, Instance};
use crate::plugin::load::Plugin;
use crate::plugin::series::Hook;
use crate::plugin::state::About;
use crate::plugin::view::View;
use crate::wire::request::Request;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::{Resource, ResourceAny};

/// A plugin's part in a request.
pub(super) struct Guest {
    pub(super) plugin: Arc<Plugin>,
    pub(super) instance: Option<Instance>,
    exchange: Option<ResourceAny>,
    /// It takes no further part.
    pub(super) out: bool,
    /// It has changed the reply: it cannot be left out any more.
    woven: bool,
    /// The kind of the part that is open in what it is shown.
    open: Interests,
    /// What it answered so far keeps to the grammar.
    grammar: Grammar,
}

/// Why it makes nothing of a batch.
pub(super) enum Stopped {
    Refused(Fault),
    Failed(Failure),
}

impl Guest {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self {
            plugin,
            instance: None,
            exchange: None,
            out: false,
            woven: false,
            open: Interests::empty(),
            grammar: Grammar::default(),
        }
    }

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
    pub(super) async fn ask_call(
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
    pub(super) async fn ask_events(
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

    async fn show(&mut self, about: &Arc<About>, events: &[types::Event]) -> Result<Rewrite, Failure> {
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

    pub(super) async fn ask_end(&mut self, about: &Arc<About>, end: &hooks::End) -> Result<(), Failure> {
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
    pub(super) fn acted(&self, about: &About, action: &'static str) {
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
    pub(super) fn fail(&mut self, about: &About, hook: Hook, failure: &Failure) -> Result<(), Fault> {
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
