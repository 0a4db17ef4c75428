//! Response events, and whole responses, as events.
//!
//! Parts are opened by their first delta: a reasoning item without a readable text, which OpenAI sends for every thought, is no
//! part. What servers leave out is taken from later events: texts that come only in their `done`, items only in theirs, all of
//! it only in the last. What the server did by itself (searches and the like) has no canonical form and is left out. A stream
//! without one of the ends is cut.

use super::glance::{error, failure};
use super::read_call::thoughts;
use super::tools::{SEARCH, escaped, flat};
use super::{is_call, stop_reason, usage};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, Usage};
use crate::wire::ReadReply;
use crate::wire::check::Fields;
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind as Shape, validate};
use crate::wire::reply::whole;
use bytes::Bytes;
use std::borrow::Cow;

/// Reads a whole response.
pub(super) fn answer(body: &Bytes) -> Result<Vec<Event>, Fault> {
    let Ok(json) = validate(body) else {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not JSON."));
    };
    let response = Fields::of(json);
    if let Some(fault) = failure(&response.text("status").unwrap_or_default(), response.get("error")) {
        return Err(fault);
    }
    if response.get("output").is_none_or(|output| output.kind() != Shape::Array) {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not a response."));
    }
    let mut reader = Reader::default();
    let mut out = Vec::new();
    reader.start(&response, &mut out);
    reader.finish(&response, "completed", &mut out);
    whole(out)
}

/// State of one stream.
#[derive(Default)]
pub(super) struct Reader {
    started: bool,
    done: bool,
    open: Option<Open>,
    /// Places of items of which something was told.
    told: Vec<u64>,
    calls: bool,
    seed: String,
    made: usize,
}

/// The open part.
struct Open {
    /// Its item.
    at: u64,
    /// Its number within the item.
    part: u64,
    kind: Kind,
    /// Something of its text has come.
    spoke: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Refusal,
    Summary,
    Reasoning,
    Call,
    Custom,
    Search,
}

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
            Ok(json) if json.kind() == Shape::Object => self.event(&Fields::of(json), json, out),
            _ => self
                .fail(Fault::new(FaultKind::BackendError, "The backend sent an event that is not a JSON object."), out),
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if !self.done {
            self.fail(Fault::cut(), out);
        }
    }
}

impl Reader {
    fn event(&mut self, event: &Fields<'_>, json: Json<'_>, out: &mut Vec<Event>) {
        let kind = event.text("type").unwrap_or_default();
        if kind == "error" || (kind.is_empty() && event.get("error").is_some()) {
            return self.fail(error(event, json), out);
        }
        let Some(name) = kind.strip_prefix("response.") else { return };
        let response = || event.get("response").map(Fields::of).unwrap_or_default();
        if !self.started {
            self.start(&response(), out);
        }
        let at = place(event);
        let part = ["content_index", "summary_index"].iter().find_map(|key| event.get(key)).and_then(Json::as_u64);
        let part = part.unwrap_or(0);
        let item = || event.get("item").map(Fields::of).unwrap_or_default();
        let delta = || event.text("delta").unwrap_or_default();
        match name {
            "output_item.added" => self.begin(at, &item(), out),
            "output_text.delta" => self.text(Kind::Text, at, part, &delta(), out),
            "refusal.delta" => self.text(Kind::Refusal, at, part, &delta(), out),
            "reasoning_summary_text.delta" => self.text(Kind::Summary, at, part, &delta(), out),
            "reasoning_text.delta" => self.text(Kind::Reasoning, at, part, &delta(), out),
            "function_call_arguments.delta" => self.arguments(Kind::Call, at, &delta(), out),
            "custom_tool_call_input.delta" => self.arguments(Kind::Custom, at, &delta(), out),
            "output_text.done" => self.whole_text(Kind::Text, at, part, event.text("text"), out),
            "refusal.done" => self.whole_text(Kind::Refusal, at, part, event.text("refusal"), out),
            "function_call_arguments.done" => self.whole_call(Kind::Call, at, event.text("arguments"), out),
            "custom_tool_call_input.done" => self.whole_call(Kind::Custom, at, event.text("input"), out),
            "output_item.done" => self.whole_item(at, &item(), out),
            "completed" | "incomplete" | "failed" | "cancelled" => {
                let response = response();
                match failure(name, response.get("error")) {
                    Some(fault) => self.fail(fault, out),
                    None => self.finish(&response, name, out),
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, response: &Fields<'_>, out: &mut Vec<Event>) {
        self.started = true;
        let word = |name: &str| response.text(name).filter(|text| !text.is_empty()).map(Cow::into_owned);
        self.seed = word("id").unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
        out.push(Event::Start { id: word("id"), model: word("model") });
    }

    /// An item is announced. Only calls say something by that.
    fn begin(&mut self, at: u64, item: &Fields<'_>, out: &mut Vec<Event>) {
        if !is_call(item) || self.told.contains(&at) {
            return;
        }
        self.close(out);
        let kind = match item.text("type").as_deref() {
            Some("function_call") => Kind::Call,
            Some("custom_tool_call") => Kind::Custom,
            _ => Kind::Search,
        };
        let name = if kind == Kind::Search { SEARCH.into() } else { item.text("name").unwrap_or_default() };
        if name.is_empty() {
            let message = "The backend sent a tool call without a name.";
            return self.fail(Fault::new(FaultKind::BackendError, message), out);
        }
        let mut id = ["call_id", "id"].iter().find_map(|key| item.text(key)).unwrap_or_default().into_owned();
        if id.is_empty() {
            id = format!("call_{}{}", self.seed, self.made);
            self.made += 1;
        }
        let name = flat(item.text("namespace").as_deref(), &name).into_owned();
        out.push(Event::Open(Part::ToolCall { id, name }));
        self.open = Some(Open { at, part: 0, kind, spoke: false });
        self.told.push(at);
        self.calls = true;
    }

    fn text(&mut self, kind: Kind, at: u64, part: u64, text: &str, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        let thinks = matches!(kind, Kind::Summary | Kind::Reasoning);
        let delta = |text: &str| {
            let text = text.to_owned();
            Event::Delta(if thinks { Delta::Thinking(text) } else { Delta::Text(text) })
        };
        match &mut self.open {
            Some(open) if open.at == at && open.kind == kind && (thinks || open.part == part) => {
                if open.part != part {
                    open.part = part;
                    out.push(delta("\n\n"));
                }
            }
            // A summary of a text that was told, or the reverse.
            _ if thinks && self.told.contains(&at) => return,
            _ => {
                self.close(out);
                out.push(Event::Open(match kind {
                    Kind::Refusal => Part::Refusal,
                    _ if thinks => Part::Thinking,
                    _ => Part::Text,
                }));
                self.open = Some(Open { at, part, kind, spoke: true });
                self.told.push(at);
            }
        }
        out.push(delta(text));
    }

    fn arguments(&mut self, kind: Kind, at: u64, text: &str, out: &mut Vec<Event>) {
        let Some(open) = self.open.as_mut().filter(|open| open.at == at && open.kind == kind) else {
            if !text.is_empty() {
                let message = "The backend continued a tool call that is not open.";
                self.fail(Fault::new(FaultKind::BackendError, message), out);
            }
            return;
        };
        if text.is_empty() {
            return;
        }
        let first = !std::mem::replace(&mut open.spoke, true);
        if kind == Kind::Call {
            return out.push(Event::Delta(Delta::Arguments(text.to_owned())));
        }
        if first {
            out.push(Event::Delta(Delta::Arguments("{\"input\":\"".into())));
        }
        out.push(Event::Delta(Delta::Arguments(escaped(text))));
    }

    /// A text is complete: it is told if its pieces were not.
    fn whole_text(&mut self, kind: Kind, at: u64, part: u64, text: Option<Cow<'_, str>>, out: &mut Vec<Event>) {
        let open = self.open.as_ref().is_some_and(|open| open.at == at && open.part == part && open.kind == kind);
        if !open && !self.told.contains(&at) {
            self.text(kind, at, part, &text.unwrap_or_default(), out);
        }
        if open || self.open.as_ref().is_some_and(|open| open.at == at) {
            self.close(out);
        }
    }

    fn whole_call(&mut self, kind: Kind, at: u64, text: Option<Cow<'_, str>>, out: &mut Vec<Event>) {
        let Some(open) = self.open.as_ref().filter(|open| open.at == at && open.kind == kind) else { return };
        if !open.spoke {
            self.arguments(kind, at, &text.unwrap_or_default(), out);
        }
        // Whether a custom tool's text is all of it says its item.
        if kind == Kind::Call {
            self.close(out);
        }
    }

    /// An item is complete: what of it was not told is told now.
    fn whole_item(&mut self, at: u64, item: &Fields<'_>, out: &mut Vec<Event>) {
        self.begin(at, item, out);
        if let Some(open) = self.open.as_ref().filter(|open| open.at == at) {
            match open.kind {
                Kind::Call => self.whole_call(Kind::Call, at, item.text("arguments"), out),
                Kind::Custom => {
                    self.whole_call(Kind::Custom, at, item.text("input"), out);
                    self.close_as(item.text("status").as_deref() == Some("incomplete"), out);
                }
                // What is looked for stands here alone.
                Kind::Search => {
                    let arguments = item.get("arguments").map_or("{}", Json::raw);
                    out.push(Event::Delta(Delta::Arguments(arguments.to_owned())));
                    self.close(out);
                }
                _ => self.close(out),
            }
        } else if !self.told.contains(&at) && !self.done {
            self.close(out);
            parts(item, out);
            self.told.push(at);
        }
    }

    /// Ends the open part, of which all was said.
    fn close(&mut self, out: &mut Vec<Event>) {
        self.close_as(false, out);
    }

    /// The same; a custom tool's arguments are closed with it, unless its text was `cut`: they would look complete.
    fn close_as(&mut self, cut: bool, out: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        if open.kind == Kind::Custom && !cut {
            let rest = if open.spoke { "\"}" } else { "{\"input\":\"\"}" };
            out.push(Event::Delta(Delta::Arguments(rest.into())));
        }
        out.push(Event::Close);
    }

    fn finish(&mut self, response: &Fields<'_>, otherwise: &str, out: &mut Vec<Event>) {
        let status = response.text("status").unwrap_or(otherwise.into());
        self.close_as(status == "incomplete", out);
        if self.told.is_empty() {
            for (at, item) in response.get("output").into_iter().flat_map(Json::items).enumerate() {
                self.whole_item(at as u64, &Fields::of(item), out);
                if self.done {
                    return;
                }
            }
        }
        let counts = response.get("usage").filter(|json| json.kind() == Shape::Object).map(usage);
        out.extend(counts.filter(|counts| *counts != Usage::default()).map(Event::Usage));
        let why = response.get("incomplete_details").and_then(|details| details.get("reason")).and_then(Json::as_str);
        out.push(Event::Stop(stop_reason(&status, why.as_deref(), self.calls)));
        self.done = true;
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<Event>) {
        self.done = true;
        out.push(Event::Fault(fault));
    }
}

/// The parts of a message or a thought of which nothing has been told.
fn parts(item: &Fields<'_>, out: &mut Vec<Event>) {
    let mut part = |part: Part, delta: Delta| out.extend([Event::Open(part), Event::Delta(delta), Event::Close]);
    match item.text("type").as_deref() {
        Some("message") => {
            for content in item.get("content").into_iter().flat_map(Json::items).map(Fields::of) {
                let text = |key: &str| content.text(key).filter(|text| !text.is_empty()).map(Cow::into_owned);
                if let Some(text) = text("text") {
                    part(Part::Text, Delta::Text(text));
                } else if let Some(text) = text("refusal") {
                    part(Part::Refusal, Delta::Text(text));
                }
            }
        }
        Some("reasoning") => {
            let text = thoughts(item);
            if !text.is_empty() {
                part(Part::Thinking, Delta::Thinking(text));
            }
        }
        _ => {}
    }
}

/// Where an item stands. Servers that do not count them still name them.
fn place(event: &Fields<'_>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    if let Some(at) = event.get("output_index").and_then(Json::as_u64) {
        return at;
    }
    let item = event.get("item").and_then(|item| item.get("id")).and_then(Json::as_str);
    let id = event.text("item_id").or(item).unwrap_or_default();
    let mut hash = DefaultHasher::new();
    id.hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests;
