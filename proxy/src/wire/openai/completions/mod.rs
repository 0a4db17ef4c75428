//! OpenAI completions, the legacy protocol: a text goes on.
//!
//! Chat's older sibling: the same chunks with a `text` where chat has a delta, the same ends, counts and errors. Replies are
//! therefore read and glanced at as chat's. Towards other dialects a prompt is one message of the user's; a call of another
//! dialect can be a prompt only if it is that much.

mod read_call;
mod write_call;
mod write_reply;

use super::chat::Chat;
use crate::canon::call::Content;
use crate::canon::{Answer, Call, Event, Fault};
use crate::wire::frame::Frame;
use crate::wire::object::Object;
use crate::wire::{Codec, Glance, ReadReply, ReplyHead, Target, Unasked, WriteReply, Written};
use bytes::Bytes;
use std::ops::Range;

/// Whose words a call's opaque parts are, see [`Call::family`].
const WORDS: &str = "completions";

/// The dialect, both ends.
#[derive(Debug, Clone, Copy)]
pub struct Completions;

impl Codec for Completions {
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
        Chat.write_fault_frame(fault, request_id, reply_id)
    }

    fn write_call(&self, call: &Call, to: &Target) -> Result<Written, Fault> {
        write_call::write_call(call, to)
    }

    fn read_answer(&self, body: &Bytes) -> Result<Vec<Event>, Fault> {
        Chat.read_answer(body)
    }

    fn reader(&self) -> Box<dyn ReadReply> {
        Chat.reader()
    }

    fn glance(&self, frame: &Frame) -> Glance {
        Chat.glance(frame)
    }

    fn glance_answer(&self, answer: &Object) -> Glance {
        Chat.glance_answer(answer)
    }

    fn model_span(&self, data: &Bytes) -> Option<Range<usize>> {
        Chat.model_span(data)
    }

    fn ask_usage(&self, request: &Object, continuous: bool) -> Option<(&'static str, Vec<u8>, Unasked)> {
        Chat.ask_usage(request, continuous)
    }
}

/// What another dialect would have to leave out although the answer depends on it.
fn confined(call: &Call) -> Result<(), Fault> {
    if call.turns.iter().flat_map(|turn| &turn.content).any(|part| matches!(part, Content::Other { .. })) {
        let message = "This model takes one prompt, as text: `prompt` must be a string, or a list of one string.";
        return Err(Fault::unsupported("prompt", message));
    }
    if call.choices > 1 {
        return Err(Fault::unsupported("n", "`n` greater than 1 is not supported for this model."));
    }
    if call.max_tokens == Some(0) {
        let message = "`max_tokens` of 0, which generates nothing, is not supported for this model.";
        return Err(Fault::unsupported("max_tokens", message));
    }
    for (name, json) in &call.extra {
        let asks = match name.as_str() {
            "suffix" => json != "\"\"",
            "echo" => json == "true",
            "best_of" => json != "1",
            _ => false,
        };
        if asks {
            return Err(Fault::unsupported(name, format!("`{name}` is not supported for this model.")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_server_of_completions_can_do_is_refused_by_name() {
        for (more, param) in [
            (r#""prompt":"x""#, None),
            (r#""prompt":["x"],"echo":false,"best_of":1,"suffix":null,"n":1"#, None),
            (r#""prompt":["x","y"]"#, Some("prompt")),
            (r#""prompt":[1,2]"#, Some("prompt")),
            (r#""prompt":[[1,2]]"#, Some("prompt")),
            (r#""prompt":"x","suffix":"y""#, Some("suffix")),
            (r#""prompt":"x","echo":true"#, Some("echo")),
            (r#""prompt":"x","best_of":2"#, Some("best_of")),
            (r#""prompt":"x","n":2"#, Some("n")),
        ] {
            let body = Bytes::from(format!(r#"{{"model":"m",{more}}}"#));
            let call = Completions.read_call(&Object::read(body).unwrap()).unwrap();
            let refused = Completions.confined(&call).err();
            assert_eq!(refused.as_ref().and_then(|fault| fault.param.as_deref()), param, "{more}");
            assert!(refused.is_none_or(|fault| fault.status() == 400), "{more}");
        }
    }
}
