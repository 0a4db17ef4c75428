//! A call as a client would write it, in OpenAI's chat form: what a trial is given.

use serde_json::{Value, json};

/// The body of a chat call.
#[derive(Debug, Clone)]
pub struct Chat(Value);

impl Chat {
    /// A call to the model `test` without a conversation.
    pub fn new() -> Self {
        Self(json!({"model": "test", "messages": []}))
    }

    /// A call in which the user says one thing.
    pub fn user(text: &str) -> Self {
        Self::new().says("user", text)
    }

    /// The same, and before the rest an instruction.
    #[must_use]
    pub fn system(mut self, text: &str) -> Self {
        self.messages().insert(0, json!({"role": "system", "content": text}));
        self
    }

    /// The same with one more message.
    #[must_use]
    pub fn says(self, role: &str, text: &str) -> Self {
        self.message(json!({"role": role, "content": text}))
    }

    /// The same, and the model called a tool.
    #[must_use]
    pub fn calls(self, id: &str, name: &str, arguments: &str) -> Self {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        self.message(json!({"role": "assistant", "content": null, "tool_calls": [call]}))
    }

    /// The same, and the tool answered.
    #[must_use]
    pub fn answers(self, id: &str, text: &str) -> Self {
        self.message(json!({"role": "tool", "tool_call_id": id, "content": text}))
    }

    /// The same with one more message, as JSON.
    #[must_use]
    pub fn message(mut self, message: Value) -> Self {
        self.messages().push(message);
        self
    }

    /// The same with a top-level member: `temperature`, `tools`, `model`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    /// The body.
    pub fn body(&self) -> &Value {
        &self.0
    }

    fn messages(&mut self) -> &mut Vec<Value> {
        self.0["messages"].as_array_mut().expect("a chat has messages")
    }
}

impl Default for Chat {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Value> for Chat {
    fn from(body: Value) -> Self {
        Self(body)
    }
}
