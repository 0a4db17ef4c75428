//! An item of a reply, from its announcement to its end.

use super::shell::Shell;
use super::tools::{Form, Named, SEARCH, as_input, begun_input};
use crate::canon::Part;
use crate::wire::beyond::{arguments_object, said_arguments};
use crate::wire::put::{key, one_line, put_raw, put_text};

/// An item in the making.
pub(super) struct Item {
    pub id: String,
    pub kind: Kind,
    pub text: String,
    status: &'static str,
}

/// It has begun, and is told of without its text.
const BEGUN: &str = "in_progress";

pub(super) enum Kind {
    Text,
    Refusal,
    Thinking,
    Call(Who),
    Custom(Who),
    Search(Who),
}

/// Which tool is called.
pub(super) struct Who {
    call: String,
    name: String,
    named: Option<Named>,
}

impl Item {
    /// The item that a part is, if it is one.
    pub fn of(shell: &Shell, part: &Part, at: usize) -> Option<Self> {
        let id = |prefix: &str| format!("{prefix}_{}_{at}", shell.id);
        let (id, kind) = match part {
            Part::Text => (id("msg"), Kind::Text),
            Part::Refusal => (id("msg"), Kind::Refusal),
            Part::Thinking => (id("rs"), Kind::Thinking),
            Part::ToolCall { id: call, name } => {
                let named = shell.names.find(name);
                let form = named.map_or(Form::Function, |named| named.form);
                let who = Who { call: call.clone(), name: name.clone(), named: named.cloned() };
                match form {
                    Form::Function => (id("fc"), Kind::Call(who)),
                    Form::Custom => (id("ctc"), Kind::Custom(who)),
                    Form::Search => (id("tsc"), Kind::Search(who)),
                }
            }
            Part::RedactedThinking { .. } | Part::Other { .. } => return None,
        };
        Some(Item { id, kind, text: String::new(), status: BEGUN })
    }

    /// The item as it stands: empty where it begins.
    pub fn put(&self, out: &mut Vec<u8>) {
        let (status, done) = (self.status, self.status != BEGUN);
        out.push(b'{');
        put_text(out, "id", &self.id);
        match &self.kind {
            Kind::Text | Kind::Refusal => {
                put_text(out, "type", "message");
                put_text(out, "status", status);
                put_text(out, "role", "assistant");
                key(out, "content");
                out.push(b'[');
                if done {
                    self.put_part(out, &self.text);
                }
                out.push(b']');
            }
            Kind::Thinking => {
                put_text(out, "type", "reasoning");
                key(out, "summary");
                out.push(b'[');
                if done {
                    self.put_part(out, &self.text);
                }
                out.push(b']');
            }
            Kind::Call(who) => {
                put_text(out, "type", "function_call");
                put_text(out, "status", status);
                who.put(out);
                put_text(out, "arguments", if done { &self.text } else { "" });
            }
            Kind::Custom(who) => {
                put_text(out, "type", "custom_tool_call");
                put_text(out, "status", status);
                who.put(out);
                put_text(out, "input", if done { &self.text } else { "" });
            }
            Kind::Search(who) => {
                put_text(out, "type", "tool_search_call");
                put_text(out, "status", status);
                put_text(out, "call_id", &who.call);
                put_text(out, "execution", "client");
                // An object, and no text that holds one: of what is none the client says itself that it cannot read it.
                let said = if done { said_arguments(SEARCH, &self.text).ok() } else { None };
                put_raw(out, "arguments", one_line(said.as_deref().unwrap_or("{}")));
            }
        }
        out.push(b'}');
    }

    /// The one part of a message or summary.
    pub fn put_part(&self, out: &mut Vec<u8>, text: &str) {
        out.push(b'{');
        match self.kind {
            Kind::Refusal => {
                put_text(out, "type", "refusal");
                put_text(out, "refusal", text);
            }
            Kind::Thinking => {
                put_text(out, "type", "summary_text");
                put_text(out, "text", text);
            }
            _ => {
                put_text(out, "type", "output_text");
                put_text(out, "text", text);
                put_raw(out, "annotations", "[]");
                put_raw(out, "logprobs", "[]");
            }
        }
        out.push(b'}');
    }

    /// The event names and members of its part: where it begins, goes on, is complete, and ends.
    pub fn words(&self) -> Words {
        match self.kind {
            Kind::Text => Words::new("content_part", "output_text", "content_index", "text"),
            Kind::Refusal => Words::new("content_part", "refusal", "content_index", "refusal"),
            Kind::Thinking => Words::new("reasoning_summary_part", "reasoning_summary_text", "summary_index", "text"),
            Kind::Call(_) => Words::new("", "function_call_arguments", "", "arguments"),
            Kind::Custom(_) => Words::new("", "custom_tool_call_input", "", "input"),
            // It is told of as a whole.
            Kind::Search(_) => Words::new("", "", "", ""),
        }
    }

    /// Settles its text: a call without arguments has empty ones, a custom tool's text is taken out of them. `cut`: the reply was
    /// not complete when it ended with this item; a call whose arguments are is so nevertheless.
    pub fn finish(&mut self, cut: bool) {
        let empty = self.text.trim_ascii().is_empty();
        let cut = cut
            && match self.kind {
                Kind::Call(_) | Kind::Custom(_) | Kind::Search(_) => empty || arguments_object(&self.text).is_none(),
                Kind::Text | Kind::Refusal | Kind::Thinking => true,
            };
        self.status = if cut { "incomplete" } else { "completed" };
        match self.kind {
            Kind::Call(_) if empty && !cut => self.text = "{}".into(),
            Kind::Custom(_) if cut => self.text = begun_input(&self.text),
            Kind::Custom(_) => self.text = as_input(&self.text),
            _ => {}
        }
    }
}

impl Who {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, "call_id", &self.call);
        if let Some(namespace) = self.named.as_ref().and_then(|named| named.namespace.as_ref()) {
            put_text(out, "namespace", namespace);
        }
        put_text(out, "name", self.named.as_ref().map_or(&self.name, |named| &named.name));
    }
}

pub(super) struct Words {
    /// `response.….added`, where its part is told of.
    pub part: &'static str,
    /// `response.….delta`; empty where only the item itself tells its text.
    pub text: &'static str,
    /// The member that numbers the part; empty where there is none.
    pub index: &'static str,
    /// The member of the whole text.
    pub whole: &'static str,
}

impl Words {
    fn new(part: &'static str, text: &'static str, index: &'static str, whole: &'static str) -> Self {
        Self { part, text, index, whole }
    }
}
