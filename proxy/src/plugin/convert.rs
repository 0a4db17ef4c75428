//! Canon ↔ the interface's types, field by field: when one side moves, this does not compile.

use super::bindings::{hooks, types as wit};
use crate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, ToolChoice, Turn};
use crate::canon::{Call, Delta, Event, Fault, FaultKind, Outcome, Part, Record, StopReason, Usage, UsageSource};
use std::time::Duration;

/// A count as 32 bits: what is larger stays the largest.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

// ---- Events, towards a guest ----

/// The events of a batch, neighbouring pieces of one kind as one: each text that enters a guest is an allocation there.
pub(super) fn events(events: &[Event]) -> Vec<wit::Event> {
    let mut out: Vec<wit::Event> = Vec::with_capacity(events.len());
    for event in events {
        if let (Some(wit::Event::Delta(last)), Event::Delta(delta)) = (out.last_mut(), event) {
            match (last, delta) {
                (wit::Delta::Text(last), Delta::Text(more))
                | (wit::Delta::Thinking(last), Delta::Thinking(more))
                | (wit::Delta::Arguments(last), Delta::Arguments(more)) => {
                    last.push_str(more);
                    continue;
                }
                _ => {}
            }
        }
        out.push(self::event(event));
    }
    out
}

fn event(event: &Event) -> wit::Event {
    match event {
        Event::Start { id, model } => wit::Event::Start(wit::Start { id: id.clone(), model: model.clone() }),
        Event::Open(part) => wit::Event::Open(match part {
            Part::Text => wit::Part::Text,
            Part::Thinking => wit::Part::Thinking,
            Part::RedactedThinking { data } => wit::Part::RedactedThinking(data.clone()),
            Part::Refusal => wit::Part::Refusal,
            Part::ToolCall { id, name } => wit::Part::ToolCall(wit::ToolHead { id: id.clone(), name: name.clone() }),
            Part::Other { kind, json } => wit::Part::Other(raw(kind, json)),
        }),
        Event::Delta(delta) => wit::Event::Delta(match delta {
            Delta::Text(text) => wit::Delta::Text(text.clone()),
            Delta::Thinking(text) => wit::Delta::Thinking(text.clone()),
            Delta::Signature(text) => wit::Delta::Signature(text.clone()),
            Delta::Arguments(text) => wit::Delta::Arguments(text.clone()),
            Delta::Citation(json) => wit::Delta::Citation(json.clone()),
        }),
        Event::Close => wit::Event::Close,
        Event::Usage(usage) => wit::Event::Usage(self::usage(usage)),
        Event::Stop(reason) => wit::Event::Stop(stop(reason)),
        Event::Fault(fault) => wit::Event::Fault(wit::Fault {
            kind: fault.kind.label().to_owned(),
            status: fault.status(),
            message: fault.message.clone(),
        }),
    }
}

fn raw(kind: &str, json: &str) -> wit::Raw {
    wit::Raw { kind: kind.to_owned(), json: json.to_owned() }
}

/// Token counts.
pub(super) fn usage(usage: &Usage) -> wit::Usage {
    wit::Usage {
        input: usage.input.map(narrow),
        output: usage.output.map(narrow),
        cache_read: usage.cache_read.map(narrow),
        cache_write: usage.cache_write.map(narrow),
        reasoning: usage.reasoning.map(narrow),
    }
}

/// Why a model stopped.
pub(super) fn stop(reason: &StopReason) -> wit::StopReason {
    match reason {
        StopReason::EndTurn => wit::StopReason::EndTurn,
        StopReason::MaxTokens => wit::StopReason::MaxTokens,
        StopReason::StopSequence(text) => wit::StopReason::StopSequence(text.clone()),
        StopReason::ToolUse => wit::StopReason::ToolUse,
        StopReason::Refusal => wit::StopReason::Refusal,
        StopReason::PauseTurn => wit::StopReason::PauseTurn,
        StopReason::ContextWindow => wit::StopReason::ContextWindow,
    }
}

// ---- Events, from a guest ----

/// A guest's events. `came` is the fault of the batch it was shown, the only one it may hand on.
///
/// # Errors
/// What is wrong with them beyond the grammar.
pub(super) fn events_back(events: Vec<wit::Event>, came: Option<&Fault>) -> Result<Vec<Event>, String> {
    events.into_iter().map(|event| event_back(event, came)).collect()
}

fn event_back(event: wit::Event, came: Option<&Fault>) -> Result<Event, String> {
    Ok(match event {
        wit::Event::Start(start) => Event::Start { id: start.id, model: start.model },
        wit::Event::Open(part) => Event::Open(match part {
            wit::Part::Text => Part::Text,
            wit::Part::Thinking => Part::Thinking,
            wit::Part::RedactedThinking(data) => Part::RedactedThinking { data },
            wit::Part::Refusal => Part::Refusal,
            wit::Part::ToolCall(head) => Part::ToolCall { id: head.id, name: head.name },
            wit::Part::Other(raw) => {
                json(&raw.json)?;
                Part::Other { kind: raw.kind, json: raw.json }
            }
        }),
        wit::Event::Delta(delta) => Event::Delta(match delta {
            wit::Delta::Text(text) => Delta::Text(text),
            wit::Delta::Thinking(text) => Delta::Thinking(text),
            wit::Delta::Signature(text) => Delta::Signature(text),
            wit::Delta::Arguments(text) => Delta::Arguments(text),
            wit::Delta::Citation(text) => {
                json(&text)?;
                Delta::Citation(text)
            }
        }),
        wit::Event::Close => Event::Close,
        wit::Event::Usage(usage) => Event::Usage(Usage {
            input: usage.input.map(u64::from),
            output: usage.output.map(u64::from),
            cache_read: usage.cache_read.map(u64::from),
            cache_write: usage.cache_write.map(u64::from),
            reasoning: usage.reasoning.map(u64::from),
        }),
        wit::Event::Stop(reason) => Event::Stop(match reason {
            wit::StopReason::EndTurn => StopReason::EndTurn,
            wit::StopReason::MaxTokens => StopReason::MaxTokens,
            wit::StopReason::StopSequence(text) => StopReason::StopSequence(text),
            wit::StopReason::ToolUse => StopReason::ToolUse,
            wit::StopReason::Refusal => StopReason::Refusal,
            wit::StopReason::PauseTurn => StopReason::PauseTurn,
            wit::StopReason::ContextWindow => StopReason::ContextWindow,
        }),
        wit::Event::Fault(_) => Event::Fault(came.cloned().ok_or("it added a fault; to end a reply a plugin refuses")?),
    })
}

/// A guest's text that must be JSON.
pub(super) fn json(text: &str) -> Result<(), String> {
    crate::wire::json::validate(text.as_bytes())
        .map(|_| ())
        .map_err(|error| format!("it wrote JSON that is none: {}", error.what))
}

// ---- The conversation ----

/// A turn towards a guest.
pub(super) fn turn(turn: &Turn) -> wit::Turn {
    wit::Turn { role: role(turn.role), content: turn.content.iter().map(content).collect() }
}

/// Who speaks.
pub(super) fn role(role: Role) -> wit::Role {
    match role {
        Role::System => wit::Role::System,
        Role::Developer => wit::Role::Developer,
        Role::User => wit::Role::User,
        Role::Assistant => wit::Role::Assistant,
    }
}

fn content(content: &Content) -> wit::Content {
    match content {
        Content::Text(text) => wit::Content::Text(text.clone()),
        Content::Image(image) => wit::Content::Image(self::image(image)),
        Content::Thinking { text, signature } => {
            wit::Content::Thinking(wit::Thought { text: text.clone(), signature: signature.clone() })
        }
        Content::RedactedThinking { data } => wit::Content::RedactedThinking(data.clone()),
        Content::Refusal(text) => wit::Content::Refusal(text.clone()),
        Content::ToolCall { id, name, arguments } => {
            wit::Content::ToolCall(wit::ToolCall { id: id.clone(), name: name.clone(), arguments: arguments.clone() })
        }
        Content::ToolResult { id, content, is_error } => wit::Content::ToolResult(wit::ToolResult {
            id: id.clone(),
            content: content.iter().map(inner).collect(),
            is_error: *is_error,
        }),
        Content::Other { kind, json } => wit::Content::Other(raw(kind, json)),
    }
}

/// A piece of a tool's answer: readers put only texts, images and raw parts there.
fn inner(content: &Content) -> wit::ToolContent {
    match content {
        Content::Text(text) | Content::Refusal(text) | Content::Thinking { text, .. } => {
            wit::ToolContent::Text(text.clone())
        }
        Content::Image(image) => wit::ToolContent::Image(self::image(image)),
        Content::Other { kind, json } => wit::ToolContent::Other(raw(kind, json)),
        Content::RedactedThinking { data } => wit::ToolContent::Text(data.clone()),
        Content::ToolCall { arguments, .. } => wit::ToolContent::Text(arguments.clone()),
        Content::ToolResult { id, .. } => wit::ToolContent::Text(id.clone()),
    }
}

fn image(image: &Image) -> wit::Image {
    match image {
        Image::Data { media_type, data } => {
            wit::Image::Data(wit::ImageData { media_type: media_type.clone(), data: data.clone() })
        }
        Image::Url(url) => wit::Image::Url(url.clone()),
    }
}

/// A turn from a guest.
pub(super) fn turn_back(turn: wit::Turn) -> Turn {
    let role = match turn.role {
        wit::Role::System => Role::System,
        wit::Role::Developer => Role::Developer,
        wit::Role::User => Role::User,
        wit::Role::Assistant => Role::Assistant,
    };
    let content = turn.content.into_iter().map(|content| match content {
        wit::Content::Text(text) => Content::Text(text),
        wit::Content::Image(image) => Content::Image(image_back(image)),
        wit::Content::Thinking(thought) => Content::Thinking { text: thought.text, signature: thought.signature },
        wit::Content::RedactedThinking(data) => Content::RedactedThinking { data },
        wit::Content::Refusal(text) => Content::Refusal(text),
        wit::Content::ToolCall(call) => Content::ToolCall { id: call.id, name: call.name, arguments: call.arguments },
        wit::Content::ToolResult(result) => Content::ToolResult {
            id: result.id,
            content: result
                .content
                .into_iter()
                .map(|content| match content {
                    wit::ToolContent::Text(text) => Content::Text(text),
                    wit::ToolContent::Image(image) => Content::Image(image_back(image)),
                    wit::ToolContent::Other(raw) => Content::Other { kind: raw.kind, json: raw.json },
                })
                .collect(),
            is_error: result.is_error,
        },
        wit::Content::Other(raw) => Content::Other { kind: raw.kind, json: raw.json },
    });
    Turn { role, content: content.collect() }
}

fn image_back(image: wit::Image) -> Image {
    match image {
        wit::Image::Data(data) => Image::Data { media_type: data.media_type, data: data.data },
        wit::Image::Url(url) => Image::Url(url),
    }
}

/// A tool towards a guest.
pub(super) fn tool(tool: &Tool) -> wit::Tool {
    match tool {
        Tool::Function { name, description, parameters, strict } => wit::Tool::Function(wit::ToolFunction {
            name: name.clone(),
            description: description.clone(),
            parameters: parameters.clone(),
            strict: *strict,
        }),
        Tool::Hosted { kind, json } => wit::Tool::Hosted(raw(kind, json)),
    }
}

/// A tool from a guest.
pub(super) fn tool_back(tool: wit::Tool) -> Tool {
    match tool {
        wit::Tool::Function(function) => Tool::Function {
            name: function.name,
            description: function.description,
            parameters: function.parameters,
            strict: function.strict,
        },
        wit::Tool::Hosted(raw) => Tool::Hosted { kind: raw.kind, json: raw.json },
    }
}

/// What of a call is neither conversation nor tool.
pub(super) fn parameters(call: &Call) -> wit::Parameters {
    wit::Parameters {
        tool_choice: call.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => wit::ToolChoice::Auto,
            ToolChoice::None => wit::ToolChoice::Never,
            ToolChoice::Required => wit::ToolChoice::Required,
            ToolChoice::Named(name) => wit::ToolChoice::Named(name.clone()),
        }),
        parallel_tools: call.parallel_tools,
        max_tokens: call.max_tokens.map(narrow),
        temperature: call.temperature,
        top_p: call.top_p,
        top_k: call.top_k.map(narrow),
        presence_penalty: call.presence_penalty,
        frequency_penalty: call.frequency_penalty,
        seed: call.seed,
        stop: call.stop.clone(),
        thinking: call.thinking.map(|thinking| match thinking {
            Thinking::Off => wit::Thinking::Off,
            Thinking::Adaptive => wit::Thinking::Adaptive,
            Thinking::Budget(tokens) => wit::Thinking::Budget(narrow(tokens)),
            Thinking::Effort(effort) => wit::Thinking::Effort(match effort {
                Effort::Minimal => wit::Effort::Minimal,
                Effort::Low => wit::Effort::Low,
                Effort::Medium => wit::Effort::Medium,
                // The interface has no word above it.
                Effort::High | Effort::XHigh | Effort::Max => wit::Effort::High,
            }),
        }),
        format: call.format.as_ref().map(|format| match format {
            Format::Json => wit::Format::Json,
            Format::Schema { name, json } => {
                wit::Format::Schema(wit::FormatSchema { name: name.clone(), json: json.clone() })
            }
        }),
        choices: narrow(call.choices),
    }
}

/// Puts a guest's parameters into a call.
pub(super) fn set_parameters(call: &mut Call, parameters: wit::Parameters) {
    call.tool_choice = parameters.tool_choice.map(|choice| match choice {
        wit::ToolChoice::Auto => ToolChoice::Auto,
        wit::ToolChoice::Never => ToolChoice::None,
        wit::ToolChoice::Required => ToolChoice::Required,
        wit::ToolChoice::Named(name) => ToolChoice::Named(name),
    });
    call.parallel_tools = parameters.parallel_tools;
    call.max_tokens = parameters.max_tokens.map(u64::from);
    call.temperature = parameters.temperature;
    call.top_p = parameters.top_p;
    call.top_k = parameters.top_k.map(u64::from);
    call.presence_penalty = parameters.presence_penalty;
    call.frequency_penalty = parameters.frequency_penalty;
    call.seed = parameters.seed;
    call.stop = parameters.stop;
    // A guest that gives back the highest level it can be shown has not lowered it.
    let highest = match call.thinking {
        Some(Thinking::Effort(level @ (Effort::XHigh | Effort::Max))) => level,
        _ => Effort::High,
    };
    call.thinking = parameters.thinking.map(|thinking| match thinking {
        wit::Thinking::Off => Thinking::Off,
        wit::Thinking::Adaptive => Thinking::Adaptive,
        wit::Thinking::Budget(tokens) => Thinking::Budget(tokens.into()),
        wit::Thinking::Effort(effort) => Thinking::Effort(match effort {
            wit::Effort::Minimal => Effort::Minimal,
            wit::Effort::Low => Effort::Low,
            wit::Effort::Medium => Effort::Medium,
            wit::Effort::High => highest,
        }),
    });
    call.format = parameters.format.map(|format| match format {
        wit::Format::Json => Format::Json,
        wit::Format::Schema(schema) => Format::Schema { name: schema.name, json: schema.json },
    });
    call.choices = parameters.choices.into();
}

// ---- Ends ----

/// A guest's refusal as a fault.
pub(super) fn refusal(plugin: &str, refusal: &wit::Refusal) -> Fault {
    let status = if (400..=599).contains(&refusal.status) { refusal.status } else { 403 };
    let word = |letter: char| if letter.is_ascii_lowercase() || letter.is_ascii_digit() { letter } else { '_' };
    let code: String = refusal.code.chars().take(64).map(word).collect();
    let mut message = refusal.message[..refusal.message.floor_char_boundary(1000)].to_owned();
    if message.is_empty() {
        message = format!("The plugin `{plugin}` refused this request.");
    }
    let mut fault = Fault::new(FaultKind::PluginRefused, message).with_status(status);
    fault.code = Some(code).filter(|code| !code.is_empty()).map(Into::into);
    fault.retry_after = refusal.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
    fault
}

/// How a request ended, from its record.
pub(super) fn end(record: &Record) -> hooks::End {
    hooks::End {
        outcome: match record.outcome {
            Outcome::Ok => wit::Outcome::Ok,
            Outcome::Refused => wit::Outcome::Refused,
            Outcome::BackendError => wit::Outcome::BackendError,
            Outcome::Cut => wit::Outcome::Cut,
            Outcome::ClientGone => wit::Outcome::ClientGone,
            Outcome::Plugin => wit::Outcome::Plugin,
        },
        status: record.status,
        usage: wit::Usage {
            input: record.input_tokens.map(narrow),
            output: record.output_tokens.map(narrow),
            cache_read: record.cache_read_tokens.map(narrow),
            cache_write: record.cache_write_tokens.map(narrow),
            reasoning: record.reasoning_tokens.map(narrow),
        },
        source: match record.usage_source {
            UsageSource::Reported => wit::UsageSource::Reported,
            UsageSource::Estimated => wit::UsageSource::Estimated,
            UsageSource::Missing => wit::UsageSource::Missing,
        },
        stop: record.stop_reason.as_deref().and_then(stop_word),
        first_token: record.first_token_ms,
        duration: record.duration_ms,
    }
}

/// The record's word for why the model stopped.
fn stop_word(word: &str) -> Option<wit::StopReason> {
    [
        StopReason::EndTurn,
        StopReason::MaxTokens,
        StopReason::StopSequence(None),
        StopReason::ToolUse,
        StopReason::Refusal,
        StopReason::PauseTurn,
        StopReason::ContextWindow,
    ]
    .iter()
    .find(|reason| reason.as_str() == word)
    .map(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_guests_have_no_word_for_stays_until_it_is_changed() {
        for level in [Effort::XHigh, Effort::Max] {
            let mut call = Call { thinking: Some(Thinking::Effort(level)), ..Call::default() };
            let (shown, mut lower) = (parameters(&call), parameters(&call));
            set_parameters(&mut call, shown);
            assert_eq!(call.thinking, Some(Thinking::Effort(level)));
            lower.thinking = Some(wit::Thinking::Effort(wit::Effort::Low));
            set_parameters(&mut call, lower);
            assert_eq!(call.thinking, Some(Thinking::Effort(Effort::Low)));
        }
    }
}
