//! Chat chunks, and whole completions, as events.
//!
//! What backends do that the reference does not say, and what becomes of it here:
//! - `choices: []`, `content: null`, `tool_calls: []`, role-only deltas: nothing.
//! - Tool fragments with index missing or 0 for every call, ids missing, repeated or doubled: see [`Reader::slot`].
//! - Calls that interleave: one part is open at a time, so the first call stays live and later ones are held until it is
//!   complete (its braces are balanced), another part begins or the reply ends.
//! - `finish_reason` before the usage chunk: the stop is held until the usage, `[DONE]` or the end of the bytes.
//! - No `finish_reason` at all: the backend was cut, whatever `[DONE]` says.

use super::{stop_reason, timings, usage};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, StopReason, Usage};
use crate::wire::ReadReply;
use crate::wire::check::{Fields, backend_fault};
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use bytes::Bytes;
use std::borrow::Cow;

/// Reads a whole completion: the stream that has one frame.
pub(super) fn answer(body: &Bytes) -> Result<Vec<Event>, Fault> {
    let Ok(json) = validate(body) else {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not JSON."));
    };
    let mut reader = Reader { whole: true, ..Reader::default() };
    let mut out = Vec::new();
    if json.get("error").is_none() && json.get("choices").is_none_or(|choices| choices.items().next().is_none()) {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply holds no choices."));
    }
    reader.chunk(json, &mut out);
    reader.end(&mut out);
    match out.pop() {
        Some(Event::Fault(fault)) => Err(fault),
        last => {
            out.extend(last);
            Ok(out)
        }
    }
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
    seed: String,
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
                Ok(json) if json.kind() == Kind::Object => self.chunk(json, out),
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
    fn chunk(&mut self, json: Json<'_>, out: &mut Vec<Event>) {
        let fields = Fields::of(json);
        if let Some(error) = fields.get("error") {
            return self.fail(backend_fault(error), out);
        }
        if !self.started {
            self.start(&fields, json, out);
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
                return;
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
                return self.end(out);
            }
        }
        if let Some(json) = fields.get("timings") {
            self.timings.update(&timings(json));
        }
    }

    fn start(&mut self, fields: &Fields<'_>, json: Json<'_>, out: &mut Vec<Event>) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        self.started = true;
        let mut hash = DefaultHasher::new();
        json.raw().hash(&mut hash);
        self.seed = format!("{:016x}", hash.finish());
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
            let function = call.get("function").map(Fields::of).unwrap_or_default();
            self.fragment(
                call.get("index").and_then(Json::as_u64),
                &call.text("id").unwrap_or_default(),
                &function,
                out,
            );
            if self.done {
                return;
            }
        }
        if let Some(function) = delta.get("function_call") {
            self.fragment(Some(0), "", &Fields::of(function), out);
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

    /// A fragment of a tool call.
    fn fragment(&mut self, index: Option<u64>, id: &str, function: &Fields<'_>, out: &mut Vec<Event>) {
        let name = function.text("name").unwrap_or_default();
        let arguments = match function.get("arguments") {
            Some(json) if json.kind() == Kind::Object => Cow::Borrowed(json.raw()),
            Some(json) => json.as_str().unwrap_or_default(),
            None => Cow::Borrowed(""),
        };
        if self.done || (id.is_empty() && name.is_empty() && arguments.is_empty()) {
            return;
        }
        self.spoke = true;
        let at = self.slot(index, id, &name, &arguments);
        let slot = &mut self.slots[at];
        if slot.name.is_empty() {
            slot.name = name.into_owned();
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
        let seed = &self.seed;
        let slot = &mut self.slots[at];
        if slot.id.is_empty() {
            slot.id = format!("call_{seed}{at}");
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
                return self
                    .fail(Fault::new(FaultKind::BackendError, "The backend sent a tool call without a name."), out);
            }
            self.begin(at, out);
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if let Some(open) = self.open.take() {
            if let Open::Call(at) = open {
                self.slots[at].state = State::Closed;
            }
            out.push(Event::Close);
        }
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<Event>) {
        self.done = true;
        out.push(Event::Fault(fault));
    }
}

/// Follows JSON text fragment by fragment until its brackets balance.
#[derive(Default)]
struct Braces {
    depth: usize,
    string: bool,
    escape: bool,
    begun: bool,
}

impl Braces {
    fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escape => self.escape = false,
                b'\\' if self.string => self.escape = true,
                b'"' => self.string = !self.string,
                _ if self.string => {}
                b'{' | b'[' => {
                    self.depth += 1;
                    self.begun = true;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn complete(&self) -> bool {
        self.begun && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::event::Grammar;

    /// A short way to say what was read: `T(text) K(thinking) R(refusal) C(id,name,arguments) U(in,out) stop`.
    fn read(chunks: &[&str]) -> String {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for chunk in chunks {
            reader.read(&Frame { raw: Bytes::from(format!("data: {chunk}\n\n")) }, &mut events);
        }
        reader.end(&mut events);
        Grammar::check(&events).unwrap_or_else(|rule| panic!("{rule}: {events:#?}"));
        let mut said = String::new();
        for event in &events {
            match event {
                Event::Start { .. } => {}
                Event::Open(Part::ToolCall { id, name }) => said.push_str(&format!("C({id},{name},")),
                Event::Open(Part::Text) => said.push_str("T("),
                Event::Open(Part::Thinking) => said.push_str("K("),
                Event::Open(Part::Refusal) => said.push_str("R("),
                Event::Open(other) => said.push_str(&format!("{other:?}(")),
                Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => said.push_str(text),
                Event::Delta(other) => said.push_str(&format!("{other:?}")),
                Event::Close => said.push_str(") "),
                Event::Usage(usage) => {
                    said.push_str(&format!("U({},{}) ", usage.input.unwrap_or(9999), usage.output.unwrap_or(9999)))
                }
                Event::Stop(reason) => said.push_str(reason.as_str()),
                Event::Fault(fault) => said.push_str(&format!("!{}", fault.kind.label())),
            }
        }
        said
    }

    fn delta(json: &str) -> String {
        format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{json},"finish_reason":null}}]}}"#)
    }

    fn finish(word: &str) -> String {
        format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{{}},"finish_reason":"{word}"}}]}}"#)
    }

    fn call(index: &str, id: &str, name: &str, arguments: &str) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        delta(&format!(
            r#"{{"tool_calls":[{{{index}"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}]}}"#,
            if id.is_empty() { "null".into() } else { quoted(id) },
            if name.is_empty() { "null".into() } else { quoted(name) },
            quoted(arguments)
        ))
    }

    #[test]
    fn what_backends_send() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        let (zero, one) = ("\"index\":0,", "\"index\":1,");
        let invented = |n: usize, first: &str| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hash = DefaultHasher::new();
            first.hash(&mut hash);
            format!("call_{:016x}{n}", hash.finish())
        };
        let cases: Vec<(&str, Vec<String>, String)> = vec![
            ("role, null, empty list", vec![delta(r#"{"role":"assistant","content":null,"tool_calls":[]}"#), delta(r#"{"content":"a","tool_calls":[]}"#), delta(r#"{"content":"b"}"#), finish("stop"), usage.into(), "[DONE]".into()], "T(ab) U(3,2) end_turn".into()),
            ("no choices at all", vec![r#"{"choices":[],"prompt_progress":{}}"#.into(), delta(r#"{"content":"a"}"#), finish("stop")], "T(a) end_turn".into()),
            ("two kinds of reasoning", vec![delta(r#"{"reasoning":"a","reasoning_content":"a"}"#), delta(r#"{"reasoning":"b","content":""}"#), delta(r#"{"content":"c"}"#), finish("stop")], "K(ab) T(c) end_turn".into()),
            ("refusal", vec![delta(r#"{"refusal":"no"}"#), finish("stop")], "R(no) end_turn".into()),
            ("text and call at once", vec![delta(r#"{"content":"a","tool_calls":[{"index":0,"id":"i","function":{"name":"f","arguments":"{}"}}]}"#), finish("stop")], "T(a) C(i,f,{}) tool_use".into()),
            ("length wins", vec![call(zero, "i", "f", "{\"a"), finish("length")], "C(i,f,{\"a) max_tokens".into()),
            ("parallel", vec![call(zero, "i", "f", ""), call(zero, "", "", "{\"a\":1}"), call(one, "j", "g", ""), call(one, "", "", "{}"), finish("tool_calls")], "C(i,f,{\"a\":1}) C(j,g,{}) tool_use".into()),
            ("interleaved", vec![call(zero, "i", "f", "{\"a\":"), call(one, "j", "g", "{\"b\":"), call(zero, "", "", "1}"), call(one, "", "", "2}"), finish("tool_calls")], "C(i,f,{\"a\":1}) C(j,g,{\"b\":2}) tool_use".into()),
            ("heads first", vec![call(zero, "i", "f", ""), call(one, "j", "g", ""), call(zero, "", "", "{}"), call(one, "", "", "{}"), finish("stop")], "C(i,f,{}) C(j,g,{}) tool_use".into()),
            ("index 0 for all", vec![call(zero, "i", "f", "{}"), call(zero, "j", "f", "{}"), finish("stop")], "C(i,f,{}) C(j,f,{}) tool_use".into()),
            ("index 0, no ids", vec![call(zero, "", "f", "{}"), call(zero, "", "f", "{\"a\":1}"), finish("stop")], format!("C({},f,{{}}) C({},f,{{\"a\":1}}) tool_use", invented(0, &call(zero, "", "f", "{}")), invented(1, &call(zero, "", "f", "{}")))),
            ("no index, no later ids", vec![call("", "i", "f", ""), call("", "", "", "{}"), call("", "j", "g", "{"), call("", "", "", "}"), finish("stop")], "C(i,f,{}) C(j,g,{}) tool_use".into()),
            ("repeated id and name", vec![call(zero, "i", "f", "{"), call(zero, "i", "f", "}"), finish("stop")], "C(i,f,{}) tool_use".into()),
            ("doubled id", vec![call(zero, "i", "f", "{}"), call(one, "i", "g", "{}"), finish("stop")], format!("C(i,f,{{}}) C({},g,{{}}) tool_use", invented(1, &call(zero, "i", "f", "{}")))),
            ("line end inside a call", vec![call(zero, "i", "f", ""), delta(r#"{"content":"\n"}"#), call(zero, "", "", "{}"), finish("stop")], "C(i,f,{}) tool_use".into()),
            ("no arguments", vec![call(zero, "i", "f", ""), finish("tool_calls")], "C(i,f,) tool_use".into()),
            ("everything at the end", vec![r#"{"choices":[{"message":{"content":"a","tool_calls":[{"id":"i","function":{"name":"f","arguments":{"x":12345678901234567890}}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#.into()], "T(a) C(i,f,{\"x\":12345678901234567890}) U(1,0) tool_use".into()),
            ("legacy", vec![delta(r#"{"function_call":{"name":"f","arguments":"{"}}"#), delta(r#"{"function_call":{"arguments":"}"}}"#), finish("function_call")], format!("C({},f,{{}}) tool_use", invented(0, &delta(r#"{"function_call":{"name":"f","arguments":"{"}}"#)))),
            ("timings", vec![delta(r#"{"content":"a"}"#), r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"prompt_n":4,"cache_n":2,"predicted_n":1}}"#.into()], "T(a) U(6,1) end_turn".into()),
            ("usage null, then twice", vec![r#"{"choices":[{"delta":{"content":"a"}}],"usage":null}"#.into(), r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.into(), usage.into()], "T(a) U(3,2) end_turn".into()),
            ("error inside", vec![delta(r#"{"content":"a"}"#), r#"{"error":{"message":"x","code":500}}"#.into(), "[DONE]".into()], "T(a!backend_error".into()),
            ("busy inside", vec![r#"{"error":{"message":"x","code":429}}"#.into()], "!backend_busy".into()),
            ("cut", vec![delta(r#"{"content":"a"}"#)], "T(a!backend_cut".into()),
            ("done without a reason", vec![delta(r#"{"content":"a"}"#), "[DONE]".into()], "T(a!backend_cut".into()),
            ("nothing", vec![], "!backend_cut".into()),
            ("not JSON", vec!["<html>".into()], "!backend_error".into()),
            ("stop sequence", vec![delta(r#"{"content":"a"}"#), r#"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":"END"}]}"#.into()], "T(a) stop_sequence".into()),
            ("other choices", vec![r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#.into(), finish("stop")], "T(a) end_turn".into()),
        ];
        for (name, chunks, expect) in cases {
            let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
            assert_eq!(read(&chunks), expect, "{name}");
        }
    }

    #[test]
    fn whole_replies() {
        let body = Bytes::from_static(
            br#"{"id":"c","model":"m","choices":[{"message":{"role":"assistant","content":"hi"}}]}"#,
        );
        let events = answer(&body).unwrap();
        assert_eq!(events.last(), Some(&Event::Stop(StopReason::EndTurn)));
        for (body, kind) in [
            (r#"{"error":{"message":"x"}}"#, FaultKind::BackendError),
            ("[]", FaultKind::BackendError),
            (r#"{"choices":[]}"#, FaultKind::BackendError),
            ("x", FaultKind::BackendError),
        ] {
            assert_eq!(answer(&Bytes::from_static(body.as_bytes())).unwrap_err().kind, kind, "{body}");
        }
    }
}
