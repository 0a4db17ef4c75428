//! Token counts with one meaning, whoever reported them.
//!
//! OpenAI counts cached prompt tokens inside `prompt_tokens`, Anthropic outside `input_tokens`. Each dialect converts at its
//! own edge; past that edge `input` always includes the cache.

use serde::{Deserialize, Serialize};

/// Counts above this are taken for garbage (a backend that wrote a negative or a pointer) and treated as missing.
pub const ABSURD: u64 = 1 << 48;

/// Cumulative token counts of one reply so far. `None` is "not reported"; zero is a reported zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All prompt tokens, cached ones included.
    pub input: Option<u64>,
    /// All generated tokens, reasoning included.
    pub output: Option<u64>,
    /// Prompt tokens read from a cache; a part of `input`.
    pub cache_read: Option<u64>,
    /// Prompt tokens written to a cache; a part of `input`.
    pub cache_write: Option<u64>,
    /// Generated tokens spent on thinking; a part of `output`.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Takes over every count that `later` knows. Reports are cumulative: the last value wins, nothing is ever added.
    pub fn update(&mut self, later: &Usage) {
        for (mine, theirs) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.reasoning, later.reasoning),
        ] {
            if let Some(count) = theirs.filter(|count| says(*count, *mine)) {
                *mine = Some(count);
            }
        }
    }

    /// Whether a count of output says something beside what is known.
    pub fn hears(&self, output: u64) -> bool {
        says(output, self.output)
    }

    /// True when both sides of the bill are known.
    pub fn is_complete(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }
}

/// Whether a count says something. A zero behind a larger one is a server that ends with zeros for what it said before.
fn says(count: u64, known: Option<u64>) -> bool {
    count <= ABSURD && (count > 0 || known.is_none_or(|known| known == 0))
}

/// Where the numbers of a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The backend said so.
    Reported,
    /// Counted by us from what passed, by the rule in docs/usage.md.
    Estimated,
    /// Nobody knows; nothing was made up.
    #[default]
    Missing,
}

impl UsageSource {
    /// The word used in records, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Missing => "missing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_reports_replace_and_never_add() {
        let mut usage = Usage { input: Some(10), output: Some(1), ..Usage::default() };
        usage.update(&Usage { output: Some(7), ..Usage::default() });
        assert_eq!(usage, Usage { input: Some(10), output: Some(7), ..Usage::default() });
    }

    #[test]
    fn zero_is_a_value_and_the_absurd_is_not() {
        let mut usage = Usage::default();
        usage.update(&Usage { input: Some(0), output: Some(u64::MAX), ..Usage::default() });
        assert_eq!(usage, Usage { input: Some(0), output: None, ..Usage::default() });
    }

    #[test]
    fn zeros_at_the_end_take_nothing_back() {
        let mut usage = Usage { input: Some(10), output: Some(7), ..Usage::default() };
        usage.update(&Usage { input: Some(0), output: Some(0), reasoning: Some(0), ..Usage::default() });
        assert_eq!(usage, Usage { input: Some(10), output: Some(7), reasoning: Some(0), ..Usage::default() });
        // What shrinks to something is a better count: of an estimate, say, that stood at the start.
        usage.update(&Usage { input: Some(9), ..Usage::default() });
        assert_eq!(usage.input, Some(9));
    }
}
