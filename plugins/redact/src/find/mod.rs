//! Finds what must not leave. Written by hand rather than as patterns: one look per character of a long conversation, and checks
//! that no pattern can make (Luhn, mod 97, an address that parses).

mod card;
mod email;
mod iban;
mod ip;
mod phone;

use regex_lite::Regex;
use serde::Deserialize;
use tidegate_plugin::phrases::{Found, Phrases};

/// What the metric tells apart.
pub const KINDS: &[&str] = &["email", "phone", "card", "iban", "ip", "person", "custom"];

/// What is looked for without being told how it looks.
#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum BuiltIn {
    Email,
    Phone,
    Card,
    Iban,
    Ip,
}

impl BuiltIn {
    pub const ALL: [Self; 5] = [Self::Email, Self::Phone, Self::Card, Self::Iban, Self::Ip];
}

/// What a find is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    BuiltIn(BuiltIn),
    Person,
    /// A configured rule, by its index.
    Custom(usize),
}

impl Kind {
    /// The place of its word in `KINDS`.
    pub fn index(self) -> usize {
        match self {
            Self::BuiltIn(BuiltIn::Email) => 0,
            Self::BuiltIn(BuiltIn::Phone) => 1,
            Self::BuiltIn(BuiltIn::Card) => 2,
            Self::BuiltIn(BuiltIn::Iban) => 3,
            Self::BuiltIn(BuiltIn::Ip) => 4,
            Self::Person => 5,
            Self::Custom(_) => 6,
        }
    }
}

/// A find.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hit {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

/// A configured pattern.
pub struct Rule {
    pub label: String,
    pub pattern: Regex,
}

/// Everything that is looked for.
pub struct Finder {
    pub kinds: Vec<BuiltIn>,
    pub names: Phrases,
    pub rules: Vec<Rule>,
}

impl Finder {
    /// All finds, in order. Those that overlap are one find, of the longest one's kind: what any of them wants hidden is hidden. At
    /// one place a configured rule goes before a name, a name before the rest, and of these the surer one (a checksum) first.
    pub fn find(&self, text: &str) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let found = rule.pattern.find_iter(text).filter(|found| !found.is_empty());
            hits.extend(found.map(|found| Hit { start: found.start(), end: found.end(), kind: Kind::Custom(index) }));
        }
        if !self.names.is_empty() {
            let mut at = 0;
            while let Found::Phrase { start, end, .. } = self.names.next(text, at, true) {
                hits.push(Hit { start, end, kind: Kind::Person });
                at = end;
            }
        }
        for (kind, find) in [
            (BuiltIn::Email, email::find as fn(&str) -> Vec<(usize, usize)>),
            (BuiltIn::Iban, iban::find),
            (BuiltIn::Card, card::find),
            (BuiltIn::Ip, ip::find),
            (BuiltIn::Phone, phone::find),
        ] {
            if self.kinds.contains(&kind) {
                hits.extend(find(text).into_iter().map(|(start, end)| Hit { start, end, kind: Kind::BuiltIn(kind) }));
            }
        }
        join(hits)
    }

    /// The label of a find's placeholder.
    pub fn label(&self, kind: Kind) -> &str {
        match kind {
            Kind::BuiltIn(BuiltIn::Email) => "EMAIL",
            Kind::BuiltIn(BuiltIn::Phone) => "PHONE",
            Kind::BuiltIn(BuiltIn::Card) => "CARD",
            Kind::BuiltIn(BuiltIn::Iban) => "IBAN",
            Kind::BuiltIn(BuiltIn::Ip) => "IP",
            Kind::Person => "PERSON",
            Kind::Custom(index) => &self.rules[index].label,
        }
    }
}

/// Finds in order, those that overlap as one. `hits`: those that go before others come first.
fn join(mut hits: Vec<Hit>) -> Vec<Hit> {
    // Stable: where two begin alike, the one that goes before stays first.
    hits.sort_by_key(|hit| hit.start);
    let mut joined: Vec<Hit> = Vec::with_capacity(hits.len());
    // How long the find is that the last one has its kind from.
    let mut longest = 0;
    for hit in hits {
        let length = hit.end - hit.start;
        match joined.last_mut().filter(|last| hit.start < last.end) {
            Some(last) => {
                if length > longest {
                    (last.kind, longest) = (hit.kind, length);
                }
                last.end = last.end.max(hit.end);
            }
            None => {
                longest = length;
                joined.push(hit);
            }
        }
    }
    joined
}

/// The runs of a text: longest stretches of characters that `part` takes, from a character that `first` takes. ASCII only.
fn runs(text: &str, first: fn(u8) -> bool, part: fn(u8) -> bool) -> impl Iterator<Item = (usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|byte| first(*byte))?;
        let end = bytes[start..].iter().position(|byte| !part(*byte)).map_or(bytes.len(), |length| start + length);
        at = end;
        Some((start, end))
    })
}

/// Whether the character before a place belongs to a word or number.
fn joined_before(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric())
}

/// Whether the character at a place belongs to a word or number.
fn joined_after(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
fn check(find: fn(&str) -> Vec<(usize, usize)>, cases: &[(&str, &[&str])]) {
    for (text, expect) in cases {
        let found: Vec<&str> = find(text).into_iter().map(|(start, end)| &text[start..end]).collect();
        assert_eq!(found, *expect, "{text}");
    }
}
