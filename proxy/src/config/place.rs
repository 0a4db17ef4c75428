//! Where in the configuration something is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted: `backends.gpu.url`. Names that are no bare words are in quotes, as in TOML.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
    /// File and line (from 1), where the key stands in a file.
    pub place: Option<(PathBuf, usize)>,
    /// The variable of the environment it comes from, where that is not a file.
    pub layer: Option<String>,
}

impl Problem {
    /// A problem at a key; its place is looked up later.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), place: None, layer: None }
    }

    /// Finds the variable of the environment that gives the key, or the list it is in, among these names.
    pub(super) fn blame(&mut self, variables: &[String]) {
        let mut parts = segments(&self.key);
        while parts.last().is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
            parts.pop();
        }
        // Names of variables reach keys in lower case only.
        let name = format!("tidegate_{}", parts.join("__"));
        self.layer = variables.iter().find(|variable| variable.to_ascii_lowercase() == name).cloned();
    }

    /// Finds the line of the key in a TOML file: of the key itself, or of the nearest thing around it.
    pub(super) fn locate(&mut self, path: &Path, text: &str) {
        if self.place.is_some() || self.layer.is_some() {
            return;
        }
        let Ok(document) = text.parse::<toml_edit::Document<String>>() else { return };
        let mut table: &dyn toml_edit::TableLike = document.as_table();
        let mut span = None;
        for segment in segments(&self.key) {
            let Some((key, item)) = table.get_key_value(&segment) else { break };
            span = key.span().or_else(|| item.span()).or(span);
            match item.as_table_like() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        let line = span.map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        self.place = Some((path.to_owned(), line));
    }
}

/// `models."a.b".targets` as its parts.
pub(super) fn segments(key: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for letter in key.chars() {
        match letter {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            letter => part.push(letter),
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Parts as a dotted key.
pub(super) fn dotted(parts: &[String]) -> String {
    let bare =
        |part: &String| part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-');
    parts.iter().map(|part| if bare(part) { part.clone() } else { format!("\"{part}\"") }).collect::<Vec<_>>().join(".")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((path, line)) = &self.place {
            write!(f, "{}:{line}: ", path.display())?;
        }
        if let Some(layer) = &self.layer {
            write!(f, "{layer}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_answer_for_what_they_give() {
        let variables =
            ["TIDEGATE_SERVER__BODY_LIMT", "tidegate_backends__gpu__urls", "TIDEGATE_LOG"].map(str::to_owned);
        for (key, says) in [
            ("server.body_limt", "TIDEGATE_SERVER__BODY_LIMT: server.body_limt: no"),
            ("backends.gpu.urls.0", "tidegate_backends__gpu__urls: backends.gpu.urls.0: no"),
            ("server", "server: no"),
            ("backends.GPU.urls", "backends.GPU.urls: no"),
            ("", "no"),
        ] {
            let mut problem = Problem::new(key, "no");
            problem.blame(&variables);
            assert_eq!(problem.to_string(), says);
        }
    }
}
