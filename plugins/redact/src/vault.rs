//! Which placeholder stands for which value, in one request.

use std::collections::{BTreeMap, BTreeSet};

/// Values and their placeholders.
#[derive(Default)]
pub struct Vault {
    placeholders: BTreeMap<(String, String), String>,
    values: BTreeMap<String, String>,
    counts: BTreeMap<String, u32>,
    /// Placeholders the client itself wrote: they stand for nothing here and must not begin to.
    taken: BTreeSet<String>,
}

impl Vault {
    /// Keeps out of the way of what looks like a placeholder in the client's own text.
    pub fn reserve(&mut self, text: &str) {
        for (at, _) in text.match_indices('<') {
            if let Some(length) = length(&text[at..]) {
                self.taken.insert(text[at..at + length].into());
            }
        }
    }

    /// The placeholder of a value.
    pub fn placeholder(&mut self, label: &str, value: &str) -> &str {
        let counts = &mut self.counts;
        let (taken, values) = (&self.taken, &mut self.values);
        self.placeholders.entry((label.into(), value.into())).or_insert_with(|| {
            let count = counts.entry(label.into()).or_default();
            let placeholder = loop {
                *count += 1;
                let placeholder = format!("<{label}_{count}>");
                if !taken.contains(&placeholder) {
                    break placeholder;
                }
            };
            values.insert(placeholder.clone(), value.into());
            placeholder
        })
    }

    /// The value behind a placeholder.
    pub fn value(&self, placeholder: &str) -> Option<&str> {
        self.values.get(placeholder).map(String::as_str)
    }

    /// Whether a placeholder begins with this.
    pub fn begins(&self, text: &str) -> bool {
        self.values.range(text.to_owned()..).next().is_some_and(|(placeholder, _)| placeholder.starts_with(text))
    }
}

/// The length of what looks like a placeholder at the beginning of `text`, a bracket. It is looked for no further than it could
/// reach: nothing may close the brackets of a long text.
fn length(text: &str) -> Option<usize> {
    let end = 1 + text[1..].find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')?;
    let (label, number) = text[1..end].rsplit_once('_')?;
    let good = label.starts_with(|c: char| c.is_ascii_uppercase()) && number.parse::<u32>().is_ok();
    (good && text[end..].starts_with('>')).then_some(end + 1)
}
