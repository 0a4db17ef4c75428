//! The OpenAI family.

pub mod chat;
pub mod completions;
pub mod models;
pub mod responses;
mod words;
