//! Embedding: what a client wants turned into vectors, and the vectors.
//!
//! No generation: there are no turns, no events, nothing streams. So it has a small form of its own beside [`super::Call`],
//! with the same rule for what only one protocol can say: kept by name, dropped by name.

use super::Usage;

/// A call for vectors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbedCall {
    /// The model name the client asked for.
    pub model: String,
    /// What is to be embedded, in order. Empty: the model is only to be loaded (Ollama).
    pub inputs: Vec<EmbedInput>,
    /// How long the vectors are to be; `None` is as long as the model makes them.
    pub dimensions: Option<u64>,
    /// Inputs beyond the model's context are cut (`true`) or refused (`false`). `None`: the API has no word for it, and
    /// the backend does as it does.
    pub truncate: Option<bool>,
    /// The end user as the client names them.
    pub user: Option<String>,
    /// Fields without a canonical form, by name.
    pub extra: Vec<String>,
}

/// One thing to be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// A text.
    Text(String),
    /// The same as the model's own tokens.
    Tokens(Vec<u32>),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embedded {
    /// One vector for each input, in their order, all of one length and every number finite.
    pub vectors: Vec<Vec<f32>>,
    /// The tokens read. Nothing is generated: `output` is 0 wherever `input` is known.
    pub usage: Usage,
}

impl EmbedInput {
    /// Tokens by rule of thumb: four bytes of text each.
    pub fn estimate(&self) -> u64 {
        match self {
            Self::Text(text) => (text.len() as u64).div_ceil(4),
            Self::Tokens(tokens) => tokens.len() as u64,
        }
    }
}
