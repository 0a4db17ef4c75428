//! Embedding over the wire: its protocols, a request for it, and vectors as bytes.
//!
//! They are few and nothing streams, so they are not among the [`Dialect`]s, most of whose questions (frames, events, glances)
//! they could not answer. What holds for those holds here: each protocol is known from both ends, in a file of its vendor's;
//! the same protocol on both sides means the same bytes.

use super::json::{Json, Kind};
use super::object::Object;
use super::{Dialect, Target, Times, Written, backend_fault, beyond, ollama, openai, request};
use crate::canon::{EmbedCall, Embedded, Fault, FaultKind, Usage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// A protocol for embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmbedApi {
    /// OpenAI's `/v1/embeddings`.
    Openai,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`, the older one: one prompt, one vector.
    OllamaPrompt,
}

impl EmbedApi {
    /// All of them, best first for calls that must be translated.
    pub const ALL: [EmbedApi; 3] = [EmbedApi::Openai, EmbedApi::Ollama, EmbedApi::OllamaPrompt];

    fn codec(self) -> &'static dyn EmbedCodec {
        match self {
            Self::Openai => &openai::embeddings::Embeddings,
            Self::Ollama => &ollama::embed::Embed,
            Self::OllamaPrompt => &ollama::embed::EmbedPrompt,
        }
    }

    /// The dialect of its family, whose errors it has.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Openai => Dialect::Chat,
            Self::Ollama | Self::OllamaPrompt => Dialect::OllamaChat,
        }
    }

    /// The path below a backend's base address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Openai => "/v1/embeddings",
            Self::Ollama => "/api/embed",
            Self::OllamaPrompt => "/api/embeddings",
        }
    }
}

/// One protocol for embedding from both ends.
pub(super) trait EmbedCodec {
    /// Reads a request.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    fn read_call(&self, request: &Object) -> Result<EmbedCall, Fault>;

    /// Writes a request for a backend.
    ///
    /// # Errors
    /// What this protocol cannot say, by name.
    fn write_call(&self, call: &EmbedCall, to: &Target) -> Result<Written, Fault>;

    /// Finds the vectors in a reply, in the order of the inputs.
    ///
    /// # Errors
    /// What the reply is instead.
    fn find<'a>(&self, reply: &'a Object) -> Result<Found<'a>, &'static str>;

    /// Writes a reply.
    fn write_answer(&self, answer: &Embedded, request: &EmbedRequest) -> Bytes;
}

/// What a reply holds, undecoded.
pub(super) struct Found<'a> {
    /// Lists of numbers, or texts in base64.
    pub vectors: Vec<Json<'a>>,
    pub usage: Usage,
    pub times: Option<Times>,
}

/// A request for vectors.
#[derive(Debug, Clone)]
pub struct EmbedRequest {
    /// What the client speaks.
    pub api: EmbedApi,
    /// What it wants.
    pub call: EmbedCall,
    /// It wants its vectors in base64: little-endian `f32`s. OpenAI's own clients do unless they are told otherwise.
    pub base64: bool,
    object: Object,
}

/// A request ready for a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedOutgoing {
    /// What the backend will be spoken to in.
    pub api: EmbedApi,
    /// Body, and what had to be dropped.
    pub written: Written,
}

/// A reply for the client, and what it means to the books.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedReply {
    /// The body.
    pub body: Bytes,
    /// The tokens read.
    pub usage: Usage,
    /// What the backend says it took.
    pub times: Option<Times>,
}

impl EmbedRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// A fault that names everything wrong with it.
    pub fn read(api: EmbedApi, body: Bytes) -> Result<Self, Fault> {
        let object = request::object(body)?;
        let call = api.codec().read_call(&object)?;
        let base64 = object.get("encoding_format").and_then(Json::as_str).is_some_and(|word| word == "base64");
        Ok(Self { api, call, base64: base64 && api == EmbedApi::Openai, object })
    }

    /// The end user, as far as books keep names.
    pub fn user(&self) -> Option<String> {
        self.call.user.as_ref().map(|user| user.chars().take(256).collect())
    }

    /// Tokens by rule of thumb, for when nobody reports them.
    pub fn estimate(&self) -> u64 {
        self.call.inputs.iter().map(crate::canon::EmbedInput::estimate).sum()
    }

    /// Writes the request for a backend that speaks `apis`, in the client's own where it can.
    ///
    /// # Errors
    /// What cannot be said there, by name.
    pub fn write(&self, apis: &[EmbedApi], to: &Target) -> Result<EmbedOutgoing, Fault> {
        let forbidden: Vec<String> = beyond::forbidden(&self.object).map(str::to_owned).collect();
        if apis.contains(&self.api) {
            let body = self.object.addressed(&self.call.model, &to.model, &forbidden);
            let written = Written { body, dropped: forbidden, adjusted: Vec::new() };
            return Ok(EmbedOutgoing { api: self.api, written });
        }
        // The older of Ollama's two says less than the newer, which is there wherever it is.
        let api = apis.iter().copied().find(|api| *api != EmbedApi::OllamaPrompt);
        let api = api.ok_or_else(|| Fault::internal("the backend speaks no embedding that Tidegate knows"))?;
        let mut written = api.codec().write_call(&self.call, to)?;
        written.dropped.extend(forbidden);
        Ok(EmbedOutgoing { api, written })
    }

    /// A backend's reply as the client's, untouched where it can be.
    ///
    /// # Errors
    /// It is none: what it is instead, or what the backend says.
    pub fn reply(&self, api: EmbedApi, body: Bytes) -> Result<EmbedReply, Fault> {
        let wrong =
            |what: &str| Fault::new(FaultKind::BackendError, format!("The backend's reply is no embedding: {what}."));
        let reply = Object::read(body).map_err(|_| wrong("it is not a JSON object"))?;
        let found = api.codec().find(&reply).map_err(|what| match reply.get("error") {
            Some(error) => backend_fault::backend_fault(error),
            None => wrong(what),
        })?;
        if found.vectors.len() != self.call.inputs.len() {
            let (got, asked) = (found.vectors.len(), self.call.inputs.len());
            return Err(wrong(&format!("it holds {got} vectors for {asked} inputs")));
        }
        let mut all = None;
        for vector in &found.vectors {
            let length = length(*vector).map_err(wrong)?;
            if all.replace(length).is_some_and(|other| other != length) {
                return Err(wrong("its vectors are of several lengths"));
            }
        }
        let Found { usage, times, .. } = found;
        let as_asked = |vector: &Json<'_>| (vector.kind() == Kind::String) == self.base64;
        if api == self.api && found.vectors.iter().all(as_asked) {
            return Ok(EmbedReply { body: super::reply::rename_answer(&reply, &self.call.model), usage, times });
        }
        let vectors = found.vectors.iter().map(|vector| numbers(*vector)).collect::<Result<_, _>>().map_err(wrong)?;
        Ok(EmbedReply { body: self.answer(&Embedded { vectors, usage }), usage, times })
    }

    /// The answer as the client wants it.
    pub fn answer(&self, answer: &Embedded) -> Bytes {
        self.api.codec().write_answer(answer, self)
    }
}

/// How many numbers a vector has, without reading them; or why it is none. Most replies go through as they came.
fn length(vector: Json<'_>) -> Result<usize, &'static str> {
    if vector.kind() == Kind::String {
        return numbers(vector).map(|numbers| numbers.len());
    }
    let text = vector.raw().as_bytes();
    // Some servers write `null` where a number is none.
    let plain = |byte: &u8| {
        matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E' | b',' | b' ' | b'\n' | b'\r' | b'\t')
    };
    let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).ok_or(NO_VECTOR)?;
    match inner {
        _ if inner.iter().all(u8::is_ascii_whitespace) => Err("a vector is empty"),
        _ if inner.iter().all(plain) => Ok(memchr::memchr_iter(b',', inner).count() + 1),
        _ => Err(NO_NUMBER),
    }
}

const NO_VECTOR: &str = "what should be a vector is no list of numbers";
const NO_NUMBER: &str = "a vector holds what is no number";

/// The numbers of a vector in either spelling.
fn numbers(vector: Json<'_>) -> Result<Vec<f32>, &'static str> {
    let numbers = if vector.kind() == Kind::String {
        let text = vector.as_str().ok_or(NO_VECTOR)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| "a vector is no base64")?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || words.is_empty() {
            return Err("a vector in base64 holds no whole numbers");
        }
        words.iter().map(|word| f32::from_le_bytes(*word)).collect::<Vec<_>>()
    } else {
        let inner = vector.raw().strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or(NO_VECTOR)?;
        inner.split(',').map(|number| number.trim_ascii().parse().map_err(|_| NO_NUMBER)).collect::<Result<_, _>>()?
    };
    if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(NO_NUMBER) }
}

/// Writes a vector as a list of numbers, each as short as reads back the same.
pub(super) fn put_numbers(out: &mut Vec<u8>, vector: &[f32]) {
    out.push(b'[');
    for (at, number) in vector.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, number);
    }
    out.push(b']');
}

/// Writes a vector as base64 of its little-endian bytes.
pub(super) fn put_base64(out: &mut Vec<u8>, vector: &[f32]) {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
#[path = "embed/tests.rs"]
mod tests;
