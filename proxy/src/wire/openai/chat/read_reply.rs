//! Chat chunks, and whole completions, as events.
//!
//! What backends do that the reference does not say, and what becomes of it here:
//! - `choices: []`, `content: null`, `tool_calls: []`, role-only deltas: nothing; and without an id and a model no
//!   start, either.
//! - Tool fragments with index missing or 0 for every call, ids missing, repeated or doubled: see [`Reader::slot`].
//! - Calls that interleave: one part is open at a time, so the first call stays live and later ones are held until it is
//!   complete (its braces are balanced), another part begins or the reply ends.
//! - `finish_reason` before the usage chunk: the stop is held until the usage, `[DONE]` or the end of the bytes.
//! - A call of a custom tool: one of the function that stands for it, whose arguments are closed with it.
//! - A call of any other `type` than `function`: with a function in it, it is one; else it is refused by that word.
//! - No `finish_reason` at all: the backend was cut, whatever `[DONE]` says.

mod braces;
mod calls;

use super::{says_nothing, stop_reason, timings, usage};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, StopReason, Usage};
use crate::wire::ReadReply;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use crate::wire::reply::whole;
use bytes::Bytes;
use calls::{Slot, State};
use std::borrow::Cow;

/// Reads a whole completion: the stream that has one frame.
pub(super) fn answer(body: &Bytes) -> Result<Vec<Event>, Fault> {
    match validate(body) {
        Ok(json) => answer_of(&Fields::of(json), json.raw().as_bytes()),
        Err(_) => Err(Fault::new(FaultKind::BackendError, "The backend's reply is not JSON.")),
    }
}

/// The same of an object that has been read.
pub(super) fn answer_of(fields: &Fields<'_>, raw: &[u8]) -> Result<Vec<Event>, Fault> {
    let mut reader = Reader { whole: true, ..Reader::default() };
    let mut out = Vec::new();
    if !reader.chunk(fields, raw, &mut out) {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply holds no choices."));
    }
    reader.end(&mut out);
    whole(out)
}

/// State of one stream.
#[derive(Default)]
pub(super) struct Reader {
    /// A whole body: no finish reason means that it finished.
    whole: bool,
    started: bool,
    /// After Stop or Fault.
    done: bool,
    open: Option<Open>,
    slots: Vec<Slot>,
    /// Where invented ids begin; made of the first chunk, so that the same bytes give the same ids.
    seed: u64,
    stop: Option<StopReason>,
    usage: Usage,
    timings: Usage,
    spoke: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Text,
    Thinking,
    Refusal,
    /// The slot of this position.
    Call(usize),
}

impl ReadReply for Reader {
    fn read(&mut self, frame: &Frame, out: &mut Vec<Event>) {
        if self.done {
            return;
        }
        let Some(data) = frame.data() else { return };
        let data = data.trim_ascii();
        match data {
            b"" => {}
            b"[DONE]" => self.end(out),
            _ => match validate(data) {
                Ok(json) if json.kind() == Kind::Object => {
                    self.chunk(&Fields::of(json), json.raw().as_bytes(), out);
                }
                _ => self.fail(
                    Fault::new(FaultKind::BackendError, "The backend sent a chunk that is not a JSON object."),
                    out,
                ),
            },
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if self.done {
            return;
        }
        if self.stop.is_none() && self.whole {
            self.stop = Some(stop_reason("stop", None, !self.slots.is_empty()));
        }
        if self.stop.is_none() || !self.started {
            let fault = Fault::cut();
            return self.fail(fault, out);
        }
        self.finish_calls(out);
        if self.done {
            return;
        }
        if !self.usage.is_complete() && self.timings != Usage::default() {
            let mut counts = self.timings;
            counts.update(&self.usage);
            out.push(Event::Usage(counts));
        }
        out.extend(self.stop.take().map(Event::Stop));
        self.done = true;
    }
}

impl Reader {
    /// Whether it said anything about a choice, be it that there is none because of an error.
    fn chunk(&mut self, fields: &Fields<'_>, raw: &[u8], out: &mut Vec<Event>) -> bool {
        if let Some(error) = fields.get("error") {
            self.fail(backend_fault(error), out);
            return true;
        }
        let choices = fields.get("choices");
        if !self.started && tells(fields) {
            self.start(fields, raw, out);
        }
        let mut empty = true;
        for choice in choices.into_iter().flat_map(Json::items) {
            empty = false;
            let choice = Fields::of(choice);
            // One answer is all the canon holds; whoever asked for more was refused or is passed through unread.
            if choice.get("index").and_then(Json::as_u64).unwrap_or(0) == 0 {
                self.choice(&choice, out);
            }
            if self.done {
                return true;
            }
        }
        if let Some(counts) = fields.get("usage").filter(|json| json.kind() == Kind::Object).map(usage) {
            let before = self.usage;
            if empty || self.whole || !says_nothing(&counts) {
                self.usage.update(&counts);
            }
            if self.usage != before {
                // Parts still open may not be closed for it: Usage may stand anywhere.
                out.push(Event::Usage(self.usage));
            }
            if empty && self.stop.is_some() {
                self.end(out);
                return false;
            }
        }
        if let Some(json) = fields.get("timings") {
            self.timings.update(&timings(json));
        }
        !empty
    }

    fn start(&mut self, fields: &Fields<'_>, raw: &[u8], out: &mut Vec<Event>) {
        use std::hash::{DefaultHasher, Hasher as _};
        self.started = true;
        // A whole reply without a call needs no ids for calls.
        if !self.whole || memchr::memmem::find(raw, b"_call").is_some() {
            let mut hash = DefaultHasher::new();
            // White space around it is no part of a reply: with it or without it the ids are the same.
            hash.write(raw.trim_ascii());
            hash.write_u8(0xff);
            self.seed = hash.finish();
        }
        let word = |name: &str| fields.text(name).filter(|text| !text.is_empty()).map(Cow::into_owned);
        out.push(Event::Start { id: word("id"), model: word("model") });
    }

    fn choice(&mut self, choice: &Fields<'_>, out: &mut Vec<Event>) {
        // Some servers put the whole message into the last chunk; after deltas it would only repeat them.
        let delta = choice.get("delta").or_else(|| choice.get("message").filter(|_| !self.spoke));
        if let Some(delta) = delta {
            self.delta(&Fields::of(delta), out);
        }
        if let Some(text) = choice.text("text").filter(|_| delta.is_none()) {
            self.text(Open::Text, &text, out);
        }
        if self.done {
            return;
        }
        match choice.text("finish_reason").filter(|word| !word.is_empty()) {
            Some(word) if word == "error" => {
                self.fail(Fault::new(FaultKind::BackendError, "The backend stopped with an error."), out)
            }
            // vLLM names the stop sequence beside.
            Some(word) => {
                self.stop =
                    Some(stop_reason(&word, choice.text("stop_reason").map(Cow::into_owned), !self.slots.is_empty()));
                self.finish_calls(out);
            }
            None => {}
        }
    }

    fn delta(&mut self, delta: &Fields<'_>, out: &mut Vec<Event>) {
        if let Some(text) =
            ["reasoning_content", "reasoning"].iter().find_map(|key| delta.text(key).filter(|text| !text.is_empty()))
        {
            self.text(Open::Thinking, &text, out);
        }
        match delta.get("content") {
            Some(json) if json.kind() == Kind::Array => self.parts(json, out),
            Some(json) => self.text(Open::Text, &json.as_str().unwrap_or_default(), out),
            None => {}
        }
        if let Some(text) = delta.text("refusal") {
            self.text(Open::Refusal, &text, out);
        }
        for call in delta.get("tool_calls").into_iter().flat_map(Json::items) {
            let call = Fields::of(call);
            let custom = call.get("custom").filter(|_| call.get("function").is_none());
            let called = custom.or_else(|| call.get("function")).map(Fields::of).unwrap_or_default();
            self.fragment(
                call.get("index").and_then(Json::as_u64),
                &call.text("id").unwrap_or_default(),
                &call.text("type").filter(|kind| kind != "function").unwrap_or_default(),
                &called,
                custom.is_some(),
                out,
            );
            if self.done {
                return;
            }
        }
        if let Some(function) = delta.get("function_call") {
            self.fragment(Some(0), "", "", &Fields::of(function), false, out);
        }
    }

    /// Content as a list of parts (Mistral).
    fn parts(&mut self, json: Json<'_>, out: &mut Vec<Event>) {
        for part in json.items().map(Fields::of) {
            match part.text("type").as_deref() {
                Some("thinking") => {
                    let texts = part
                        .get("thinking")
                        .into_iter()
                        .flat_map(Json::items)
                        .filter_map(|inner| inner.get("text").and_then(Json::as_str));
                    let text = part.text("thinking").map_or_else(|| texts.collect::<String>(), Cow::into_owned);
                    self.text(Open::Thinking, &text, out);
                }
                _ => self.text(Open::Text, &part.text("text").unwrap_or_default(), out),
            }
        }
    }

    fn text(&mut self, kind: Open, text: &str, out: &mut Vec<Event>) {
        if text.is_empty() || self.done {
            return;
        }
        if self.open != Some(kind) {
            // Line ends between a call and its arguments are the template's, not the model's.
            if matches!(self.open, Some(Open::Call(slot)) if !self.slots[slot].braces.complete())
                && text.trim_ascii().is_empty()
            {
                return;
            }
            self.finish_calls(out);
            self.close(out);
            if self.done {
                return;
            }
            self.open = Some(kind);
            out.push(Event::Open(match kind {
                Open::Thinking => Part::Thinking,
                Open::Refusal => Part::Refusal,
                _ => Part::Text,
            }));
        }
        self.spoke = true;
        let text = text.to_owned();
        out.push(Event::Delta(if kind == Open::Thinking { Delta::Thinking(text) } else { Delta::Text(text) }));
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if let Some(open) = self.open.take() {
            if let Open::Call(at) = open {
                self.slots[at].state = State::Closed;
                if self.slots[at].custom {
                    out.push(Event::Delta(Delta::Arguments("\"}".into())));
                }
            }
            out.push(Event::Close);
        }
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<Event>) {
        self.done = true;
        out.push(Event::Fault(fault));
    }
}

/// Whether a chunk is one of the reply. Azure begins with what it found in the prompt, under no id and of no model: who takes
/// that for the start never learns either.
fn tells(fields: &Fields<'_>) -> bool {
    ["id", "model"].iter().any(|key| fields.text(key).is_some_and(|text| !text.is_empty()))
        || fields.get("choices").is_some_and(Json::has_items)
        || ["usage", "timings"].iter().any(|key| fields.get(key).is_some())
}

#[cfg(test)]
mod tests;
