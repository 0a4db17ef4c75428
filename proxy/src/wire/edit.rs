//! An edited call put back into the bytes it was read from.
//!
//! A call cannot be written back as a whole: what only the client's dialect can say (a cache mark on a block, a name on a
//! message) has no place in it. So both the call as it was and the call as it is are written, and what differs between the two
//! is what was edited: those members of the body are replaced, and all else keeps its bytes. No dialect has to know of it.

use super::json::{Json, validate, write_str};
use super::request::Request;
use super::{Target, json};
use crate::canon::{Call, Fault};

/// See [`Request::with_call`].
pub(super) fn with_call(request: &Request, call: &Call) -> Result<Request, Fault> {
    let codec = request.dialect.codec();
    // A target without habits, so that what is not edited is written the same way twice; but the client's word for the limit.
    let target = Target {
        model: request.model.clone(),
        reasoning_effort: true,
        extended_sampling: true,
        max_completion_tokens: request.member("max_completion_tokens").is_some(),
        ..Target::default()
    };
    let before = codec.write_call(request.call()?, &target)?.body;
    let after = codec.write_call(call, &target)?.body;
    let (before, after) = (parse(&before)?, parse(&after)?);
    let mut members: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    for (key, value) in after.entries() {
        match before.get(&key) {
            Some(known) if known.raw() == value.raw() => {}
            known => {
                let whole = || value.raw().as_bytes().to_vec();
                let merged = known.zip(request.member(&key)).and_then(|(known, body)| merge(body, known, value));
                members.push((key.into_owned(), Some(merged.unwrap_or_else(whole))));
            }
        }
    }
    let gone = before.entries().filter(|(key, _)| after.get(key).is_none());
    members.extend(gone.map(|(key, _)| (key.into_owned(), None)));
    // `model` is the target's word here, `stream` the client's: neither is the call's to change.
    members.retain(|(key, _)| key != "model" && key != "stream" && key != "stream_options");
    if members.is_empty() {
        return Ok(request.clone());
    }
    let members: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    request.with_members(&members)
}

/// A list in which only some elements changed: those are replaced in the body's own list. Appended and removed ones at the end
/// are followed, too. `None` where the elements of the body are not those of the call one by one.
fn merge(body: Json<'_>, before: Json<'_>, after: Json<'_>) -> Option<Vec<u8>> {
    let lists = [body, before, after].map(|json| json.items().collect::<Vec<_>>());
    let [body, before, after] = &lists;
    let alike =
        |(body, before): (&Json<'_>, &Json<'_>)| body.get("role").map(Json::raw) == before.get("role").map(Json::raw);
    if body.is_empty() || body.len() != before.len() || !body.iter().zip(before).all(alike) {
        return None;
    }
    let same_head = before.iter().zip(after).take_while(|(old, new)| old.raw() == new.raw()).count();
    let same_tail = |at: usize| before.len() == after.len() && before[at].raw() == after[at].raw();
    // Elements were inserted or removed: what stands before the first change, and after the last, is still known.
    let shift = after.len().abs_diff(before.len());
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(old, new)| old.raw() == new.raw()).count();
    let tail = tail.min(before.len().min(after.len()) - same_head.min(before.len().min(after.len())));
    let mut out = vec![b'['];
    for (at, new) in after.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let kept = if at < same_head || same_tail(at) {
            Some(at)
        } else if shift > 0 && at + tail >= after.len() {
            Some(at + before.len() - after.len())
        } else {
            None
        };
        out.extend_from_slice(kept.map_or(new.raw(), |at| body[at].raw()).as_bytes());
    }
    out.push(b']');
    Some(out)
}

fn parse(body: &[u8]) -> Result<Json<'_>, Fault> {
    validate(body).map_err(|_| Fault::internal("a call was written that is no JSON"))
}

/// The value at a JSON Pointer (RFC 6901), as the text that stands there.
pub fn pointer<'a>(mut json: Json<'a>, pointer: &str) -> Option<Json<'a>> {
    let mut rest = pointer;
    while !rest.is_empty() {
        let (step, more) = rest
            .strip_prefix('/')?
            .split_once('/')
            .map_or((&rest[1..], ""), |(step, _)| (step, &rest[1 + step.len()..]));
        let step = step.replace("~1", "/").replace("~0", "~");
        json = match json.kind() {
            json::Kind::Object => json.entries().filter(|(key, _)| *key == step).last()?.1,
            json::Kind::Array => json.items().nth(step.parse().ok()?)?,
            _ => return None,
        };
        rest = more;
    }
    Some(json)
}

/// A text as JSON.
pub fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_str(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::call::{Content, Role, Turn};
    use crate::wire::Dialect;
    use bytes::Bytes;

    fn edited(dialect: Dialect, body: &str, edit: impl FnOnce(&mut Call)) -> String {
        let request = Request::read(dialect, Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let mut call = request.call().unwrap().clone();
        edit(&mut call);
        String::from_utf8(request.with_call(&call).unwrap().body().to_vec()).unwrap()
    }

    const CHAT: &str = r#"{ "model" : "m", "messages": [{"role":"user","name":"n","content":"one"}, {"role":"user","content":"two"}],  "x": {"y" : 1}, "max_completion_tokens": 5 }"#;

    #[test]
    fn what_is_not_edited_keeps_its_bytes() {
        let say = |text: &str| Turn::text(Role::User, text);
        type Edit = Box<dyn FnOnce(&mut Call)>;
        let cases: Vec<(&str, Edit, String)> = vec![
            ("nothing", Box::new(|_| {}), CHAT.into()),
            (
                "a text",
                Box::new(move |call| call.turns[1] = say("2")),
                CHAT.replace(r#"}, {"role":"user","content":"two"}"#, r#"},{"role":"user","content":"2"}"#),
            ),
            (
                "a turn more",
                Box::new(move |call| call.turns.push(say("three"))),
                CHAT.replace(
                    r#"}, {"role":"user","content":"two"}"#,
                    r#"},{"role":"user","content":"two"},{"role":"user","content":"three"}"#,
                ),
            ),
            (
                "a turn before",
                Box::new(move |call| call.turns.insert(0, Turn::text(Role::System, "s"))),
                CHAT.replace(
                    r#"[{"role":"user","name":"n","content":"one"}, "#,
                    r#"[{"role":"system","content":"s"},{"role":"user","name":"n","content":"one"},"#,
                ),
            ),
            (
                "a turn less",
                Box::new(|call| drop(call.turns.remove(0))),
                CHAT.replace(r#"{"role":"user","name":"n","content":"one"}, "#, ""),
            ),
            ("a limit", Box::new(|call| call.max_tokens = Some(7)), CHAT.replace(": 5", ": 7")),
            (
                "a limit less",
                Box::new(|call| call.max_tokens = None),
                CHAT.replace(r#", "max_completion_tokens": 5 }"#, "}"),
            ),
        ];
        for (name, edit, expect) in cases {
            assert_eq!(edited(Dialect::Chat, CHAT, edit), expect, "{name}");
        }
        let marked = r#"{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":"b"}]}"#;
        assert_eq!(
            edited(Dialect::Messages, marked, |call| {
                let last = call.turns.last_mut().unwrap();
                last.content = vec![Content::Text("c".into())];
            }),
            marked.replace(r#""content":"b""#, r#""content":[{"type":"text","text":"c"}]"#)
        );
        let items = r#"{"model":"m","input":[{"role":"user","content":"a"},{"type":"reasoning","id":"r","summary":[],"encrypted_content":"z"},{"type":"custom_tool_call","id":"i","call_id":"1","name":"p","input":"x"},{"type":"custom_tool_call_output","call_id":"1","output":"y"},{"role":"user","content":"b"}],"tools":[{"type":"custom","name":"p"}],"store":true}"#;
        assert_eq!(
            edited(Dialect::Responses, items, |call| {
                let last = call.turns.last_mut().unwrap();
                last.content = vec![Content::Text("c".into())];
            }),
            items.replace(r#"{"role":"user","content":"b"}"#, r#"{"type":"message","role":"user","content":"c"}"#)
        );
    }

    #[test]
    fn pointers() {
        let json = validate(br#"{"a":{"b/c":[1,{"d~":"x"}]},"":2}"#).unwrap();
        for (at, expect) in [
            ("", Some(r#"{"a":{"b/c":[1,{"d~":"x"}]},"":2}"#)),
            ("/a/b~1c/1/d~0", Some("\"x\"")),
            ("/a/b~1c/0", Some("1")),
            ("/", Some("2")),
            ("/a/x", None),
            ("a", None),
        ] {
            assert_eq!(pointer(json, at).map(Json::raw), expect, "{at}");
        }
    }
}
