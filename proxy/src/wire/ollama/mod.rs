//! Ollama's own API: `/api/chat` and `/api/generate`; embedding is in `embed`.
//!
//! Both speak in lines of JSON and differ in little: a conversation or one prompt, a message or one text. So they are one
//! dialect in two forms. Flat like chat completions, with arguments that are objects and arrive whole; older versions give
//! calls no ids, so they are invented and results are matched by name and order. A count or time that is not there is unknown.

pub(super) mod embed;
mod glance;
pub mod models;
mod read_call;
mod read_reply;
mod write_call;
mod write_reply;

use super::check::count;
use super::frame::Frame;
use super::json::Json;
use super::object::Object;
use super::put::put_text;
use super::{Codec, Glance, ReadReply, ReplyHead, Target, Times, Unasked, WriteReply, Written};
use crate::canon::{Answer, Call, Event, Fault, StopReason, Usage};
use bytes::Bytes;
use std::ops::Range;

/// The dialect, both ends.
#[derive(Debug, Clone, Copy)]
pub struct Ollama(pub Form);

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/api/chat`: `messages` in, `message` out.
    Chat,
    /// `/api/generate`: `prompt` in, `response` out.
    Generate,
}

impl Codec for Ollama {
    fn check(&self, request: &Object) -> Result<(), Fault> {
        read_call::check(self.0, request)
    }

    fn read_call(&self, request: &Object) -> Result<Call, Fault> {
        read_call::read_call(self.0, request)
    }

    fn write_answer(&self, answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault> {
        write_reply::answer(self.0, answer, head)
    }

    fn writer(&self, head: ReplyHead) -> Box<dyn WriteReply> {
        Box::new(write_reply::Writer::new(self.0, head))
    }

    fn fault_status(&self, fault: &Fault) -> u16 {
        match fault.status() {
            // A word of Anthropic's; a full queue is 503 here.
            529 => 503,
            status => status,
        }
    }

    fn write_fault(&self, fault: &Fault, _request_id: &str) -> Bytes {
        let mut out = b"{".to_vec();
        put_text(&mut out, "error", &fault.message);
        out.push(b'}');
        out.into()
    }

    fn write_fault_frame(&self, fault: &Fault, request_id: &str, _reply_id: Option<&str>) -> Bytes {
        let mut out = self.write_fault(fault, request_id).to_vec();
        out.push(b'\n');
        out.into()
    }

    fn write_call(&self, call: &Call, to: &Target) -> Result<Written, Fault> {
        write_call::write_call(self.0, call, to)
    }

    fn read_answer(&self, body: &Bytes) -> Result<Vec<Event>, Fault> {
        read_reply::answer(self.0, body)
    }

    fn reader(&self) -> Box<dyn ReadReply> {
        Box::new(read_reply::Reader::new(self.0))
    }

    fn glance(&self, frame: &Frame) -> Glance {
        glance::glance(frame)
    }

    /// Which models think, and which of them in levels, nobody tells before.
    fn can_spare(&self, complaint: &str) -> Option<&'static str> {
        let known = ["does not support thinking", "think value"];
        known.iter().any(|said| complaint.contains(said)).then_some("think")
    }

    fn glance_answer(&self, answer: &Object) -> Glance {
        glance::glance_answer(answer)
    }

    fn model_span(&self, data: &Bytes) -> Option<Range<usize>> {
        glance::model_span(data)
    }

    fn times(&self, last: &[u8]) -> Option<Times> {
        let last = Json::trusted(last.trim_ascii());
        times(|name| last.get(name))
    }

    /// This protocol always reports usage.
    fn ask_usage(&self, _request: &Object, _continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
        None
    }
}

/// Why a request generates nothing and only has the model loaded or put out of memory: `done_reason` of its answer. Such is a
/// generate request without a prompt and a chat request without messages.
pub(super) fn load_word(form: Form, request: &Object) -> Option<&'static str> {
    let empty = match form {
        Form::Chat => request.get("messages").is_none_or(|list| !list.has_items()),
        // Whatever else is there, pictures or a suffix: Ollama looks at the prompt alone.
        Form::Generate => request.get("prompt").and_then(Json::as_str).is_none_or(|prompt| prompt.is_empty()),
    };
    // Seconds, or a duration as Go writes it (`"0s"`, `"0h5m"`); zero puts the model out.
    let zero = |text: &str| text.contains('0') && !text.contains(|digit: char| matches!(digit, '1'..='9'));
    let out = request
        .get("keep_alive")
        .is_some_and(|time| time.as_f64() == Some(0.0) || time.as_str().is_some_and(|text| zero(&text)));
    empty.then_some(if out { "unload" } else { "load" })
}

/// Counts of a last line. What was remembered of a prompt is a part of it; older versions do not tell how much that was.
fn usage<'a>(get: impl Fn(&str) -> Option<Json<'a>>) -> Usage {
    Usage {
        input: count(get("prompt_eval_count")),
        output: count(get("eval_count")),
        cache_read: count(get("prompt_eval_cached_count")),
        ..Usage::default()
    }
}

/// Durations of a last line: nanoseconds there.
fn times<'a>(get: impl Fn(&str) -> Option<Json<'a>>) -> Option<Times> {
    let seconds = |name| count(get(name)).map(|nanos| nanos as f64 / 1e9);
    let (load, prompt_eval, eval) =
        (seconds("load_duration"), seconds("prompt_eval_duration"), seconds("eval_duration"));
    Some(Times { load, prompt_eval, eval }).filter(|times| *times != Times::default())
}

/// `done_reason` in the canon's words. `length` wins over everything; a plain stop after calls means the calls.
fn stop_reason(word: &str, calls: bool) -> StopReason {
    match word {
        "length" => StopReason::MaxTokens,
        _ if calls => StopReason::ToolUse,
        _ => StopReason::EndTurn,
    }
}

/// The canon's reason as `done_reason`.
fn done_reason(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::EndTurn
        | StopReason::StopSequence(_)
        | StopReason::PauseTurn
        | StopReason::ToolUse
        | StopReason::Refusal => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::FaultKind;

    #[test]
    fn faults_have_ollamas_shape() {
        let codec = Ollama(Form::Chat);
        let busy = Fault::new(FaultKind::BackendBusy, "full \"up\"").with_status(529);
        assert_eq!(codec.fault_status(&busy), 503);
        assert_eq!(codec.write_fault(&busy, "r"), br#"{"error":"full \"up\""}"#.as_slice());
        assert_eq!(codec.write_fault_frame(&busy, "r", None), b"{\"error\":\"full \\\"up\\\"\"}\n".as_slice());
    }

    #[test]
    fn what_only_loads_a_model() {
        let word = |form, text: &str| load_word(form, &Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap());
        for (form, text, expect) in [
            (Form::Generate, r#"{"model":"m"}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","prompt":""}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","keep_alive":0}"#, Some("unload")),
            (Form::Generate, r#"{"model":"m","keep_alive":"0s"}"#, Some("unload")),
            (Form::Generate, r#"{"model":"m","keep_alive":"0.5s"}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","keep_alive":"0h5m"}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","keep_alive":"0.0s"}"#, Some("unload")),
            (Form::Generate, r#"{"model":"m","keep_alive":-1}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","keep_alive":"5m"}"#, Some("load")),
            (Form::Generate, r#"{"model":"m","prompt":"x"}"#, None),
            (Form::Generate, r#"{"model":"m","prompt":"","images":["aGk="],"suffix":"x"}"#, Some("load")),
            (Form::Chat, r#"{"model":"m","messages":[]}"#, Some("load")),
            (Form::Chat, r#"{"model":"m"}"#, Some("load")),
            (Form::Chat, r#"{"model":"m","messages":[{}]}"#, None),
        ] {
            assert_eq!(word(form, text), expect, "{text}");
        }
    }
}
