//! A request at three depths: the bytes as received, the top-level keys, the canonical call.
//!
//! Going out, the cheapest form that is true: the same bytes by reference count; the same bytes with values spliced; only
//! towards another dialect written anew from the call.

use super::beyond::{forbidden, no_thread, refuse_capitals, refuse_lookalikes, refuse_silence, system_texts};
use super::count::Counter;
use super::object::{Object, Refusal};
use super::put::put_raw;
use super::{Dialect, Target, Unasked, Written, json, ollama};
use crate::canon::fault::Detail;
use crate::canon::{Call, Fault};
use bytes::Bytes;
use std::cell::OnceCell;

/// A generating request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the client speaks.
    pub dialect: Dialect,
    /// The model name the client asked for, which its reply bears whatever serves it.
    pub asked: String,
    /// The model to route to: the same, unless a plugin said otherwise.
    pub model: String,
    /// It wants a stream.
    pub stream: bool,
    object: Object,
    /// Boxed: most requests are never read that deep, and all are moved from room to room.
    call: OnceCell<Box<Call>>,
    /// No client wrote its bytes: each backend gets it in its own words.
    composed: bool,
}

/// A request ready for a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// What the backend will be spoken to in.
    pub dialect: Dialect,
    /// Body, and what had to be dropped or moved.
    pub written: Written,
    /// Token counts that were asked for beyond those that the client asked for.
    pub unasked: Unasked,
}

impl Request {
    /// Reads the top level of a body and checks it.
    ///
    /// # Errors
    /// A fault that names everything wrong with it.
    pub fn read(dialect: Dialect, body: Bytes) -> Result<Self, Fault> {
        let object = object(body)?;
        refuse_capitals(&object)?;
        dialect.codec().check(&object)?;
        let model = object.get("model").and_then(json::Json::as_str).unwrap_or_default().into_owned();
        let stream = object.get("stream").and_then(json::Json::as_bool).unwrap_or(dialect.streams_by_default());
        Ok(Self { dialect, asked: model.clone(), model, stream, object, call: OnceCell::new(), composed: false })
    }

    /// A request that no client wrote. Whatever a backend speaks, it is written for it from the call.
    ///
    /// # Errors
    /// Everything that is wrong with the call.
    pub fn compose(call: Call) -> Result<Self, Fault> {
        // For the checks and the estimate of its size: the dialect with the fewest rules of its own.
        let target = Target { model: call.model.clone(), extended_sampling: true, ..Target::default() };
        let body = Dialect::Chat.codec().write_call(&call, &target)?.body;
        Ok(Self { call: OnceCell::from(Box::new(call)), composed: true, ..Self::read(Dialect::Chat, body)? })
    }

    /// The request with these members at its top level instead: JSON text, or `None` for none. All else keeps its bytes.
    ///
    /// # Errors
    /// As [`Request::read`]: what came of it is no request.
    pub fn with_members(&self, members: &[(&str, Option<&[u8]>)]) -> Result<Self, Fault> {
        Ok(Self { asked: self.asked.clone(), ..Self::read(self.dialect, self.object.splice(members))? })
    }

    /// The request with this call instead of its own. Only top-level members that differ are written anew, and of messages
    /// only those.
    ///
    /// # Errors
    /// The call cannot be said in the client's dialect, or is invalid there.
    pub fn with_call(&self, call: &Call) -> Result<Self, Fault> {
        super::edit::with_call(self, call)
    }

    /// The body as it stands.
    pub fn body(&self) -> &Bytes {
        self.object.source()
    }

    /// A top-level member, null included.
    pub fn member(&self, key: &str) -> Option<json::Json<'_>> {
        self.object.value(key)
    }

    /// The names of the top-level members, in order.
    pub fn keys(&self) -> Vec<String> {
        json::validate(self.body())
            .map(|body| body.entries().map(|(key, _)| key.into_owned()).collect())
            .unwrap_or_default()
    }

    /// The canonical call, read on first ask.
    ///
    /// # Errors
    /// Everything that is wrong below the top level.
    pub fn call(&self) -> Result<&Call, Fault> {
        if let Some(call) = self.call.get() {
            return Ok(call);
        }
        let call = self.dialect.codec().read_call(&self.object)?;
        Ok(self.call.get_or_init(|| Box::new(call)))
    }

    /// The call, for whoever must see all of it that a server may read.
    ///
    /// # Errors
    /// As [`Request::call`], and a member that only some servers know by its name.
    pub fn call_for_plugins(&self) -> Result<&Call, Fault> {
        self.call().and_then(refuse_lookalikes)
    }

    /// The call, for whoever speaks another dialect than the client.
    ///
    /// # Errors
    /// As [`Request::call`], and what only the client's dialect can say.
    pub fn call_for_others(&self) -> Result<&Call, Fault> {
        let call = self.call()?;
        self.dialect.codec().confined(call)?;
        // No server takes it, and to Ollama's it would mean something else.
        if call.turns.iter().all(|turn| turn.role.is_system()) && system_texts(&call.turns)?.is_empty() {
            return Err(refuse_silence());
        }
        Ok(call)
    }

    /// The client wants usage in its stream.
    pub fn stream_usage(&self) -> bool {
        match self.dialect {
            Dialect::Chat | Dialect::Completions => self
                .object
                .get("stream_options")
                .and_then(|options| options.get("include_usage"))
                .and_then(json::Json::as_bool)
                .unwrap_or(false),
            Dialect::Messages | Dialect::Responses | Dialect::OllamaChat | Dialect::OllamaGenerate => true,
        }
    }

    /// The end user, as far as the top level tells.
    pub fn user(&self) -> Option<String> {
        let user = match self.dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Completions => self.object.get("user"),
            Dialect::Messages => self.object.get("metadata").and_then(|metadata| metadata.get("user_id")),
            Dialect::OllamaChat | Dialect::OllamaGenerate => None,
        };
        user.and_then(json::Json::as_str).map(|user| user.chars().take(256).collect())
    }

    /// Why the request generates nothing, if it only has a model loaded or put out of memory: the word its answer gives. A
    /// backend that speaks the client's dialect does it; before every other there is nothing to do.
    pub fn loads(&self) -> Option<&'static str> {
        match self.dialect {
            Dialect::Chat | Dialect::Messages | Dialect::Responses | Dialect::Completions => None,
            Dialect::OllamaChat => ollama::load_word(ollama::Form::Chat, &self.object),
            Dialect::OllamaGenerate => ollama::load_word(ollama::Form::Generate, &self.object),
        }
    }

    /// Writes the request for a backend that speaks `dialects`, in the client's own where it can.
    ///
    /// # Errors
    /// The feature that cannot be said there, by name.
    pub fn write(&self, dialects: &[Dialect], to: &Target) -> Result<Outgoing, Fault> {
        let alike = dialects.contains(&self.dialect);
        if alike && !self.composed {
            if self.dialect == Dialect::Messages && !to.threads && self.object.get("thread").is_some() {
                return Err(no_thread());
            }
            if !self.dialect.codec().must_rewrite(&self.object) {
                return Ok(self.splice(to));
            }
            let (clean, cost) = super::edit::without_marks(self)?;
            let mut out = clean.splice(to);
            out.written.dropped.extend(cost.dropped);
            out.written.adjusted.extend(cost.adjusted);
            return Ok(out);
        }
        let dialect = if alike { Some(self.dialect) } else { dialects.first().copied() };
        let dialect = dialect.ok_or_else(generates_nothing)?;
        let call = if alike { self.call()? } else { self.call_for_others()? };
        let mut written = dialect.codec().write_call(call, to)?;
        written.dropped.extend(forbidden(&self.object).map(str::to_owned));
        Ok(Outgoing { dialect, written, unasked: Unasked::None })
    }

    /// What was sent to a backend without that of which its error says that this model cannot do it, where an answer can do
    /// without. What the client said in the backend's own words stays.
    pub fn spare(&self, sent: &Outgoing, complaint: &str) -> Option<Outgoing> {
        if sent.dialect == self.dialect && !self.composed {
            return None;
        }
        let name = sent.dialect.codec().can_spare(complaint)?;
        let object = Object::read(sent.written.body.clone()).ok()?;
        object.value(name)?;
        let mut less = sent.clone();
        less.written.body = object.splice(&[(name, None)]);
        less.written.dropped.push(name.to_owned());
        Some(less)
    }

    /// Writes the request for a counter of its prompt's tokens.
    ///
    /// # Errors
    /// As [`Request::write`].
    pub fn write_to_count(&self, counter: Counter, to: &Target) -> Result<Bytes, Fault> {
        let dialect = counter.dialect();
        if dialect != self.dialect {
            let written = dialect.codec().write_call(self.call_for_others()?, to)?.body;
            let object = Object::read(written).map_err(|_| Fault::internal("a call was written that is no object"))?;
            // What it takes is put together, not the rest taken out: of that the caller may have made up millions.
            let mut out = vec![b'{'];
            object
                .entries()
                .filter(|(name, _)| counter.takes(name))
                .for_each(|(name, json)| put_raw(&mut out, &name, json.raw()));
            out.push(b'}');
            return Ok(out.into());
        }
        let marked = dialect.codec().must_rewrite(&self.object);
        let clean = marked.then(|| super::edit::without_marks(self)).transpose()?;
        let object = &clean.as_ref().map_or(self, |(clean, _)| clean).object;
        Ok(object.addressed(&self.model, &to.model, &forbidden(&self.object).collect::<Vec<_>>()))
    }

    fn splice(&self, to: &Target) -> Outgoing {
        let mut model = Vec::new();
        let usage = self.dialect.codec().ask_usage(&self.object, to.continuous_usage);
        let mut edits: Vec<(&str, Option<&[u8]>)> = Vec::new();
        if to.model != self.model {
            json::write_str(&mut model, &to.model);
            edits.push(("model", Some(&model)));
        }
        if let Some((key, value, _)) = &usage {
            edits.push((key, Some(value)));
        }
        let completed = self.dialect.codec().complete(&self.object, to);
        edits.extend(completed.iter().map(|(key, value)| (*key, Some(&value[..]))));
        let dropped: Vec<String> = forbidden(&self.object).map(str::to_owned).collect();
        edits.extend(dropped.iter().map(|key| (key.as_str(), None)));
        let written = Written { body: self.object.splice(&edits), dropped, adjusted: Vec::new() };
        Outgoing { dialect: self.dialect, written, unasked: usage.map_or(Unasked::None, |(.., unasked)| unasked) }
    }

    /// Prompt tokens by rule of thumb, for when nobody reports them: four bytes of text a token, 1,000 an image.
    pub fn estimate_input(&self) -> u64 {
        if self.loads().is_some() {
            return 0;
        }
        let raw: usize = ["messages", "system", "tools", "instructions", "input", "prompt"]
            .iter()
            .filter_map(|key| self.object.get(key))
            .map(|value| value.len())
            .sum();
        let carries = |word: &[u8]| memchr::memmem::find(self.object.source(), word).is_some();
        let carries_images = match self.dialect {
            Dialect::OllamaChat | Dialect::OllamaGenerate => carries(b"\"images\""),
            _ => raw > 4096 && carries(b"base64"),
        };
        match carries_images.then(|| self.call()) {
            Some(Ok(call)) => call.turns.iter().flat_map(|turn| &turn.content).map(weigh).sum::<u64>().div_ceil(4),
            _ => (raw as u64).div_ceil(4),
        }
    }
}

/// Said by what only embeds.
pub fn generates_nothing() -> Fault {
    Fault::unsupported(
        "model",
        "This model generates no text, it only makes embeddings: ask it at /v1/embeddings or /api/embed.",
    )
}

/// Bytes of text in a piece of content; an image weighs as much as 1,000 tokens.
fn weigh(content: &crate::canon::call::Content) -> u64 {
    use crate::canon::call::Content;
    match content {
        Content::Text(text) | Content::Refusal(text) | Content::Thinking { text, .. } => text.len() as u64,
        Content::ToolCall { name, arguments, .. } => (name.len() + arguments.len()) as u64,
        Content::ToolResult { content, .. } => content.iter().map(weigh).sum(),
        Content::Image(_) => 4000,
        Content::RedactedThinking { .. } => 0,
        Content::Other { json, .. } => json.len().min(4000) as u64,
    }
}

/// The top level of a body.
///
/// # Errors
/// It is no object that we take.
pub(super) fn object(body: Bytes) -> Result<Object, Fault> {
    // An absent body is an object without fields: the answer then lists the ones it needs.
    let body = if body.iter().all(u8::is_ascii_whitespace) { Bytes::from_static(b"{}") } else { body };
    Object::read(body.clone()).map_err(|refusal| refused(&refusal, &body))
}

pub(super) fn refused(refusal: &Refusal, body: &[u8]) -> Fault {
    match refusal {
        Refusal::Syntax(syntax) => {
            let msg = format!("JSON decode error: {} at {}", syntax.what, syntax.place(body));
            let detail = Detail {
                loc: vec!["body".into(), syntax.at.to_string()],
                msg: msg.clone(),
                kind: "json_invalid",
                input: "{}".into(),
            };
            Fault {
                details: vec![detail],
                ..Fault::invalid(format!("We could not parse the JSON body of your request. {msg}"))
            }
        }
        Refusal::NotAnObject => {
            let detail = Detail {
                loc: vec!["body".into()],
                msg: "Input should be a JSON object".into(),
                kind: "dict_type",
                input: String::new(),
            };
            Fault { details: vec![detail], ..Fault::invalid("The request body must be a JSON object.") }
        }
        Refusal::Duplicate(key) => {
            let what =
                format!("The key `{key}` stands twice in the request body, be it in another case; send it once.");
            Fault::invalid(what).with_param(key.clone())
        }
    }
}
