//! What a message event means to the books, at the least cost. Deltas are most of a stream and name themselves in their
//! first line; everything else is rare enough for a real look.

use super::{Counts, stop_reason};
use crate::canon::{Fault, FaultKind, StopReason, Usage};
use crate::wire::Glance;
use crate::wire::backend_fault::backend_fault;
use crate::wire::check::{Fields, text_span};
use crate::wire::frame::Frame;
use crate::wire::json::{Json, Kind, validate};
use crate::wire::object::Object;
use bytes::Bytes;
use memchr::memmem::Finder;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

/// Keys whose text is generated.
static SPOKEN: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["\"text\"", "\"partial_json\"", "\"thinking\""].map(Finder::new));

pub(super) fn glance(frame: &Frame) -> Glance {
    let raw = frame.raw.as_ref();
    if raw.starts_with(b"event: content_block_delta") {
        return Glance { token: spoken(raw), ..Glance::default() };
    }
    let Some(data) = frame.data() else { return Glance::default() };
    let Ok(json) = validate(data.trim_ascii()) else { return Glance::default() };
    let event = Fields::of(json);
    let kind = event.text("type").unwrap_or_default();
    let mut glance = Glance::default();
    match kind.as_ref() {
        "content_block_delta" => glance.token = spoken(raw),
        "message_start" => {
            let message = event.get("message").map(Fields::of).unwrap_or_default();
            glance.usage = message.get("usage").and_then(|usage| counted(usage, Counts::usage));
            // Calls that Anthropic's own code makes stand here, with nothing behind them.
            glance.token = message.get("content").is_some_and(Json::has_items);
            glance.stop = stopped(&message).filter(|_| glance.token);
        }
        "message_delta" => {
            glance.stop = event.get("delta").map(Fields::of).and_then(|delta| stopped(&delta));
            glance.usage = event.get("usage").and_then(|usage| counted(usage, Counts::later));
        }
        "message_stop" => {
            glance.usage = event.get("usage").and_then(|usage| counted(usage, Counts::later));
            glance.end = true;
        }
        "error" => {
            glance.fault = event
                .get("error")
                .map(backend_fault)
                .or_else(|| Some(Fault::new(FaultKind::BackendError, "The backend reported an error.")))
        }
        "" => glance.fault = event.get("error").map(backend_fault),
        _ => {}
    }
    glance
}

pub(super) fn glance_answer(message: &Object) -> Glance {
    if let Some(error) = message.get("error") {
        return Glance { fault: Some(backend_fault(error)), ..Glance::default() };
    }
    Glance {
        token: message.get("content").is_some_and(|content| content.items().next().is_some()),
        usage: message.get("usage").and_then(|usage| counted(usage, Counts::usage)),
        stop: message.get("stop_reason").and_then(Json::as_str).map(|word| {
            stop_reason(&word, message.get("stop_sequence").and_then(Json::as_str).map(Cow::into_owned), false)
        }),
        end: true,
        ..Glance::default()
    }
}

/// Why a message ended, where it says so.
fn stopped(said: &Fields<'_>) -> Option<StopReason> {
    let sequence = said.text("stop_sequence").map(Cow::into_owned);
    said.text("stop_reason").map(|word| stop_reason(&word, sequence, false))
}

fn counted(json: Json<'_>, says: fn(&Counts) -> Usage) -> Option<Usage> {
    Some(says(&Counts::read(json))).filter(|usage| json.kind() == Kind::Object && *usage != Usage::default())
}

/// A text of one of the kinds that is not empty. `signature_delta` and `citations_delta` hold none of these keys, or keys
/// inside an object that a client does not see as text; a citation counted as a token changes no bill.
fn spoken(text: &[u8]) -> bool {
    SPOKEN.iter().any(|key| {
        let mut rest = text;
        while let Some(at) = key.find(rest) {
            rest = &rest[at + key.needle().len()..];
            if let Some(value) = rest.trim_ascii_start().strip_prefix(b":") {
                let value = value.trim_ascii_start();
                if value.starts_with(b"\"") && !value.starts_with(b"\"\"") {
                    return true;
                }
            }
        }
        false
    })
}

/// Where the model stands: in `message_start` only.
pub(super) fn model_span(data: &Bytes) -> Option<Range<usize>> {
    static START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"message_start\""));
    START.find(data)?;
    let json = Json::trusted(data.trim_ascii());
    if json.get("type").and_then(Json::as_str).as_deref() != Some("message_start") {
        return None;
    }
    text_span(data, json.get("message")?.get("model")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_at_a_glance() {
        let token = Glance { token: true, ..Glance::default() };
        let usage = |input, output| Some(Usage { input, output, ..Usage::default() });
        let cases: Vec<(&str, &str, Glance)> = vec![
            (
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
                token.clone(),
            ),
            (
                "other",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json" : "{"}}"#,
                token.clone(),
            ),
            (
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":""}}"#,
                Glance::default(),
            ),
            (
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#,
                Glance::default(),
            ),
            (
                "message_start",
                r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#,
                Glance { usage: usage(Some(3), Some(1)), ..Glance::default() },
            ),
            (
                "message_start",
                r#"{"type":"message_start","message":{"content":[{"type":"tool_use"}],"stop_reason":"tool_use"}}"#,
                Glance { token: true, stop: Some(StopReason::ToolUse), ..Glance::default() },
            ),
            (
                "message_delta",
                r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":9,"input_tokens":0}}"#,
                Glance { usage: usage(None, Some(9)), stop: Some(StopReason::MaxTokens), ..Glance::default() },
            ),
            ("message_stop", r#"{"type":"message_stop"}"#, Glance { end: true, ..Glance::default() }),
            ("ping", r#"{"type":"ping"}"#, Glance::default()),
        ];
        for (name, data, expect) in cases {
            assert_eq!(
                glance(&Frame { raw: Bytes::from(format!("event: {name}\ndata: {data}\n\n")) }),
                expect,
                "{data}"
            );
        }
        let error = Frame { raw: Bytes::from_static(b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n") };
        assert_eq!(glance(&error).fault.unwrap().status(), 529);
    }

    #[test]
    fn the_model_stands_in_the_start() {
        for (data, expect) in [
            (r#"{"type":"message_start","message":{"id":"x","model":"m"}}"#, Some("\"m\"")),
            (r#"{"type":"content_block_delta","delta":{"text":"\"message_start\""}}"#, None),
            (r#"{"type":"message_stop"}"#, None),
        ] {
            let data = Bytes::from_static(data.as_bytes());
            assert_eq!(model_span(&data).map(|span| std::str::from_utf8(&data[span]).unwrap()), expect);
        }
    }
}
