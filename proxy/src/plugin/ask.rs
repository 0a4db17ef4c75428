//! Asking another model: what a guest may ask, who carries it out, and what it is told.
//!
//! This room knows no backend. A request brings somebody along who does ([`Ask`]); what comes in between is here: the grant,
//! how many questions a request may cost, and how long a hook may wait for them.

use super::bindings::{model, types as wit};
use super::convert;
use super::state::{About, State};
use crate::canon::call::{Content, Tool};
use crate::canon::{Answer, Blame, Call, Fault, FaultKind, Part};
use std::pin::Pin;
use std::sync::Arc;

/// Questions a plugin may ask in one request. One at a time: a guest waits for its answer.
const QUESTIONS: u32 = 8;

/// Puts the questions of plugins to models, on the account of the request's caller.
pub trait Ask: Send + Sync {
    /// Asks and waits for the whole answer. Dropping the future takes the question back.
    fn ask(&self, about: &About, plugin: &Arc<str>, call: Call) -> Asking;
}

/// An answer under way.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answer, Fault>> + Send>>;

impl model::Host for State {
    async fn ask(&mut self, question: model::Question) -> wasmtime::Result<Result<model::Answer, wit::Error>> {
        Ok(self.put(question).await)
    }
}

impl State {
    async fn put(&mut self, question: model::Question) -> Result<model::Answer, wit::Error> {
        if !self.plugin.models.iter().any(|pattern| pattern.matches(&question.model)) {
            let message = format!("`{}` is not among grants.model of [plugins.{}]", question.model, self.plugin.name);
            return Err(wit::Error::Denied(message));
        }
        let about = self.about.clone().ok_or_else(|| wit::Error::Denied("there is no request".into()))?;
        let nobody = || wit::Error::Denied("no gateway is running here: only there models can be asked".into());
        let asker = about.asker.as_ref().ok_or_else(nobody)?;
        let call = call(question, about.family).map_err(wit::Error::Invalid)?;
        if self.asks >= QUESTIONS {
            return Err(wit::Error::Busy);
        }
        self.asks += 1;
        let asking = asker.ask(&about, &self.plugin.name, call);
        let answered = tokio::time::timeout(self.patience(), asking).await.map_err(|_| wit::Error::Timeout)?;
        answer(answered.map_err(|fault| error(&fault))?, self.plugin.limits.output.0)
    }
}

/// A question as a call. `family`: whose words its opaque parts are.
///
/// # Errors
/// It holds JSON that is none. All else is found where calls are written.
fn call(question: model::Question, family: &'static str) -> Result<Call, String> {
    let mut call = Call { model: question.model, family, ..Call::default() };
    question.parameters.into_iter().for_each(|parameters| convert::set_parameters(&mut call, parameters));
    call.turns = question.turns.into_iter().map(convert::turn_back).collect();
    call.tools = question.tools.into_iter().map(convert::tool_back).collect();
    // There is room for one answer.
    call.choices = 1;
    call.turns.iter().flat_map(|turn| &turn.content).try_for_each(check)?;
    call.tools.iter().try_for_each(|tool| match tool {
        Tool::Hosted { json, .. } | Tool::Function { parameters: Some(json), .. } => convert::json(json),
        Tool::Function { .. } => Ok(()),
    })?;
    Ok(call)
}

fn check(content: &Content) -> Result<(), String> {
    match content {
        Content::Other { json, .. } => convert::json(json),
        Content::ToolResult { content, .. } => content.iter().try_for_each(check),
        _ => Ok(()),
    }
}

fn answer(answer: Answer, room: usize) -> Result<model::Answer, wit::Error> {
    let (mut text, mut tool_calls) = (String::new(), Vec::new());
    let mut size = 0;
    for piece in answer.parts {
        match piece.part {
            Part::Text | Part::Refusal => {
                size += piece.text.len();
                text.push_str(&piece.text);
            }
            Part::ToolCall { id, name } => {
                let arguments = if piece.text.is_empty() { "{}".into() } else { piece.text };
                size += id.len() + name.len() + arguments.len();
                tool_calls.push(wit::ToolCall { id, name, arguments });
            }
            Part::Thinking | Part::RedactedThinking { .. } | Part::Other { .. } => {}
        }
    }
    if size > room {
        return Err(wit::Error::TooLarge);
    }
    let stop = answer.stop.as_ref().map_or(wit::StopReason::EndTurn, convert::stop);
    Ok(model::Answer { text, tool_calls, stop, usage: convert::usage(&answer.usage) })
}

/// Why there is no answer.
fn error(fault: &Fault) -> wit::Error {
    let message = fault.message.clone();
    match fault.kind {
        FaultKind::Forbidden => wit::Error::Denied(message),
        FaultKind::RateLimited | FaultKind::Overloaded | FaultKind::BackendBusy => wit::Error::Busy,
        FaultKind::BackendTimeout => wit::Error::Timeout,
        FaultKind::BackendInvalid => wit::Error::Invalid(message),
        kind if kind.blame() == Blame::Caller => wit::Error::Invalid(message),
        _ => wit::Error::Failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::fold::Piece;
    use crate::canon::{StopReason, Usage};
    use crate::wire::request::Request;
    use crate::wire::{Dialect, Target};

    fn question(content: wit::Content, tools: Vec<wit::Tool>) -> model::Question {
        let turns = vec![wit::Turn { role: wit::Role::User, content: vec![content] }];
        model::Question { model: "m".into(), turns, tools, parameters: None }
    }

    /// What a guest hands over as JSON goes to backends as it is: it must be that.
    #[test]
    fn json_of_a_guest_is_json() {
        let text = || wit::Content::Text("x".into());
        let other = |json: &str| wit::Content::Other(wit::Raw { kind: "document".into(), json: json.into() });
        let hosted = |json: &str| wit::Tool::Hosted(wit::Raw { kind: "search".into(), json: json.into() });
        let function = |json: &str| {
            let (name, parameters) = ("f".into(), Some(json.into()));
            wit::Tool::Function(wit::ToolFunction { name, description: None, parameters, strict: None })
        };
        for (json, right) in [("{\"a\":1}", true), ("{}],\"x\":[{}", false), ("", false)] {
            for question in [
                question(other(json), vec![]),
                question(text(), vec![hosted(json)]),
                question(text(), vec![function(json)]),
            ] {
                assert_eq!(call(question, "anthropic").is_ok(), right, "{json}");
            }
        }
    }

    #[test]
    fn a_question_is_written_for_each_backend_in_its_own_words() {
        let asked =
            Request::compose(call(question(wit::Content::Text("x".into()), vec![]), "openai").unwrap()).unwrap();
        let to = Target { model: "there".into(), max_output: Some(9), ..Target::default() };
        for (dialect, body) in [
            (Dialect::Chat, r#"{"model":"there","messages":[{"role":"user","content":"x"}],"stream":false}"#),
            (Dialect::Messages, r#""max_tokens":9"#),
        ] {
            let written = asked.write(&[dialect], &to).unwrap();
            let text = String::from_utf8_lossy(&written.written.body);
            assert_eq!(written.dialect, dialect);
            assert!(text.contains(body), "{text}");
        }
        assert!(Request::compose(Call { model: "m".into(), ..Call::default() }).is_err(), "nothing is asked");
    }

    #[test]
    fn an_answer_is_what_can_be_seen_of_it_and_has_a_bound() {
        let piece = |part, text: &str| Piece { part, text: text.into(), signature: None, citations: Vec::new() };
        let call = || Part::ToolCall { id: "i".into(), name: "f".into() };
        let parts =
            vec![piece(Part::Thinking, "hm"), piece(Part::Text, "a"), piece(call(), ""), piece(Part::Text, "b")];
        let whole = Answer { parts, usage: Usage::default(), stop: Some(StopReason::ToolUse), ..Answer::default() };
        let told = answer(whole.clone(), 6).unwrap();
        assert_eq!((told.text.as_str(), told.tool_calls[0].arguments.as_str()), ("ab", "{}"));
        assert!(matches!(answer(whole, 5), Err(wit::Error::TooLarge)));
    }
}
