//! What the documentation and the files of `deploy/` say, held against the program: what is named there exists, and what exists
//! is named there.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file, by its path from the repository's root.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Words of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// The keys in a JSON Schema.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|inner| keys(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| keys(inner, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_configuration_is_documented_and_in_the_example() {
    let mut known = BTreeSet::new();
    keys(&tidegate::config::schema(), &mut known);
    assert!(known.len() > 100, "the schema was read: {known:?}");
    let (page, example) = (read("docs/configuration.md"), read("deploy/tidegate.example.toml"));
    let code: BTreeSet<&str> = page.split('`').skip(1).step_by(2).flat_map(words).collect();
    let shown: BTreeSet<&str> = words(&example).collect();
    for (place, there) in [("docs/configuration.md", code), ("deploy/tidegate.example.toml", shown)] {
        let missing: Vec<_> = known.iter().filter(|key| !there.contains(key.as_str())).collect();
        assert!(missing.is_empty(), "{place} lacks {missing:?}");
    }
}

#[test]
fn the_example_is_a_good_configuration() {
    let example = tidegate::app::load(Some(&at("deploy/tidegate.example.toml")), &[]);
    assert!(example.is_ok(), "{:?}", example.err());
}
