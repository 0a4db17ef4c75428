//! Events as chat chunks, and an answer as a whole completion.
//!
//! Reasoning is written under both names, `reasoning_content` and `reasoning`: clients know one or the other. What this
//! dialect has no place for (signatures, citations, redacted thinking, foreign blocks) is left out of the reply. Who asked with
//! `functions` reads calls as they were before there were tools, one a reply: the first.

use super::{finish_reason, put_custom_call, put_fault, put_usage};
use crate::canon::event::{Delta, Event, Part};
use crate::canon::{Answer, StopReason, Usage};
use crate::wire::beyond::arguments_object;
use crate::wire::json::write_str;
use crate::wire::object::Object;
use crate::wire::openai::DONE;
use crate::wire::openai::tools::{Names, begun_input, said_input};
use crate::wire::put::{comma, key, put_display, put_raw, put_text};
use crate::wire::{Codec, ReplyHead, WriteReply};
use bytes::{Bytes, BytesMut};

/// Writes one stream.
pub(super) struct Writer {
    /// Everything of a chunk up to its choices.
    head: Vec<u8>,
    stream_usage: bool,
    estimate: u64,
    usage: Usage,
    open: Option<Part>,
    calls: usize,
    /// The open call has shown arguments.
    argued: bool,
    legacy: bool,
    names: Names,
    /// Arguments of a call of a tool that takes free text: that can be told when they are complete. What is not complete when the
    /// call ends waits for the event behind it, for the stop reason says whether it was cut.
    custom: Option<String>,
    /// Bytes of its text that the client has as they came.
    told: usize,
}

const FUNCTION: &str = ",\"function\":{\"arguments\":";
const CUSTOM: &str = ",\"custom\":{\"input\":";
const PLAIN: &[u8] = b"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

impl Writer {
    pub fn new(head: &ReplyHead) -> Self {
        let mut text = b"data: ".to_vec();
        put_head(&mut text, head, "chat.completion.chunk");
        Self {
            head: text,
            stream_usage: head.stream_usage,
            estimate: head.input_estimate,
            usage: Usage::default(),
            open: None,
            calls: 0,
            argued: false,
            legacy: is_legacy(head),
            names: Names::of_chat(&head.request),
            custom: None,
            told: 0,
        }
    }

    /// A chunk whose delta is what `body` writes.
    fn chunk(&self, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
        out.reserve(self.head.len() + 256);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
        body(out);
        out.extend_from_slice(PLAIN);
    }

    /// A call begins, the last of those counted.
    fn call(&mut self, out: &mut BytesMut, id: &str, name: &str) {
        if self.legacy {
            if self.calls == 1 {
                self.chunk(out, |out| {
                    out.extend_from_slice(b"\"function_call\":{\"name\":");
                    write_str(out, name);
                    out.extend_from_slice(b",\"arguments\":\"\"}");
                });
            }
            return;
        }
        self.custom = self.names.custom(name).map(|_| String::new());
        let (kind, said) = if self.custom.is_some() { ("custom", "input") } else { ("function", "arguments") };
        self.chunk(out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            put_display(out, self.calls.saturating_sub(1));
            out.extend_from_slice(b",\"id\":");
            write_str(out, id);
            put_display(out, format_args!(",\"type\":\"{kind}\",\"{kind}\":{{\"name\":"));
            write_str(out, name);
            put_display(out, format_args!(",\"{said}\":\"\"}}}}]"));
        });
    }

    /// More of the open call; `kind`: from its word to where its text stands.
    fn more(&self, out: &mut BytesMut, kind: &str, text: &str) {
        if self.legacy {
            if self.calls == 1 {
                self.chunk(out, |out| {
                    out.extend_from_slice(b"\"function_call\":{\"arguments\":");
                    write_str(out, text);
                    out.extend_from_slice(b"}");
                });
            }
            return;
        }
        self.chunk(out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            put_display(out, self.calls.saturating_sub(1));
            out.extend_from_slice(kind.as_bytes());
            write_str(out, text);
            out.extend_from_slice(b"}}]");
        });
    }

    /// Tells the text of a call of a tool that takes free text. `cut`: the reply was not complete when it ended with this call.
    fn custom(&mut self, cut: bool, out: &mut BytesMut) {
        if let Some(held) = self.custom.take() {
            let (input, told) = (said_input(&held, cut), std::mem::take(&mut self.told));
            self.more(out, CUSTOM, input.get(told..).unwrap_or_default());
        }
    }

    fn stop(&self, reason: &str, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"");
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\"}]}\n\n");
        if self.stream_usage {
            let mut last = self.head.clone();
            put_raw(&mut last, "choices", "[]");
            put_usage(&mut last, &self.usage, self.estimate);
            out.extend_from_slice(&last);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
    }
}

impl WriteReply for Writer {
    fn settle(&mut self, out: &mut BytesMut) {
        match &self.custom {
            Some(held) if self.open.is_some() => self.told = begun_input(held).len(),
            _ => self.custom(false, out),
        }
    }

    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        match event {
            Event::Start { .. } => {
                self.chunk(out, |out| out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\""))
            }
            Event::Open(part) => {
                self.custom(false, out);
                if let Part::ToolCall { id, name } = part {
                    self.calls += 1;
                    self.argued = false;
                    self.call(out, id, name);
                }
                self.open = Some(part.clone());
            }
            Event::Delta(Delta::Text(text)) => {
                let name: &[u8] = if self.open == Some(Part::Refusal) { b"\"refusal\":" } else { b"\"content\":" };
                self.chunk(out, |out| {
                    out.extend_from_slice(name);
                    write_str(out, text);
                });
            }
            Event::Delta(Delta::Thinking(text)) => self.chunk(out, |out| {
                out.extend_from_slice(b"\"reasoning_content\":");
                write_str(out, text);
                out.extend_from_slice(b",\"reasoning\":");
                write_str(out, text);
            }),
            Event::Delta(Delta::Arguments(text)) => {
                if let Some(held) = &mut self.custom {
                    held.push_str(text);
                } else if !text.is_empty() {
                    self.argued = true;
                    self.more(out, FUNCTION, text);
                }
            }
            Event::Delta(Delta::Signature(_) | Delta::Citation(_)) => {}
            Event::Close => {
                let called = matches!(self.open.take(), Some(Part::ToolCall { .. }));
                match &self.custom {
                    Some(held) if arguments_object(held).is_some() => self.custom(false, out),
                    Some(_) => {}
                    None if called && !self.argued => self.more(out, FUNCTION, "{}"),
                    None => {}
                }
            }
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => {
                self.custom(is_cut(reason), out);
                self.stop(word(reason, self.legacy), out);
            }
            Event::Fault(fault) => {
                self.custom(true, out);
                let mut last = b"data: ".to_vec();
                put_fault(&mut last, fault, super::Chat.fault_status(fault));
                last.extend_from_slice(b"\n\n");
                out.extend_from_slice(&last);
            }
        }
    }
}

/// Whether the client knows functions and no tools.
fn is_legacy(head: &ReplyHead) -> bool {
    // Few requests have to be read for it.
    memchr::memmem::find(&head.request, b"\"functions\"").is_some()
        && Object::read(head.request.clone())
            .is_ok_and(|request| request.get("functions").is_some() && request.get("tools").is_none())
}

/// The token limit ended the reply.
fn is_cut(reason: &StopReason) -> bool {
    finish_reason(reason) == "length"
}

fn word(reason: &StopReason, legacy: bool) -> &'static str {
    match finish_reason(reason) {
        "tool_calls" if legacy => "function_call",
        word => word,
    }
}

/// A member that is a called function.
fn put_function(out: &mut Vec<u8>, member: &str, name: &str, arguments: &str) {
    key(out, member);
    out.push(b'{');
    put_text(out, "name", name);
    put_text(out, "arguments", if arguments.trim().is_empty() { "{}" } else { arguments });
    out.push(b'}');
}

/// `{"id":…,"object":…,"created":…,"model":…`
fn put_head(out: &mut Vec<u8>, head: &ReplyHead, object: &str) {
    out.push(b'{');
    put_text(out, "id", &format!("chatcmpl-{}", head.id));
    put_text(out, "object", object);
    put_raw(out, "created", head.created);
    put_text(out, "model", &head.model);
}

/// Writes a whole completion.
pub(super) fn answer(answer: &Answer, head: &ReplyHead) -> Bytes {
    let names = Names::of_chat(&head.request);
    let (mut text, mut thought, mut refusal, mut calls) = (None, String::new(), None, Vec::new());
    let legacy = is_legacy(head);
    let cut = answer.stop.as_ref().is_some_and(is_cut);
    for (at, piece) in answer.parts.iter().enumerate() {
        match &piece.part {
            Part::Text => text.get_or_insert_with(String::new).push_str(&piece.text),
            Part::Thinking => thought.push_str(&piece.text),
            Part::Refusal => refusal.get_or_insert_with(String::new).push_str(&piece.text),
            Part::ToolCall { name, .. } if legacy => {
                if calls.is_empty() {
                    put_function(&mut calls, "function_call", name, &piece.text);
                }
            }
            Part::ToolCall { id, name } if names.custom(name).is_some() => {
                let cut = cut && at + 1 == answer.parts.len();
                put_custom_call(&mut calls, id, name, &said_input(&piece.text, cut));
            }
            Part::ToolCall { id, name } => {
                comma(&mut calls);
                calls.push(b'{');
                put_text(&mut calls, "id", id);
                put_text(&mut calls, "type", "function");
                put_function(&mut calls, "function", name, &piece.text);
                calls.push(b'}');
            }
            Part::RedactedThinking { .. } | Part::Other { .. } => {}
        }
    }
    // An answer of nothing is an empty text; null stands beside calls and refusals.
    let text = text.or_else(|| (calls.is_empty() && refusal.is_none()).then(String::new));
    let mut out = Vec::with_capacity(512 + text.as_ref().map_or(0, String::len));
    put_head(&mut out, head, "chat.completion");
    out.extend_from_slice(b",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"");
    for (name, value) in [("content", &text), ("refusal", &refusal)] {
        match value {
            Some(value) => put_text(&mut out, name, value),
            None => put_raw(&mut out, name, "null"),
        }
    }
    if !thought.is_empty() {
        put_text(&mut out, "reasoning_content", &thought);
        put_text(&mut out, "reasoning", &thought);
    }
    if legacy && !calls.is_empty() {
        comma(&mut out);
        out.extend_from_slice(&calls);
    } else if !calls.is_empty() {
        key(&mut out, "tool_calls");
        out.push(b'[');
        out.extend_from_slice(&calls);
        out.push(b']');
    }
    out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":\"");
    out.extend_from_slice(answer.stop.as_ref().map_or("stop", |reason| word(reason, legacy)).as_bytes());
    out.extend_from_slice(b"\"}]");
    put_usage(&mut out, &answer.usage, head.input_estimate);
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests;
