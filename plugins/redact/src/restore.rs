//! Placeholders of a reply, put back as they come by.
//!
//! Text is held only while it may be the beginning of a placeholder that exists; anything else passes as it came. In arguments
//! the value is written as JSON writes it, and the angle brackets may have been escaped by the backend.

use serde::Deserialize;
use tidegate_plugin::Interests;
use tidegate_plugin::json;
use tidegate_plugin::window::{Held, Kind, Scan, Step};

use crate::RESTORED;
use crate::vault::Vault;

/// A place in a reply.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Text,
    Thinking,
    Refusal,
    Arguments,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Text, Self::Thinking, Self::Refusal, Self::Arguments];
}

/// A set of places.
#[derive(Default, Clone, Copy)]
pub struct Kinds(Option<Interests>);

impl From<Vec<Place>> for Kinds {
    fn from(places: Vec<Place>) -> Self {
        Self(places.into_iter().map(interest).reduce(|all, one| all | one))
    }
}

impl Kinds {
    pub fn is_empty(self) -> bool {
        self.0.is_none()
    }

    /// The batches to see: those that hold such text.
    pub fn interests(self) -> Interests {
        self.0.unwrap_or(Interests::empty())
    }

    fn contains(self, place: Place) -> bool {
        self.0.is_some_and(|kinds| kinds.contains(interest(place)))
    }
}

fn interest(place: Place) -> Interests {
    match place {
        Place::Text => Interests::TEXT,
        Place::Thinking => Interests::THINKING,
        Place::Refusal => Interests::REFUSAL,
        Place::Arguments => Interests::TOOL_CALLS,
    }
}

/// Looks for placeholders.
pub struct Restore<'v> {
    pub vault: &'v Vault,
    pub kinds: Kinds,
}

/// How a bracket may be written: itself, or escaped in JSON.
const OPEN: [&str; 3] = ["<", "\\u003c", "\\u003C"];
const CLOSE: [&str; 3] = [">", "\\u003e", "\\u003E"];

impl Scan for Restore<'_> {
    fn reads(&self, kind: Kind) -> bool {
        self.kinds.contains(match kind {
            Kind::Text => Place::Text,
            Kind::Thinking => Place::Thinking,
            Kind::Refusal => Place::Refusal,
            Kind::Arguments => Place::Arguments,
        })
    }

    fn scan(&mut self, held: Held) -> Step {
        let rest = held.rest();
        let json = held.kind == Kind::Arguments;
        let opens: &[char] = if json { &['<', '\\'] } else { &['<'] };
        let Some(at) = rest.find(opens) else { return Step::Keep(rest.len()) };
        if at > 0 {
            return Step::Keep(at);
        }
        match self.placeholder(rest, json) {
            Seen::Placeholder(length, value) => {
                RESTORED.count();
                Step::Replace(length, if json { json::escape(value) } else { value.into() })
            }
            Seen::Begun if !held.last => Step::Keep(0),
            Seen::Begun | Seen::Other => Step::Keep(other(rest, json)),
        }
    }
}

enum Seen<'v> {
    /// So long, and stands for this.
    Placeholder(usize, &'v str),
    /// May become one.
    Begun,
    /// Is none.
    Other,
}

impl<'v> Restore<'v> {
    fn placeholder(&self, text: &str, json: bool) -> Seen<'v> {
        let forms = if json { 3 } else { 1 };
        let Some(open) = OPEN[..forms].iter().find(|open| text.starts_with(**open)) else {
            let begun = OPEN[..forms].iter().any(|open| open.starts_with(text));
            return if begun { Seen::Begun } else { Seen::Other };
        };
        let inner = &text[open.len()..];
        let end =
            inner.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').unwrap_or(inner.len());
        let (name, tail) = inner.split_at(end);
        if let Some(close) = CLOSE[..forms].iter().find(|close| tail.starts_with(**close)) {
            return match self.vault.value(&format!("<{name}>")) {
                Some(value) => Seen::Placeholder(open.len() + end + close.len(), value),
                None => Seen::Other,
            };
        }
        let may_close = CLOSE[..forms].iter().any(|close| close.starts_with(tail));
        if may_close && self.vault.begins(&format!("<{name}")) { Seen::Begun } else { Seen::Other }
    }
}

/// How much of text that begins with a bracket or backslash is no placeholder for sure: an escape is skipped whole, or its second
/// backslash would be taken for the first of another.
fn other(text: &str, json: bool) -> usize {
    if json && text.starts_with('\\') { text.ceil_char_boundary(2) } else { 1 }
}
