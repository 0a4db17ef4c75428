//! JSON read in place, against serde_json; and splices, against the same edit on a tree.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::Value;
use tidegate_fuzz::mutate;
use tidegate_fuzz::wire::json::{Json, Kind, validate, write_f64, write_str};
use tidegate_fuzz::wire::object::{Object, Refusal};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed, false) });

fuzz_target!(|data: &[u8]| {
    let ours = validate(data);
    let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(data);
    // serde_json nests at most 127 deep.
    let nested = ours.is_ok_and(|json| json.depth() > 126) || ours.is_err_and(|error| error.what.contains("nested"));
    assert!(nested || ours.is_ok() == theirs.is_ok(), "{ours:?} and {theirs:?}");
    let Ok(json) = ours else { return };
    // A tree cannot hold lone surrogates or numbers beyond what a double can.
    if let Ok(tree) = serde_json::from_slice::<Value>(data) {
        same(json, &tree);
    }
    match Object::read(Bytes::copy_from_slice(data)) {
        Ok(object) => splices(&object),
        Err(Refusal::NotAnObject) => assert_ne!(json.kind(), Kind::Object),
        Err(Refusal::Duplicate(_)) => assert_eq!(json.kind(), Kind::Object),
        Err(Refusal::Syntax(syntax)) => panic!("{syntax:?} in what is JSON"),
    }
});

fn same(json: Json<'_>, tree: &Value) {
    match tree {
        Value::Null => assert!(json.is_null()),
        Value::Bool(value) => assert_eq!(json.as_bool(), Some(*value)),
        Value::Number(number) => {
            // serde_json is off by a bit now and then; we read as the standard library does.
            let (ours, theirs) = (json.as_f64().unwrap_or_default(), number.as_f64().unwrap_or_default());
            assert!((ours - theirs).abs() <= theirs.abs() * 1e-14, "{json:?}");
            if let Some(whole) = number.as_u64() {
                assert_eq!(json.as_u64(), Some(whole));
            }
            if let Some(whole) = number.as_i64() {
                assert_eq!(json.as_i64(), Some(whole));
            }
            let mut text = Vec::new();
            write_f64(&mut text, ours);
            assert_eq!(validate(&text).ok().and_then(Json::as_f64), Some(ours));
        }
        Value::String(text) => {
            assert_eq!(json.as_str().as_deref(), Some(text.as_str()));
            let mut written = Vec::new();
            write_str(&mut written, text);
            assert_eq!(validate(&written).ok().and_then(Json::as_str).as_deref(), Some(text.as_str()));
        }
        Value::Array(list) => {
            assert_eq!(json.items().count(), list.len());
            assert_eq!(json.has_items(), !list.is_empty());
            json.items().zip(list).for_each(|(json, tree)| same(json, tree));
        }
        Value::Object(members) => {
            // Of a doubled key the tree has the last.
            for (key, value) in json.entries() {
                assert!(members.contains_key(key.as_ref()));
                if json.entries().filter(|(other, _)| *other == key).count() == 1 {
                    same(value, &members[key.as_ref()]);
                }
            }
        }
    }
}

fn splices(object: &Object) {
    let Ok(Value::Object(tree)) = serde_json::from_slice::<Value>(object.source()) else { return };
    let keys: Vec<String> = object.entries().map(|(key, _)| key.into_owned()).collect();
    let mut names: Vec<&str> = keys.iter().map(String::as_str).take(3).collect();
    names.extend(keys.last().map(String::as_str).filter(|last| !names.contains(last)));
    if !names.contains(&"model") {
        names.push("model");
    }
    // Keys that are spliced in are ours and need no escape.
    let plain = |key: &&str| tree.contains_key(*key) || key.bytes().all(|byte| byte.is_ascii_lowercase());
    names.retain(plain);
    for pattern in 0..1_u32 << (2 * names.len()).min(10) {
        let mut expect = tree.clone();
        let mut edits: Vec<(&str, Option<&[u8]>)> = Vec::new();
        for (at, name) in names.iter().enumerate() {
            match pattern >> (2 * at) & 3 {
                1 => {
                    expect.insert((*name).to_owned(), 7.into());
                    edits.push((name, Some(b"7")));
                }
                2 => {
                    expect.shift_remove(*name);
                    edits.push((name, None));
                }
                _ => {}
            }
        }
        let spliced = object.splice(&edits);
        let read = serde_json::from_slice::<Value>(&spliced);
        assert_eq!(read.ok(), Some(Value::Object(expect)), "{edits:?}: {}", String::from_utf8_lossy(&spliced));
    }
}
