//! Names chosen by pattern: `["gpt-*", "claude-sonnet"]`.

use serde::Deserialize;

/// Patterns of names; `*` is any text. None at all choose every name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Names(Vec<String>);

impl Names {
    /// Whether a name is chosen.
    pub fn choose(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| fits(pattern, name))
    }
}

impl<S: Into<String>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }
}

/// Whether a text fits a pattern in which `*` is any text.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    // Each piece where it comes first; the last one at the end.
    while let Some((piece, rest)) = pattern.split_once('*') {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
        pattern = rest;
    }
    text.ends_with(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_text() {
        for (pattern, text, expect) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "gp", false),
            ("*", "", true),
            ("*mini", "gpt-4o-mini", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
            ("a*a", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(fits(pattern, text), expect, "{pattern} {text}");
        }
        assert!(Names::default().choose("any"));
        assert!(!Names::from_iter(["x"]).choose("any"));
    }
}
