//! Events as message events, and an answer as a whole message.
//!
//! `message_start` waits for the event behind Start, because clients read the prompt's size there and a backend that knows
//! it says so at once. The canon's Stop is its last word, so everything cumulative is known when `message_delta` is written.

use super::{MARKER, put_fault, put_stop, put_usage};
use crate::canon::event::{Delta, Event, Part};
use crate::canon::{Answer, Fault, StopReason, Usage};
use crate::wire::beyond::said_arguments;
use crate::wire::json::write_str;
use crate::wire::put::{comma, key, one_line, put_display, put_raw, put_text};
use crate::wire::{Codec, ReplyHead, WriteReply};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// Writes one stream.
pub(super) struct Writer {
    head: ReplyHead,
    /// Start was seen and not yet written.
    pending: bool,
    usage: Usage,
    index: usize,
    thinking: bool,
    signed: bool,
    refused: bool,
}

impl Writer {
    pub fn new(head: ReplyHead) -> Self {
        Self { head, pending: false, usage: Usage::default(), index: 0, thinking: false, signed: false, refused: false }
    }

    fn start(&mut self, out: &mut BytesMut) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        let mut text = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{".to_vec();
        put_head(&mut text, &self.head);
        put_raw(&mut text, "content", "[]");
        put_stop(&mut text, None, false);
        put_usage(&mut text, &self.usage, &self.head);
        text.extend_from_slice(b"}}\n\n");
        out.extend_from_slice(&text);
    }

    /// An event that carries the block's index: `body` writes the rest of the object.
    fn block(&self, name: &str, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
        out.reserve(256);
        for piece in ["event: ", name, "\ndata: {\"type\":\"", name, "\",\"index\":"] {
            out.extend_from_slice(piece.as_bytes());
        }
        put_display(out, self.index);
        body(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn delta(&self, kind: &str, name: &str, text: &str, out: &mut BytesMut) {
        self.block("content_block_delta", out, |out| {
            for piece in [",\"delta\":{\"type\":\"", kind, "\",\"", name, "\":"] {
                out.extend_from_slice(piece.as_bytes());
            }
            write_str(out, text);
            out.extend_from_slice(b"}");
        });
    }

    fn open(&mut self, part: &Part, out: &mut BytesMut) {
        self.thinking = *part == Part::Thinking;
        self.signed = false;
        self.refused |= *part == Part::Refusal;
        self.block("content_block_start", out, |out| {
            let mut text = b",\"content_block\":".to_vec();
            put_block(&mut text, part, "", None, &[]);
            out.extend_from_slice(&text);
        });
    }

    fn stop(&mut self, reason: &StopReason, out: &mut BytesMut) {
        let mut text = b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{".to_vec();
        put_stop(&mut text, Some(reason), self.refused);
        text.push(b'}');
        put_usage(&mut text, &self.usage, &self.head);
        text.extend_from_slice(b"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        out.extend_from_slice(&text);
    }
}

impl WriteReply for Writer {
    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        if let Event::Usage(usage) = event {
            self.usage.update(usage);
        }
        self.start(out);
        match event {
            Event::Start { .. } => self.pending = true,
            Event::Open(part) => self.open(part, out),
            Event::Delta(Delta::Text(text)) => self.delta("text_delta", "text", text, out),
            Event::Delta(Delta::Thinking(text)) => self.delta("thinking_delta", "thinking", text, out),
            Event::Delta(Delta::Signature(text)) => {
                self.signed = true;
                self.delta("signature_delta", "signature", text, out);
            }
            Event::Delta(Delta::Arguments(text)) => self.delta("input_json_delta", "partial_json", text, out),
            Event::Delta(Delta::Citation(json)) => self.block("content_block_delta", out, |out| {
                out.extend_from_slice(b",\"delta\":{\"type\":\"citations_delta\",\"citation\":");
                out.extend_from_slice(one_line(json).as_bytes());
                out.extend_from_slice(b"}");
            }),
            Event::Close => {
                if self.thinking && !self.signed {
                    self.delta("signature_delta", "signature", MARKER, out);
                }
                self.thinking = false;
                self.block("content_block_stop", out, |_| {});
                self.index += 1;
            }
            Event::Usage(_) => {}
            Event::Stop(reason) => self.stop(reason, out),
            Event::Fault(fault) => {
                let mut text = b"event: error\ndata: ".to_vec();
                put_fault(&mut text, fault, super::Messages.fault_status(fault), &self.head.id);
                text.extend_from_slice(b"\n\n");
                out.extend_from_slice(&text);
            }
        }
    }
}

/// `"id":…,"type":"message","role":"assistant","model":…`
fn put_head(out: &mut Vec<u8>, head: &ReplyHead) {
    put_text(out, "id", &format!("msg_{}", head.id));
    put_text(out, "type", "message");
    put_text(out, "role", "assistant");
    put_text(out, "model", &head.model);
}

/// A content block: its start in a stream (without text), or all of it.
fn put_block(out: &mut Vec<u8>, part: &Part, text: &str, signature: Option<&str>, citations: &[String]) {
    if let Part::Other { json, .. } = part {
        out.extend_from_slice(one_line(json).as_bytes());
        return;
    }
    out.push(b'{');
    match part {
        Part::Text | Part::Refusal => {
            put_text(out, "type", "text");
            put_text(out, "text", text);
            if !citations.is_empty() {
                key(out, "citations");
                out.push(b'[');
                for json in citations {
                    comma(out);
                    out.extend_from_slice(json.as_bytes());
                }
                out.push(b']');
            }
        }
        Part::Thinking => {
            put_text(out, "type", "thinking");
            put_text(out, "thinking", text);
            put_text(out, "signature", signature.unwrap_or_default());
        }
        Part::RedactedThinking { data } => {
            put_text(out, "type", "redacted_thinking");
            put_text(out, "data", data);
        }
        Part::ToolCall { id, name } => {
            put_text(out, "type", "tool_use");
            put_text(out, "id", id);
            put_text(out, "name", name);
            put_raw(out, "input", if text.is_empty() { "{}" } else { text });
        }
        Part::Other { .. } => {}
    }
    out.push(b'}');
}

/// Writes a whole message.
///
/// # Errors
/// A call's arguments are no object, and nothing cut it.
pub(super) fn answer(answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault> {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    put_head(&mut out, head);
    key(&mut out, "content");
    out.push(b'[');
    let mut refused = false;
    let cut = matches!(answer.stop, Some(StopReason::MaxTokens | StopReason::ContextWindow | StopReason::Refusal));
    for piece in &answer.parts {
        refused |= piece.part == Part::Refusal;
        comma(&mut out);
        let text = match &piece.part {
            Part::ToolCall { name, .. } => match said_arguments(name, &piece.text) {
                // There is no object to show, and `stop_reason` says why. Who reads a stream sees the pieces.
                Err(_) if cut => Cow::Borrowed("{}"),
                said => said?,
            },
            _ => Cow::Borrowed(piece.text.as_str()),
        };
        put_block(&mut out, &piece.part, &text, Some(piece.signature.as_deref().unwrap_or(MARKER)), &piece.citations);
    }
    out.push(b']');
    put_stop(&mut out, answer.stop.as_ref().or(Some(&StopReason::EndTurn)), refused);
    put_usage(&mut out, &answer.usage, head);
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(events: &[Event]) -> Vec<serde_json::Value> {
        let mut writer = Writer::new(ReplyHead {
            id: "1".into(),
            model: "m".into(),
            input_estimate: 9,
            deepfellow: true,
            ..ReplyHead::default()
        });
        let mut out = BytesMut::new();
        for event in events {
            writer.write(event, &mut out);
        }
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.split_terminator("\n\n")
            .map(|frame| {
                let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
                let value: serde_json::Value = serde_json::from_str(data).unwrap();
                assert_eq!(value["type"], name);
                value
            })
            .collect()
    }

    #[test]
    fn blocks_thinking_and_late_usage() {
        let frames = write(&[
            Event::Start { id: None, model: None },
            Event::Open(Part::Thinking),
            Event::Delta(Delta::Thinking("t".into())),
            Event::Close,
            Event::Open(Part::Refusal),
            Event::Delta(Delta::Text("no".into())),
            Event::Close,
            Event::Usage(Usage {
                input: Some(20),
                output: Some(5),
                cache_read: Some(8),
                cache_write: Some(2),
                reasoning: None,
            }),
            Event::Stop(StopReason::EndTurn),
        ]);
        let names: Vec<_> =
            frames.iter().map(|frame| (frame["type"].as_str().unwrap(), frame["index"].as_u64())).collect();
        assert_eq!(
            names,
            [
                ("message_start", None),
                ("content_block_start", Some(0)),
                ("content_block_delta", Some(0)),
                ("content_block_delta", Some(0)),
                ("content_block_stop", Some(0)),
                ("content_block_start", Some(1)),
                ("content_block_delta", Some(1)),
                ("content_block_stop", Some(1)),
                ("message_delta", None),
                ("message_stop", None),
            ]
        );
        assert_eq!(frames[0]["message"]["usage"]["input_tokens"], 9);
        assert_eq!(frames[3]["delta"], serde_json::json!({"type":"signature_delta","signature":MARKER}));
        assert_eq!(frames[8]["delta"], serde_json::json!({"stop_reason":"refusal","stop_sequence":null}));
        assert_eq!(
            frames[8]["usage"],
            serde_json::json!({"input_tokens":10,"cache_creation_input_tokens":2,"cache_creation_inpuit_tokens":2,"cache_read_input_tokens":8,
            "cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":0},"output_tokens":5,"server_tool_use":{"web_search_requests":0},"service_tier":"standard"})
        );
    }

    #[test]
    fn usage_that_comes_first_stands_in_the_start() {
        let frames = write(&[
            Event::Start { id: None, model: None },
            Event::Usage(Usage { input: Some(4), ..Usage::default() }),
            Event::Stop(StopReason::StopSequence(Some("END".into()))),
        ]);
        assert_eq!(frames[0]["message"]["usage"]["input_tokens"], 4);
        assert_eq!(frames[1]["delta"], serde_json::json!({"stop_reason":"stop_sequence","stop_sequence":"END"}));
    }
}
