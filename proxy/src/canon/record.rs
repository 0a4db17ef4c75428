//! The usage record: the one row that every request leaves. The field names are a contract (docs/usage.md).

use super::UsageSource;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole reply was handed to the client.
    Ok,
    /// Turned away by us: credentials, limits, a body that is wrong.
    Refused,
    /// The backend failed before the reply began.
    BackendError,
    /// The reply began and broke off.
    Cut,
    /// The client left first.
    #[default]
    ClientGone,
    /// A plugin ended it.
    Plugin,
}

impl Outcome {
    /// The word used in records and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::BackendError => "backend_error",
            Self::Cut => "cut",
            Self::ClientGone => "client_gone",
            Self::Plugin => "plugin",
        }
    }
}

/// One request in the books. Times are milliseconds since 1970 (UTC); durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// UUID v7, the idempotency key of the books.
    pub id: uuid::Uuid,
    /// `x-request-id`, ours or the caller's.
    pub request_id: String,
    /// When its head had arrived.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: i64,
    /// Organization id; empty when the caller is unknown.
    pub organization: Arc<str>,
    /// Project id.
    pub project: Arc<str>,
    /// Key id.
    pub key: Arc<str>,
    /// End user, if the client named one.
    pub user: Option<String>,
    /// Path class: `chat/completions`, `messages`, `models`, ….
    pub endpoint: Arc<str>,
    /// Client dialect: `openai`, `anthropic`.
    pub dialect: Arc<str>,
    /// The model name the client asked for; as much of it as [`Record::name`] keeps.
    pub model_requested: String,
    /// The model name as it is on the target, as far.
    pub model: Arc<str>,
    /// Backend name.
    pub backend: Arc<str>,
    /// Which of the backend's addresses, by index: `gpu/0`.
    pub target: Arc<str>,
    /// Tries at backends.
    pub attempts: u32,
    /// The client asked for a stream.
    pub stream: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status sent to the client; 499 when it left before one was.
    pub status: u16,
    /// Why the model stopped.
    pub stop_reason: Option<Arc<str>>,
    /// All prompt tokens, cache included.
    pub input_tokens: Option<u64>,
    /// All generated tokens.
    pub output_tokens: Option<u64>,
    /// Part of the input that was read from a cache.
    pub cache_read_tokens: Option<u64>,
    /// Part of the input that was written to a cache.
    pub cache_write_tokens: Option<u64>,
    /// Part of the output spent on thinking.
    pub reasoning_tokens: Option<u64>,
    /// Where the counts come from.
    pub usage_source: UsageSource,
    /// From start to the first token, where one came.
    pub first_token_ms: Option<f64>,
    /// From start to end.
    pub duration_ms: f64,
    /// What the gateway itself took.
    pub overhead_ms: f64,
    /// Price of the tokens, where the model has one.
    pub cost: Option<f64>,
    /// Currency of `cost`.
    pub currency: Option<Arc<str>>,
    /// Free words from plugins and the operator.
    pub tags: Vec<String>,
    /// How long it waited for its turn, where its model has a limit.
    pub queue_ms: Option<f64>,
    /// Prompt tokens, by rule of thumb, that backends had whose replies were not used; never among those that are charged.
    pub abandoned_tokens: u64,
}

impl Record {
    /// As much of a name as a name can need: it may be one that the caller made up, through a pattern at a backend, too.
    pub fn name(name: &str) -> &str {
        name.char_indices().nth(256).map_or(name, |(end, _)| &name[..end])
    }
}
