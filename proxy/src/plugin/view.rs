//! A call as a guest sees it: read as far as it asks, changed on a copy that counts only if the verdict says so.

use super::bindings::{calls, types as wit};
use super::convert;
use crate::canon::call::Content;
use crate::canon::{Call, Fault};
use crate::wire::edit;
use crate::wire::request::Request;
use std::borrow::Cow;

/// The call of one request, lent for the length of `on-call`.
pub struct View {
    request: Request,
    /// What the guest made of it; `None`: nothing.
    edited: Option<Request>,
    /// Edits of the whole call that are not in `edited` yet.
    deep: Option<Call>,
    /// The whole call could not be read: the request is refused when the hook returns.
    invalid: Option<Fault>,
    /// Bytes that its edits may still hand over.
    room: usize,
}

/// What a hook left behind.
pub(super) struct Left {
    /// The request as it came.
    pub request: Request,
    /// The request as edited, why it cannot be said, or `None` if nothing was.
    pub edited: Option<Result<Request, Fault>>,
    /// The call itself is wrong.
    pub invalid: Option<Fault>,
}

impl View {
    /// `more`: what edits may hand over beside as much as the call itself is, which each text of it may be written anew with.
    pub fn new(request: Request, more: usize) -> Self {
        let room = request.body().len().saturating_add(more);
        Self { request, edited: None, deep: None, invalid: None, room }
    }

    /// Counts an edit of so many bytes; false where that is more than all edits together may have. One by one they are bounded
    /// by what a guest may hand over at a time, but there may be many.
    pub fn makes_room(&mut self, bytes: usize) -> bool {
        let Some(room) = self.room.checked_sub(bytes) else { return false };
        self.room = room;
        true
    }

    /// Ends the loan.
    pub fn leave(mut self) -> Left {
        let flushed = self.flush();
        let edited = match flushed {
            Err(fault) => Some(Err(fault)),
            Ok(()) => self.edited.map(Ok),
        };
        Left { request: self.request, edited, invalid: self.invalid }
    }

    fn current(&self) -> &Request {
        self.edited.as_ref().unwrap_or(&self.request)
    }

    /// The whole call; an empty one when it is invalid.
    fn read(&mut self) -> Cow<'_, Call> {
        if self.deep.is_none()
            && let Err(fault) = self.current().call_for_plugins()
        {
            self.invalid.get_or_insert(fault);
            return Cow::Owned(Call::default());
        }
        match &self.deep {
            Some(call) => Cow::Borrowed(call),
            None => self.current().call().map_or_else(|_| Cow::Owned(Call::default()), Cow::Borrowed),
        }
    }

    /// The whole call, to be changed.
    fn write(&mut self) -> &mut Call {
        if self.deep.is_none() {
            self.deep = Some(self.read().into_owned());
        }
        self.deep.get_or_insert_default()
    }

    /// Puts edits of the whole call into the body.
    fn flush(&mut self) -> Result<(), Fault> {
        if let Some(call) = self.deep.take()
            && self.invalid.is_none()
        {
            self.edited = Some(self.current().with_call(&call)?);
        }
        Ok(())
    }

    pub fn model(&self) -> &str {
        &self.current().model
    }

    pub fn set_model(&mut self, model: &str) -> Result<(), Fault> {
        self.flush()?;
        self.edited = Some(self.current().with_members(&[("model", Some(&edit::quoted(model)))])?);
        Ok(())
    }

    pub fn size(&self) -> usize {
        self.request.body().len()
    }

    pub fn keys(&self) -> Vec<String> {
        self.current().keys()
    }

    pub fn json(&mut self, pointer: &str) -> Option<String> {
        // A pointer must find what was written before, too; a call that cannot be said is reported when the hook returns.
        if let Some(call) = &self.deep {
            let edited = self.current().with_call(call).ok()?;
            return at(&edited, pointer);
        }
        at(self.current(), pointer)
    }

    pub fn set_json(&mut self, key: &str, json: Option<&str>) -> Result<(), String> {
        if key == "model" || key == "stream" {
            return Err(format!("`{key}` cannot be set this way"));
        }
        if let Some(json) = json {
            crate::wire::json::validate(json.as_bytes()).map_err(|error| format!("this is no JSON: {}", error.what))?;
        }
        let flushed = self.flush().and_then(|()| self.current().with_members(&[(key, json.map(str::as_bytes))]));
        self.edited = Some(flushed.map_err(|fault| fault.message)?);
        Ok(())
    }

    pub fn parameters(&mut self) -> wit::Parameters {
        convert::parameters(&self.read())
    }

    pub fn set_parameters(&mut self, parameters: wit::Parameters) {
        convert::set_parameters(self.write(), parameters);
    }

    pub fn tools(&mut self) -> Vec<wit::Tool> {
        self.read().tools.iter().map(convert::tool).collect()
    }

    pub fn set_tools(&mut self, tools: Vec<wit::Tool>) {
        self.write().tools = tools.into_iter().map(convert::tool_back).collect();
    }

    pub fn turn_count(&mut self) -> usize {
        self.read().turns.len()
    }

    pub fn turns(&mut self, start: usize, count: usize) -> Vec<wit::Turn> {
        self.read().turns.iter().skip(start).take(count).map(convert::turn).collect()
    }

    pub fn splice_turns(&mut self, start: usize, remove: usize, insert: Vec<wit::Turn>) {
        let turns = &mut self.write().turns;
        let start = start.min(turns.len());
        let end = start.saturating_add(remove).min(turns.len());
        turns.splice(start..end, insert.into_iter().map(convert::turn_back));
    }

    pub fn texts(&mut self, start: usize) -> Vec<calls::Passage> {
        let call = self.read();
        let mut out = Vec::new();
        for (turn, said) in call.turns.iter().enumerate().skip(start) {
            for (piece, content) in said.content.iter().enumerate() {
                let mut add = |inner: usize, kind, text: &str| {
                    let place = calls::Place { turn: turn as u32, piece: piece as u32, inner: inner as u32 };
                    out.push(calls::Passage { place, role: convert::role(said.role), kind, text: text.to_owned() });
                };
                match content {
                    Content::Text(text) => add(0, calls::PassageKind::Text, text),
                    Content::Refusal(text) => add(0, calls::PassageKind::Refusal, text),
                    Content::Thinking { text, .. } => add(0, calls::PassageKind::Thinking, text),
                    Content::ToolCall { arguments, .. } => add(0, calls::PassageKind::Arguments, arguments),
                    Content::ToolResult { content, .. } => {
                        for (inner, content) in content.iter().enumerate() {
                            if let Content::Text(text) = content {
                                add(inner, calls::PassageKind::ToolResult, text);
                            }
                        }
                    }
                    Content::Image(_) | Content::RedactedThinking { .. } | Content::Other { .. } => {}
                }
            }
        }
        out
    }

    /// False where no text stands.
    pub fn set_text(&mut self, place: calls::Place, text: String) -> bool {
        let (turn, piece, inner) = (place.turn as usize, place.piece as usize, place.inner as usize);
        let content = self.write().turns.get_mut(turn).and_then(|turn| turn.content.get_mut(piece));
        match content {
            Some(Content::Text(old) | Content::Refusal(old) | Content::ToolCall { arguments: old, .. }) => *old = text,
            Some(Content::Thinking { text: old, signature }) => {
                *old = text;
                *signature = None;
            }
            Some(Content::ToolResult { content, .. }) => match content.get_mut(inner) {
                Some(Content::Text(old)) => *old = text,
                _ => return false,
            },
            _ => return false,
        }
        true
    }
}

/// Bytes of turns that are handed over: their texts, and what holds them.
pub(super) fn weight(turns: &[wit::Turn]) -> usize {
    let pieces = turns.iter().flat_map(|turn| &turn.content);
    size_of_val(turns) + pieces.map(|piece| size_of_val(piece) + texts(piece)).sum::<usize>()
}

fn texts(content: &wit::Content) -> usize {
    let image = |image: &wit::Image| match image {
        wit::Image::Data(data) => data.media_type.len() + data.data.len(),
        wit::Image::Url(url) => url.len(),
    };
    let raw = |raw: &wit::Raw| raw.kind.len() + raw.json.len();
    let inner = |content: &wit::ToolContent| match content {
        wit::ToolContent::Text(text) => text.len(),
        wit::ToolContent::Image(of) => image(of),
        wit::ToolContent::Other(of) => raw(of),
    };
    match content {
        wit::Content::Text(text) | wit::Content::RedactedThinking(text) | wit::Content::Refusal(text) => text.len(),
        wit::Content::Image(of) => image(of),
        wit::Content::Thinking(thought) => thought.text.len() + thought.signature.as_ref().map_or(0, String::len),
        wit::Content::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
        wit::Content::ToolResult(result) => {
            let pieces = result.content.as_slice();
            result.id.len() + size_of_val(pieces) + pieces.iter().map(inner).sum::<usize>()
        }
        wit::Content::Other(of) => raw(of),
    }
}

fn at(request: &Request, pointer: &str) -> Option<String> {
    let body = crate::wire::json::validate(request.body()).ok()?;
    edit::pointer(body, pointer).map(|json| json.raw().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;
    use bytes::Bytes;

    /// Ollama, in whatever API it is spoken to, takes the last of `content` and `Content`.
    #[test]
    fn a_text_that_only_some_servers_would_read_does_not_get_past() {
        use Dialect::{Chat, Messages, OllamaChat, Responses};
        for (dialect, body, param) in [
            (Chat, r#"{"model":"m","messages":[{"role":"user","content":"a","name":"N"}],"Seen":1}"#, None),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"a","Content":"b"}]}"#,
                Some("messages.Content"),
            ),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a","TEXT":"b"}]}]}"#,
                Some("content.TEXT"),
            ),
            (
                OllamaChat,
                r#"{"model":"m","messages":[{"role":"tool","tool_call_id":"i","Content":"b"}]}"#,
                Some("messages.Content"),
            ),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}","Arguments":"b"}}]}]}"#,
                Some("function.Arguments"),
            ),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"assistant","function_call":{"name":"f","arguments":"{}","Arguments":"b"}}]}"#,
                Some("function_call.Arguments"),
            ),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","Description":"b"}}]}"#,
                Some("function.Description"),
            ),
            (
                Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"Name":{},"Arguments":1}}}]}"#,
                None,
            ),
            (
                Messages,
                r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"name":"f","input_schema":{"Name":1},"Description":"b"}]}"#,
                Some("tools.Description"),
            ),
            (
                Responses,
                r#"{"model":"m","input":[{"type":"function_call","call_id":"1","name":"f","arguments":"{}","ARGUMENTS":"b"}]}"#,
                Some("input.ARGUMENTS"),
            ),
            (
                Responses,
                r#"{"model":"m","input":"a","tools":[{"type":"function","name":"f","parameters":{},"Description":"b"}]}"#,
                Some("tools.Description"),
            ),
            (
                OllamaChat,
                r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}},"Function":{"name":"g"}}]}]}"#,
                Some("tool_calls.Function"),
            ),
            (
                OllamaChat,
                r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"Name":1},"Arguments":{}}}]}]}"#,
                Some("function.Arguments"),
            ),
        ] {
            let mut view = View::new(Request::read(dialect, Bytes::from_static(body.as_bytes())).unwrap(), 0);
            view.texts(0);
            let found = view.leave().invalid.map(|fault| fault.param.unwrap_or_default());
            assert_eq!(found.as_deref(), param, "{body}");
        }
    }

    #[test]
    fn all_edits_together_have_so_much_room() {
        let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
        let length = body.len();
        let mut view = View::new(Request::read(Dialect::Chat, body).unwrap(), 10);
        assert!(view.makes_room(length) && view.makes_room(10));
        assert!(view.makes_room(0) && !view.makes_room(1));
        let turn = |content| wit::Turn { role: wit::Role::User, content };
        let nothing: Vec<_> = (0..1000).map(|_| turn(Vec::new())).collect();
        assert!(weight(&nothing) >= 1000 * size_of::<wit::Turn>(), "what holds no text has its weight");
        let said = [turn(vec![wit::Content::Text("x".repeat(1000)), wit::Content::Refusal("y".repeat(1000))])];
        assert!((2000..3000).contains(&weight(&said)), "{}", weight(&said));
    }
}
