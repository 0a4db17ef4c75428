//! A call: what the client wants from a model, whatever API it spoke.
//!
//! Made once, on first ask, from the request's bytes (`wire` reads it). Only the fields that at least two dialects can say are
//! here; what a dialect says alone is kept by name in [`Call::extra`], so that dropping it is a decision and can be reported.

use std::borrow::Cow;

/// A generating call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// The model name the client asked for.
    pub model: String,
    /// The conversation, in order, system and developer turns included.
    pub turns: Vec<Turn>,
    /// Tools the model may call.
    pub tools: Vec<Tool>,
    /// The list of tools as its dialect wrote it, where functions cannot say all of it (free text, namespaces): JSON text, for
    /// the same dialect.
    pub tools_as_sent: Option<String>,
    /// Which tool it must, may or must not call; `None` is the backend's default.
    pub tool_choice: Option<ToolChoice>,
    /// False: at most one tool call a turn. `None`: the backend's default.
    pub parallel_tools: Option<bool>,
    /// Upper bound on generated tokens.
    pub max_tokens: Option<u64>,
    /// Sampling temperature in the client dialect's own range (0..=1 Anthropic, 0..=2 OpenAI).
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0..=1.
    pub top_p: Option<f64>,
    /// Top-k sampling; 0 is off.
    pub top_k: Option<u64>,
    /// OpenAI's presence penalty, -2..=2.
    pub presence_penalty: Option<f64>,
    /// OpenAI's frequency penalty, -2..=2.
    pub frequency_penalty: Option<f64>,
    /// Seed for reproducible sampling.
    pub seed: Option<i64>,
    /// Texts that end the reply.
    pub stop: Vec<String>,
    /// How much to think; `None` is "not said".
    pub thinking: Option<Thinking>,
    /// What the answer must look like; `None` is free text.
    pub format: Option<Format>,
    /// Number of answers; 1 unless the client said otherwise.
    pub choices: u64,
    /// The client wants a stream.
    pub stream: bool,
    /// The client wants usage in the stream (always true for dialects that always send it).
    pub stream_usage: bool,
    /// The end user as the client names them (`user`, `metadata.user_id`).
    pub user: Option<String>,
    /// Whose words `extra`, `Content::Other` and `Tool::Hosted` are (`openai`: chat, `anthropic`, `responses`, `completions`,
    /// `ollama`): they may go back to it.
    pub family: &'static str,
    /// Fields of the client's dialect without a canonical form: name and raw JSON. Dropped, and said so, when translating.
    pub extra: Vec<(String, String)>,
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Content>,
}

/// Who speaks. Tool results are content of a user turn, as in Anthropic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// OpenAI's newer word for the same, kept apart for same-family targets.
    Developer,
    /// The person, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// An image.
    Image(Image),
    /// Reasoning of an earlier turn, with the vendor's signature where there was one.
    Thinking {
        /// The reasoning.
        text: String,
        /// The signature, unchanged.
        signature: Option<String>,
    },
    /// Opaque reasoning of an earlier turn.
    RedactedThinking {
        /// The vendor's data, unchanged.
        data: String,
    },
    /// A refusal of an earlier turn.
    Refusal(String),
    /// A tool call of an earlier turn.
    ToolCall {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// Arguments as JSON text, byte for byte as the client sent them (numbers keep their digits).
        arguments: String,
    },
    /// What a tool answered.
    ToolResult {
        /// The call's id.
        id: String,
        /// The answer: text and images.
        content: Vec<Content>,
        /// The tool failed.
        is_error: bool,
    },
    /// A part that only its own dialect can say (documents, audio, search results): its type word and raw JSON.
    Other {
        /// The part's type word.
        kind: String,
        /// The part as JSON text.
        json: String,
    },
}

/// An image, never fetched by us.
#[derive(Debug, Clone, PartialEq)]
pub enum Image {
    /// Base64 bytes of this media type.
    Data {
        /// `image/png`, ….
        media_type: String,
        /// Base64, unchanged.
        data: String,
    },
    /// An address the backend may fetch.
    Url(String),
}

/// A tool the client offers.
#[derive(Debug, Clone, PartialEq)]
pub enum Tool {
    /// A function with a JSON Schema.
    Function {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// JSON Schema of its arguments as JSON text; `None` is an object without properties.
        parameters: Option<String>,
        /// OpenAI's strict mode.
        strict: Option<bool>,
    },
    /// A tool that the vendor runs, or of a kind only its dialect knows: its type word and raw JSON.
    Hosted {
        /// `web_search_20250305`, `custom`, ….
        kind: String,
        /// The tool as JSON text.
        json: String,
    },
}

/// Which tool to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// None may be called.
    None,
    /// Some tool must be called.
    Required,
    /// This one must be called.
    Named(String),
}

/// How much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// Not at all.
    Off,
    /// As the model sees fit.
    Adaptive,
    /// Up to so many tokens.
    Budget(u64),
    /// OpenAI's words.
    Effort(Effort),
}

/// OpenAI's `reasoning_effort`; the upper end is also Anthropic's and Ollama's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Any JSON object.
    Json,
    /// JSON of this schema.
    Schema {
        /// The schema's name.
        name: String,
        /// The whole `json_schema` object of OpenAI's `response_format`, as JSON text.
        json: String,
    },
}

impl Role {
    /// Instructions, in either word.
    pub fn is_system(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

impl Image {
    /// What an address stands for: a data URL (RFC 2397) is its bytes. `None` where these are not in base64, which no dialect
    /// can pass on.
    pub fn at(url: String) -> Option<Self> {
        let Some(rest) = url.strip_prefix("data:") else { return Some(Self::Url(url)) };
        let (media_type, data) = rest.split_once(";base64,")?;
        Some(Self::Data { media_type: media_type.to_owned(), data: data.to_owned() })
    }

    /// Its address; bytes as a data URL.
    pub fn url(&self) -> Cow<'_, str> {
        match self {
            Self::Url(url) => url.into(),
            Self::Data { media_type, data } => format!("data:{media_type};base64,{data}").into(),
        }
    }
}

impl Turn {
    /// A turn of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text(text.into())] }
    }

    /// Adds what a tool answered: results in a row are one turn.
    pub fn add_result(turns: &mut Vec<Self>, id: String, content: Vec<Content>) {
        let result = Content::ToolResult { id, content, is_error: false };
        let results = |turn: &&mut Self| turn.content.iter().all(|part| matches!(part, Content::ToolResult { .. }));
        match turns.last_mut().filter(|turn| turn.role == Role::User).filter(results) {
            Some(turn) => turn.content.push(result),
            None => turns.push(Self { role: Role::User, content: vec![result] }),
        }
    }
}
