//! What a chat frame means to the books, without reading it: the hot path of every verbatim stream.
//!
//! A quote inside a JSON string is escaped, so the bytes `"usage"` followed by a colon are a key wherever they stand. Nested
//! keys can still be called that; a hit is therefore verified by a real look, and a miss costs a few vector searches.

use super::{says_nothing, stop_reason, timings, usage};
use crate::canon::{StopReason, Usage};
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use crate::wire::object::Object;
use crate::wire::{Glance, Unasked};
use bytes::Bytes;
use memchr::memmem::Finder;
use std::ops::Range;
use std::sync::LazyLock;

struct Needles {
    usage: Finder<'static>,
    timings: Finder<'static>,
    finish: Finder<'static>,
    error: Finder<'static>,
    calls: Finder<'static>,
    stop: Finder<'static>,
}

static NEEDLES: LazyLock<Needles> = LazyLock::new(|| Needles {
    usage: Finder::new("\"usage\""),
    timings: Finder::new("\"timings\""),
    finish: Finder::new("\"finish_reason\""),
    error: Finder::new("\"error\""),
    calls: Finder::new("\"tool_calls\""),
    stop: Finder::new("\"stop_reason\""),
});

/// Keys whose text is generated; [`ARGUMENTS`] and [`INPUT`] are a call's.
static SPOKEN: LazyLock<[Finder<'static>; 7]> = LazyLock::new(|| {
    ["\"content\"", "\"reasoning_content\"", "\"arguments\"", "\"reasoning\"", "\"refusal\"", "\"text\"", "\"input\""]
        .map(Finder::new)
});

/// Where the arguments of a call, and the text for a custom tool, stand among these keys.
const ARGUMENTS: usize = 2;
const INPUT: usize = 6;

pub(super) fn glance(frame: &Frame) -> Glance {
    let raw = frame.raw.as_ref();
    let needles = &*NEEDLES;
    let news = has_value(raw, &needles.finish)
        || has_value(raw, &needles.usage)
        || has_value(raw, &needles.error)
        || has_value(raw, &needles.timings);
    if !news && raw.len() > 24 {
        let (token, called) = spoken(raw);
        return Glance { token, called, ..Glance::default() };
    }
    look(frame, raw)
}

/// The slow look, at frames that carry news and at the very short ones.
fn look(frame: &Frame, raw: &[u8]) -> Glance {
    let Some(data) = frame.data() else { return Glance::default() };
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        return Glance { end: true, ..Glance::default() };
    }
    let Ok(json) = validate(data) else { return Glance::default() };
    let fields = Fields::of(json);
    let mut glance = read(&|key| fields.get(key), false, has_value(raw, &NEEDLES.finish));
    (glance.token, glance.called) = spoken(raw);
    glance
}

pub(super) fn glance_answer(answer: &Object) -> Glance {
    let mut glance = read(&|key| answer.get(key), true, true);
    glance.token = glance.fault.is_none() && spoken(answer.source()).0;
    glance.end = true;
    glance.usage_beside = false;
    // A server that counts for all choices counts by itself. llama.cpp, told by its timings, puts the choices together and leaves
    // the counts of the first beside them.
    let for_all = glance.usage.is_some_and(|usage| usage.output.is_some()) && answer.get("timings").is_none();
    if glance.fault.is_none() && !for_all {
        glance.uncounted = answer.get("choices").into_iter().flat_map(Json::items).skip(1).map(length).sum();
    }
    glance
}

/// Bytes of generated text in a choice.
fn length(choice: Json<'_>) -> u64 {
    let text = |json: Option<Json<'_>>| json.and_then(Json::as_str).map_or(0, |text| text.len() as u64);
    let message = choice.get("message");
    let said = |name| text(message.and_then(|message| message.get(name)));
    let calls = message.and_then(|message| message.get("tool_calls")).into_iter().flat_map(Json::items);
    let arguments = calls.map(|call| text(call.get("function").and_then(|function| function.get("arguments"))));
    let thoughts = said("reasoning_content").max(said("reasoning"));
    text(choice.get("text")) + said("content") + said("refusal") + thoughts + arguments.sum::<u64>()
}

/// `finish`: some choice may say why it ended.
fn read<'a>(get: &dyn Fn(&str) -> Option<Json<'a>>, whole: bool, finish: bool) -> Glance {
    if let Some(error) = get("error") {
        return Glance { fault: Some(backend_fault(error)), ..Glance::default() };
    }
    let mut glance = Glance::default();
    let choices = get("choices").filter(|json| json.kind() == Kind::Array);
    if let Some(choices) = choices.filter(|_| finish) {
        glance.stop = stop(choices.raw().as_bytes());
    }
    let counts = get("usage").filter(|json| json.kind() == Kind::Object).map(usage);
    if counts.is_some() {
        glance.usage_beside = choices.is_some_and(Json::has_items);
        glance.usage_only = !glance.usage_beside && !whole;
        glance.of_one_choice = glance.usage_only && get("timings").is_some();
        glance.choice = choices.filter(|_| glance.usage_beside && !whole).and_then(only);
    }
    let running = glance.usage_beside && !whole;
    let counts = counts.filter(|counts| !(running && says_nothing(counts)));
    let known = match (counts, get("timings").map(timings)) {
        // What the counts leave out stands in the timings, as the reader takes it.
        (Some(counts), Some(mut timed)) if !counts.is_complete() => {
            timed.update(&counts);
            Some(timed)
        }
        (counts, timed) => counts.or(timed),
    };
    glance.usage = known.filter(|counts| *counts != Usage::default());
    glance
}

/// The number of the choice of a chunk that has one.
fn only(choices: Json<'_>) -> Option<u64> {
    let mut choices = choices.items();
    let number = choices.next()?.get("index")?.as_u64()?;
    choices.next().is_none().then_some(number)
}

/// Why the first of these choices that ended did so. The books need no more than a search for the keys.
fn stop(choices: &[u8]) -> Option<StopReason> {
    let text = |key: &Finder<'static>| {
        key.find_iter(choices).find_map(|at| {
            let value = choices[at + key.needle().len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let end = memchr::memchr(b'"', value.strip_prefix(b"\"")?)?;
            std::str::from_utf8(&value[1..=end]).ok().filter(|word| !word.is_empty())
        })
    };
    let word = text(&NEEDLES.finish)?;
    let called = NEEDLES.calls.find_iter(choices).any(|at| {
        let value = choices[at + NEEDLES.calls.needle().len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| {
            value.trim_ascii_start().strip_prefix(b"[").is_some_and(|list| list.trim_ascii_start().starts_with(b"{"))
        })
    });
    let sequence = text(&NEEDLES.stop).map(str::to_owned);
    Some(stop_reason(word, sequence, called || matches!(word, "tool_calls" | "function_call")))
}

/// The key stands somewhere with a value that is not null.
fn has_value(text: &[u8], key: &Finder<'_>) -> bool {
    let mut rest = text;
    while let Some(at) = key.find(rest) {
        rest = &rest[at + key.needle().len()..];
        match value_start(rest) {
            None | Some(b'n') => {}
            Some(_) => return true,
        }
    }
    false
}

/// The first byte of the value behind a key's closing quote; `None` if no colon follows.
fn value_start(rest: &[u8]) -> Option<u8> {
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    value.trim_ascii_start().first().copied()
}

/// Some generated text that is not empty; and whether a call's arguments were met on the way to it.
fn spoken(text: &[u8]) -> (bool, bool) {
    let mut called = false;
    let spoken = SPOKEN.iter().enumerate().any(|(which, key)| {
        let mut rest = text;
        while let Some(at) = key.find(rest) {
            rest = &rest[at + key.needle().len()..];
            let Some(value) = rest.trim_ascii_start().strip_prefix(b":") else { continue };
            let value = value.trim_ascii_start();
            // Elsewhere in a frame an `input` is a number: of tokens, or what they cost.
            called |= which == ARGUMENTS || which == INPUT && value.starts_with(b"\"");
            match value {
                [b'"', b'"', ..] => {}
                [b'"' | b'[' | b'{', ..] => return true,
                _ => {}
            }
        }
        false
    });
    (spoken, called)
}

/// Where the top-level `model` stands.
pub(super) fn model_span(data: &Bytes) -> Option<Range<usize>> {
    let found = Json::trusted(data.trim_ascii()).get("model")?;
    crate::wire::check::text_span(data, found)
}

pub(super) fn ask_usage(request: &Object, continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
    if request.get("stream").and_then(Json::as_bool) != Some(true) {
        return None;
    }
    let options = request.get("stream_options").filter(|json| json.kind() == Kind::Object);
    let said = |key: &str| options.and_then(|options| options.get(key)).and_then(Json::as_bool);
    let (ask, ask_more) =
        (said("include_usage") != Some(true), continuous && said("continuous_usage_stats") != Some(true));
    if !ask && !ask_more {
        return None;
    }
    let mut edits: Vec<(&str, &[u8])> = Vec::new();
    if ask {
        edits.push(("include_usage", b"true"));
    }
    if ask_more {
        edits.push(("continuous_usage_stats", b"true"));
    }
    let value = crate::wire::put::merge(options.map_or("{}", Json::raw), &edits)?;
    Some(("stream_options", value, if ask { Unasked::All } else { Unasked::Running }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::FaultKind;

    fn of(data: &str) -> Glance {
        glance(&Frame { raw: Bytes::from(format!("data: {data}\n\n")) })
    }

    #[test]
    fn frames_at_a_glance() {
        let token = Glance { token: true, ..Glance::default() };
        let counts = Usage { input: Some(1), output: Some(2), ..Usage::default() };
        let cases: Vec<(&str, Glance)> = vec![
            (r#"{"choices":[{"delta":{"content":"x"},"finish_reason":null}],"usage":null}"#, token.clone()),
            (r#"{"choices":[{"delta":{"content" : "x"},"finish_reason" : null}]}"#, token.clone()),
            (r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#, Glance::default()),
            (r#"{"choices":[{"delta":{"reasoning":"x"}}],"padding":"xxxxxxxxxxxxx"}"#, token.clone()),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}"#,
                Glance { called: true, ..token.clone() },
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"custom":{"input":"x"}}]}}]}"#,
                Glance { called: true, ..token.clone() },
            ),
            (r#"{"choices":[{"delta":{"content":"x"}}],"cost":{"input":0.1}}"#, token.clone()),
            (r#"{"choices":[{"delta":{}}],"cost":{"input":0.1}}"#, Glance::default()),
            (
                r#"{"choices":[{"delta":{"content":null,"function_call":{"name":"f","arguments":""}}}]}"#,
                Glance { called: true, ..Glance::default() },
            ),
            (r#"{"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":9},\"error\":1"}}]}"#, token.clone()),
            (
                r#"{"choices":[{"delta":{"content":"usage"},"x":{"usage":{"prompt_tokens":9},"error":"no"}}]}"#,
                token.clone(),
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                Glance { stop: Some(StopReason::EndTurn), ..Glance::default() },
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason": "tool_calls"}]}"#,
                Glance { stop: Some(StopReason::ToolUse), ..Glance::default() },
            ),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
                Glance { usage: Some(counts), usage_only: true, ..Glance::default() },
            ),
            (
                r#"{"choices":[{"delta":{"content":"x"}}],"usage": {"prompt_tokens":1,"completion_tokens":2}}"#,
                Glance { usage: Some(counts), usage_beside: true, ..token.clone() },
            ),
            (r#"{"choices":[],"usage":{"prompt_tokens":-1}}"#, Glance { usage_only: true, ..Glance::default() }),
            ("[DONE]", Glance { end: true, ..Glance::default() }),
        ];
        for (data, expect) in cases {
            assert_eq!(of(data), expect, "{data}");
        }
        assert_eq!(of(r#"{"error":{"message":"x"}}"#).fault.unwrap().kind, FaultKind::BackendError);
        assert_eq!(glance(&Frame { raw: Bytes::from_static(b": ping\n\n") }), Glance::default());
    }

    #[test]
    fn the_model_is_found_where_it_counts() {
        for (data, expect) in [
            (r#"{"id":"x","model":"m","choices":[{"model":"no"}]}"#, Some("\"m\"")),
            (r#"{"choices":[{"model":"no"}],"model" : "a\"b"}"#, Some("\"a\\\"b\"")),
            (r#"{"choices":[{"delta":{"content":"\"model\":\"x\""}}]}"#, None),
            (r#"{"model":null}"#, None),
            ("[DONE]", None),
            ("{\"model\":", None),
        ] {
            let data = Bytes::from_static(data.as_bytes());
            assert_eq!(model_span(&data).map(|span| std::str::from_utf8(&data[span]).unwrap()), expect);
        }
    }

    #[test]
    fn usage_is_asked_for_beside_what_the_client_said() {
        for (request, continuous, expect) in [
            (r#"{"stream":false}"#, true, None),
            ("{}", false, None),
            (r#"{"stream":true}"#, false, Some((r#"{"include_usage":true}"#, Unasked::All))),
            (
                r#"{"stream":true,"stream_options":null}"#,
                true,
                Some((r#"{"include_usage":true,"continuous_usage_stats":true}"#, Unasked::All)),
            ),
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, false, None),
            (
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
                true,
                Some((r#"{"include_usage":true,"continuous_usage_stats":true}"#, Unasked::Running)),
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
                false,
                Some((r#"{"include_usage":true,"x":1}"#, Unasked::All)),
            ),
        ] {
            let object = Object::read(Bytes::from_static(request.as_bytes())).unwrap();
            assert_eq!(
                ask_usage(&object, continuous)
                    .map(|(_, value, unasked)| (String::from_utf8(value).unwrap(), unasked))
                    .as_ref()
                    .map(|(value, unasked)| (value.as_str(), *unasked)),
                expect,
                "{request}"
            );
        }
    }
}
