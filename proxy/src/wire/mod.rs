//! Bytes ↔ canon. Pure: no I/O, no clock, no async.
//!
//! A protocol is a *dialect*, known from both ends in one file: as a server it reads calls and writes replies, as a client it
//! writes calls and reads replies. No dialect knows another; what they share is the canon. A new one is a file, a variant
//! here and its paths.

mod affinity;
pub mod anthropic;
mod backend_fault;
mod beyond;
mod check;
mod choices;
pub mod count;
pub mod edit;
pub mod embed;
mod form;
pub mod frame;
pub mod json;
pub mod object;
pub mod ollama;
pub mod opaque;
pub mod openai;
mod put;
mod rename;
pub mod reply;
pub mod request;
pub mod skim;
pub mod watch;

pub use backend_fault::{Complaint, complaint};

use crate::canon::{Answer, Call, Event, Fault, StopReason, Usage};
use bytes::{Bytes, BytesMut};
use frame::{Frame, Framing};
use object::Object;
use std::ops::Range;

/// A protocol for generating text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI chat completions.
    Chat,
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
    /// OpenAI completions, the legacy protocol.
    Completions,
    /// Ollama's `/api/chat`.
    OllamaChat,
    /// Ollama's `/api/generate`.
    OllamaGenerate,
}

impl Dialect {
    /// All of them, for loops over pairs.
    pub const ALL: [Dialect; 6] = [
        Dialect::Chat,
        Dialect::Messages,
        Dialect::Responses,
        Dialect::Completions,
        Dialect::OllamaChat,
        Dialect::OllamaGenerate,
    ];

    /// Both ends of the protocol.
    pub fn codec(self) -> &'static dyn Codec {
        match self {
            Self::Chat => &openai::chat::Chat,
            Self::Messages => &anthropic::Messages,
            Self::Responses => &openai::responses::Responses,
            Self::Completions => &openai::completions::Completions,
            Self::OllamaChat => &ollama::Ollama(ollama::Form::Chat),
            Self::OllamaGenerate => &ollama::Ollama(ollama::Form::Generate),
        }
    }

    /// The family, as records name it.
    pub fn family(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Completions => "openai",
            Self::Messages => "anthropic",
            Self::OllamaChat | Self::OllamaGenerate => "ollama",
        }
    }

    /// Whose words the opaque parts of its calls are: see [`Call::family`].
    pub fn words(self) -> &'static str {
        match self {
            Self::Chat => "openai",
            Self::Messages => "anthropic",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::OllamaChat | Self::OllamaGenerate => "ollama",
        }
    }

    /// The path below a backend's base address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
        }
    }

    /// The path class used in records and metric labels.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::OllamaChat => "api/chat",
            Self::OllamaGenerate => "api/generate",
        }
    }

    /// How its streams are cut.
    pub fn framing(self) -> Framing {
        match self {
            Self::Chat | Self::Messages | Self::Responses | Self::Completions => Framing::Events,
            Self::OllamaChat | Self::OllamaGenerate => Framing::Lines,
        }
    }

    /// A stream has said all it must with its stop reason; others end with a frame of their own.
    pub fn ends_by_stop(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// What goes into a stream between two frames to say that there still is somebody, and nothing else; empty where the
    /// protocol has no word for it. Ollama's clients read every line as JSON, an empty one, too, and fail.
    pub fn keep_alive(self) -> &'static [u8] {
        match (self, self.framing()) {
            (Self::Messages, _) => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
            (_, Framing::Events) => b": keep-alive\n\n",
            (_, Framing::Lines) => b"",
        }
    }

    /// A request that does not say whether it wants a stream gets one.
    pub fn streams_by_default(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }
}

/// One protocol from both ends.
pub trait Codec: Send + Sync {
    // As a server: towards clients.

    /// Checks the top level of a request: required fields, types, ranges. Cheap: looks at no message.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    fn check(&self, request: &Object) -> Result<(), Fault>;

    /// Reads a whole request.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    fn read_call(&self, request: &Object) -> Result<Call, Fault>;

    /// What of a call no other dialect can say although the answer depends on it.
    ///
    /// # Errors
    /// The field, by name.
    fn confined(&self, _call: &Call) -> Result<(), Fault> {
        Ok(())
    }

    /// Writes a whole reply body.
    ///
    /// # Errors
    /// The answer holds what a client of this protocol cannot be told.
    fn write_answer(&self, answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault>;

    /// Writes a stream.
    fn writer(&self, head: ReplyHead) -> Box<dyn WriteReply>;

    /// The HTTP status this protocol gives a fault.
    fn fault_status(&self, fault: &Fault) -> u16;

    /// The error body of a reply that has not begun.
    fn write_fault(&self, fault: &Fault, request_id: &str) -> Bytes;

    /// The error frame that ends a stream which has begun. `reply_id`: what [`Codec::reply_id`] found in it.
    fn write_fault_frame(&self, fault: &Fault, request_id: &str, reply_id: Option<&str>) -> Bytes;

    /// The id that a stream's first frame gives the reply, where an error frame must bear the same.
    fn reply_id(&self, _first: &Frame) -> Option<String> {
        None
    }

    // As a client: towards backends.

    /// Writes a request for a backend.
    ///
    /// # Errors
    /// A fault that names the field which this protocol or target cannot express.
    fn write_call(&self, call: &Call, to: &Target) -> Result<Written, Fault>;

    /// Reads a whole reply body.
    ///
    /// # Errors
    /// The body is not a reply: says what it is instead.
    fn read_answer(&self, body: &Bytes) -> Result<Vec<Event>, Fault>;

    /// The same of a body that has been found to be an object.
    ///
    /// # Errors
    /// As [`Codec::read_answer`].
    fn read_object(&self, body: &Object) -> Result<Vec<Event>, Fault> {
        self.read_answer(body.source())
    }

    /// Reads a stream.
    fn reader(&self) -> Box<dyn ReadReply>;

    /// What of a request an error says that this model cannot do, where an answer can do without: a top-level key.
    fn can_spare(&self, _complaint: &str) -> Option<&'static str> {
        None
    }

    // On the way through, when both sides speak this protocol.

    /// What a frame of a stream means to the books, at the least cost: most frames carry a piece of text and are seen so by
    /// a search for a few bytes.
    fn glance(&self, frame: &Frame) -> Glance;

    /// The same for a whole reply body.
    fn glance_answer(&self, answer: &Object) -> Glance;

    /// Adds to a stream's next report what it leaves to the earlier ones; `before` is what they came to.
    fn add_earlier(&self, _report: &mut Usage, _before: &Usage) {}

    /// Where the model's name stands in a stream frame's data, quotes included.
    fn model_span(&self, data: &Bytes) -> Option<Range<usize>>;

    /// What the client may leave out here, and the backend must be told: top-level keys and their values.
    fn complete(&self, _request: &Object, _to: &Target) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }

    /// The request may hold something of our own making that a backend of this protocol must not see: it is taken out.
    fn must_rewrite(&self, _request: &Object) -> bool {
        false
    }

    /// The times that a whole reply, or the last frame of a stream, tells, once it has been read. Glances have them by themselves.
    fn times(&self, _last: &[u8]) -> Option<Times> {
        None
    }

    /// The call as if what is of our own making in it were a vendor's: what then is written differently must be taken out.
    fn as_a_vendors(&self, call: &Call) -> Call {
        call.clone()
    }

    /// The edit that asks the backend for token counts the client did not ask for: a top-level key, its value, and which counts
    /// these are. `continuous`: the backend can report on every chunk (vLLM's `continuous_usage_stats`).
    fn ask_usage(&self, request: &Object, continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)>;
}

/// Token counts that a stream brings and its client did not ask for: they are kept from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unasked {
    /// It asked for all that come.
    #[default]
    None,
    /// Those beside what is generated; it asked for the last ones.
    Running,
    /// All.
    All,
}

/// Reads the frames of one stream. Keeps state; the same frames under any chunking give the same events.
pub trait ReadReply {
    /// Takes a frame and appends what it means. A frame that is no reply becomes `Event::Fault`, after which nothing follows.
    fn read(&mut self, frame: &Frame, out: &mut Vec<Event>);

    /// The bytes ended. Appends what was held back; a stream that stopped short becomes `Event::Fault`.
    fn end(&mut self, out: &mut Vec<Event>);
}

/// Writes the frames of one stream.
pub trait WriteReply {
    /// Appends what `event` is in this protocol: nothing, a frame, or several.
    fn write(&mut self, event: &Event, out: &mut BytesMut);

    /// Appends the frame that ends the stream with this fault, if it has to go on from what was written. Where it need not,
    /// nothing is appended, the answer is false, and [`Codec::write_fault_frame`] writes it.
    fn write_fault(&mut self, _fault: &Fault, _out: &mut BytesMut) -> bool {
        false
    }

    /// Appends what still waits for the next event: where all this has gone out as bytes, the client has seen it.
    fn settle(&mut self, _out: &mut BytesMut) {}

    /// Why the reply, which its backend ended well, has failed for a client of this protocol: its end was not written. To be asked
    /// when events have been written.
    fn fault(&mut self) -> Option<Fault> {
        None
    }
}

/// What a reply that we write ourselves says at its head.
#[derive(Debug, Clone, Default)]
pub struct ReplyHead {
    /// Unique part of the reply's id; the dialect adds its own prefix.
    pub id: String,
    /// The model name the client asked for.
    pub model: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The client wants usage in the stream.
    pub stream_usage: bool,
    /// Best known prompt tokens before the backend says: for `message_start`.
    pub input_estimate: u64,
    /// Add DeepFellow's misspelt usage key beside the right one.
    pub deepfellow: bool,
    /// The client's request: responses repeat it, and call tools as it did; so does chat.
    pub request: Bytes,
    /// The request generates nothing: it only loads a model or puts it out (Ollama's `load`, `unload`).
    pub loads: Option<&'static str>,
}

/// What a dialect must know of a backend to write a call for it. Facts of the backend's kind, as data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Target {
    /// The model's name there.
    pub model: String,
    /// System and developer turns must be one message, the first (most chat templates).
    pub system_first: bool,
    /// Takes `chat_template_kwargs.enable_thinking`.
    pub thinking_kwargs: bool,
    /// Takes `reasoning_effort`.
    pub reasoning_effort: bool,
    /// Wants `max_completion_tokens` instead of `max_tokens` (OpenAI itself).
    pub max_completion_tokens: bool,
    /// Knows chat's limit as `max_tokens` alone, and leaves the newer name out without a word (Ollama).
    pub max_tokens_only: bool,
    /// Takes top_k, min_p and the like beside the OpenAI fields.
    pub extended_sampling: bool,
    /// Can report usage on every chunk.
    pub continuous_usage: bool,
    /// Reads the arguments of earlier calls as objects, and fails on others.
    pub argument_objects: bool,
    /// May keep conversations, as `thread` of Messages names them. Others that speak it leave out what they do not know.
    pub threads: bool,
    /// What it does in chat with a beginning of its answer.
    pub prefill: Prefill,
    /// The model's output limit, where configured.
    pub max_output: Option<u64>,
}

/// What becomes of a conversation that ends with the model's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefill {
    /// The model says something new.
    #[default]
    Ended,
    /// It goes on with them if it is told to, in vLLM's words.
    Told,
    /// It goes on with them.
    Continued,
}

/// A request written for a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The body.
    pub body: Bytes,
    /// Fields of the client's that the target cannot take and can do without: `x-tidegate-dropped`.
    pub dropped: Vec<String>,
    /// Values that were moved into the target's range: `x-tidegate-adjusted`.
    pub adjusted: Vec<String>,
}

/// What a frame or body means to the books.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Glance {
    /// Carries generated text, thinking or arguments.
    pub token: bool,
    /// A piece of a tool call, which the stop reason of a later frame may not tell of. Nothing is looked for beyond `token`.
    pub called: bool,
    /// Token counts, converted to the canon's meaning.
    pub usage: Option<Usage>,
    /// Says why the model stopped.
    pub stop: Option<StopReason>,
    /// The protocol's own last frame (`[DONE]`, `message_stop`).
    pub end: bool,
    /// The backend's error inside a stream or a 200.
    pub fault: Option<Fault>,
    /// The frame exists only to carry usage that the client may not have asked for (`choices: []`).
    pub usage_only: bool,
    /// The counts are one choice's: such a frame comes for each of them (llama.cpp).
    pub of_one_choice: bool,
    /// The number of the choice whose running counts these are: vLLM counts each by itself, and all only at the end.
    pub choice: Option<u64>,
    /// Bytes of generated text in choices that the counts of a whole reply leave out.
    pub uncounted: u64,
    /// Usage stands on a frame that also carries something else (continuous usage).
    pub usage_beside: bool,
    /// How long the backend says it took.
    pub times: Option<Times>,
}

/// Seconds a backend says it took, where it says so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// For having the model in memory.
    pub load: Option<f64>,
    /// For reading the prompt.
    pub prompt_eval: Option<f64>,
    /// For generating.
    pub eval: Option<f64>,
}
