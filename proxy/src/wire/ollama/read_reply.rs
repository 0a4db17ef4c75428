//! Lines of a reply, and whole replies, as events.
//!
//! A line may carry thinking, text and whole calls at once; they are told in that order. Calls without ids get some that are
//! the same for the same bytes. A stream that ends without `done` was cut, whatever the connection says.

use super::{Form, stop_reason, usage};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, Usage};
use crate::wire::ReadReply;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::{Frame, Framing};
use crate::wire::json::{Json, Kind, validate};
use crate::wire::reply::whole;
use bytes::Bytes;
use std::borrow::Cow;

/// Reads a whole reply: the stream that has one line, and that one the last.
pub(super) fn answer(form: Form, body: &Bytes) -> Result<Vec<Event>, Fault> {
    let Ok(json) = validate(body) else {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply is not JSON."));
    };
    let known = ["error", "done", form.field()];
    if known.iter().all(|name| json.get(name).is_none()) {
        return Err(Fault::new(FaultKind::BackendError, "The backend's reply holds no answer."));
    }
    let mut reader = Reader { whole: true, ..Reader::new(form) };
    let mut out = Vec::new();
    reader.line(json, &mut out);
    reader.end(&mut out);
    whole(out)
}

impl Form {
    /// The member that carries what is said.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Chat => "message",
            Self::Generate => "response",
        }
    }
}

/// State of one stream.
pub(super) struct Reader {
    form: Form,
    /// A whole body is complete even where it does not say so.
    whole: bool,
    started: bool,
    /// After Stop or Fault.
    done: bool,
    open: Option<Part>,
    /// Where invented ids begin; made of the first line.
    seed: String,
    calls: usize,
}

impl Reader {
    pub fn new(form: Form) -> Self {
        Self { form, whole: false, started: false, done: false, open: None, seed: String::new(), calls: 0 }
    }

    fn line(&mut self, json: Json<'_>, out: &mut Vec<Event>) {
        let fields = Fields::of(json);
        if let Some(error) = fields.get("error") {
            return self.fail(backend_fault(error), out);
        }
        if !self.started {
            self.start(&fields, json, out);
        }
        match self.form {
            Form::Chat => match fields.get("message") {
                Some(message) => self.said(&Fields::of(message), "content", out),
                // Some servers that imitate this one stream a chat in the other form.
                None => self.said(&fields, "response", out),
            },
            Form::Generate => self.said(&fields, "response", out),
        }
        let finished = fields.get("done").and_then(Json::as_bool).unwrap_or(self.whole);
        if finished {
            self.close(out);
            let counts = usage(|name| fields.get(name));
            if counts != Usage::default() {
                out.push(Event::Usage(counts));
            }
            let word = fields.text("done_reason").unwrap_or_default();
            out.push(Event::Stop(stop_reason(&word, self.calls > 0)));
            self.done = true;
        }
    }

    fn start(&mut self, fields: &Fields<'_>, json: Json<'_>, out: &mut Vec<Event>) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        self.started = true;
        let mut hash = DefaultHasher::new();
        json.raw().hash(&mut hash);
        self.seed = format!("{:016x}", hash.finish());
        let model = fields.text("model").filter(|text| !text.is_empty()).map(Cow::into_owned);
        out.push(Event::Start { id: None, model });
    }

    fn said(&mut self, said: &Fields<'_>, text: &str, out: &mut Vec<Event>) {
        if let Some(thought) = said.text("thinking").filter(|thought| !thought.is_empty()) {
            self.enter(Part::Thinking, out);
            out.push(Event::Delta(Delta::Thinking(thought.into_owned())));
        }
        if let Some(text) = said.text(text).filter(|text| !text.is_empty()) {
            self.enter(Part::Text, out);
            out.push(Event::Delta(Delta::Text(text.into_owned())));
        }
        for call in said.get("tool_calls").into_iter().flat_map(Json::items).map(Fields::of) {
            let function = call.get("function").map(Fields::of).unwrap_or_default();
            let Some(name) = function.text("name").filter(|name| !name.is_empty()) else {
                continue;
            };
            let id = call.text("id").filter(|id| !id.is_empty()).map(Cow::into_owned);
            let id = id.unwrap_or_else(|| format!("call_{}{}", self.seed, self.calls));
            self.calls += 1;
            self.close(out);
            out.push(Event::Open(Part::ToolCall { id, name: name.into_owned() }));
            let arguments = match function.get("arguments") {
                Some(json) if json.kind() == Kind::Object => Cow::Borrowed(json.raw()),
                // Some servers that imitate this one write text, as OpenAI does.
                Some(json) => json.as_str().unwrap_or_default(),
                None => Cow::Borrowed(""),
            };
            if !arguments.is_empty() {
                out.push(Event::Delta(Delta::Arguments(arguments.into_owned())));
            }
            out.push(Event::Close);
        }
    }

    fn enter(&mut self, part: Part, out: &mut Vec<Event>) {
        if self.open.as_ref() != Some(&part) {
            self.close(out);
            out.push(Event::Open(part.clone()));
            self.open = Some(part);
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        out.extend(self.open.take().map(|_| Event::Close));
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<Event>) {
        self.done = true;
        out.push(Event::Fault(fault));
    }
}

impl ReadReply for Reader {
    fn read(&mut self, frame: &Frame, out: &mut Vec<Event>) {
        if self.done {
            return;
        }
        let Some(data) = Framing::Lines.data(frame) else { return };
        match validate(&data) {
            Ok(json) if json.kind() == Kind::Object => self.line(json, out),
            // The last line of a cut connection may be a piece of one.
            _ if !frame.raw.ends_with(b"\n") => self.fail(Fault::cut(), out),
            _ => self
                .fail(Fault::new(FaultKind::BackendError, "The backend sent a line that is not a JSON object."), out),
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if !self.done {
            self.fail(Fault::cut(), out);
        }
    }
}
