//! Counting the tokens of a prompt that nobody answers: what counters are asked, and what they and we say.
//!
//! A counter takes a part of what its protocol takes to generate text, and some refuse the rest by name. So a request in the
//! counter's own protocol goes out as it came, and of one that was written for it only what a counter takes.

use super::Dialect;
use super::check::count;
use super::json::write_int;
use super::object::Object;
use bytes::Bytes;

/// Who counts, and how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Anthropic's, which llama.cpp has, too.
    Messages,
    /// OpenAI's.
    Responses,
    /// vLLM's tokenizer, behind the model's chat template.
    Tokenize,
}

impl Counter {
    /// What it is spoken to in.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Messages => Dialect::Messages,
            Self::Responses => Dialect::Responses,
            Self::Tokenize => Dialect::Chat,
        }
    }

    /// Its path below a backend's base address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages/count_tokens",
            Self::Responses => "/v1/responses/input_tokens",
            Self::Tokenize => "/tokenize",
        }
    }

    /// The members of a request that it takes.
    pub(super) fn takes(self, member: &str) -> bool {
        let members: &[&str] = match self {
            Self::Messages => &["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"],
            Self::Responses => {
                &["model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text"]
            }
            Self::Tokenize => &[
                "model",
                "messages",
                "tools",
                "chat_template_kwargs",
                "continue_final_message",
                "add_generation_prompt",
            ],
        };
        members.contains(&member)
    }

    /// The number in its answer, if it is an answer.
    pub fn read(self, answer: &Bytes) -> Option<u64> {
        let name = if self == Self::Tokenize { "count" } else { "input_tokens" };
        let answer = Object::read(answer.clone()).ok()?;
        count(answer.get(name))
    }
}

/// The answer to a client that asked in this dialect.
pub fn write(dialect: Dialect, tokens: u64) -> Bytes {
    let mut out = b"{".to_vec();
    if dialect == Dialect::Responses {
        out.extend_from_slice(b"\"object\":\"response.input_tokens\",");
    }
    out.extend_from_slice(b"\"input_tokens\":");
    write_int(&mut out, tokens);
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Target;
    use crate::wire::request::Request;

    fn asked(dialect: Dialect, body: &str) -> Request {
        Request::read(dialect, Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    #[test]
    fn a_counter_is_asked_what_it_takes() {
        let messages = r#"{ "model":"m", "messages":[{"role":"user","content":"x"}], "betas":[1], "api_key":"k"}"#;
        let responses = r#"{"model":"m","input":"x","truncation":"auto","max_output_tokens":9,"temperature":1}"#;
        for (dialect, body, counter, expect) in [
            (
                Dialect::Messages,
                messages,
                Counter::Messages,
                r#"{ "model":"served", "messages":[{"role":"user","content":"x"}], "betas":[1]}"#,
            ),
            (
                Dialect::Messages,
                messages,
                Counter::Responses,
                r#"{"model":"served","input":[{"type":"message","role":"user","content":"x"}]}"#,
            ),
            (
                Dialect::Messages,
                messages,
                Counter::Tokenize,
                r#"{"model":"served","messages":[{"role":"user","content":"x"}]}"#,
            ),
            (Dialect::Responses, responses, Counter::Responses, &responses.replace("\"m\"", "\"served\"")),
            (
                Dialect::Responses,
                responses,
                Counter::Messages,
                r#"{"model":"served","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
            ),
        ] {
            let to = Target { model: "served".into(), ..Target::default() };
            let written = asked(dialect, body).write_to_count(counter, &to).unwrap();
            assert_eq!(written, expect.as_bytes(), "{dialect:?} {counter:?}");
        }
    }

    #[test]
    fn answers_are_read_as_they_are_written() {
        for (counter, answer, expect) in [
            (Counter::Messages, r#"{"input_tokens":14,"context_management":null}"#, Some(14)),
            (Counter::Responses, r#"{"object":"response.input_tokens","input_tokens":0}"#, Some(0)),
            (Counter::Tokenize, r#"{"count":3,"max_model_len":9,"tokens":[1,2,3]}"#, Some(3)),
            (Counter::Tokenize, r#"{"input_tokens":3}"#, None),
            (Counter::Messages, r#"{"input_tokens":-1}"#, None),
            (Counter::Messages, "<html>", None),
        ] {
            assert_eq!(counter.read(&Bytes::from_static(answer.as_bytes())), expect, "{answer}");
        }
        assert_eq!(write(Dialect::Messages, 7), r#"{"input_tokens":7}"#.as_bytes());
        assert_eq!(write(Dialect::Responses, 7), r#"{"object":"response.input_tokens","input_tokens":7}"#.as_bytes());
    }
}
