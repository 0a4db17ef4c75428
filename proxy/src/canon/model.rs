//! A model, as far as it is known of a list.

use std::sync::Arc;

/// A model in a server's list of models, or in ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub name: Arc<str>,
    /// Tokens of prompt and answer together, where they are known.
    pub context: Option<u64>,
    /// It is in memory, ready to compute.
    pub loaded: bool,
}

impl Listed {
    /// Nothing is known of it but its name.
    pub fn named(name: Arc<str>) -> Self {
        Self { name, context: None, loaded: false }
    }
}
