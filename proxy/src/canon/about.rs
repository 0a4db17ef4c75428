//! What is known of a model because its weights are in this process.

/// A model's file, and what it takes to run it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// Its architecture, as its file names it: `llama`, `bert`.
    pub family: String,
    /// Weights, in numbers, where they were counted.
    pub parameters: Option<u64>,
    /// The type most of the weights have, such as `Q4_1`; empty where nobody says.
    pub quantization: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that the weights take in memory.
    pub memory: u64,
    /// Tokens of a request, or of a text to be embedded, with the answer.
    pub context: u64,
    /// Numbers in a vector: it makes these, and no text.
    pub width: Option<u64>,
}
