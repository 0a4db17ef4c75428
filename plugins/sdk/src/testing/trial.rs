//! A plugin on trial: loaded with a configuration, given calls and replies, and held to the rules.

use serde_json::Value;

use super::{Call, Chat, Grammar, World, splits};
use crate::bridge::{describe, follows, read};
use crate::{
    Delta, Description, End, Event, Hooks, Interests, Outcome, Part, Plugin, Refusal, Reply, Rewrite, UsageSource,
    Verdict,
};

/// A loaded plugin.
pub struct Trial<P> {
    /// The plugin.
    pub plugin: P,
    /// What it told the host.
    pub description: Description,
}

/// One request through it.
pub struct Request<'t, P: Plugin> {
    trial: &'t Trial<P>,
    /// What it made of the call.
    pub verdict: Verdict,
    /// The call as it goes on: edited where the verdict says so.
    pub call: Call,
    exchange: Option<P::Exchange>,
    came: Grammar,
    left: Grammar,
    /// The part open on the way in, for `Interests`.
    open: Interests,
    /// What left so far.
    pub reply: Reply,
    /// Its refusal in the middle of the reply.
    pub refusal: Option<Refusal>,
    /// What it answered to each batch shown to it.
    pub rewrites: Vec<Rewrite>,
}

impl<P: Plugin> Trial<P> {
    /// Loads the plugin into a new world.
    ///
    /// # Panics
    /// With the configuration's problem, if there is one.
    pub fn new(config: Value) -> Self {
        let plugin = load(config);
        let description = describe(&plugin);
        World::with(|world| {
            let values = |label: &Option<(String, Vec<String>)>| label.as_ref().map(|(_, values)| values.clone());
            world.declared = description.metrics.iter().map(|m| (m.name.clone(), values(&m.label))).collect();
        });
        match plugin {
            Ok(plugin) => Self { plugin, description },
            Err(problem) => panic!("the configuration is refused: {problem}"),
        }
    }

    /// What is wrong with a configuration.
    pub fn problem(config: Value) -> Option<String> {
        load::<P>(config).err()
    }

    /// Sends a call.
    pub fn call(&self, chat: impl Into<Chat>) -> Request<'_, P> {
        let chat = chat.into();
        World::with(|world| {
            world.model = chat.body()["model"].as_str().unwrap_or_default().into();
            world.user = chat.body()["user"].as_str().map(Into::into);
            world.route = None;
            world.tags.clear();
        });
        let mut call = Call::from(&chat);
        let mut exchange = P::Exchange::default();
        let mut goes_on = true;
        let mut verdict = Verdict::Pass;
        if self.plugin.hooks().contains(Hooks::ON_CALL) {
            let edited = call.clone();
            let view = crate::Call::new(&edited);
            verdict = self.plugin.on_call(&view, &mut exchange);
            goes_on = follows(&self.plugin, &verdict, view.is_reply_ignored());
            if matches!(verdict, Verdict::Change | Verdict::Route(_)) {
                call.clone_from(&edited);
            }
            if let Verdict::Respond(events) = &verdict
                && let Err(rule) = Grammar::check(events)
            {
                panic!("the answer leaves the grammar: {rule}");
            }
        }
        Request {
            trial: self,
            verdict,
            call,
            exchange: goes_on.then_some(exchange),
            came: Grammar::default(),
            left: Grammar::default(),
            open: Interests::empty(),
            reply: Reply::default(),
            refusal: None,
            rewrites: Vec::new(),
        }
    }

    /// Sends the call once for every way the reply can be cut into batches, and answers what leaves.
    ///
    /// # Panics
    /// If it is not always the same, or what leaves breaks the grammar.
    pub fn same_at_every_split(&self, chat: impl Into<Chat>, events: &[Event]) -> Reply {
        let chat = chat.into();
        let mut first: Option<(Reply, Option<Refusal>)> = None;
        for batches in splits(events) {
            let mut request = self.call(chat.clone());
            for batch in batches.clone() {
                request.batch(batch);
            }
            let this = (request.reply, request.refusal);
            match &first {
                // Before a refusal more or less may have left, depending on what came; never what was refused.
                Some((_, Some(refusal))) => assert_eq!(Some(refusal), this.1.as_ref(), "cut as {batches:?}"),
                Some(first) => assert_eq!(*first, this, "cut as {batches:?}"),
                None => first = Some(this),
            }
        }
        first.map(|(reply, _)| reply).unwrap_or_default()
    }
}

impl<P: Plugin> Request<'_, P> {
    /// The texts of the call as it goes on.
    pub fn texts(&self) -> Vec<String> {
        self.call.texts(0).into_iter().map(|passage| passage.text).collect()
    }

    /// Shows a batch of the reply, if it is of interest, and answers whether it passed as it came.
    ///
    /// # Panics
    /// If what leaves breaks the grammar.
    pub fn batch(&mut self, events: Vec<Event>) -> bool {
        assert!(self.refusal.is_none(), "the reply was refused already");
        for event in &events {
            self.came.walk(event).expect("the test's own reply keeps to the grammar");
        }
        let interest = events.iter().fold(Interests::empty(), |all, event| all | self.interest(event));
        let wanted =
            self.trial.plugin.hooks().contains(Hooks::ON_EVENTS) && interest.intersects(self.trial.plugin.events());
        let rewrite = match &mut self.exchange {
            Some(exchange) if wanted => self.trial.plugin.on_events(exchange, events.clone()),
            _ => Rewrite::Pass,
        };
        self.rewrites.push(rewrite.clone());
        match rewrite {
            Rewrite::Pass => self.leave(&events),
            Rewrite::Change(changed) => {
                let faults = |events: &[Event]| events.iter().filter(|e| matches!(e, Event::Fault(_))).count();
                assert_eq!(faults(&events), faults(&changed), "a fault stays, and none is made up");
                self.leave(&changed);
                return false;
            }
            Rewrite::Refuse(refusal) => {
                self.refusal = Some(refusal);
                return false;
            }
        }
        true
    }

    /// Shows a whole reply in one batch and answers what left.
    pub fn whole(&mut self, events: Vec<Event>) -> &Reply {
        self.batch(events);
        &self.reply
    }

    /// Ends the request well.
    pub fn end(self) {
        let end = End {
            outcome: Outcome::Ok,
            status: 200,
            usage: self.reply.usage,
            source: UsageSource::Reported,
            stop: self.reply.stop.clone(),
            first_token: Some(12.0),
            duration: 34.5,
        };
        self.end_as(end);
    }

    /// Ends the request like this.
    pub fn end_as(self, end: End) {
        if let Some(exchange) = self.exchange
            && self.trial.plugin.hooks().contains(Hooks::ON_END)
        {
            self.trial.plugin.on_end(exchange, end);
        }
    }

    fn leave(&mut self, events: &[Event]) {
        for event in events {
            if let Err(rule) = self.left.walk(event) {
                panic!("what leaves breaks the grammar: {rule}");
            }
            self.reply.fold(event);
        }
    }

    /// The kind of an event, as the host sorts it.
    fn interest(&mut self, event: &Event) -> Interests {
        match event {
            Event::Open(part) => {
                self.open = match part {
                    Part::Text => Interests::TEXT,
                    Part::Thinking | Part::RedactedThinking(_) => Interests::THINKING,
                    Part::Refusal => Interests::REFUSAL,
                    Part::ToolCall(_) => Interests::TOOL_CALLS,
                    Part::Other(_) => Interests::OTHER,
                };
                self.open
            }
            Event::Delta(Delta::Citation(_)) => Interests::TEXT,
            Event::Delta(_) | Event::Close => self.open,
            Event::Usage(_) => Interests::USAGE,
            Event::Start(_) | Event::Stop(_) | Event::Fault(_) => Interests::BOUNDARIES,
        }
    }
}

fn load<P: Plugin>(config: Value) -> Result<P, String> {
    World::with(|world| *world = World { config: config.to_string(), ..World::default() });
    if let Some(schema) = P::SCHEMA {
        super::schema::check(schema, &config)?;
    }
    read()
}
