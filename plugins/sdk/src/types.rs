//! Words for the interface's own types: how they are made, and what is asked of them most.

use crate::{Content, Delta, Destination, Event, Parameters, Part, Refusal, Role, Turn, Usage, Verdict};

impl Turn {
    /// A turn of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text(text.into())] }
    }

    /// An instruction.
    pub fn system(text: impl Into<String>) -> Self {
        Self::text(Role::System, text)
    }

    /// What the person says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }

    /// What the model said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text(Role::Assistant, text)
    }
}

impl Content {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Refusal {
    /// A refusal with status 403. `code` is for programs (`a-z`, `0-9`, `_`), `message` for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 403, code: code.into(), message: message.into(), retry_after: None }
    }

    /// The same with another status, 400..=599.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with a time to come back, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl Verdict {
    /// Refuses, with status 403.
    pub fn refuse(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refuse(Refusal::new(code, message))
    }

    /// Answers with this text; no backend is asked.
    pub fn say(text: impl Into<String>) -> Self {
        Self::Respond(crate::Reply::say(text).into_events())
    }

    /// Sends the call to another model.
    pub fn route_to_model(model: impl Into<String>) -> Self {
        Self::Route(Destination { model: Some(model.into()), backend: None })
    }
}

impl Event {
    /// More text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Delta(Delta::Text(text.into()))
    }

    /// More reasoning.
    pub fn thinking(text: impl Into<String>) -> Self {
        Self::Delta(Delta::Thinking(text.into()))
    }

    /// More of a tool call's arguments.
    pub fn arguments(text: impl Into<String>) -> Self {
        Self::Delta(Delta::Arguments(text.into()))
    }

    /// A tool call begins.
    pub fn tool_call(id: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Open(Part::ToolCall(crate::ToolHead { id: id.into(), name: name.into() }))
    }

    /// Whether it ends the reply.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Stop(_) | Self::Fault(_))
    }
}

impl Usage {
    /// Takes over what `later` reports, field by field.
    pub fn update(&mut self, later: &Self) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.reasoning = later.reasoning.or(self.reasoning);
    }
}

impl Default for Usage {
    /// Nothing reported.
    fn default() -> Self {
        Self { input: None, output: None, cache_read: None, cache_write: None, reasoning: None }
    }
}

impl Default for Parameters {
    /// The client said nothing.
    fn default() -> Self {
        Self {
            tool_choice: None,
            parallel_tools: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            top_k: None,
            presence_penalty: None,
            frequency_penalty: None,
            seed: None,
            stop: Vec::new(),
            thinking: None,
            format: None,
            choices: 1,
        }
    }
}
