//! A whole answer is a fold of events, and events are an unfolding of a whole answer.

use super::{Delta, Event, Fault, Part, StopReason, Usage};

/// A complete reply, for clients that did not ask for a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The backend's reply id.
    pub id: Option<String>,
    /// The model name the backend reported.
    pub model: Option<String>,
    /// The parts, in order.
    pub parts: Vec<Piece>,
    /// Token counts.
    pub usage: Usage,
    /// Why it ended; `None` only while folding.
    pub stop: Option<StopReason>,
}

/// One complete part.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// What it is.
    pub part: Part,
    /// Its text: visible text, reasoning, refusal, or the arguments' JSON.
    pub text: String,
    /// The signature of a thinking part.
    pub signature: Option<String>,
    /// Citations of a text part, as JSON texts.
    pub citations: Vec<String>,
}

impl Answer {
    /// Adds the next event.
    ///
    /// # Errors
    /// The fault, when the event is one: a failed reply has no answer.
    pub fn fold(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Start { id, model } => {
                self.id = id;
                self.model = model;
            }
            Event::Open(part) => {
                self.parts.push(Piece { part, text: String::new(), signature: None, citations: Vec::new() })
            }
            Event::Delta(delta) => {
                if let Some(piece) = self.parts.last_mut() {
                    match delta {
                        Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) => {
                            piece.text.push_str(&text)
                        }
                        Delta::Signature(text) => piece.signature.get_or_insert_default().push_str(&text),
                        Delta::Citation(json) => piece.citations.push(json),
                    }
                }
            }
            Event::Close => {}
            Event::Usage(usage) => self.usage.update(&usage),
            Event::Stop(reason) => self.stop = Some(reason),
            Event::Fault(fault) => return Err(fault),
        }
        Ok(())
    }

    /// The events of this answer: what a stream of it would have been.
    pub fn unfold(self) -> Vec<Event> {
        let mut events = vec![Event::Start { id: self.id, model: self.model }];
        for piece in self.parts {
            let delta = match &piece.part {
                Part::Text | Part::Refusal => Some(Delta::Text(piece.text)),
                Part::Thinking => Some(Delta::Thinking(piece.text)),
                Part::ToolCall { .. } => Some(Delta::Arguments(piece.text)),
                Part::RedactedThinking { .. } | Part::Other { .. } => None,
            };
            events.push(Event::Open(piece.part));
            events.extend(delta.filter(|delta| !matches!(delta, Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) if text.is_empty())).map(Event::Delta));
            events.extend(piece.citations.into_iter().map(|json| Event::Delta(Delta::Citation(json))));
            events.extend(piece.signature.map(|text| Event::Delta(Delta::Signature(text))));
            events.push(Event::Close);
        }
        if self.usage != Usage::default() {
            events.push(Event::Usage(self.usage));
        }
        events.extend(self.stop.map(Event::Stop));
        events
    }
}
