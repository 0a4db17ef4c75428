//! Events as completion chunks, and an answer as a whole completion. There is room for text and nothing else: thinking, calls
//! and blocks of other dialects are left out.

use crate::canon::event::{Delta, Event};
use crate::canon::{Answer, Part, Usage};
use crate::wire::json::write_str;
use crate::wire::openai::DONE;
use crate::wire::openai::chat::{Chat, finish_reason, put_usage};
use crate::wire::put::{put_raw, put_text};
use crate::wire::{Codec, ReplyHead, WriteReply};
use bytes::{Bytes, BytesMut};

/// Writes one stream.
pub(super) struct Writer {
    /// Everything of a chunk up to its choices.
    head: Vec<u8>,
    stream_usage: bool,
    estimate: u64,
    usage: Usage,
}

impl Writer {
    pub fn new(head: &ReplyHead) -> Self {
        let mut text = b"data: ".to_vec();
        put_head(&mut text, head);
        Self { head: text, stream_usage: head.stream_usage, estimate: head.input_estimate, usage: Usage::default() }
    }

    fn chunk(&self, out: &mut BytesMut, text: &str, finish: Option<&str>) {
        out.reserve(self.head.len() + text.len() + 128);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[{\"text\":");
        write_str(out, text);
        out.extend_from_slice(b",\"index\":0,\"logprobs\":null,\"finish_reason\":");
        match finish {
            Some(word) => write_str(out, word),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}]}\n\n");
    }
}

impl WriteReply for Writer {
    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        match event {
            Event::Delta(Delta::Text(text)) => self.chunk(out, text, None),
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => {
                self.chunk(out, "", Some(word(finish_reason(reason))));
                if self.stream_usage {
                    let mut last = self.head.clone();
                    put_raw(&mut last, "choices", "[]");
                    put_usage(&mut last, &self.usage, self.estimate);
                    out.extend_from_slice(&last);
                    out.extend_from_slice(b"}\n\n");
                }
                out.extend_from_slice(DONE);
            }
            Event::Fault(fault) => out.extend_from_slice(&Chat.write_fault_frame(fault, "", None)),
            Event::Start { .. } | Event::Open(_) | Event::Close | Event::Delta(_) => {}
        }
    }
}

/// Nobody can call a tool here.
fn word(chat: &'static str) -> &'static str {
    if chat == "tool_calls" { "stop" } else { chat }
}

fn put_head(out: &mut Vec<u8>, head: &ReplyHead) {
    out.push(b'{');
    put_text(out, "id", &format!("cmpl-{}", head.id));
    put_text(out, "object", "text_completion");
    put_raw(out, "created", head.created);
    put_text(out, "model", &head.model);
}

/// Writes a whole completion.
pub(super) fn answer(answer: &Answer, head: &ReplyHead) -> Bytes {
    let spoken = answer.parts.iter().filter(|piece| matches!(piece.part, Part::Text | Part::Refusal));
    let text: String = spoken.map(|piece| piece.text.as_str()).collect();
    let mut out = Vec::with_capacity(256 + text.len());
    put_head(&mut out, head);
    out.extend_from_slice(b",\"choices\":[{");
    put_text(&mut out, "text", &text);
    put_raw(&mut out, "index", 0);
    put_raw(&mut out, "logprobs", "null");
    put_text(&mut out, "finish_reason", word(answer.stop.as_ref().map_or("stop", finish_reason)));
    out.extend_from_slice(b"}]");
    put_usage(&mut out, &answer.usage, head.input_estimate);
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Fault, StopReason};

    #[test]
    fn text_is_all_there_is() {
        let head =
            ReplyHead { id: "1".into(), model: "m".into(), created: 7, stream_usage: true, ..ReplyHead::default() };
        let mut writer = Writer::new(&head);
        let mut out = BytesMut::new();
        for event in [
            Event::Start { id: None, model: None },
            Event::Open(Part::Thinking),
            Event::Delta(Delta::Thinking("hm".into())),
            Event::Close,
            Event::Open(Part::Text),
            Event::Delta(Delta::Text("a\n".into())),
            Event::Close,
            Event::Usage(Usage { input: Some(3), output: Some(2), ..Usage::default() }),
            Event::Stop(StopReason::EndTurn),
        ] {
            writer.write(&event, &mut out);
        }
        let head =
            "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\",\"choices\":[";
        let expect = format!(
            "{head}{{\"text\":\"a\\n\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}}]}}\n\n\
             {head}{{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}}]}}\n\n\
             {head}],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}}}\n\ndata: [DONE]\n\n"
        );
        assert_eq!(String::from_utf8_lossy(&out), expect);
    }

    #[test]
    fn a_failed_stream_has_no_done() {
        let mut out = BytesMut::new();
        Writer::new(&ReplyHead::default()).write(&Event::Fault(Fault::internal("x")), &mut out);
        assert!(out.starts_with(b"data: {\"error\":{\"message\":\"x\"") && !out.ends_with(b"[DONE]\n\n"));
    }
}
