//! The OpenAI family.

pub mod chat;
pub mod completions;
pub(super) mod embeddings;
pub mod models;
pub mod responses;
mod tools;
mod words;

/// The last frame of a stream of chat or completions.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";
