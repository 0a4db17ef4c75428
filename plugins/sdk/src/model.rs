//! Another model through the gateway, on the caller's account: the `model` grant.

use crate::{Error, Parameters, StopReason, Turn, Usage, host::model};

pub use crate::bindings::tidegate::plugin::model::{Answer, Question};

impl Answer {
    /// An answer of one text, as tests give it: `world.models = Box::new(|_| Ok(Answer::say("safe")))`.
    pub fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), tool_calls: Vec::new(), stop: StopReason::EndTurn, usage: Usage::default() }
    }
}

impl Question {
    /// A question to a model.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), turns: Vec::new(), tools: Vec::new(), parameters: None }
    }

    /// The same with one more turn.
    #[must_use]
    pub fn turn(mut self, turn: Turn) -> Self {
        self.turns.push(turn);
        self
    }

    /// The same with these parameters.
    #[must_use]
    pub fn parameters(mut self, parameters: Parameters) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// Not granted, too many in this request, not in time, too large, or failed.
    pub fn ask(&self) -> Result<Answer, Error> {
        model::ask(self)
    }
}
