//! Canon ↔ the interface's types, field by field: when one side moves, this does not compile.

mod call;
mod events;

use super::bindings::{hooks, types as wit};
use crate::canon::{Fault, FaultKind, Outcome, Record, StopReason, UsageSource};
use std::time::Duration;

pub(super) use call::{parameters, role, set_parameters, tool, tool_back, turn, turn_back};
pub(super) use events::{events, events_back, stop, usage};

/// A count as 32 bits: what is larger stays the largest.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn raw(kind: &str, json: &str) -> wit::Raw {
    wit::Raw { kind: kind.to_owned(), json: json.to_owned() }
}

/// A guest's text that must be JSON.
pub(super) fn json(text: &str) -> Result<(), String> {
    crate::wire::json::validate(text.as_bytes())
        .map(|_| ())
        .map_err(|error| format!("it wrote JSON that is none: {}", error.what))
}

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
