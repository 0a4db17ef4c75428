//! Anthropic messages: the richest grammar, and DeepFellow's own API.
//!
//! The canon was cut after this dialect, so most of it maps one to one. What needs care: usage excludes the cache here and
//! includes it in the canon; validation errors are 422 in DeepFellow's shape and Anthropic's at once; thinking is signed.

mod glance;
mod limit;
pub mod models;
mod read_call;
mod read_reply;
mod write_call;
mod write_reply;

use crate::canon::call::Content;
use crate::canon::usage::ABSURD;
use crate::canon::{Answer, Call, Event, Fault, FaultKind, StopReason, Usage};
use crate::wire::check::count;
use crate::wire::frame::Frame;
use crate::wire::json::{self, Json, write_str};
use crate::wire::object::Object;
use crate::wire::put::{comma, key, put_raw, put_text};
use crate::wire::{Codec, Glance, ReadReply, ReplyHead, Target, Unasked, WriteReply, Written};
use bytes::Bytes;
use std::ops::Range;

/// The signature on thinking that came from a backend without signatures. Clients demand one and send it back; by this word
/// we know that no vendor can read it. (Base64 of `tidegate-unsigned-v1`.)
pub const MARKER: &str = "dGlkZWdhdGUtdW5zaWduZWQtdjE=";

/// The dialect, both ends.
#[derive(Debug, Clone, Copy)]
pub struct Messages;

impl Codec for Messages {
    fn check(&self, request: &Object) -> Result<(), Fault> {
        read_call::check(request)
    }

    fn read_call(&self, request: &Object) -> Result<Call, Fault> {
        read_call::read_call(request)
    }

    fn write_answer(&self, answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault> {
        write_reply::answer(answer, head)
    }

    fn writer(&self, head: ReplyHead) -> Box<dyn WriteReply> {
        Box::new(write_reply::Writer::new(head))
    }

    fn fault_status(&self, fault: &Fault) -> u16 {
        match fault.kind {
            FaultKind::Invalid if !fault.details.is_empty() => fault.status.unwrap_or(422),
            _ => fault.status(),
        }
    }

    fn write_fault(&self, fault: &Fault, request_id: &str) -> Bytes {
        let mut out = Vec::new();
        put_fault(&mut out, fault, self.fault_status(fault), request_id);
        out.into()
    }

    fn write_fault_frame(&self, fault: &Fault, request_id: &str, _reply_id: Option<&str>) -> Bytes {
        let mut out = b"event: error\ndata: ".to_vec();
        put_fault(&mut out, fault, self.fault_status(fault), request_id);
        out.extend_from_slice(b"\n\n");
        out.into()
    }

    fn write_call(&self, call: &Call, to: &Target) -> Result<Written, Fault> {
        write_call::write_call(call, to)
    }

    fn read_answer(&self, body: &Bytes) -> Result<Vec<Event>, Fault> {
        read_reply::answer(body)
    }

    fn reader(&self) -> Box<dyn ReadReply> {
        Box::new(read_reply::Reader::default())
    }

    fn glance(&self, frame: &Frame) -> Glance {
        glance::glance(frame)
    }

    fn complete(&self, request: &Object, to: &Target) -> Vec<(&'static str, Vec<u8>)> {
        let mut more = Vec::new();
        if request.get("max_tokens").is_none() {
            more.push(("max_tokens", limit::of_request(request, to).to_string().into_bytes()));
        }
        // Who says nothing of it wants none; servers of open models let a model think that can.
        if to.thinking_kwargs && ["thinking", "output_config"].iter().all(|name| request.get(name).is_none()) {
            more.push(("thinking", br#"{"type":"disabled"}"#.to_vec()));
        }
        more
    }

    fn must_rewrite(&self, request: &Object) -> bool {
        memchr::memmem::find(request.source(), MARKER.as_bytes()).is_some()
    }

    fn as_a_vendors(&self, call: &Call) -> Call {
        let mut call = call.clone();
        for part in call.turns.iter_mut().flat_map(|turn| &mut turn.content) {
            if let Content::Thinking { signature: Some(signature), .. } = part
                && signature == MARKER
            {
                "signed".clone_into(signature);
            }
        }
        call
    }

    fn glance_answer(&self, answer: &Object) -> Glance {
        glance::glance_answer(answer)
    }

    /// The prompt is told in parts here, and a part that a later report does not name, or calls zero, is as large as before.
    fn add_earlier(&self, report: &mut Usage, before: &Usage) {
        let part = |named: Option<u64>, earlier: Option<u64>| named.filter(|named| *named > 0).or(earlier);
        let sum = |read: Option<u64>, written: Option<u64>| read.unwrap_or(0) + written.unwrap_or(0);
        let cached = sum(part(report.cache_read, before.cache_read), part(report.cache_write, before.cache_write));
        let (named, earlier) = (sum(report.cache_read, report.cache_write), sum(before.cache_read, before.cache_write));
        report.input = match report.input {
            Some(input) => Some(input.saturating_sub(named) + cached),
            // Only more of the cache than was known is news of a prompt that is not named.
            None if cached != earlier => before.input.map(|input| input.saturating_sub(earlier) + cached),
            None => None,
        };
    }

    fn model_span(&self, data: &Bytes) -> Option<Range<usize>> {
        glance::model_span(data)
    }

    /// This protocol always reports usage.
    fn ask_usage(&self, _request: &Object, _continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
        None
    }
}

/// Anthropic's word for a status. 503 is `overloaded_error` like 529: it is the word that makes clients come back later.
fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Anthropic's error object, with DeepFellow's `detail` beside it where the body was wrong: the keys do not collide.
fn put_fault(out: &mut Vec<u8>, fault: &Fault, status: u16, request_id: &str) {
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{");
    put_text(out, "type", error_type(status));
    put_text(out, "message", &fault.message);
    if let Some(code) = &fault.code {
        key(out, "details");
        out.push(b'{');
        put_text(out, "error_code", code);
        out.push(b'}');
    }
    out.push(b'}');
    put_text(out, "request_id", request_id);
    if !fault.details.is_empty() {
        key(out, "detail");
        out.push(b'[');
        for detail in &fault.details {
            comma(out);
            out.extend_from_slice(b"{\"loc\":[");
            for segment in &detail.loc {
                comma(out);
                if !segment.is_empty() && segment.len() < 10 && segment.bytes().all(|byte| byte.is_ascii_digit()) {
                    out.extend_from_slice(segment.as_bytes());
                } else {
                    write_str(out, segment);
                }
            }
            out.push(b']');
            put_text(out, "msg", &detail.msg);
            put_text(out, "type", detail.kind);
            key(out, "input");
            match json::validate(detail.input.as_bytes()) {
                Ok(input) => out.extend_from_slice(input.raw().as_bytes()),
                Err(_) if detail.input.is_empty() => out.extend_from_slice(b"null"),
                Err(_) => write_str(out, &detail.input),
            }
            out.push(b'}');
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Counts as Anthropic reports them: cumulative, null keeps the earlier value, the cache outside `input_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    /// A part of `output`.
    thinking: Option<u64>,
}

impl Counts {
    fn read(json: Json<'_>) -> Self {
        let mut counts = Self::of(json);
        // What it took to sum up the conversation is paid like the rest, and in none of the counts beside.
        for step in json.get("iterations").into_iter().flat_map(Json::items) {
            if step.get("type").and_then(Json::as_str).as_deref() == Some("compaction") {
                counts.add(&Self::of(step));
            }
        }
        counts
    }

    fn add(&mut self, more: &Self) {
        for (mine, more) in [
            (&mut self.input, more.input),
            (&mut self.cache_read, more.cache_read),
            (&mut self.cache_write, more.cache_write),
            (&mut self.output, more.output),
            (&mut self.thinking, more.thinking),
        ] {
            if let Some(more) = more {
                *mine = Some(mine.unwrap_or(0).saturating_add(more).min(ABSURD));
            }
        }
    }

    fn of(json: Json<'_>) -> Self {
        let created = json.get("cache_creation");
        let ttl = |name: &str| count(created.and_then(|created| created.get(name)));
        let by_ttl = [ttl("ephemeral_5m_input_tokens"), ttl("ephemeral_1h_input_tokens")];
        Self {
            input: count(json.get("input_tokens")),
            cache_read: count(json.get("cache_read_input_tokens")),
            cache_write: count(json.get("cache_creation_input_tokens"))
                .or_else(|| by_ttl.iter().any(Option::is_some).then(|| by_ttl.iter().flatten().sum())),
            output: count(json.get("output_tokens")),
            thinking: count(json.get("output_tokens_details").and_then(|details| details.get("thinking_tokens"))),
        }
    }

    /// What a report behind the first one says. One that leaves the prompt out, or calls it zero as some servers do at the end,
    /// says nothing of it: its cache alone is not the prompt.
    fn later(&self) -> Usage {
        let prompt = self.input.filter(|input| *input > 0);
        Usage { input: prompt.and(self.usage().input), ..self.usage() }
    }

    /// What the first report says.
    fn usage(&self) -> Usage {
        let prompt = [self.input, self.cache_read, self.cache_write];
        Usage {
            input: prompt.iter().any(Option::is_some).then(|| prompt.iter().flatten().sum()),
            output: self.output,
            cache_read: self.cache_read,
            cache_write: self.cache_write,
            reasoning: self.thinking,
        }
    }
}

/// The usage object, all keys of it. Strict clients demand numbers; what nobody reported is the estimate, or zero.
fn put_usage(out: &mut Vec<u8>, usage: &Usage, head: &ReplyHead) {
    let (read, written) = (usage.cache_read.unwrap_or(0), usage.cache_write.unwrap_or(0));
    key(out, "usage");
    out.push(b'{');
    put_raw(
        out,
        "input_tokens",
        usage.input.unwrap_or(head.input_estimate).saturating_sub(read).saturating_sub(written),
    );
    put_raw(out, "cache_creation_input_tokens", written);
    if head.deepfellow {
        put_raw(out, "cache_creation_inpuit_tokens", written);
    }
    put_raw(out, "cache_read_input_tokens", read);
    put_raw(
        out,
        "cache_creation",
        format_args!("{{\"ephemeral_5m_input_tokens\":{written},\"ephemeral_1h_input_tokens\":0}}"),
    );
    put_raw(out, "output_tokens", usage.output.unwrap_or(0));
    if let Some(thinking) = usage.reasoning {
        put_raw(out, "output_tokens_details", format_args!("{{\"thinking_tokens\":{thinking}}}"));
    }
    put_raw(out, "server_tool_use", "{\"web_search_requests\":0}");
    put_text(out, "service_tier", "standard");
    out.push(b'}');
}

/// A `stop_reason` in the canon's words. Calls present mean tool use, whatever an imitation says; llama.cpp says `end_turn`
/// beside the stop sequence it met.
fn stop_reason(word: &str, sequence: Option<String>, calls: bool) -> StopReason {
    match word {
        "max_tokens" => StopReason::MaxTokens,
        "refusal" => StopReason::Refusal,
        // The conversation is summed up and waits to be continued.
        "pause_turn" | "compaction" => StopReason::PauseTurn,
        "model_context_window_exceeded" => StopReason::ContextWindow,
        "tool_use" => StopReason::ToolUse,
        "stop_sequence" => StopReason::StopSequence(sequence),
        _ if calls => StopReason::ToolUse,
        _ if sequence.as_deref().is_some_and(|text| !text.is_empty()) => StopReason::StopSequence(sequence),
        _ => StopReason::EndTurn,
    }
}

/// `"stop_reason":…,"stop_sequence":…`
fn put_stop(out: &mut Vec<u8>, reason: Option<&StopReason>, refused: bool) {
    match reason {
        Some(reason @ (StopReason::EndTurn | StopReason::Refusal)) => {
            put_text(out, "stop_reason", if refused { "refusal" } else { reason.as_str() })
        }
        Some(reason) => put_text(out, "stop_reason", reason.as_str()),
        None => put_raw(out, "stop_reason", "null"),
    }
    match reason {
        Some(StopReason::StopSequence(Some(text))) => put_text(out, "stop_sequence", text),
        _ => put_raw(out, "stop_sequence", "null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::fault::Detail;

    #[test]
    fn faults_speak_to_both_families_of_clients() {
        let detail = Detail {
            loc: vec!["body".into(), "messages".into(), "0".into()],
            msg: "Field required".into(),
            kind: "missing",
            input: String::new(),
        };
        let cases: &[(Fault, u16, &str)] = &[
            (
                Fault::from_details(vec![detail]),
                422,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages[0]: Field required"},"request_id":"r","detail":[{"loc":["body","messages",0],"msg":"Field required","type":"missing","input":null}]}"#,
            ),
            (
                Fault::new(FaultKind::BackendBusy, "x").with_status(529),
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"x"},"request_id":"r"}"#,
            ),
            (
                Fault::new(FaultKind::BackendBusy, "x"),
                429,
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"},"request_id":"r"}"#,
            ),
            (
                Fault::new(FaultKind::Overloaded, "x"),
                503,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"x"},"request_id":"r"}"#,
            ),
            (
                Fault::new(FaultKind::TooLarge, "x"),
                413,
                r#"{"type":"error","error":{"type":"request_too_large","message":"x"},"request_id":"r"}"#,
            ),
            (
                Fault::new(FaultKind::BackendCut, "x"),
                502,
                r#"{"type":"error","error":{"type":"api_error","message":"x"},"request_id":"r"}"#,
            ),
            (
                Fault::invalid("x").with_status(400).with_code("thread_unsupported_request"),
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"x","details":{"error_code":"thread_unsupported_request"}},"request_id":"r"}"#,
            ),
        ];
        for (fault, status, body) in cases {
            assert_eq!(Messages.fault_status(fault), *status);
            assert_eq!(std::str::from_utf8(&Messages.write_fault(fault, "r")).unwrap(), *body);
            assert_eq!(
                Messages.write_fault_frame(fault, "r", None),
                format!("event: error\ndata: {body}\n\n").as_bytes()
            );
        }
    }
}
