//! The OpenAI family.

pub mod chat;
pub mod models;
