//! Another model through the gateway, on the caller's account: the `model` grant.

use crate::{Error, Parameters, Turn, host::model};

pub use crate::bindings::tidegate::plugin::model::{Answer, Question};

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
    /// Not granted, not in time, or failed.
    pub fn ask(&self) -> Result<Answer, Error> {
        model::ask(self)
    }
}
