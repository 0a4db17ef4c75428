//! The grammar of a reply, as the gateway checks it.

use crate::{Delta, Event, Part};

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
            Event::Start(_) if self.started => return Err("a second start".into()),
            Event::Start(_) => self.started = true,
            _ if !self.started => return Err(format!("{event:?} before start")),
            Event::Open(part) => {
                if let Some(open) = self.open.replace(part.clone()) {
                    return Err(format!("{part:?} opened inside {open:?}"));
                }
            }
            Event::Delta(delta) => match (&self.open, delta) {
                (Some(Part::Text), Delta::Text(_) | Delta::Citation(_))
                | (Some(Part::Refusal), Delta::Text(_))
                | (Some(Part::Thinking), Delta::Thinking(_) | Delta::Signature(_))
                | (Some(Part::ToolCall(_)), Delta::Arguments(_)) => {}
                (open, delta) => return Err(format!("{delta:?} inside {open:?}")),
            },
            Event::Close => {
                if self.open.take().is_none() {
                    return Err("close without an open part".into());
                }
            }
            Event::Usage(_) => {}
            Event::Stop(_) => {
                if let Some(open) = &self.open {
                    return Err(format!("stop inside {open:?}"));
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
        let mut grammar = Self::default();
        for (at, event) in events.iter().enumerate() {
            grammar.walk(event).map_err(|rule| format!("event {at}: {rule}"))?;
        }
        if grammar.ended { Ok(()) } else { Err("the reply has no end".into()) }
    }
}
