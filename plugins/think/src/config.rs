//! The configuration as it is written.

use serde::Deserialize;

use crate::Think;
use crate::split::Mode;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    tags: Vec<(String, String)>,
    mode: Word,
    anywhere: bool,
    opened: bool,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Word {
    Thinking,
    Hide,
    Keep,
}

impl Default for Config {
    fn default() -> Self {
        Self { tags: vec![("<think>".into(), "</think>".into())], mode: Word::Thinking, anywhere: false, opened: false }
    }
}

impl TryFrom<Config> for Think {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let blank = |tag: &str| tag.is_empty() || tag.starts_with(char::is_whitespace);
        if config.tags.iter().any(|(open, close)| blank(open) || blank(close)) {
            return Err("tags: a tag begins with a character that can be seen".into());
        }
        if config.tags.is_empty() {
            return Err("tags: at least one pair".into());
        }
        let mode = match config.mode {
            Word::Thinking => Some(Mode::Show),
            Word::Hide => Some(Mode::Hide),
            Word::Keep => None,
        };
        Ok(Self { tags: config.tags, mode, anywhere: config.anywhere, opened: config.opened })
    }
}
