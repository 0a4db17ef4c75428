//! The OpenAI family.

pub mod chat;
pub mod completions;
pub(super) mod embeddings;
pub mod models;
pub mod responses;
mod words;
