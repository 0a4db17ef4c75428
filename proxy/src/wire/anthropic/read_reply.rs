//! Message events, and whole messages, as events.
//!
//! Repaired: a delta whose block was never started, a block started inside another, a doubled `message_start`, a whole input
//! on the start of a call, a missing stop reason, `end_turn` beside a stop sequence. Not repaired: a delta for another block than the open one (whose text would
//! it be?) and a stream without `message_stop`.

use super::{Counts, Messages, stop_reason};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, StopReason, Usage};
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate, write_str};
use crate::wire::put::merge;
use crate::wire::reply::whole;
use crate::wire::{Codec, ReadReply};
use bytes::Bytes;
use std::borrow::Cow;

/// Reads a whole message.
pub(super) fn answer(body: &Bytes) -> Result<Vec<Event>, Fault> {
    let Ok(json) = validate(body) else {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not JSON."));
    };
    let message = Fields::of(json);
    if let Some(error) = message.get("error") {
        return Err(backend_fault(error));
    }
    if message.get("content").is_none_or(|content| content.kind() != Kind::Array) {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not a message."));
    }
    let mut reader = Reader::default();
    let mut out = Vec::new();
    reader.start(&message, &mut out);
    if !reader.done {
        reader.finish(&mut out);
    }
    whole(out)
}

/// State of one stream.
#[derive(Default)]
pub(super) struct Reader {
    started: bool,
    done: bool,
    open: Option<Block>,
    calls: bool,
    stop: Option<StopReason>,
    told: Usage,
    seed: String,
    made: usize,
}

/// The open block.
struct Block {
    index: Option<u64>,
    kind: BlockKind,
}

enum BlockKind {
    Text,
    Thinking,
    Call {
        /// Arguments on the block's start, used when no delta brings any.
        input: String,
        argued: bool,
    },
    Redacted,
    /// Collected until its end, since a part of its kind is complete at once.
    Other {
        kind: String,
        json: String,
        input: String,
        /// Its members of [`PIECED`] that came.
        texts: Vec<(&'static str, String)>,
    },
}

/// Members of blocks of other kinds whose texts come behind the start: what a compaction has summed up, and its signature.
const PIECED: [&str; 3] = ["content", "encrypted_content", "signature"];

impl ReadReply for Reader {
    fn read(&mut self, frame: &Frame, out: &mut Vec<Event>) {
        if self.done {
            return;
        }
        let Some(data) = frame.data() else { return };
        let data = data.trim_ascii();
        if data.is_empty() || data == b"[DONE]" {
            return;
        }
        match validate(data) {
            Ok(json) if json.kind() == Kind::Object => self.event(&Fields::of(json), out),
            _ => self.fail("The backend sent an event that is not a JSON object.", out),
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if !self.done {
            self.done = true;
            out.push(Event::Fault(Fault::cut()));
        }
    }
}

impl Reader {
    fn event(&mut self, event: &Fields<'_>, out: &mut Vec<Event>) {
        let index = event.get("index").and_then(Json::as_u64);
        let kind = event.text("type").unwrap_or_default();
        if kind == "error" || (kind.is_empty() && event.get("error").is_some()) {
            self.done = true;
            out.push(Event::Fault(
                event.get("error").map_or_else(
                    || Fault::new(FaultKind::BackendError, "The backend reported an error."),
                    backend_fault,
                ),
            ));
            return;
        }
        if !self.started
            && matches!(kind.as_ref(), "content_block_start" | "content_block_delta" | "message_delta" | "message_stop")
        {
            // The start got lost; nothing in it is needed but its place.
            self.start(&Fields::default(), out);
        }
        match kind.as_ref() {
            "message_start" => {
                let message = event.get("message").map(Fields::of).unwrap_or_default();
                self.start(&message, out);
            }
            "content_block_start" => match event.get("content_block") {
                Some(block) => self.open(index, block, out),
                None => self.fail("The backend started a content block that is none.", out),
            },
            "content_block_delta" => self.delta(index, event.get("delta").map(Fields::of).unwrap_or_default(), out),
            "content_block_stop" => self.close(out),
            "message_delta" => {
                if let Some(delta) = event.get("delta") {
                    self.stop(&Fields::of(delta));
                }
                if let Some(usage) = event.get("usage") {
                    self.count(Counts::read(usage).later(), out);
                }
            }
            "message_stop" => {
                if let Some(usage) = event.get("usage") {
                    self.count(Counts::read(usage).later(), out);
                }
                self.finish(out);
            }
            _ => {}
        }
    }

    fn start(&mut self, message: &Fields<'_>, out: &mut Vec<Event>) {
        let word = |name: &str| message.text(name).filter(|text| !text.is_empty()).map(Cow::into_owned);
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            self.seed = word("id").unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
            out.push(Event::Start { id: word("id"), model: word("model") });
        }
        if let Some(usage) = message.get("usage") {
            self.count(Counts::read(usage).usage(), out);
        }
        if first {
            self.said(message, out);
        }
    }

    /// The blocks of a message, and why it ended, where it says so. In a stream these follow; but calls that Anthropic's own
    /// code makes while it runs stand in the start, and nothing follows it but the end.
    fn said(&mut self, message: &Fields<'_>, out: &mut Vec<Event>) {
        for (index, block) in message.get("content").into_iter().flat_map(Json::items).enumerate() {
            self.open(Some(index as u64), block, out);
            if self.done {
                return;
            }
            self.close(out);
        }
        self.stop(message);
    }

    fn count(&mut self, mut report: Usage, out: &mut Vec<Event>) {
        let before = self.told;
        Messages.add_earlier(&mut report, &before);
        self.told.update(&report);
        // The same count of output once more is news, too: what has passed since is in it. One that says nothing is not, and
        // must not make an older one look new.
        let output = report.output.filter(|output| before.hears(*output));
        if self.told != before || output.is_some() {
            out.push(Event::Usage(Usage { output, ..self.told }));
        }
    }

    fn open(&mut self, index: Option<u64>, json: Json<'_>, out: &mut Vec<Event>) {
        self.close(out);
        if json.kind() != Kind::Object {
            return self.fail("The backend started a content block that is none.", out);
        }
        let block = Fields::of(json);
        let text = |name: &str| block.text(name).unwrap_or_default().into_owned();
        let kind = text("type");
        let kind = match kind.as_str() {
            "text" => {
                out.push(Event::Open(Part::Text));
                push(out, text("text"), Delta::Text);
                for citation in block.get("citations").into_iter().flat_map(Json::items) {
                    out.push(Event::Delta(Delta::Citation(citation.raw().to_owned())));
                }
                BlockKind::Text
            }
            "thinking" => {
                out.push(Event::Open(Part::Thinking));
                push(out, text("thinking"), Delta::Thinking);
                push(out, text("signature"), Delta::Signature);
                BlockKind::Thinking
            }
            "redacted_thinking" => {
                out.push(Event::Open(Part::RedactedThinking { data: text("data") }));
                BlockKind::Redacted
            }
            "tool_use" if text("name").is_empty() => {
                return self.fail("The backend sent a tool call without a name.", out);
            }
            "tool_use" => {
                self.calls = true;
                let mut id = text("id");
                if id.is_empty() {
                    id = format!("toolu_{}{}", self.seed, self.made);
                    self.made += 1;
                }
                out.push(Event::Open(Part::ToolCall { id, name: text("name") }));
                let input = block
                    .get("input")
                    .filter(|input| input.entries().next().is_some())
                    .map(Json::raw)
                    .unwrap_or_default();
                BlockKind::Call { input: input.to_owned(), argued: false }
            }
            _ => BlockKind::Other { kind, json: json.raw().to_owned(), input: String::new(), texts: Vec::new() },
        };
        self.open = Some(Block { index, kind });
    }

    fn delta(&mut self, index: Option<u64>, delta: Fields<'_>, out: &mut Vec<Event>) {
        let kind = delta.text("type").unwrap_or_default();
        if self.open.is_none() {
            let block = match kind.as_ref() {
                "text_delta" => r#"{"type":"text"}"#,
                "thinking_delta" => r#"{"type":"thinking"}"#,
                _ => return self.fail("The backend continued a content block that is not open.", out),
            };
            if let Ok(json) = validate(block.as_bytes()) {
                self.open(index, json, out);
            }
        }
        let Some(open) = &mut self.open else { return };
        if index.is_some() && open.index.is_some() && index != open.index {
            return self.fail("The backend continued a content block that is not open.", out);
        }
        let text = |name: &str| delta.text(name).unwrap_or_default().into_owned();
        match (&mut open.kind, kind.as_ref()) {
            (BlockKind::Text, "text_delta") => push(out, text("text"), Delta::Text),
            (BlockKind::Text, "citations_delta") => {
                out.extend(delta.get("citation").map(|json| Event::Delta(Delta::Citation(json.raw().to_owned()))))
            }
            (BlockKind::Thinking, "thinking_delta") => push(out, text("thinking"), Delta::Thinking),
            (BlockKind::Thinking, "signature_delta") => push(out, text("signature"), Delta::Signature),
            (BlockKind::Call { argued, .. }, "input_json_delta") => {
                let text = text("partial_json");
                *argued |= !text.is_empty();
                push(out, text, Delta::Arguments);
            }
            (BlockKind::Other { input, .. }, "input_json_delta") => input.push_str(&text("partial_json")),
            // Deltas of a kind that we do not know say nothing we could pass on; known ones in a wrong block are a mix-up.
            (_, "text_delta" | "thinking_delta" | "input_json_delta") => {
                self.fail("The backend continued a content block with another kind of content.", out)
            }
            // In a block that is passed on as it is they say what belongs into it.
            (BlockKind::Other { texts, .. }, _) => {
                for name in PIECED {
                    let Some(more) = delta.text(name) else { continue };
                    match texts.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, text)) => text.push_str(&more),
                        None => texts.push((name, more.into_owned())),
                    }
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let Some(block) = self.open.take() else { return };
        match block.kind {
            BlockKind::Call { input, argued: false } => push(out, input, Delta::Arguments),
            BlockKind::Other { kind, json, input, texts } => {
                let mut more = Vec::new();
                if validate(input.as_bytes()).is_ok() {
                    more.push(("input", input.into_bytes()));
                }
                for (name, text) in &texts {
                    let mut value = Vec::new();
                    write_str(&mut value, text);
                    more.push((*name, value));
                }
                let edits: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_slice())).collect();
                let json = Some(edits)
                    .filter(|edits| !edits.is_empty())
                    .and_then(|edits| merge(&json, &edits))
                    .map_or(json, |merged| String::from_utf8_lossy(&merged).into_owned());
                out.push(Event::Open(Part::Other { kind, json }));
            }
            _ => {}
        }
        out.push(Event::Close);
    }

    fn stop(&mut self, delta: &Fields<'_>) {
        if let Some(word) = delta.text("stop_reason") {
            self.stop = Some(stop_reason(&word, delta.text("stop_sequence").map(Cow::into_owned), self.calls));
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        self.close(out);
        self.done = true;
        out.push(Event::Stop(self.stop.take().unwrap_or_else(|| stop_reason("", None, self.calls))));
    }

    fn fail(&mut self, message: &str, out: &mut Vec<Event>) {
        self.done = true;
        out.push(Event::Fault(Fault::new(FaultKind::BackendError, message)));
    }
}

fn push(out: &mut Vec<Event>, text: String, delta: fn(String) -> Delta) {
    if !text.is_empty() {
        out.push(Event::Delta(delta(text)));
    }
}

#[cfg(test)]
mod tests;
