//! Events as chat chunks, and an answer as a whole completion.
//!
//! Reasoning is written under both names, `reasoning_content` and `reasoning`: clients know one or the other. What this
//! dialect has no place for (signatures, citations, redacted thinking, foreign blocks) is left out of the reply.

use super::{finish_reason, put_fault, put_usage};
use crate::canon::event::{Delta, Event, Part};
use crate::canon::{Answer, Usage};
use crate::wire::json::write_str;
use crate::wire::openai::DONE;
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
}

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

    fn arguments(&self, out: &mut BytesMut, text: &str) {
        self.chunk(out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            put_display(out, self.calls.saturating_sub(1));
            out.extend_from_slice(b",\"function\":{\"arguments\":");
            write_str(out, text);
            out.extend_from_slice(b"}}]");
        });
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
    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        match event {
            Event::Start { .. } => {
                self.chunk(out, |out| out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\""))
            }
            Event::Open(part) => {
                if let Part::ToolCall { id, name } = part {
                    let index = self.calls;
                    self.calls += 1;
                    self.argued = false;
                    self.chunk(out, |out| {
                        out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                        put_display(out, index);
                        out.extend_from_slice(b",\"id\":");
                        write_str(out, id);
                        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                        write_str(out, name);
                        out.extend_from_slice(b",\"arguments\":\"\"}}]");
                    });
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
                if !text.is_empty() {
                    self.argued = true;
                    self.arguments(out, text);
                }
            }
            Event::Delta(Delta::Signature(_) | Delta::Citation(_)) => {}
            Event::Close => {
                if matches!(self.open.take(), Some(Part::ToolCall { .. })) && !self.argued {
                    self.arguments(out, "{}");
                }
            }
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => self.stop(finish_reason(reason), out),
            Event::Fault(fault) => {
                let mut last = b"data: ".to_vec();
                put_fault(&mut last, fault, super::Chat.fault_status(fault));
                last.extend_from_slice(b"\n\n");
                out.extend_from_slice(&last);
            }
        }
    }
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
    let (mut text, mut thought, mut refusal, mut calls) = (None, String::new(), None, Vec::new());
    for piece in &answer.parts {
        match &piece.part {
            Part::Text => text.get_or_insert_with(String::new).push_str(&piece.text),
            Part::Thinking => thought.push_str(&piece.text),
            Part::Refusal => refusal.get_or_insert_with(String::new).push_str(&piece.text),
            Part::ToolCall { id, name } => {
                comma(&mut calls);
                calls.push(b'{');
                put_text(&mut calls, "id", id);
                put_text(&mut calls, "type", "function");
                key(&mut calls, "function");
                calls.push(b'{');
                put_text(&mut calls, "name", name);
                put_text(&mut calls, "arguments", if piece.text.trim().is_empty() { "{}" } else { &piece.text });
                calls.extend_from_slice(b"}}");
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
    if !calls.is_empty() {
        key(&mut out, "tool_calls");
        out.push(b'[');
        out.extend_from_slice(&calls);
        out.push(b']');
    }
    out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":\"");
    out.extend_from_slice(answer.stop.as_ref().map_or("stop", finish_reason).as_bytes());
    out.extend_from_slice(b"\"}]");
    put_usage(&mut out, &answer.usage, head.input_estimate);
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Fault, StopReason};

    fn write(events: &[Event], stream_usage: bool) -> String {
        let mut writer = Writer::new(&ReplyHead {
            id: "1".into(),
            model: "m".into(),
            created: 7,
            stream_usage,
            ..ReplyHead::default()
        });
        let mut out = BytesMut::new();
        for event in events {
            writer.write(event, &mut out);
        }
        String::from_utf8(out.to_vec()).unwrap().replace(
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",",
            "~",
        )
    }

    #[test]
    fn a_call_without_arguments_and_usage_once() {
        let events = [
            Event::Start { id: None, model: None },
            Event::Usage(Usage { input: Some(3), ..Usage::default() }),
            Event::Open(Part::ToolCall { id: "i".into(), name: "f".into() }),
            Event::Close,
            Event::Usage(Usage { output: Some(2), ..Usage::default() }),
            Event::Stop(StopReason::ToolUse),
        ];
        let plain = "},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
        let body = format!(
            "~\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"i\",\"type\":\"function\",\"function\":{{\"name\":\"f\",\"arguments\":\"\"}}}}]{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":\"{{}}\"}}}}]{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}}]}}\n\n"
        );
        let usage = "~\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";
        assert_eq!(write(&events, false), format!("{body}data: [DONE]\n\n"));
        assert_eq!(write(&events, true), format!("{body}{usage}data: [DONE]\n\n"));
    }

    #[test]
    fn a_failed_stream_has_no_done() {
        let text = write(&[Event::Start { id: None, model: None }, Event::Fault(Fault::internal("x"))], true);
        assert!(
            text.ends_with(
                "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n"
            ),
            "{text}"
        );
    }
}
