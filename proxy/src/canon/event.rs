//! The grammar of a reply, stated once.
//!
//! ```text
//! reply := Start · (Open · Delta* · Close)* · Stop        with Usage anywhere between Start and Stop
//!        | any prefix of the above · Fault
//! ```
//! One part is open at a time. `Usage` is cumulative. A whole (unstreamed) reply is the same sequence, read from one frame.
//! [`Grammar`] walks it: codec tests run it over everything they produce.

use super::{Fault, Usage};

/// One step of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The backend began to answer. `id` and `model` are the backend's own words, where it has them.
    Start {
        /// The backend's reply id.
        id: Option<String>,
        /// The model name the backend reports.
        model: Option<String>,
    },
    /// A part begins.
    Open(Part),
    /// More of the open part.
    Delta(Delta),
    /// The open part is complete.
    Close,
    /// Token counts so far; replaces earlier ones field by field.
    Usage(Usage),
    /// The reply is complete.
    Stop(StopReason),
    /// The reply ends here, failed.
    Fault(Fault),
}

impl Event {
    /// Whether the model has generated something: what it says, or a count of what it cannot say yet.
    pub fn tells_of_output(&self) -> bool {
        matches!(self, Self::Delta(_) | Self::Usage(Usage { output: Some(1..), .. }))
    }
}

/// What a part is, known when it opens.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Visible text.
    Text,
    /// Reasoning, shown apart from the text.
    Thinking,
    /// Reasoning that only the vendor can read back (Anthropic `redacted_thinking`); complete at once.
    RedactedThinking {
        /// The vendor's opaque data.
        data: String,
    },
    /// A refusal text (OpenAI `refusal`).
    Refusal,
    /// The model calls a tool; arguments follow as [`Delta::Arguments`].
    ToolCall {
        /// The call's id; readers invent one where the backend wrote none.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A block of the source dialect that has no canonical form: the raw JSON of the whole block.
    Other {
        /// The block's type word in its dialect.
        kind: String,
        /// The block as JSON text.
        json: String,
    },
}

/// More of the open part. Each kind belongs to its part, see [`Grammar`].
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Text, of a text or refusal part.
    Text(String),
    /// Reasoning text.
    Thinking(String),
    /// The vendor's signature over the thinking part.
    Signature(String),
    /// A fragment of the tool call's arguments, as JSON text. All fragments together are one JSON object; none at all means `{}`.
    Arguments(String),
    /// A citation on the text part, as JSON text in Anthropic's shape.
    Citation(String),
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It had finished.
    EndTurn,
    /// It reached the token limit.
    MaxTokens,
    /// It wrote one of the caller's stop sequences (given where the backend says which).
    StopSequence(Option<String>),
    /// It wants tools to be called.
    ToolUse,
    /// It declined, or a filter stopped it.
    Refusal,
    /// A long turn was paused by the vendor and may be continued.
    PauseTurn,
    /// The context window is full.
    ContextWindow,
}

impl StopReason {
    /// The word used in records: Anthropic's `stop_reason`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence(_) => "stop_sequence",
            Self::ToolUse => "tool_use",
            Self::Refusal => "refusal",
            Self::PauseTurn => "pause_turn",
            Self::ContextWindow => "model_context_window_exceeded",
        }
    }
}

/// Walks a reply and says where it leaves the grammar.
#[derive(Debug, Default)]
pub struct Grammar {
    started: bool,
    open: Option<Part>,
    ended: bool,
}

impl Grammar {
    /// Takes the next event.
    ///
    /// # Errors
    /// A sentence that names the rule this event breaks.
    pub fn walk(&mut self, event: &Event) -> Result<(), String> {
        if self.ended {
            return Err(format!("{event:?} after the end"));
        }
        match event {
            Event::Fault(_) => self.ended = true,
            Event::Start { .. } if self.started => return Err("a second Start".into()),
            Event::Start { .. } => self.started = true,
            _ if !self.started => return Err(format!("{event:?} before Start")),
            Event::Open(part) => {
                if let Some(open) = self.open.replace(part.clone()) {
                    return Err(format!("{part:?} opened inside {open:?}"));
                }
            }
            Event::Delta(delta) => match (&self.open, delta) {
                (Some(Part::Text), Delta::Text(_) | Delta::Citation(_))
                | (Some(Part::Refusal), Delta::Text(_))
                | (Some(Part::Thinking), Delta::Thinking(_) | Delta::Signature(_))
                | (Some(Part::ToolCall { .. }), Delta::Arguments(_)) => {}
                (open, delta) => return Err(format!("{delta:?} inside {open:?}")),
            },
            Event::Close => {
                if self.open.take().is_none() {
                    return Err("Close without an open part".into());
                }
            }
            Event::Usage(_) => {}
            Event::Stop(_) => {
                if let Some(open) = &self.open {
                    return Err(format!("Stop inside {open:?}"));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Walks a whole reply.
    ///
    /// # Errors
    /// The position and the broken rule, or that the reply has no end.
    pub fn check(events: &[Event]) -> Result<(), String> {
        let mut grammar = Grammar::default();
        for (at, event) in events.iter().enumerate() {
            grammar.walk(event).map_err(|rule| format!("event {at}: {rule}"))?;
        }
        if grammar.ended { Ok(()) } else { Err("the reply has no end".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Event {
        Event::Start { id: None, model: None }
    }

    #[test]
    fn the_grammar_takes_replies_and_refuses_nonsense() {
        let text = || Event::Delta(Delta::Text("x".into()));
        let stop = || Event::Stop(StopReason::EndTurn);
        let fault = || Event::Fault(Fault::internal("x"));
        let cases: &[(&str, Vec<Event>, bool)] = &[
            ("empty answer", vec![start(), stop()], true),
            ("text", vec![start(), Event::Open(Part::Text), text(), Event::Close, stop()], true),
            ("cut anywhere", vec![start(), Event::Open(Part::Text), text(), fault()], true),
            ("failed at once", vec![fault()], true),
            ("no start", vec![stop()], false),
            ("delta before open", vec![start(), text(), stop()], false),
            ("open twice", vec![start(), Event::Open(Part::Text), Event::Open(Part::Thinking)], false),
            ("unclosed", vec![start(), Event::Open(Part::Text), stop()], false),
            ("wrong delta", vec![start(), Event::Open(Part::Thinking), text()], false),
            ("two ends", vec![start(), stop(), stop()], false),
            ("no end", vec![start()], false),
        ];
        for (name, events, good) in cases {
            assert_eq!(Grammar::check(events).is_ok(), *good, "{name}");
        }
    }
}
