//! What a response event means to the books, at the least cost. Deltas name themselves in their first line and are most of a
//! stream; counts and the end stand in one event, the last.

use super::{is_call, stop_reason, usage};
use crate::canon::{Fault, FaultKind, Usage};
use crate::wire::Glance;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::{Fields, text_span};
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use crate::wire::object::Object;
use bytes::Bytes;
use memchr::memmem::Finder;
use std::ops::Range;
use std::sync::LazyLock;

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"delta\""));
static RESPONSE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"response\""));

pub(super) fn glance(frame: &Frame) -> Glance {
    let raw = frame.raw.as_ref();
    if let Some(rest) = raw.strip_prefix(b"event: response.") {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.ends_with(b".delta") {
            return Glance { token: spoken(raw), ..Glance::default() };
        }
        if !matches!(name, b"completed" | b"incomplete" | b"failed" | b"cancelled") {
            return Glance::default();
        }
    }
    let Some(data) = frame.data() else { return Glance::default() };
    let Ok(json) = validate(data.trim_ascii()) else { return Glance::default() };
    let event = Fields::of(json);
    let kind = event.text("type").unwrap_or_default();
    match kind.as_ref() {
        "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
            let response = event.get("response").unwrap_or(json);
            Glance { end: true, ..read(&|key| response.get(key), kind.strip_prefix("response.").unwrap_or_default()) }
        }
        "error" => Glance { fault: Some(error(&event, json)), ..Glance::default() },
        "" => Glance { fault: event.get("error").map(backend_fault), ..Glance::default() },
        kind if kind.ends_with(".delta") => Glance { token: spoken(raw), ..Glance::default() },
        _ => Glance::default(),
    }
}

/// The fault of an `error` event: its members stand at the top, or in an `error` of their own.
pub(super) fn error(event: &Fields<'_>, json: Json<'_>) -> Fault {
    backend_fault(event.get("error").unwrap_or(json))
}

pub(super) fn glance_answer(answer: &Object) -> Glance {
    Glance { end: true, ..read(&|key| answer.get(key), "") }
}

/// A response object; `otherwise`: its status where it does not say.
fn read<'a>(get: &dyn Fn(&str) -> Option<Json<'a>>, otherwise: &str) -> Glance {
    let status = get("status").and_then(Json::as_str).unwrap_or(otherwise.to_owned().into());
    if let Some(fault) = failure(&status, get("error")) {
        return Glance { fault: Some(fault), ..Glance::default() };
    }
    let why = get("incomplete_details").and_then(|details| details.get("reason")).and_then(Json::as_str);
    let items: Vec<_> = get("output").into_iter().flat_map(Json::items).map(Fields::of).collect();
    let calls = items.iter().any(is_call);
    let counts = get("usage").filter(|json| json.kind() == Kind::Object).map(usage);
    Glance {
        // In a stream this is told again; servers that tell it only here are why it counts.
        token: calls || items.iter().any(|item| matches!(item.text("type").as_deref(), Some("message" | "reasoning"))),
        usage: counts.filter(|counts| *counts != Usage::default()),
        stop: Some(stop_reason(&status, why.as_deref(), calls)),
        ..Glance::default()
    }
}

/// Why a response with this status and error is none.
pub(super) fn failure(status: &str, error: Option<Json<'_>>) -> Option<Fault> {
    match error {
        Some(error) => Some(backend_fault(error)),
        None if matches!(status, "failed" | "cancelled") => {
            Some(Fault::new(FaultKind::BackendError, "The backend's response failed without a reason."))
        }
        None => None,
    }
}

/// A delta that is not empty.
fn spoken(text: &[u8]) -> bool {
    DELTA.find_iter(text).any(|at| {
        let value =
            text[at + DELTA.needle().len()..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.is_some_and(|value| value.starts_with(b"\"") && !value.starts_with(b"\"\""))
    })
}

/// Where the model stands: in the response that the first and the last events carry.
pub(super) fn model_span(data: &Bytes) -> Option<Range<usize>> {
    RESPONSE.find(data)?;
    let found = Json::trusted(data.trim_ascii()).get("response")?.get("model")?;
    text_span(data, found)
}

/// The id of the response that the first event carries.
pub(super) fn reply_id(first: &Frame) -> Option<String> {
    let data = first.data()?;
    let id = validate(data.trim_ascii()).ok()?.get("response")?.get("id")?.as_str()?;
    Some(id.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::StopReason;

    #[test]
    fn frames_at_a_glance() {
        let token = Glance { token: true, ..Glance::default() };
        let counts = Usage { input: Some(3), output: Some(2), ..Usage::default() };
        let end = |stop| Glance { end: true, stop: Some(stop), ..Glance::default() };
        let cases: Vec<(&str, &str, Glance)> = vec![
            ("response.output_text.delta", r#"{"type":"response.output_text.delta","delta":"x"}"#, token.clone()),
            ("", r#"{"type":"response.function_call_arguments.delta","delta" : "{"}"#, token.clone()),
            ("response.output_text.delta", r#"{"type":"response.output_text.delta","delta":""}"#, Glance::default()),
            (
                "response.created",
                r#"{"type":"response.created","response":{"status":"in_progress","usage":null}}"#,
                Glance::default(),
            ),
            ("response.output_text.done", r#"{"type":"response.output_text.done","text":"x"}"#, Glance::default()),
            (
                "response.completed",
                r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message"}],"usage":{"input_tokens":3,"output_tokens":2}}}"#,
                Glance { usage: Some(counts), token: true, ..end(StopReason::EndTurn) },
            ),
            (
                "",
                r#"{"type":"response.completed","response":{"status":"completed","error":null,"output":[{"type":"function_call"}],"usage":{"input_tokens":-1}}}"#,
                Glance { token: true, ..end(StopReason::ToolUse) },
            ),
            (
                "response.incomplete",
                r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
                end(StopReason::MaxTokens),
            ),
        ];
        for (name, data, expect) in cases {
            let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
            assert_eq!(glance(&Frame { raw: format!("{name}data: {data}\n\n").into() }), expect, "{data}");
        }
        for (data, kind) in [
            (
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"}}}"#,
                FaultKind::BackendBusy,
            ),
            (r#"{"type":"response.failed","response":{"status":"failed"}}"#, FaultKind::BackendError),
            (r#"{"type":"error","code":"server_error","message":"x","param":null}"#, FaultKind::BackendError),
            (r#"{"error":{"message":"x","code":429}}"#, FaultKind::BackendBusy),
        ] {
            assert_eq!(glance(&Frame { raw: format!("data: {data}\n\n").into() }).fault.unwrap().kind, kind, "{data}");
        }
    }

    #[test]
    fn the_model_stands_in_the_response() {
        for (data, expect) in [
            (r#"{"type":"response.created","response":{"tools":[{"model":"no"}],"model":"m"}}"#, Some("\"m\"")),
            (r#"{"type":"response.output_text.delta","delta":"\"response\":{\"model\":\"x\"}"}"#, None),
            (r#"{"response":"#, None),
        ] {
            let data = Bytes::from_static(data.as_bytes());
            assert_eq!(model_span(&data).map(|span| std::str::from_utf8(&data[span]).unwrap()), expect);
        }
    }
}
