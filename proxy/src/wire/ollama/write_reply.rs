//! Events as lines, and an answer as a whole reply.
//!
//! Calls go out whole, as this dialect has them: their arguments are gathered until they are complete. One whose arguments are no
//! object is left out where the token limit cut it, as `done_reason` says; else the reply has failed. Durations are left out:
//! no other backend tells them, and "not there" is this protocol's own word for unknown. So are counts that nobody reported.

use super::write_call::put_call;
use super::{Form, Ollama, done_reason};
use crate::canon::event::{Delta, Event, Part};
use crate::canon::{Answer, Fault, StopReason, Usage};
use crate::wire::beyond::said_arguments;
use crate::wire::json::write_str;
use crate::wire::put::{key, one_line, put_raw, put_some, put_text};
use crate::wire::{Codec, ReplyHead, WriteReply};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, UNIX_EPOCH};

/// Writes one stream.
pub(super) struct Writer {
    form: Form,
    /// Everything of a line up to what is said.
    head: Vec<u8>,
    loads: Option<&'static str>,
    usage: Usage,
    /// The open call's id and name, and its arguments so far.
    call: Option<(String, String)>,
    arguments: String,
    /// A call was left out for this; the stop reason says whether the token limit cut it.
    broken: Option<Fault>,
    /// It did not.
    fault: Option<Fault>,
}

impl Writer {
    pub fn new(form: Form, head: ReplyHead) -> Self {
        let mut text = Vec::new();
        put_head(&mut text, &head);
        let (usage, call, arguments) = (Usage::default(), None, String::new());
        Self { form, head: text, loads: head.loads, usage, call, arguments, broken: None, fault: None }
    }

    /// A line that says `text`, and more beside it.
    fn line(&self, out: &mut BytesMut, text: &str, more: impl FnOnce(&mut BytesMut)) {
        out.reserve(self.head.len() + text.len() + 96);
        out.extend_from_slice(&self.head);
        match self.form {
            Form::Chat => {
                out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
                write_str(out, text);
                more(out);
                out.extend_from_slice(b"},\"done\":false}\n");
            }
            Form::Generate => {
                out.extend_from_slice(b",\"response\":");
                write_str(out, text);
                more(out);
                out.extend_from_slice(b",\"done\":false}\n");
            }
        }
    }

    fn last(&self, reason: &StopReason, out: &mut BytesMut) {
        let mut last = self.head.clone();
        match self.form {
            Form::Chat => put_raw(&mut last, "message", r#"{"role":"assistant","content":""}"#),
            Form::Generate => put_text(&mut last, "response", ""),
        }
        put_end(&mut last, self.loads, reason, &self.usage);
        last.push(b'\n');
        out.extend_from_slice(&last);
    }
}

impl WriteReply for Writer {
    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        match event {
            Event::Open(Part::ToolCall { id, name }) => {
                self.call = Some((id.clone(), name.clone()));
                self.arguments.clear();
            }
            Event::Delta(Delta::Text(text)) => self.line(out, text, |_| {}),
            Event::Delta(Delta::Thinking(text)) => self.line(out, "", |out| {
                out.extend_from_slice(b",\"thinking\":");
                write_str(out, text);
            }),
            Event::Delta(Delta::Arguments(text)) => self.arguments.push_str(text),
            Event::Close => {
                let Some((id, name)) = self.call.take() else { return };
                match said_arguments(&name, &self.arguments) {
                    Ok(arguments) => {
                        let mut call = Vec::new();
                        put_call(&mut call, &id, &name, &one_line(&arguments));
                        self.line(out, "", |out| {
                            out.extend_from_slice(b",\"tool_calls\":[");
                            out.extend_from_slice(&call);
                            out.extend_from_slice(b"]");
                        });
                    }
                    Err(fault) => self.broken = Some(fault),
                }
            }
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => match self.broken.take().filter(|_| !is_cut(reason)) {
                Some(fault) => self.fault = Some(fault),
                None => self.last(reason, out),
            },
            Event::Fault(fault) => out.extend_from_slice(&Ollama(self.form).write_fault_frame(fault, "", None)),
            Event::Start { .. } | Event::Open(_) | Event::Delta(Delta::Signature(_) | Delta::Citation(_)) => {}
        }
    }

    fn fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }
}

/// The last line says that the reply was cut.
fn is_cut(reason: &StopReason) -> bool {
    done_reason(reason) == "length"
}

/// `{"model":…,"created_at":…`
fn put_head(out: &mut Vec<u8>, head: &ReplyHead) {
    out.push(b'{');
    put_text(out, "model", &head.model);
    let created = UNIX_EPOCH.checked_add(Duration::from_secs(head.created)).unwrap_or(UNIX_EPOCH);
    key(out, "created_at");
    // Nothing in a time has to be escaped.
    put_quoted(out, humantime::format_rfc3339_seconds(created));
}

fn put_quoted(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    write_str(out, &text.to_string());
}

/// `"done":true,…}`
fn put_end(out: &mut Vec<u8>, loads: Option<&str>, reason: &StopReason, usage: &Usage) {
    put_raw(out, "done", true);
    put_text(out, "done_reason", loads.unwrap_or(done_reason(reason)));
    if loads.is_none() {
        put_some(out, "prompt_eval_count", usage.input);
        put_some(out, "prompt_eval_cached_count", usage.cache_read);
        put_some(out, "eval_count", usage.output);
    }
    out.push(b'}');
}

/// Writes a whole reply.
///
/// # Errors
/// A call's arguments are no object, and the token limit did not cut it.
pub(super) fn answer(form: Form, answer: &Answer, head: &ReplyHead) -> Result<Bytes, Fault> {
    let (mut text, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    for piece in &answer.parts {
        match &piece.part {
            Part::Text | Part::Refusal => text.push_str(&piece.text),
            Part::Thinking => thought.push_str(&piece.text),
            Part::ToolCall { id, name } => match said_arguments(name, &piece.text) {
                Ok(arguments) => put_call(&mut calls, id, name, &one_line(&arguments)),
                Err(_) if answer.stop.as_ref().is_some_and(is_cut) => {}
                Err(fault) => return Err(fault),
            },
            Part::RedactedThinking { .. } | Part::Other { .. } => {}
        }
    }
    let mut out = Vec::with_capacity(512 + text.len());
    put_head(&mut out, head);
    match form {
        Form::Chat => {
            key(&mut out, "message");
            out.extend_from_slice(b"{\"role\":\"assistant\"");
            put_text(&mut out, "content", &text);
        }
        Form::Generate => put_text(&mut out, "response", &text),
    }
    if !thought.is_empty() {
        put_text(&mut out, "thinking", &thought);
    }
    if !calls.is_empty() {
        key(&mut out, "tool_calls");
        out.push(b'[');
        out.extend_from_slice(&calls);
        out.push(b']');
    }
    if form == Form::Chat {
        out.push(b'}');
    }
    put_end(&mut out, head.loads, answer.stop.as_ref().unwrap_or(&StopReason::EndTurn), &answer.usage);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::FaultKind;

    fn write(form: Form, events: &[Event]) -> String {
        let mut writer = Writer::new(form, ReplyHead { model: "m".into(), created: 7, ..ReplyHead::default() });
        let mut out = BytesMut::new();
        events.iter().for_each(|event| writer.write(event, &mut out));
        String::from_utf8(out.to_vec()).unwrap().replace(r#"{"model":"m","created_at":"1970-01-01T00:00:07Z","#, "~")
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Start { id: None, model: None },
            Event::Usage(Usage { input: Some(3), cache_read: Some(2), ..Usage::default() }),
            Event::Open(Part::Thinking),
            Event::Delta(Delta::Thinking("h".into())),
            Event::Close,
            Event::Open(Part::Text),
            Event::Delta(Delta::Text("a\"".into())),
            Event::Close,
            Event::Open(Part::ToolCall { id: "i".into(), name: "f".into() }),
            Event::Delta(Delta::Arguments("{\"n\":".into())),
            Event::Delta(Delta::Arguments("\n12345678901234567890}".into())),
            Event::Close,
            Event::Open(Part::ToolCall { id: "j".into(), name: "g".into() }),
            Event::Close,
            Event::Usage(Usage { output: Some(2), ..Usage::default() }),
            Event::Stop(StopReason::ToolUse),
        ]
    }

    #[test]
    fn both_forms_line_by_line() {
        let said = "\"message\":{\"role\":\"assistant\",\"content\":\"";
        let counts = "\"prompt_eval_count\":3,\"prompt_eval_cached_count\":2,\"eval_count\":2";
        let end = format!("\"done\":true,\"done_reason\":\"stop\",{counts}}}\n");
        assert_eq!(
            write(Form::Chat, &events()),
            format!(
                "~{said}\",\"thinking\":\"h\"}},\"done\":false}}\n\
                 ~{said}a\\\"\"}},\"done\":false}}\n\
                 ~{said}\",\"tool_calls\":[{{\"id\":\"i\",\"function\":{{\"name\":\"f\",\"arguments\":{{\"n\": 12345678901234567890}}}}}}]}},\"done\":false}}\n\
                 ~{said}\",\"tool_calls\":[{{\"id\":\"j\",\"function\":{{\"name\":\"g\",\"arguments\":{{}}}}}}]}},\"done\":false}}\n\
                 ~{said}\"}},{end}"
            )
        );
        assert_eq!(
            write(Form::Generate, &events()[..8]),
            "~\"response\":\"\",\"thinking\":\"h\",\"done\":false}\n~\"response\":\"a\\\"\",\"done\":false}\n"
        );
    }

    #[test]
    fn a_failed_stream_ends_in_an_error_and_has_no_done() {
        let fault = Event::Fault(Fault::new(FaultKind::BackendCut, "broke"));
        assert_eq!(write(Form::Generate, &[Event::Start { id: None, model: None }, fault]), "{\"error\":\"broke\"}\n");
    }

    #[test]
    fn loading_a_model_is_answered_as_documented() {
        let head = ReplyHead { model: "m".into(), created: 7, loads: Some("unload"), ..ReplyHead::default() };
        let nothing = Usage { input: Some(0), output: Some(0), ..Usage::default() };
        let none = Answer { usage: nothing, stop: Some(StopReason::EndTurn), ..Answer::default() };
        assert_eq!(
            answer(Form::Chat, &none, &head).unwrap(),
            r#"{"model":"m","created_at":"1970-01-01T00:00:07Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"unload"}"#
        );
        assert_eq!(
            answer(Form::Generate, &none, &head).unwrap(),
            r#"{"model":"m","created_at":"1970-01-01T00:00:07Z","response":"","done":true,"done_reason":"unload"}"#
        );
    }
}
