//! Chat chunks, and whole completions, as events.
//!
//! What backends do that the reference does not say, and what becomes of it here:
//! - `choices: []`, `content: null`, `tool_calls: []`, role-only deltas: nothing.
//! - Tool fragments with index missing or 0 for every call, ids missing, repeated or doubled: see [`Reader::slot`].
//! - Calls that interleave: one part is open at a time, so the first call stays live and later ones are held until it is
//!   complete (its braces are balanced), another part begins or the reply ends.
//! - `finish_reason` before the usage chunk: the stop is held until the usage, `[DONE]` or the end of the bytes.
//! - A call of a custom tool: one of the function that stands for it, whose arguments are closed with it.
//! - A call of any other `type` than `function`: with a function in it, it is one; else it is refused by that word.
//! - No `finish_reason` at all: the backend was cut, whatever `[DONE]` says.

mod braces;

use super::{stop_reason, timings, usage};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, StopReason, Usage};
use crate::wire::ReadReply;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use crate::wire::openai::tools::escaped;
use crate::wire::reply::whole;
use braces::Braces;
use bytes::Bytes;
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

/// A tool call in the making.
struct Slot {
    index: Option<u64>,
    /// As the backend wrote it; empty when it did not.
    id: String,
    name: String,
    /// What it is, where the backend says that it is no function's.
    kind: String,
    /// Its text stands inside the arguments' one string, which is open.
    custom: bool,
    /// Arguments that have not been passed on.
    held: String,
    braces: Braces,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Live,
    Closed,
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
        if !self.started {
            self.start(fields, raw, out);
        }
        let choices = fields.get("choices");
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
            self.usage.update(&counts);
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

    /// A fragment of a tool call; `custom`: of a tool that takes free text.
    fn fragment(
        &mut self,
        index: Option<u64>,
        id: &str,
        kind: &str,
        called: &Fields<'_>,
        custom: bool,
        out: &mut Vec<Event>,
    ) {
        let name = called.text("name").unwrap_or_default();
        let mut arguments = match called.get(if custom { "input" } else { "arguments" }) {
            Some(json) if custom => Cow::Owned(escaped(&json.as_str().unwrap_or_default())),
            Some(json) if json.kind() == Kind::Object => Cow::Borrowed(json.raw()),
            Some(json) => json.as_str().unwrap_or_default(),
            None => Cow::Borrowed(""),
        };
        if self.done || [id, kind, &name, &arguments].iter().all(|said| said.is_empty()) {
            return;
        }
        self.spoke = true;
        let at = self.slot(index, id, &name, &arguments);
        let slot = &mut self.slots[at];
        if slot.name.is_empty() {
            slot.name = name.into_owned();
        }
        if slot.kind.is_empty() {
            slot.kind = kind.chars().take(64).collect();
        }
        if custom && !slot.custom && slot.state == State::Waiting && slot.held.is_empty() {
            slot.custom = true;
            arguments = format!("{{\"input\":\"{arguments}").into();
        }
        if slot.state == State::Closed {
            // A repetition of a complete call is harmless; the rest of a broken one is not.
            if !slot.braces.complete() && !arguments.trim_ascii().is_empty() {
                self.fail(
                    Fault::new(FaultKind::BackendError, "The backend continued a tool call that had ended."),
                    out,
                );
            }
            return;
        }
        if slot.braces.complete() && !arguments.trim_ascii().is_empty() {
            return;
        }
        slot.braces.feed(&arguments);
        if slot.state == State::Live {
            if !arguments.is_empty() {
                out.push(Event::Delta(Delta::Arguments(arguments.into_owned())));
            }
            return;
        }
        slot.held.push_str(&arguments);
        self.advance(out);
    }

    /// Which call a fragment belongs to. An id that is known decides, unless index and name say that another call was given
    /// the same one; then the index; a fragment that names a function while the call of its index is already complete begins
    /// the next call of a server that counts wrongly.
    fn slot(&mut self, index: Option<u64>, id: &str, name: &str, arguments: &str) -> usize {
        let by_id = self.slots.iter().rposition(|slot| !id.is_empty() && slot.id == id);
        let mut doubled = false;
        let found = match by_id {
            Some(at) => {
                doubled = index.is_some() && self.slots[at].index != index && !name.is_empty();
                (!doubled).then_some(at)
            }
            None => {
                let at = match index {
                    Some(_) => self.slots.iter().rposition(|slot| slot.index == index),
                    None if name.is_empty() => self.slots.len().checked_sub(1),
                    None => None,
                };
                at.filter(|at| {
                    let slot = &self.slots[*at];
                    let other_id = !id.is_empty() && !slot.id.is_empty();
                    let next = !name.is_empty()
                        && !slot.name.is_empty()
                        && (slot.name != name || slot.braces.complete() && !arguments.is_empty());
                    !other_id && !next
                })
            }
        };
        // A doubled id that belongs to its own index already was given a new one there.
        let found =
            found.or_else(|| if doubled { self.slots.iter().rposition(|slot| slot.index == index) } else { None });
        if let Some(at) = found {
            if self.slots[at].id.is_empty() && self.slots[at].state == State::Waiting {
                self.slots[at].id = id.to_owned();
            }
            return at;
        }
        let id = if doubled { String::new() } else { id.to_owned() };
        self.slots.push(Slot {
            index,
            id,
            name: String::new(),
            kind: String::new(),
            custom: false,
            held: String::new(),
            braces: Braces::default(),
            state: State::Waiting,
        });
        self.slots.len() - 1
    }

    /// Lets the next waiting calls through as far as order allows.
    fn advance(&mut self, out: &mut Vec<Event>) {
        while let Some(at) = self.slots.iter().position(|slot| slot.state == State::Waiting) {
            if self.slots[at].name.is_empty() {
                return;
            }
            match self.open {
                Some(Open::Call(live)) if !self.slots[live].braces.complete() => return,
                Some(_) => self.close(out),
                None => {}
            }
            self.begin(at, out);
        }
    }

    fn begin(&mut self, at: usize, out: &mut Vec<Event>) {
        let seed = self.seed;
        let slot = &mut self.slots[at];
        if slot.id.is_empty() {
            slot.id = format!("call_{seed:016x}{at}");
        }
        slot.state = State::Live;
        out.push(Event::Open(Part::ToolCall { id: slot.id.clone(), name: slot.name.clone() }));
        let held = std::mem::take(&mut slot.held);
        if !held.is_empty() {
            out.push(Event::Delta(Delta::Arguments(held)));
        }
        self.open = Some(Open::Call(at));
    }

    /// Ends the live part and every call that waited for it.
    fn finish_calls(&mut self, out: &mut Vec<Event>) {
        self.close(out);
        while let Some(at) = self.slots.iter().position(|slot| slot.state == State::Waiting) {
            if self.slots[at].name.is_empty() {
                let fault = nameless(&self.slots[at].kind);
                return self.fail(fault, out);
            }
            self.begin(at, out);
            self.close(out);
        }
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

/// A call that names no function: a client of another API could not be told of it.
fn nameless(kind: &str) -> Fault {
    let message = match kind {
        "" => "The backend sent a tool call without a name.".to_owned(),
        kind => format!(
            "The backend sent a tool call of type `{kind}`, and only those of functions and of custom tools can be read."
        ),
    };
    Fault::new(FaultKind::BackendError, message)
}

#[cfg(test)]
mod tests;
