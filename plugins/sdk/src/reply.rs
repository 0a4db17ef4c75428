//! A whole reply is a fold of events, and events are an unfolding of a whole reply.

use serde::{Deserialize, Serialize};

use crate::{Delta, Event, Fault, Part, Start, StopReason, Usage};

/// A reply, as far as it has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// How it began; `None` before it did.
    pub start: Option<Start>,
    /// The parts, in order.
    pub parts: Vec<Piece>,
    /// Token counts.
    pub usage: Usage,
    /// Why it stopped; `None` for one that did not come to its end.
    pub stop: Option<StopReason>,
    /// How it failed.
    pub fault: Option<Fault>,
}

/// One part of a reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

impl Reply {
    /// A complete reply of one text.
    pub fn say(text: impl Into<String>) -> Self {
        let piece = Piece { part: Part::Text, text: text.into(), signature: None, citations: Vec::new() };
        let start = Some(Start { id: None, model: None });
        Self { start, parts: vec![piece], stop: Some(StopReason::EndTurn), ..Self::default() }
    }

    /// The reply these events make.
    pub fn of(events: &[Event]) -> Self {
        let mut reply = Self::default();
        events.iter().for_each(|event| reply.fold(event));
        reply
    }

    /// Adds the next event.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::Start(start) => self.start = Some(start.clone()),
            Event::Open(part) => self.parts.push(Piece {
                part: part.clone(),
                text: String::new(),
                signature: None,
                citations: Vec::new(),
            }),
            Event::Delta(delta) => {
                if let Some(piece) = self.parts.last_mut() {
                    match delta {
                        Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) => piece.text.push_str(text),
                        Delta::Signature(text) => piece.signature.get_or_insert_default().push_str(text),
                        Delta::Citation(json) => piece.citations.push(json.clone()),
                    }
                }
            }
            Event::Close => {}
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => self.stop = Some(reason.clone()),
            Event::Fault(fault) => self.fault = Some(fault.clone()),
        }
    }

    /// The events of this reply.
    pub fn into_events(self) -> Vec<Event> {
        let mut events = Vec::new();
        events.extend(self.start.map(Event::Start));
        for piece in self.parts {
            let delta = match &piece.part {
                _ if piece.text.is_empty() => None,
                Part::Text | Part::Refusal => Some(Delta::Text(piece.text)),
                Part::Thinking => Some(Delta::Thinking(piece.text)),
                Part::ToolCall(_) => Some(Delta::Arguments(piece.text)),
                Part::RedactedThinking(_) | Part::Other(_) => None,
            };
            events.push(Event::Open(piece.part));
            events.extend(delta.map(Event::Delta));
            events.extend(piece.citations.into_iter().map(|json| Event::Delta(Delta::Citation(json))));
            events.extend(piece.signature.map(|text| Event::Delta(Delta::Signature(text))));
            events.push(Event::Close);
        }
        if self.usage != Usage::default() {
            events.push(Event::Usage(self.usage));
        }
        events.extend(self.stop.map(Event::Stop));
        events.extend(self.fault.map(Event::Fault));
        events
    }

    /// All visible text.
    pub fn text(&self) -> String {
        self.text_of(|part| matches!(part, Part::Text))
    }

    /// All reasoning.
    pub fn thinking(&self) -> String {
        self.text_of(|part| matches!(part, Part::Thinking))
    }

    /// All refusal text of the model's.
    pub fn refusal(&self) -> String {
        self.text_of(|part| matches!(part, Part::Refusal))
    }

    /// The tool calls: name and arguments.
    pub fn tool_calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|piece| match &piece.part {
            Part::ToolCall(head) => Some((head.name.as_str(), piece.text.as_str())),
            _ => None,
        })
    }

    fn text_of(&self, wanted: impl Fn(&Part) -> bool) -> String {
        self.parts.iter().filter(|piece| wanted(&piece.part)).map(|piece| piece.text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_undoes_unfolding() {
        let events = vec![
            Event::Start(Start { id: Some("1".into()), model: None }),
            Event::Open(Part::Thinking),
            Event::thinking("hm"),
            Event::Delta(Delta::Signature("s".into())),
            Event::Close,
            Event::Open(Part::Text),
            Event::text("hello"),
            Event::Close,
            Event::tool_call("c", "look"),
            Event::arguments("{}"),
            Event::Close,
            Event::Usage(Usage { output: Some(3), ..Usage::default() }),
            Event::Stop(StopReason::ToolUse),
        ];
        let reply = Reply::of(&events);
        assert_eq!((reply.text().as_str(), reply.thinking().as_str()), ("hello", "hm"));
        assert_eq!(reply.tool_calls().collect::<Vec<_>>(), [("look", "{}")]);
        assert_eq!(reply.into_events(), events);
    }
}
