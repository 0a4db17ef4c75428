//! Events, towards a guest and from one.

use super::{json, narrow, raw};
use crate::canon::{Delta, Event, Fault, Part, StopReason, Usage};
use crate::plugin::bindings::types as wit;

/// The events of a batch, neighbouring pieces of one kind as one: each text that enters a guest is an allocation there.
pub(in crate::plugin) fn events(events: &[Event]) -> Vec<wit::Event> {
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

/// Token counts.
pub(in crate::plugin) fn usage(usage: &Usage) -> wit::Usage {
    wit::Usage {
        input: usage.input.map(narrow),
        output: usage.output.map(narrow),
        cache_read: usage.cache_read.map(narrow),
        cache_write: usage.cache_write.map(narrow),
        reasoning: usage.reasoning.map(narrow),
    }
}

/// Why a model stopped.
pub(in crate::plugin) fn stop(reason: &StopReason) -> wit::StopReason {
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

/// A guest's events. `came` is the fault of the batch it was shown, the only one it may hand on.
///
/// # Errors
/// What is wrong with them beyond the grammar.
pub(in crate::plugin) fn events_back(events: Vec<wit::Event>, came: Option<&Fault>) -> Result<Vec<Event>, String> {
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
