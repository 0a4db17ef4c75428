//! OpenAI responses: a conversation as a list of items, a reply as typed events.
//!
//! The protocol is made for a server that keeps conversations. Tidegate keeps none: what refers to a kept one goes to a backend
//! that speaks this dialect, and is refused by name elsewhere. Tools have three forms that no other dialect knows, free text,
//! names inside namespaces and a search for further tools; `tools` says how they become functions and are told as what they were.

mod glance;
mod item;
mod offered;
mod read_call;
mod read_reply;
mod shell;
mod write_call;
mod write_reply;

use super::chat::Chat;
use super::tools;
use crate::canon::call::Content;
use crate::canon::{Answer, Call, Event, Fault, StopReason, Usage};
use crate::wire::check::{Fields, count};
use crate::wire::frame::Frame;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::{Codec, Glance, ReadReply, ReplyHead, Target, Unasked, WriteReply, Written};
use bytes::Bytes;
use std::ops::Range;

/// Whose words a call's opaque parts are, see [`Call::family`].
const WORDS: &str = "responses";

/// The dialect, both ends.
#[derive(Debug, Clone, Copy)]
pub struct Responses;

impl Codec for Responses {
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
        Chat.fault_status(fault)
    }

    fn write_fault(&self, fault: &Fault, request_id: &str) -> Bytes {
        Chat.write_fault(fault, request_id)
    }

    fn write_fault_frame(&self, fault: &Fault, request_id: &str, reply_id: Option<&str>) -> Bytes {
        let own = || format!("resp_{}", request_id.replace('-', ""));
        write_reply::failed_frame(fault, &reply_id.map_or_else(own, str::to_owned))
    }

    fn reply_id(&self, first: &Frame) -> Option<String> {
        glance::reply_id(first)
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

    fn glance_answer(&self, answer: &Object) -> Glance {
        glance::glance_answer(answer)
    }

    fn model_span(&self, data: &Bytes) -> Option<Range<usize>> {
        glance::model_span(data)
    }

    /// This protocol always reports usage.
    fn ask_usage(&self, _request: &Object, _continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
        None
    }
}

/// What another dialect would have to leave out although the answer depends on it.
fn confined(call: &Call) -> Result<(), Fault> {
    let kept = ["previous_response_id", "conversation", "prompt"];
    for (name, json) in &call.extra {
        let message = match name.as_str() {
            name if kept.contains(&name) => format!(
                "`{name}` refers to something that is kept elsewhere, and Tidegate keeps nothing: send the whole conversation in `input`."
            ),
            "background" if json == "true" => {
                "`background` is not supported for this model: the answer is given to this request or not at all."
                    .into()
            }
            _ => continue,
        };
        return Err(Fault::unsupported(name, message));
    }
    for part in call.turns.iter().flat_map(|turn| &turn.content) {
        let inner = if let Content::ToolResult { content, .. } = part { content.as_slice() } else { &[] };
        for part in std::iter::once(part).chain(inner) {
            if let Content::Other { kind, .. } = part
                && kind != FOUND
            {
                let message = if kind == "item_reference" {
                    "`item_reference` in `input` refers to something that is kept elsewhere, and Tidegate keeps nothing: send the item itself, as clients do that are told `store: false`.".to_owned()
                } else if kind == "compaction_trigger" {
                    "`compaction_trigger` in `input` is not supported for this model: Codex compacts by itself where its provider has another `name` than `OpenAI`.".to_owned()
                } else {
                    format!("`{kind}` in `input` is not supported for this model.")
                };
                return Err(Fault::unsupported("input", message));
            }
        }
    }
    Ok(())
}

/// Usage as this protocol counts: cache and reasoning inside the totals.
fn usage(json: Json<'_>) -> Usage {
    let details = |name: &str, key: &str| count(json.get(name).and_then(|details| details.get(key)));
    Usage {
        input: count(json.get("input_tokens")),
        output: count(json.get("output_tokens")),
        cache_read: details("input_tokens_details", "cached_tokens"),
        cache_write: details("input_tokens_details", "cache_write_tokens"),
        reasoning: details("output_tokens_details", "reasoning_tokens"),
    }
}

/// Why a response ended, from its status and what it is made of.
fn stop_reason(status: &str, why: Option<&str>, calls: bool) -> StopReason {
    match status {
        "incomplete" if why == Some("content_filter") => StopReason::Refusal,
        "incomplete" => StopReason::MaxTokens,
        _ if calls => StopReason::ToolUse,
        _ => StopReason::EndTurn,
    }
}

/// Whether tools stand among these items.
pub(in crate::wire) fn offers_tools(input: Json<'_>) -> bool {
    input.items().any(offered::offers)
}

/// The type word of what a search for tools answered, as a part of a result.
pub(in crate::wire) const FOUND: &str = offered::FOUND;

/// What such a search has found, where there is no item for it. The tools themselves are among those on offer.
pub(in crate::wire) fn found(item: Json<'_>) -> String {
    match offered::names(item).as_slice() {
        [] => "No tools were found.".into(),
        names => format!("These tools can be called now: `{}`.", names.join("`, `")),
    }
}

/// Whether an item calls a tool of the client's.
fn is_call(item: &Fields<'_>) -> bool {
    match item.text("type").as_deref() {
        Some("function_call" | "custom_tool_call") => true,
        Some("tool_search_call") => is_clients(item),
        _ => false,
    }
}

/// Of a search for tools or its result: the client makes it. One of the vendor's own has no id to answer to.
fn is_clients(item: &Fields<'_>) -> bool {
    item.get("call_id").is_some() && item.text("execution").as_deref() != Some("server")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::FaultKind;

    #[test]
    fn faults_are_openais_before_and_an_event_within() {
        let fault = Fault::new(FaultKind::BackendBusy, "full");
        assert_eq!(Responses.fault_status(&Fault { status: Some(529), ..fault.clone() }), 503);
        assert_eq!(
            Responses.write_fault(&fault, "r"),
            br#"{"error":{"message":"full","type":"rate_limit_exceeded","param":null,"code":null}}"#.as_slice()
        );
        let frame = Responses.write_fault_frame(&fault, "0-1", None);
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(
            text.starts_with("event: response.failed\ndata: {\"type\":\"response.failed\"") && text.ends_with("}\n\n"),
            "{text}"
        );
        assert!(text.contains(r#""id":"resp_01""#), "{text}");
        assert!(text.contains(r#""error":{"code":"rate_limit_exceeded","message":"full"}"#), "{text}");
    }

    #[test]
    fn what_is_kept_elsewhere_is_refused_by_name() {
        for (body, param) in [
            (r#"{"model":"m","previous_response_id":"resp_1","input":"x"}"#, Some("previous_response_id")),
            (r#"{"model":"m","conversation":"c","input":"x"}"#, Some("conversation")),
            (r#"{"model":"m","prompt":{"id":"p"}}"#, Some("prompt")),
            (r#"{"model":"m","background":true,"input":"x"}"#, Some("background")),
            (r#"{"model":"m","background":false,"store":true,"previous_response_id":null,"input":"x"}"#, None),
            (r#"{"model":"m","input":[{"type":"item_reference","id":"i"}]}"#, Some("input")),
            (r#"{"model":"m","input":[{"role":"user","content":"x"},{"type":"compaction_trigger"}]}"#, Some("input")),
            (
                r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}"#,
                Some("input"),
            ),
        ] {
            let call = Responses.read_call(&Object::read(Bytes::from_static(body.as_bytes())).unwrap()).unwrap();
            let refused = Responses.confined(&call).err();
            assert_eq!(refused.as_ref().and_then(|fault| fault.param.as_deref()), param, "{body}");
            assert_eq!(
                body.contains("item_reference"),
                refused.as_ref().is_some_and(|fault| fault.message.contains("`store: false`")),
                "{body}"
            );
            assert!(refused.is_none_or(|fault| fault.status() == 400), "{body}");
        }
    }
}
