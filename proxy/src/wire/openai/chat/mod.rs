//! OpenAI chat completions, and the many servers that speak something like it.
//!
//! The dialect is flat: one text, one reasoning text and a list of calls per message, so blocks are opened on the first
//! delta that needs them. What servers get wrong (indices, ids, empty lists, errors inside a 200) is repaired in
//! `read_reply`, where each repair has its reason.

mod glance;
mod read_call;
mod read_reply;
mod write_call;
mod write_reply;

use crate::canon::call::Content;
use crate::canon::{Answer, Call, Event, Fault, FaultKind, StopReason, Usage};
use crate::wire::check::{Fields, count};
use crate::wire::frame::Frame;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::put::{comma, key, put_raw, put_text};
use crate::wire::{Codec, Glance, ReadReply, ReplyHead, Target, Unasked, WriteReply, Written};
use bytes::Bytes;
use std::ops::Range;

/// Stands before the type of an earlier tool call that is of no function, and of no tool that is offered as one, where [`Content::Other`] keeps it: parts of a text have
/// types of their own, and by the word alone nobody could tell which of the two it was.
const CALL: &str = "tool_calls.";

/// The dialect, both ends.
#[derive(Debug, Clone, Copy)]
pub struct Chat;

impl Codec for Chat {
    fn check(&self, request: &Object) -> Result<(), Fault> {
        read_call::check(request)
    }

    fn read_call(&self, request: &Object) -> Result<Call, Fault> {
        read_call::read_call(request)
    }

    fn confined(&self, call: &Call) -> Result<(), Fault> {
        confined(call)
    }

    fn write_answer(&self, answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault> {
        Ok(write_reply::answer(answer, head))
    }

    fn writer(&self, head: ReplyHead) -> Box<dyn WriteReply> {
        Box::new(write_reply::Writer::new(&head))
    }

    fn fault_status(&self, fault: &Fault) -> u16 {
        match fault.status() {
            // A word of Anthropic's; OpenAI's clients know 503.
            529 => 503,
            status => status,
        }
    }

    fn write_fault(&self, fault: &Fault, _request_id: &str) -> Bytes {
        let mut out = Vec::new();
        put_fault(&mut out, fault, self.fault_status(fault));
        out.into()
    }

    fn write_fault_frame(&self, fault: &Fault, _request_id: &str, _reply_id: Option<&str>) -> Bytes {
        let mut out = b"data: ".to_vec();
        put_fault(&mut out, fault, self.fault_status(fault));
        out.extend_from_slice(b"\n\n");
        out.into()
    }

    fn write_call(&self, call: &Call, to: &Target) -> Result<Written, Fault> {
        write_call::write_call(call, to)
    }

    fn read_answer(&self, body: &Bytes) -> Result<Vec<Event>, Fault> {
        read_reply::answer(body)
    }

    fn read_object(&self, body: &Object) -> Result<Vec<Event>, Fault> {
        read_reply::answer_of(&Fields::of_object(body), body.source())
    }

    fn reader(&self) -> Box<dyn ReadReply> {
        Box::new(read_reply::Reader::default())
    }

    fn glance(&self, frame: &Frame) -> Glance {
        glance::glance(frame)
    }

    /// The limit by its older name, too, where the newer one means nothing.
    fn complete(&self, request: &Object, to: &Target) -> Vec<(&'static str, Vec<u8>)> {
        let limit = to.max_tokens_only.then(|| request.get("max_completion_tokens")).flatten();
        limit.map(|limit| ("max_tokens", limit.raw().as_bytes().to_vec())).into_iter().collect()
    }

    fn glance_answer(&self, answer: &Object) -> Glance {
        glance::glance_answer(answer)
    }

    fn model_span(&self, data: &Bytes) -> Option<Range<usize>> {
        glance::model_span(data)
    }

    fn ask_usage(&self, request: &Object, continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
        glance::ask_usage(request, continuous)
    }
}

/// What another dialect would have to leave out although the answer depends on it: the result that follows would be of nothing.
fn confined(call: &Call) -> Result<(), Fault> {
    let kind = call.turns.iter().flat_map(|turn| &turn.content).find_map(|part| match part {
        Content::Other { kind, .. } => kind.strip_prefix(CALL),
        _ => None,
    });
    let Some(kind) = kind else { return Ok(()) };
    let message = format!("An earlier tool call of type `{kind}` is not supported for this model, only of functions.");
    Err(Fault::unsupported("messages.tool_calls", message))
}

/// A call of a tool that takes free text.
fn put_custom_call(out: &mut Vec<u8>, id: &str, name: &str, input: &str) {
    comma(out);
    out.push(b'{');
    put_text(out, "id", id);
    put_text(out, "type", "custom");
    key(out, "custom");
    out.push(b'{');
    put_text(out, "name", name);
    put_text(out, "input", input);
    out.extend_from_slice(b"}}");
}

/// The error body. OpenAI calls a wrong key an invalid request, and has no type for a gateway's own troubles but
/// `server_error`; clients decide by the status and by `code`.
fn put_fault(out: &mut Vec<u8>, fault: &Fault, status: u16) {
    let kind = match status {
        408 | 504 => "timeout",
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = fault.code.as_deref().or(match fault.kind {
        FaultKind::Unauthenticated => Some("invalid_api_key"),
        FaultKind::ModelNotFound => Some("model_not_found"),
        FaultKind::RateLimited => Some("rate_limit_exceeded"),
        FaultKind::Unsupported => Some("unsupported_parameter"),
        FaultKind::Forbidden => Some("permission_denied"),
        _ => None,
    });
    out.extend_from_slice(b"{\"error\":{");
    put_text(out, "message", &fault.message);
    put_text(out, "type", kind);
    for (name, text) in [("param", fault.param.as_deref()), ("code", code)] {
        match text {
            Some(text) => put_text(out, name, text),
            None => put_raw(out, name, "null"),
        }
    }
    out.extend_from_slice(b"}}");
}

/// Usage as OpenAI counts: cache inside `prompt_tokens`, reasoning inside `completion_tokens`.
fn usage(json: Json<'_>) -> Usage {
    // One pass: with continuous usage this runs for every chunk.
    let mut usage = Usage::default();
    for (name, value) in json.entries() {
        match name.as_ref() {
            "prompt_tokens" => usage.input = count(Some(value)),
            "completion_tokens" => usage.output = count(Some(value)),
            "prompt_tokens_details" => {
                usage.cache_read = count(value.get("cached_tokens"));
                // The last is vLLM's.
                let names = ["cache_write_tokens", "cache_creation_tokens", "created_cache_tokens"];
                usage.cache_write = count(names.iter().find_map(|name| value.get(name)));
            }
            "completion_tokens_details" => usage.reasoning = count(value.get("reasoning_tokens")),
            _ => {}
        }
    }
    usage
}

/// Running counts that say nothing yet: Ollama writes zeros beside each piece of a completion, and what they came to at its end.
fn says_nothing(counts: &Usage) -> bool {
    counts.input == Some(0) && counts.output.is_none_or(|output| output == 0)
}

/// llama.cpp's `timings`, for streams that carry no usage.
fn timings(json: Json<'_>) -> Usage {
    let (prompt, cache) = (count(json.get("prompt_n")), count(json.get("cache_n")));
    Usage {
        input: prompt.map(|prompt| prompt + cache.unwrap_or(0)),
        output: count(json.get("predicted_n")),
        cache_read: cache,
        ..Usage::default()
    }
}

/// The usage object. Clients sum these without looking, so what nobody reported is the estimate or zero here; the books
/// are kept elsewhere.
pub(super) fn put_usage(out: &mut Vec<u8>, usage: &Usage, estimate: u64) {
    let (input, output) = (usage.input.unwrap_or(estimate), usage.output.unwrap_or(0));
    key(out, "usage");
    out.push(b'{');
    put_raw(out, "prompt_tokens", input);
    put_raw(out, "completion_tokens", output);
    put_raw(out, "total_tokens", input + output);
    if usage.cache_read.is_some() || usage.cache_write.is_some() {
        key(out, "prompt_tokens_details");
        out.push(b'{');
        put_raw(out, "cached_tokens", usage.cache_read.unwrap_or(0));
        if let Some(written) = usage.cache_write {
            put_raw(out, "cache_write_tokens", written);
        }
        out.push(b'}');
    }
    if let Some(reasoning) = usage.reasoning {
        key(out, "completion_tokens_details");
        out.push(b'{');
        put_raw(out, "reasoning_tokens", reasoning);
        out.push(b'}');
    }
    out.push(b'}');
}

/// `finish_reason` in the canon's words. `length` wins over everything; a plain stop after calls means the calls.
fn stop_reason(word: &str, sequence: Option<String>, calls: bool) -> StopReason {
    match word {
        "length" | "max_tokens" => StopReason::MaxTokens,
        "content_filter" | "refusal" => StopReason::Refusal,
        _ if calls => StopReason::ToolUse,
        _ if sequence.is_some() => StopReason::StopSequence(sequence),
        _ => StopReason::EndTurn,
    }
}

/// The canon's reason as `finish_reason`.
pub(super) fn finish_reason(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::PauseTurn => "stop",
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::ToolUse => "tool_calls",
        StopReason::Refusal => "content_filter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;
    use crate::wire::request::Request;

    #[test]
    fn faults_have_openais_shape() {
        let cases: &[(Fault, u16, &str)] = &[
            (
                Fault::new(FaultKind::Unauthenticated, "no"),
                401,
                r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
            ),
            (
                Fault::unsupported("n", "one only"),
                400,
                r#"{"error":{"message":"one only","type":"invalid_request_error","param":"n","code":"unsupported_parameter"}}"#,
            ),
            (
                Fault::new(FaultKind::RateLimited, "slow"),
                429,
                r#"{"error":{"message":"slow","type":"rate_limit_exceeded","param":null,"code":"rate_limit_exceeded"}}"#,
            ),
            (
                Fault::new(FaultKind::BackendBusy, "full").with_status(529),
                503,
                r#"{"error":{"message":"full","type":"server_error","param":null,"code":null}}"#,
            ),
        ];
        for (fault, status, body) in cases {
            assert_eq!(Chat.fault_status(fault), *status);
            assert_eq!(std::str::from_utf8(&Chat.write_fault(fault, "r")).unwrap(), *body);
            assert_eq!(Chat.write_fault_frame(fault, "r", None), format!("data: {body}\n\n").as_bytes());
        }
    }

    #[test]
    fn an_earlier_call_of_no_function_goes_to_its_own_api_alone() {
        for kind in ["custom", "mcp", "text"] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":"a","tool_calls":[{{"id":"c","type":"{kind}","{kind}":{{"name":"f"}}}}]}},{{"role":"tool","tool_call_id":"c","content":"z"}}]}}"#
            );
            let request = Request::read(Dialect::Chat, body.clone().into()).unwrap();
            let to = Target { model: "m".into(), ..Target::default() };
            for backend in Dialect::ALL {
                match request.write(&[backend], &to) {
                    Ok(out) => assert_eq!((backend, &out.written.body[..]), (Dialect::Chat, body.as_bytes())),
                    Err(fault) => {
                        assert_ne!(backend, Dialect::Chat, "{fault:?}");
                        assert_eq!((fault.status(), fault.param.as_deref()), (400, Some("messages.tool_calls")));
                        assert!(fault.message.contains(&format!("tool call of type `{kind}`")), "{fault:?}");
                    }
                }
            }
            assert!(request.call_for_others().is_err(), "nor to a model in this process");
        }
    }

    #[test]
    fn a_custom_tool_is_a_function_elsewhere_and_itself_here() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"x"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"custom","custom":{"name":"patch","input":"a\"b"}}]},
            {"role":"tool","tool_call_id":"c","content":"z"}],
            "tools":[{"type":"custom","custom":{"name":"patch","description":"Edits.","format":{"type":"grammar","grammar":{"syntax":"lark","definition":"d"}}}}],
            "tool_choice":{"type":"custom","custom":{"name":"patch"}}}"#;
        let request = Request::read(Dialect::Chat, body.into()).unwrap();
        let to = Target { model: "m".into(), ..Target::default() };
        let written = request.write(&[Dialect::Messages], &to).unwrap().written;
        assert_eq!(written.dropped.len(), 0, "{:?}", written.dropped);
        let sent: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
        let told = "Edits.\n\n`input` must follow this lark grammar:\nd";
        assert_eq!((&sent["tools"][0]["name"], &sent["tools"][0]["description"]), (&"patch".into(), &told.into()));
        assert_eq!(sent["tools"][0]["input_schema"]["required"], serde_json::json!(["input"]));
        assert_eq!(sent["tool_choice"], serde_json::json!({"type":"tool","name":"patch"}));
        let content = &sent["messages"][1]["content"];
        let call = serde_json::json!({"type":"tool_use","id":"c","name":"patch","input":{"input":"a\"b"}});
        assert_eq!((&content[0], &content[1]), (&call, &serde_json::Value::Null));

        let own = Chat.write_call(request.call().unwrap(), &to).unwrap().body;
        let own: serde_json::Value = serde_json::from_slice(&own).unwrap();
        let before: serde_json::Value = serde_json::from_str(body).unwrap();
        for key in ["messages", "tools", "tool_choice"] {
            assert_eq!(own[key], before[key], "{key}");
        }
    }

    #[test]
    fn garbage_counts_are_missing_and_zero_is_zero() {
        let read = |text: &str| usage(crate::wire::json::validate(text.as_bytes()).unwrap());
        assert_eq!(read(r#"{"prompt_tokens":0,"completion_tokens":-1}"#), Usage { input: Some(0), ..Usage::default() });
        assert_eq!(read(r#"{"prompt_tokens":99999999999999999,"completion_tokens":null}"#), Usage::default());
        assert_eq!(
            read(
                r#"{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4,"created_cache_tokens":2},"completion_tokens_details":{"reasoning_tokens":3}}"#
            ),
            Usage { input: Some(9), output: Some(8), cache_read: Some(4), cache_write: Some(2), reasoning: Some(3) }
        );
    }
}
