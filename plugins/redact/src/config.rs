//! The configuration as it is written.

use regex_lite::Regex;
use serde::Deserialize;
use tidegate_plugin::Opaque;
use tidegate_plugin::phrases::Phrases;

use crate::Redact;
use crate::find::{BuiltIn, Finder, Rule};
use crate::restore::{Kinds, Place};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    kinds: Vec<BuiltIn>,
    names: Vec<String>,
    rules: Vec<CustomRule>,
    placeholders: bool,
    restore: bool,
    restore_in: Vec<Place>,
    refuse_parts: Vec<Opaque>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomRule {
    label: String,
    pattern: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kinds: BuiltIn::ALL.to_vec(),
            names: Vec::new(),
            rules: Vec::new(),
            placeholders: true,
            restore: true,
            restore_in: Place::ALL.to_vec(),
            refuse_parts: Vec::new(),
        }
    }
}

impl TryFrom<Config> for Redact {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let rules = config.rules.into_iter().map(Rule::try_from).collect::<Result<_, _>>()?;
        let names = Phrases::new(&config.names).map_err(|problem| format!("names: {problem}"))?;
        Ok(Self {
            finder: Finder { kinds: config.kinds, names, rules },
            numbered: config.placeholders,
            restore_in: if config.restore && config.placeholders {
                Kinds::from(config.restore_in)
            } else {
                Kinds::default()
            },
            refuse_parts: config.refuse_parts,
        })
    }
}

impl TryFrom<CustomRule> for Rule {
    type Error = String;

    fn try_from(rule: CustomRule) -> Result<Self, String> {
        let CustomRule { label, pattern } = rule;
        let good = label.starts_with(|c: char| c.is_ascii_uppercase())
            && label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if !good {
            return Err(format!("rules: `{label}` is no label: A-Z first, then A-Z, 0-9 and _"));
        }
        let pattern = Regex::new(&pattern).map_err(|error| format!("rules: {label}: {error}"))?;
        if pattern.is_match("") {
            return Err(format!("rules: {label}: the pattern matches nothing at all, hence everywhere"));
        }
        Ok(Self { label, pattern })
    }
}
