//! Objects written by hand, member by member.

use super::json::{Json, validate, write_str};
use super::object::{Object, Refusal, folded};
use bytes::{BufMut, Bytes};
use std::borrow::Cow;
use std::collections::HashSet;

/// Begins an object's member.
pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    comma(out);
    write_str(out, name);
    out.push(b':');
}

/// Separates from the value before, if there is one.
pub(super) fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'{' | b'[' | b',')) {
        out.push(b',');
    }
}

/// A text member.
pub(super) fn put_text(out: &mut Vec<u8>, name: &str, text: &str) {
    key(out, name);
    write_str(out, text);
}

/// JSON text as a stream can carry it. Ends of lines in it stand between its members, all they can there, and would be ends of
/// lines of the stream.
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// A member whose value is JSON text.
pub(super) fn put_raw(out: &mut Vec<u8>, name: &str, json: impl std::fmt::Display) {
    key(out, name);
    put_display(out, json);
}

/// A member whose value is JSON text, where there is one.
pub(super) fn put_some(out: &mut Vec<u8>, name: &str, json: Option<impl std::fmt::Display>) {
    if let Some(json) = json {
        put_raw(out, name, json);
    }
}

/// A member that is a list of texts.
pub(super) fn put_texts<T: AsRef<str>>(out: &mut Vec<u8>, name: &str, texts: impl IntoIterator<Item = T>) {
    key(out, name);
    out.push(b'[');
    for text in texts {
        comma(out);
        write_str(out, text.as_ref());
    }
    out.push(b']');
}

/// A number or JSON text.
pub(super) fn put_display(out: &mut impl BufMut, value: impl std::fmt::Display) {
    use std::io::Write;
    // Writing to memory cannot fail.
    let _ = write!(BufMut::writer(out), "{value}");
}

/// A number of the caller's: `1` rather than `1.0`, as they wrote it.
pub(super) fn number(value: f64) -> String {
    value.to_string()
}

/// Merges members into an object's text; `None` for what is no object. Every other byte stays, unless some key stands twice: then
/// each is written once, with the value that stands last, as most parsers read it.
pub(super) fn merge(json: &str, edits: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    match Object::read(Bytes::copy_from_slice(json.as_bytes())) {
        Ok(object) => {
            let edits: Vec<_> = edits.iter().map(|(key, value)| (*key, Some(*value))).collect();
            Some(object.splice(&edits).to_vec())
        }
        Err(Refusal::Duplicate(_)) => validate(json.as_bytes()).ok().map(|object| merge_once(object, edits)),
        Err(_) => None,
    }
}

fn merge_once(object: Json<'_>, edits: &[(&str, &[u8])]) -> Vec<u8> {
    let mut written: HashSet<_> = edits.iter().map(|(name, _)| folded(name)).collect();
    let mut members: Vec<_> = object.entries().collect();
    members.reverse();
    members.retain(|(name, _)| written.insert(folded(name)));
    let mut out = b"{".to_vec();
    for (name, json) in members.iter().rev() {
        put_raw(&mut out, name, json.raw());
    }
    for (name, value) in edits {
        key(&mut out, name);
        out.extend_from_slice(value);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_merged_once() {
        let cases = [
            (r#"{ "a":1, "b":2 }"#, Some(r#"{ "a":1, "b":9 }"#)),
            (r"{}", Some(r#"{"b":9}"#)),
            (r#"{"a":1,"b":2,"a":3,"c":{"x":1,"x":2}}"#, Some(r#"{"a":3,"c":{"x":1,"x":2},"b":9}"#)),
            (r#"{"b":1,"B":2,"a":"\n"}"#, Some(r#"{"a":"\n","b":9}"#)),
            ("[1]", None),
        ];
        for (json, expect) in cases {
            let merged = merge(json, &[("b", b"9".as_slice())]);
            assert_eq!(merged.as_deref(), expect.map(str::as_bytes), "{json}");
        }
    }
}
