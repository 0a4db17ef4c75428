//! An edited call put back into the bytes it was read from.
//!
//! A call cannot be written back as a whole: what only the client's dialect can say (a cache mark on a block, a name on a
//! message) has no place in it. So both the call as it was and the call as it is are written, and what differs between the two
//! is what was edited: those members of the body are replaced, and all else keeps its bytes. No dialect has to know of it.

use super::json::{Json, validate, write_str};
use super::openai::responses::offers_tools;
use super::put::comma;
use super::request::Request;
use super::{Dialect, Target, Written, json};
use crate::canon::{Call, Fault};

/// See [`Request::with_call`].
pub(super) fn with_call(request: &Request, call: &Call) -> Result<Request, Fault> {
    let codec = request.dialect.codec();
    let target = target(request);
    let before = codec.write_call(request.call()?, &target)?.body;
    let after = codec.write_call(call, &target)?.body;
    replace(request, &before, &after)
}

/// The request without what is of our own making in it, and what that cost: see [`super::Codec::as_a_vendors`]. Written as if the
/// backend could read it and as it will be, it differs in nothing else.
pub(super) fn without_marks(request: &Request) -> Result<(Request, Written), Fault> {
    let codec = request.dialect.codec();
    let target = target(request);
    let call = request.call()?;
    let before = codec.write_call(&codec.as_a_vendors(call), &target)?;
    let mut after = codec.write_call(call, &target)?;
    after.dropped.retain(|name| !before.dropped.contains(name));
    after.adjusted.retain(|name| !before.adjusted.contains(name));
    Ok((replace(request, &before.body, &after.body)?, after))
}

/// A target without habits, so that what is not edited is written the same way twice; but the client's word for the limit.
fn target(request: &Request) -> Target {
    Target {
        model: request.model.clone(),
        reasoning_effort: true,
        extended_sampling: true,
        max_completion_tokens: request.member("max_completion_tokens").is_some(),
        ..Target::default()
    }
}

/// The request with those members exchanged that were written differently before and after.
fn replace(request: &Request, before: &[u8], after: &[u8]) -> Result<Request, Fault> {
    let (before, after) = (parse(before)?, parse(after)?);
    let mut members: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    let scattered = request.dialect == Dialect::Responses && request.member("input").is_some_and(offers_tools);
    for (key, value) in after.entries() {
        match before.get(&key) {
            Some(known) if known.raw() == value.raw() => {}
            known => {
                let whole = || value.raw().as_bytes().to_vec();
                let both = known.zip(request.member(&key)).filter(|_| !scattered || key != "input");
                let merged = both.and_then(|(known, body)| merge(body, known, value, "role"));
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
    if scattered {
        gather_tools(after, &mut members);
    }
    join_system(request, after, &mut members);
    renew_legacy(request, after, &mut members);
    let members: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    request.with_members(&members)
}

/// A system turn among the messages is written where the others are. Where messages are written anew as a whole it is not
/// among them any more, so that place must be, too.
fn join_system(request: &Request, after: Json<'_>, members: &mut Vec<(String, Option<Vec<u8>>)>) {
    let is_system =
        |message: &Json<'_>| message.get("role").and_then(Json::as_str).is_some_and(|role| role == "system");
    let has_system = |list: Option<Json<'_>>| list.is_some_and(|list| list.items().any(|message| is_system(&message)));
    let edited = |key: &str| members.iter().any(|(known, _)| known == key);
    if edited("messages")
        && !edited("system")
        && has_system(request.member("messages"))
        && !has_system(after.get("messages"))
    {
        members.extend(after.get("system").map(|value| ("system".to_owned(), Some(value.raw().as_bytes().to_vec()))));
    }
}

/// Tools among the items of an input are written in their list. Where one of the two is written anew, the other is, too: else those
/// tools would be lost, or one that was taken away would still be offered.
fn gather_tools(after: Json<'_>, members: &mut Vec<(String, Option<Vec<u8>>)>) {
    let edited = |key: &str| members.iter().any(|(known, _)| known == key);
    let other = match (edited("input"), edited("tools")) {
        (true, false) => "tools",
        (false, true) => "input",
        _ => return,
    };
    members.extend(after.get(other).map(|value| (other.to_owned(), Some(value.raw().as_bytes().to_vec()))));
}

/// OpenAI's first words for tools are read but never written: where the new ones go in, the old ones go, or both would stand
/// there and say different things.
fn renew_legacy(request: &Request, after: Json<'_>, members: &mut Vec<(String, Option<Vec<u8>>)>) {
    let edited = members.iter().any(|(key, _)| key == "tools" || key == "tool_choice");
    let legacy = ["functions", "function_call"].into_iter().filter(|key| request.member(key).is_some());
    let legacy: Vec<_> = legacy.collect();
    if !edited || legacy.is_empty() || request.dialect != Dialect::Chat {
        return;
    }
    for key in ["tools", "tool_choice"] {
        if !members.iter().any(|(known, _)| known == key) {
            members.extend(after.get(key).map(|value| (key.to_owned(), Some(value.raw().as_bytes().to_vec()))));
        }
    }
    members.extend(legacy.into_iter().map(|key| (key.to_owned(), None)));
}

/// A list in which only some elements changed: those are replaced in the body's own list. Appended and removed ones at the end
/// are followed, too. `None` where the elements of the body are not those of the call one by one, as far as `tag` tells.
fn merge(body: Json<'_>, before: Json<'_>, after: Json<'_>, tag: &str) -> Option<Vec<u8>> {
    let lists = [body, before, after].map(|json| json.items().collect::<Vec<_>>());
    let [body, before, after] = &lists;
    let alike = |(body, before): (&Json<'_>, &Json<'_>)| body.get(tag).map(Json::raw) == before.get(tag).map(Json::raw);
    if body.is_empty() || body.len() != before.len() || !body.iter().zip(before).all(alike) {
        return None;
    }
    let same_head = before.iter().zip(after).take_while(|(old, new)| old.raw() == new.raw()).count();
    let same_length = before.len() == after.len();
    let same_tail = |at: usize| same_length && before[at].raw() == after[at].raw();
    // Elements were inserted or removed: what stands before the first change, and after the last, is still known.
    let shift = after.len().abs_diff(before.len());
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(old, new)| old.raw() == new.raw()).count();
    let tail = tail.min(before.len().min(after.len()) - same_head.min(before.len().min(after.len())));
    let mut out = vec![b'['];
    for (at, new) in after.iter().enumerate() {
        comma(&mut out);
        let kept = if at < same_head || same_tail(at) {
            Some(at)
        } else if shift > 0 && at + tail >= after.len() {
            Some(at + before.len() - after.len())
        } else {
            None
        };
        match kept {
            Some(at) => out.extend_from_slice(body[at].raw().as_bytes()),
            None => match same_length.then(|| merge_content(body[at], before[at], *new)).flatten() {
                Some(merged) => out.extend_from_slice(&merged),
                None => out.extend_from_slice(new.raw().as_bytes()),
            },
        }
    }
    out.push(b']');
    Some(out)
}

/// A message in which only some blocks of its content changed.
fn merge_content(body: Json<'_>, before: Json<'_>, after: Json<'_>) -> Option<Vec<u8>> {
    let others_alike = before.entries().count() == after.entries().count()
        && after
            .entries()
            .filter(|(key, _)| key != "content")
            .all(|(key, value)| before.get(&key).map(Json::raw) == Some(value.raw()));
    if !others_alike {
        return None;
    }
    let content = merge(body.get("content")?, before.get("content")?, after.get("content")?, "type")?;
    super::put::merge(body.raw(), &[("content", &content)])
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

    /// Our mark in two messages, once before blocks with marks of the client's own; and in a loop of tools.
    #[test]
    fn a_mark_of_ours_is_taken_out_and_nothing_else() {
        let mark = crate::wire::anthropic::MARKER;
        let ours = format!(r#"{{"type":"thinking","thinking":"hm","signature":"{mark}"}}, "#);
        let cached = r#""cache_control":{"type":"ephemeral"}"#;
        let body = format!(
            r#"{{"model":"m", "max_tokens":2048,"system":[{{"type":"text","text":"s",{cached}}}],"metadata":{{"user_id":"u","x":1}},"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":[{ours}{{"type":"text","text":"b",{cached}}}]}}, {{"role":"user","content":[{{"type":"text","text":"c",{cached}}}]}},{{"role":"assistant","content":[{ours}{{"type":"tool_use","id":"f:1","name":"f","input":{{ }},{cached}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"f:1","content":"d",{cached}}}]}}],"tools":[{{"name":"f","input_schema":{{"type":"object"}},{cached}}}]}}"#
        );
        // Between messages that are merged one by one stands one comma, without the client's space.
        let clean = body.replace(&ours, "").replace("]}, {", "]},{");
        let write = |body: &str| {
            let request = Request::read(Dialect::Messages, Bytes::copy_from_slice(body.as_bytes())).unwrap();
            let out = request.write(&[Dialect::Messages], &Target { model: "m".into(), ..Target::default() }).unwrap();
            (String::from_utf8(out.written.body.to_vec()).unwrap(), out.written.dropped, out.written.adjusted)
        };
        assert_eq!(write(&body), (clean.clone(), vec!["thinking".to_owned()], vec![]));
        // A loop that began without a vendor's thinking cannot go on with it: asked for, it is given up, and that is said.
        let asked = r#","thinking":{"type":"enabled","budget_tokens":1500}}"#;
        let with = |body: &str, end: &str| format!("{}{end}", body.strip_suffix('}').unwrap());
        let (dropped, adjusted) = (vec!["thinking".to_owned()], vec!["thinking".to_owned()]);
        assert_eq!(write(&with(&body, asked)), (with(&clean, "}"), dropped, adjusted));
        // The mark as a word that somebody quotes is none.
        let quoted = format!(r#"{{"model":"m","max_tokens":9,"messages":[ {{"role":"user","content":"{mark}"}}]}}"#);
        assert_eq!(write(&quoted), (quoted.clone(), vec![], vec![]));
    }

    #[test]
    fn a_system_turn_among_the_messages_is_not_lost() {
        let body = r#"{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"system","content":"t"},{"role":"user","content":"a"}]}"#;
        assert_eq!(
            edited(Dialect::Messages, body, |call| call.turns[2] = Turn::text(Role::User, "b")),
            r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"},{"type":"text","text":"t"}],"messages":[{"role":"user","content":[{"type":"text","text":"b"}]}]}"#
        );
    }

    #[test]
    fn other_blocks_of_an_edited_message_keep_their_bytes() {
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}, {"type":"text","text":"b"}]}]}"#;
        let expect = body.replace(r#"}, {"type":"text","text":"b"}"#, r#"},{"type":"text","text":"c"}"#);
        assert_eq!(
            edited(Dialect::Messages, body, |call| call.turns[0].content[1] = Content::Text("c".into())),
            expect
        );
    }

    #[test]
    fn tools_are_not_said_in_old_and_new_words_at_once() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"a"}],"functions":[{"name":"f"},{"name":"g"}],"function_call":{"name":"f"}}"#;
        assert_eq!(
            edited(Dialect::Chat, body, |call| drop(call.tools.pop())),
            r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}}"#
        );
        assert_eq!(
            edited(Dialect::Chat, body, |call| {
                call.tools.clear();
                call.tool_choice = None;
            }),
            r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#
        );
        let untouched = body.replace(r#""a""#, r#""b""#);
        assert_eq!(edited(Dialect::Chat, body, |call| call.turns[0] = Turn::text(Role::User, "b")), untouched);
    }

    #[test]
    fn tools_among_the_items_are_neither_lost_nor_kept() {
        let body = r#"{"model":"m","input":[{"type":"additional_tools","role":"developer","tools":[{"type":"custom","name":"p"},{"type":"function","name":"f","parameters":{}}]},{"role":"user","content":"a"}]}"#;
        assert_eq!(
            edited(Dialect::Responses, body, |call| call.turns[0] = Turn::text(Role::User, "b")),
            r#"{"model":"m","input":[{"type":"message","role":"user","content":"b"}],"tools":[{"type":"custom","name":"p"},{"type":"function","name":"f","parameters":{}}]}"#
        );
        assert_eq!(
            edited(Dialect::Responses, body, |call| drop(call.tools.pop())),
            r#"{"model":"m","input":[{"type":"message","role":"user","content":"a"}],"tools":[{"type":"custom","name":"p"}]}"#
        );
        assert_eq!(edited(Dialect::Responses, body, |call| call.max_tokens = None), body);
    }

    #[test]
    fn a_tool_that_was_found_can_be_taken_away() {
        let body = r#"{"model":"m","input":[{"role":"user","content":"a"},{"type":"tool_search_call","id":"i","call_id":"1","execution":"client","arguments":{"query":"q"}},{"type":"tool_search_output","call_id":"1","status":"completed","execution":"client","tools":[{"type":"function","name":"f","defer_loading":true,"parameters":{}}]}],"tools":[{"type":"tool_search","execution":"client"}]}"#;
        assert_eq!(
            edited(Dialect::Responses, body, |call| call.turns[0] = Turn::text(Role::User, "b")),
            body.replace(r#"{"role":"user","content":"a"}"#, r#"{"type":"message","role":"user","content":"b"}"#)
        );
        assert_eq!(
            edited(Dialect::Responses, body, |call| drop(call.tools.pop())),
            body.replace(r#"[{"type":"function","name":"f","defer_loading":true,"parameters":{}}]"#, "[]")
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
