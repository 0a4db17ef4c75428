//! What is read of a file, key by key. What nobody takes is told when a section is closed, instead of being lost.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    /// Of a list, from 0.
    Item(usize),
}

/// Steps as people write them: `model_list[0].litellm_params.model`.
pub(super) fn dotted(place: &[Step]) -> String {
    place.iter().fold(String::new(), |mut text, step| {
        let _ = match step {
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
            Step::Item(at) => write!(text, "[{at}]"),
        };
        text
    })
}

/// A key that somebody has to look at, and why. Never its value: that may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub place: Vec<Step>,
    pub why: String,
}

/// Where values of the environment are taken from, in LiteLLM's words.
pub(super) const ENVIRONMENT: &str = "os.environ/";

/// A mapping whose keys are taken out one by one.
pub(super) struct Section {
    place: Vec<Step>,
    members: Map<String, Value>,
    notes: Vec<Note>,
}

impl Section {
    /// Nothing is a mapping without keys.
    pub fn of(place: Vec<Step>, value: Value) -> Result<Self, Note> {
        let members = match value {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(Note { place, why: "a mapping is expected here".into() }),
        };
        Ok(Self { place, members, notes: Vec::new() })
    }

    /// The place of one of its keys.
    pub fn at(&self, key: &str) -> Vec<Step> {
        let mut place = self.place.clone();
        place.push(Step::Key(key.to_owned()));
        place
    }

    pub fn note(&mut self, key: &str, why: impl Into<String>) {
        let place = self.at(key);
        self.notes.push(Note { place, why: why.into() });
    }

    /// A note about what stands deeper in it.
    pub fn note_at(&mut self, inside: &[Step], why: impl Into<String>) {
        let place = [self.place.as_slice(), inside].concat();
        self.notes.push(Note { place, why: why.into() });
    }

    /// Where it stands.
    pub fn place(&self) -> &[Step] {
        &self.place
    }

    /// Adds the keys of a mapping that it does not have itself. False: it is none.
    pub fn fill(&mut self, from: Value) -> bool {
        let Value::Object(from) = from else { return false };
        for (key, value) in from {
            self.members.entry(key).or_insert(value);
        }
        true
    }

    /// A key without a value is as good as none.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.members.shift_remove(key).filter(|value| !value.is_null())
    }

    /// A text; numbers are as good.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.note(key, "a text is expected here");
                None
            }
        }
    }

    /// A number that is not negative. LiteLLM reads texts as numbers, too: its YAML takes `1e-06` for one.
    pub fn number(&mut self, key: &str) -> Option<f64> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            let is_variable = value.as_str().is_some_and(|text| text.starts_with(ENVIRONMENT));
            let why = "it comes from the environment, which gives no numbers here: write it in by hand";
            self.note(key, if is_variable { why } else { "a number is expected here" });
        }
        number
    }

    /// A number of things.
    pub fn whole(&mut self, key: &str) -> Option<u64> {
        let number = self.number(key)?;
        if number.fract() != 0.0 || number > 1e9 {
            self.note(key, "a whole number up to a billion is expected here");
            return None;
        }
        Some(number as u64)
    }

    /// A time in seconds, longer than nothing.
    pub fn seconds(&mut self, key: &str) -> Option<f64> {
        let number = self.number(key)?;
        if !(0.001..=1e9).contains(&number) {
            self.note(key, "a time in seconds is expected here");
            return None;
        }
        Some(number)
    }

    /// A mapping in it; one without keys where there is none.
    pub fn section(&mut self, key: &str) -> Self {
        let value = self.take(key).unwrap_or_default();
        Self::of(self.at(key), value).unwrap_or_else(|note| {
            self.notes.push(note);
            Self { place: self.at(key), members: Map::new(), notes: Vec::new() }
        })
    }

    /// The items of a list in it.
    pub fn list(&mut self, key: &str) -> Vec<Value> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.note(key, "a list is expected here");
                Vec::new()
            }
        }
    }

    /// The keys that nobody has taken.
    pub fn keys(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// All there is to tell: `why` says it of keys that nobody has taken.
    pub fn close(mut self, why: impl Fn(&str) -> &'static str) -> Vec<Note> {
        for key in self.keys() {
            self.note(&key, why(&key));
        }
        self.notes
    }
}

/// Carries out YAML's `<<`, which the reader of YAML leaves as a key.
pub(super) fn merge(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(base) = members.shift_remove("<<") {
                let bases = if let Value::Array(bases) = base { bases } else { vec![base] };
                for mut base in bases {
                    merge(&mut base);
                    if let Value::Object(base) = base {
                        base.into_iter().for_each(|(key, value)| {
                            members.entry(key).or_insert(value);
                        });
                    }
                }
            }
            members.values_mut().for_each(merge);
        }
        Value::Array(items) => items.iter_mut().for_each(merge),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_takes_or_nobody_can_read_is_told() {
        let members =
            json!({ "a": "x", "b": "1e-06", "c": "os.environ/C", "d": 1.5, "e": -1, "f": [], "g": null, "h": {} });
        let mut section = Section::of(vec![Step::Key("s".into()), Step::Item(2)], members).unwrap();
        assert_eq!((section.text("a"), section.number("b")), (Some("x".into()), Some(1e-6)));
        assert_eq!((section.number("c"), section.whole("d"), section.seconds("e")), (None, None, None));
        assert_eq!((section.text("f"), section.text("g"), section.keys()), (None, None, vec!["h".to_owned()]));
        let told: Vec<_> = section.close(|_| "nobody took it").iter().map(|note| dotted(&note.place)).collect();
        assert_eq!(told, ["s[2].c", "s[2].d", "s[2].e", "s[2].f", "s[2].h"]);
    }

    #[test]
    fn merge_keys_give_what_is_not_there() {
        let mut value = json!({ "m": { "a": 1, "<<": [{ "a": 2, "b": 3, "<<": { "d": 5 } }, { "b": 4, "c": 4 }] } });
        merge(&mut value);
        assert_eq!(value, json!({ "m": { "a": 1, "b": 3, "d": 5, "c": 4 } }));
    }
}
