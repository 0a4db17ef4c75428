//! The object that the first and the last events of a stream carry, and that a whole reply is.

use super::offered;
use super::tools::Names;
use crate::canon::{Fault, StopReason, Usage};
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::openai::chat::Chat;
use crate::wire::put::{key, one_line, put_raw, put_some, put_text};
use crate::wire::{Codec, ReplyHead};

/// What a response repeats of its request, and what it says where the request did not.
const ECHO: [(&str, &str); 12] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("temperature", "null"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_p", "null"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// What all response objects of one reply have in common.
pub(super) struct Shell {
    pub id: String,
    head: Vec<u8>,
    echo: Vec<u8>,
    pub names: Names,
}

impl Shell {
    pub fn new(head: &ReplyHead) -> Self {
        let request = Object::read(head.request.clone()).ok();
        let mut echo = Vec::new();
        for (name, otherwise) in ECHO {
            let said = request.as_ref().and_then(|request| request.get(name));
            put_raw(&mut echo, name, one_line(said.map_or(otherwise, Json::raw)));
        }
        let names = Names::read_all(request.iter().flat_map(offered::lists));
        let mut text = b"{".to_vec();
        put_text(&mut text, "id", &format!("resp_{}", head.id));
        put_text(&mut text, "object", "response");
        put_raw(&mut text, "created_at", head.created);
        put_text(&mut text, "model", &head.model);
        put_raw(&mut text, "background", false);
        put_raw(&mut text, "previous_response_id", "null");
        put_raw(&mut text, "store", false);
        Self { id: head.id.clone(), head: text, echo, names }
    }

    pub fn put(&self, out: &mut Vec<u8>, state: &State<'_>) {
        out.extend_from_slice(&self.head);
        put_text(out, "status", state.status);
        match state.error {
            Some(fault) => put_error(out, fault),
            None => put_raw(out, "error", "null"),
        }
        match state.incomplete {
            Some(why) => put_raw(out, "incomplete_details", format_args!("{{\"reason\":\"{why}\"}}")),
            None => put_raw(out, "incomplete_details", "null"),
        }
        key(out, "output");
        out.push(b'[');
        out.extend_from_slice(state.output);
        out.push(b']');
        match state.usage {
            Some((usage, estimate)) => put_usage(out, usage, estimate),
            None => put_raw(out, "usage", "null"),
        }
        out.push(b',');
        out.extend_from_slice(&self.echo);
        out.push(b'}');
    }
}

/// What differs between the response objects of one reply.
pub(super) struct State<'s> {
    pub status: &'static str,
    pub error: Option<&'s Fault>,
    pub incomplete: Option<&'static str>,
    /// Its finished items.
    pub output: &'s [u8],
    /// The counts, and the estimate of the prompt where they lack it.
    pub usage: Option<(&'s Usage, u64)>,
}

pub(super) const RUNNING: State<'static> =
    State { status: "in_progress", error: None, incomplete: None, output: b"", usage: None };

/// How a response ends: its status, which is the last event's name, too, and why it is incomplete.
pub(super) fn ending(reason: &StopReason) -> (&'static str, Option<&'static str>) {
    match reason {
        StopReason::MaxTokens | StopReason::ContextWindow => ("incomplete", Some("max_output_tokens")),
        StopReason::Refusal => ("incomplete", Some("content_filter")),
        StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::PauseTurn | StopReason::ToolUse => {
            ("completed", None)
        }
    }
}

/// The counts. Clients sum these without looking: what nobody reported is the estimate or zero.
fn put_usage(out: &mut Vec<u8>, usage: &Usage, estimate: u64) {
    let (input, output) = (usage.input.unwrap_or(estimate), usage.output.unwrap_or(0));
    key(out, "usage");
    out.push(b'{');
    put_raw(out, "input_tokens", input);
    key(out, "input_tokens_details");
    out.push(b'{');
    put_raw(out, "cached_tokens", usage.cache_read.unwrap_or(0));
    put_some(out, "cache_write_tokens", usage.cache_write);
    out.push(b'}');
    put_raw(out, "output_tokens", output);
    put_raw(out, "output_tokens_details", format_args!("{{\"reasoning_tokens\":{}}}", usage.reasoning.unwrap_or(0)));
    put_raw(out, "total_tokens", input + output);
    out.push(b'}');
}

pub(super) fn put_error(out: &mut Vec<u8>, fault: &Fault) {
    let code = fault.code.as_deref().unwrap_or(match Chat.fault_status(fault) {
        429 => "rate_limit_exceeded",
        400..500 => "invalid_prompt",
        _ => "server_error",
    });
    key(out, "error");
    out.push(b'{');
    put_text(out, "code", code);
    put_text(out, "message", &fault.message);
    out.push(b'}');
}
