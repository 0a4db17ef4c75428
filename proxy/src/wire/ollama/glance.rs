//! What a line means to the books, without reading it: the hot path of every verbatim stream.
//!
//! A quote inside a JSON string is escaped, so the bytes `"done"` followed by a colon are a key wherever they stand. Arguments
//! of a call may hold such keys, too; a hit is therefore verified by a real look.

use super::{stop_reason, times, usage};
use crate::canon::{StopReason, Usage};
use crate::wire::Glance;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::Fields;
use crate::wire::frame::{Frame, Framing};
use crate::wire::json::{Json, validate};
use crate::wire::object::Object;
use bytes::Bytes;
use memchr::memmem::Finder;
use std::ops::Range;
use std::sync::LazyLock;

static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"done\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

/// Keys whose value is generated.
static SPOKEN: LazyLock<[Finder<'static>; 4]> =
    LazyLock::new(|| ["\"content\"", "\"response\"", "\"thinking\"", "\"tool_calls\""].map(Finder::new));

pub(super) fn glance(frame: &Frame) -> Glance {
    let raw = frame.raw.as_ref();
    let news = followed(raw, &DONE, |value| value.starts_with(b"t")) || followed(raw, &ERROR, |_| true);
    if !news {
        // What stopped it is not known yet; the last line says so, but not that there were calls.
        let stop = called(raw).then_some(StopReason::ToolUse);
        return Glance { token: spoken(raw), stop, ..Glance::default() };
    }
    let Some(data) = Framing::Lines.data(frame) else { return Glance::default() };
    let Ok(json) = validate(&data).map(Fields::of) else { return Glance::default() };
    let mut glance = read(&|key| json.get(key), raw);
    glance.token = glance.fault.is_none() && spoken(raw);
    glance
}

pub(super) fn glance_answer(answer: &Object) -> Glance {
    let mut glance = read(&|key| answer.get(key), answer.source());
    if glance.fault.is_none() {
        glance.token = spoken(answer.source());
        glance.end = true;
        glance.stop.get_or_insert_with(|| stop_reason("stop", called(answer.source())));
    }
    glance
}

fn read<'a>(get: &dyn Fn(&str) -> Option<Json<'a>>, raw: &[u8]) -> Glance {
    if let Some(error) = get("error") {
        return Glance { fault: Some(backend_fault(error)), ..Glance::default() };
    }
    if get("done").and_then(Json::as_bool) != Some(true) {
        return Glance { stop: called(raw).then_some(StopReason::ToolUse), ..Glance::default() };
    }
    let word = get("done_reason").and_then(Json::as_str).unwrap_or_default();
    let counts = usage(get);
    Glance {
        stop: Some(stop_reason(&word, called(raw))),
        usage: Some(counts).filter(|counts| *counts != Usage::default()),
        end: true,
        times: times(get),
        ..Glance::default()
    }
}

/// Where the top-level `model` stands.
pub(super) fn model_span(data: &Bytes) -> Option<Range<usize>> {
    let found = Json::trusted(data.trim_ascii()).get("model")?;
    crate::wire::check::text_span(data, found)
}

/// The key stands somewhere, and the text behind its colon is so.
fn followed(text: &[u8], key: &Finder<'_>, is: impl Fn(&[u8]) -> bool) -> bool {
    let mut rest = text;
    while let Some(at) = key.find(rest) {
        rest = &rest[at + key.needle().len()..];
        if rest.trim_ascii_start().strip_prefix(b":").is_some_and(|value| is(value.trim_ascii_start())) {
            return true;
        }
    }
    false
}

/// Some generated text, or a call, that is not empty.
fn spoken(text: &[u8]) -> bool {
    let full = |value: &[u8]| match value {
        [b'"', b'"', ..] => false,
        [b'[', more @ ..] => !more.trim_ascii_start().starts_with(b"]"),
        [b'"', ..] => true,
        _ => false,
    };
    SPOKEN.iter().any(|key| followed(text, key, full))
}

fn called(text: &[u8]) -> bool {
    followed(text, &SPOKEN[3], |value| {
        value.strip_prefix(b"[").is_some_and(|more| more.trim_ascii_start().starts_with(b"{"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::FaultKind;
    use crate::wire::Times;

    fn of(line: &str) -> Glance {
        glance(&Frame { raw: Bytes::from(format!("{line}\n")) })
    }

    #[test]
    fn lines_at_a_glance() {
        let token = Glance { token: true, ..Glance::default() };
        let counts = Usage { input: Some(7), output: Some(2), ..Usage::default() };
        let end = Glance { stop: Some(StopReason::EndTurn), end: true, ..Glance::default() };
        let took = Times { eval: Some(1.5), ..Times::default() };
        let cases: Vec<(&str, Glance)> = vec![
            (r#"{"model":"m","message":{"role":"assistant","content":"x"},"done":false}"#, token.clone()),
            (r#"{"model":"m","message":{"role":"assistant","content":""},"done":false}"#, Glance::default()),
            (
                r#"{"model":"m","message":{"role":"assistant","content":"","thinking" : "h"},"done":false}"#,
                token.clone(),
            ),
            (r#"{"model":"m","response":"x","done":false}"#, token.clone()),
            (r#"{"model":"m","response":"\"done\":true","done" : false}"#, token.clone()),
            (
                r#"{"model":"m","message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"done":true,"error":1}}}]},"done":false}"#,
                Glance { stop: Some(StopReason::ToolUse), ..token.clone() },
            ),
            (r#"{"model":"m","message":{"content":""},"done":true}"#, end.clone()),
            (
                r#"{"model":"m","message":{"content":""},"done_reason":"length","done": true,"prompt_eval_count":7,"eval_count":2,"eval_duration":1500000000}"#,
                Glance { stop: Some(StopReason::MaxTokens), usage: Some(counts), times: Some(took), ..end.clone() },
            ),
            (
                r#"{"model":"m","message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":true}"#,
                Glance { stop: Some(StopReason::ToolUse), token: true, ..end },
            ),
            ("", Glance::default()),
        ];
        for (line, expect) in cases {
            assert_eq!(of(line), expect, "{line}");
        }
        assert_eq!(of(r#"{"error":"out of memory"}"#).fault.unwrap().kind, FaultKind::BackendError);
    }
}
