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
        let call = call(question, &about).map_err(wit::Error::Invalid)?;
        if self.asks >= QUESTIONS {
            return Err(wit::Error::Busy);
        }
        self.asks += 1;
        let asking = asker.ask(&about, &self.plugin.name, call);
        let answered = tokio::time::timeout(self.patience(), asking).await.map_err(|_| wit::Error::Timeout)?;
        answer(answered.map_err(|fault| error(&fault))?, self.plugin.limits.output.0)
    }
}

/// A question as a call.
///
/// # Errors
/// It holds JSON that is none. All else is found where calls are written.
fn call(question: model::Question, about: &About) -> Result<Call, String> {
    let mut call = Call { model: question.model, family: about.family, ..Call::default() };
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
