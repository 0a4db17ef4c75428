//! What a copy holds, gathered as the exchange goes by.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_plugin::{
    Call, Delta, End, Event, Outcome, PassageKind, Reply, Role, StopReason, UsageSource, request, system,
};

/// A part of a copy that can be left out.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Request,
    Tools,
    Parameters,
    Reply,
    Thinking,
    ToolCalls,
    Usage,
    Identity,
    User,
    Route,
}

impl Field {
    pub fn usual() -> Vec<Self> {
        vec![Self::Request, Self::Reply, Self::ToolCalls, Self::Usage, Self::Identity, Self::Route]
    }

    pub fn is_of_reply(self) -> bool {
        matches!(self, Self::Reply | Self::Thinking | Self::ToolCalls)
    }
}

/// An exchange, as far as it has come.
#[derive(Default)]
pub struct Copy {
    call: Map<String, Value>,
    reply: Reply,
    /// Characters gathered of the part that is open.
    gathered: usize,
}

impl Copy {
    /// Takes what is wanted of the call.
    pub fn take_call(&mut self, call: &Call, fields: &[Field], most: usize) {
        self.call.insert("model".into(), call.model().into());
        if fields.contains(&Field::Request) {
            let texts: Vec<Value> = call
                .texts(0)
                .into_iter()
                .map(|passage| json!({"role": role(passage.role), "kind": kind(passage.kind), "text": cut(&passage.text, most)}))
                .collect();
            self.call.insert("request".into(), texts.into());
        }
        if fields.contains(&Field::Tools) {
            let names: Vec<Value> = call
                .tools()
                .into_iter()
                .map(|tool| match tool {
                    tidegate_plugin::Tool::Function(function) => function.name.into(),
                    tidegate_plugin::Tool::Hosted(hosted) => hosted.kind.into(),
                })
                .collect();
            self.call.insert("tools".into(), names.into());
        }
        if fields.contains(&Field::Parameters) {
            let parameters = call.parameters();
            let said = json!({
                "temperature": parameters.temperature,
                "top_p": parameters.top_p,
                "top_k": parameters.top_k,
                "max_tokens": parameters.max_tokens,
                "seed": parameters.seed,
                "stop": parameters.stop,
                "choices": parameters.choices,
            });
            self.call.insert("parameters".into(), said);
        }
    }

    /// Takes a batch of the reply; of each part only as much as will be kept.
    pub fn take_reply(&mut self, events: &[Event], most: usize) {
        for event in events {
            match event {
                Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => {
                    // One more than is kept, so that the cut shows.
                    if self.gathered <= most {
                        self.reply.fold(event);
                        self.gathered += text.chars().count();
                    }
                }
                Event::Open(_) => {
                    self.gathered = 0;
                    self.reply.fold(event);
                }
                event => self.reply.fold(event),
            }
        }
    }

    /// The whole copy.
    pub fn finish(self, end: &End, fields: &[Field], most: usize) -> Value {
        let mut copy = self.call;
        let has = |field: Field| fields.contains(&field);
        copy.insert("id".into(), request::id().into());
        copy.insert("time".into(), (system::now() as u64).into());
        copy.insert("endpoint".into(), request::endpoint().into());
        copy.insert("streamed".into(), request::streamed().into());
        copy.insert("outcome".into(), outcome(end.outcome).into());
        copy.insert("status".into(), end.status.into());
        copy.insert("stop".into(), end.stop.as_ref().map(stop).into());
        copy.insert("first_token_ms".into(), end.first_token.into());
        copy.insert("duration_ms".into(), end.duration.into());
        if has(Field::Reply) {
            copy.insert("reply".into(), cut(&self.reply.text(), most).into());
            let refusal = self.reply.refusal();
            if !refusal.is_empty() {
                copy.insert("refusal".into(), cut(&refusal, most).into());
            }
        }
        if has(Field::Thinking) {
            copy.insert("thinking".into(), cut(&self.reply.thinking(), most).into());
        }
        if has(Field::ToolCalls) {
            let call = |(name, arguments): (&str, &str)| json!({"name": name, "arguments": cut(arguments, most)});
            copy.insert("tool_calls".into(), self.reply.tool_calls().map(call).collect());
        }
        if has(Field::Usage) {
            let usage = &end.usage;
            let counts = json!({
                "input": usage.input,
                "output": usage.output,
                "cache_read": usage.cache_read,
                "cache_write": usage.cache_write,
                "reasoning": usage.reasoning,
                "source": source(end.source),
            });
            copy.insert("usage".into(), counts);
        }
        if has(Field::Identity) {
            let caller = request::caller();
            let identity = json!({
                "organization": caller.organization, "project": caller.project, "key": caller.key, "user": caller.user,
            });
            copy.insert("identity".into(), identity);
        }
        if has(Field::User) {
            copy.insert("user".into(), request::user().into());
        }
        if has(Field::Route) {
            let route = request::route().map(
                |hop| json!({"name": hop.name, "backend": hop.backend, "model": hop.model, "attempt": hop.attempt}),
            );
            copy.insert("route".into(), route.into());
        }
        Value::Object(copy)
    }
}

/// The text, cut to so many characters; an ellipsis says that it was.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn kind(kind: PassageKind) -> &'static str {
    match kind {
        PassageKind::Text => "text",
        PassageKind::Refusal => "refusal",
        PassageKind::Thinking => "thinking",
        PassageKind::Arguments => "arguments",
        PassageKind::ToolResult => "tool_result",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Refused => "refused",
        Outcome::BackendError => "backend_error",
        Outcome::Cut => "cut",
        Outcome::ClientGone => "client_gone",
        Outcome::Plugin => "plugin",
    }
}

fn source(source: UsageSource) -> &'static str {
    match source {
        UsageSource::Reported => "reported",
        UsageSource::Estimated => "estimated",
        UsageSource::Missing => "missing",
    }
}

fn stop(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::EndTurn => "end_turn",
        StopReason::MaxTokens => "max_tokens",
        StopReason::StopSequence(_) => "stop_sequence",
        StopReason::ToolUse => "tool_use",
        StopReason::Refusal => "refusal",
        StopReason::PauseTurn => "pause_turn",
        StopReason::ContextWindow => "context_window",
    }
}
