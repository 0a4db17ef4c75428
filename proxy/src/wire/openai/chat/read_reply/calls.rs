//! Tool calls out of fragments: which call each belongs to, and which may go on while others wait.

use super::braces::Braces;
use super::{Open, Reader};
use crate::canon::{Delta, Event, Fault, FaultKind, Part};
use crate::wire::check::Fields;
use crate::wire::json::Kind;
use crate::wire::openai::tools::escaped;
use std::borrow::Cow;

/// A tool call in the making.
pub(super) struct Slot {
    index: Option<u64>,
    /// As the backend wrote it; empty when it did not.
    id: String,
    name: String,
    /// What it is, where the backend says that it is no function's.
    kind: String,
    /// Its text stands inside the arguments' one string, which is open.
    pub(super) custom: bool,
    /// Arguments that have not been passed on.
    held: String,
    pub(super) braces: Braces,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
    Waiting,
    Live,
    Closed,
}

impl Reader {
    /// A fragment of a tool call; `custom`: of a tool that takes free text.
    pub(super) fn fragment(
        &mut self,
        index: Option<u64>,
        id: &str,
        kind: &str,
        called: &Fields<'_>,
        custom: bool,
        out: &mut Vec<Event>,
    ) {
        let name = called.text("name").unwrap_or_default();
        let mut arguments = match called.get(if custom { "input" } else { "arguments" }) {
            Some(json) if custom => Cow::Owned(escaped(&json.as_str().unwrap_or_default())),
            Some(json) if json.kind() == Kind::Object => Cow::Borrowed(json.raw()),
            Some(json) => json.as_str().unwrap_or_default(),
            None => Cow::Borrowed(""),
        };
        if self.done || [id, kind, &name, &arguments].iter().all(|said| said.is_empty()) {
            return;
        }
        self.spoke = true;
        let at = self.slot(index, id, &name, &arguments);
        let slot = &mut self.slots[at];
        if slot.name.is_empty() {
            slot.name = name.into_owned();
        }
        if slot.kind.is_empty() {
            slot.kind = kind.chars().take(64).collect();
        }
        if custom && !slot.custom && slot.state == State::Waiting && slot.held.is_empty() {
            slot.custom = true;
            arguments = format!("{{\"input\":\"{arguments}").into();
        }
        if slot.state == State::Closed {
            // A repetition of a complete call is harmless; the rest of a broken one is not.
            if !slot.braces.complete() && !arguments.trim_ascii().is_empty() {
                self.fail(
                    Fault::new(FaultKind::BackendError, "The backend continued a tool call that had ended."),
                    out,
                );
            }
            return;
        }
        if slot.braces.complete() && !arguments.trim_ascii().is_empty() {
            return;
        }
        slot.braces.feed(&arguments);
        if slot.state == State::Live {
            if !arguments.is_empty() {
                out.push(Event::Delta(Delta::Arguments(arguments.into_owned())));
            }
            return;
        }
        slot.held.push_str(&arguments);
        self.advance(out);
    }

    /// Which call a fragment belongs to. An id that is known decides, unless index and name say that another call was given
    /// the same one; then the index; a fragment that names a function while the call of its index is already complete begins
    /// the next call of a server that counts wrongly.
    fn slot(&mut self, index: Option<u64>, id: &str, name: &str, arguments: &str) -> usize {
        let by_id = self.slots.iter().rposition(|slot| !id.is_empty() && slot.id == id);
        let mut doubled = false;
        let found = match by_id {
            Some(at) => {
                doubled = index.is_some() && self.slots[at].index != index && !name.is_empty();
                (!doubled).then_some(at)
            }
            None => {
                let at = match index {
                    Some(_) => self.slots.iter().rposition(|slot| slot.index == index),
                    None if name.is_empty() => self.slots.len().checked_sub(1),
                    None => None,
                };
                at.filter(|at| {
                    let slot = &self.slots[*at];
                    let other_id = !id.is_empty() && !slot.id.is_empty();
                    let next = !name.is_empty()
                        && !slot.name.is_empty()
                        && (slot.name != name || slot.braces.complete() && !arguments.is_empty());
                    !other_id && !next
                })
            }
        };
        // A doubled id that belongs to its own index already was given a new one there.
        let found =
            found.or_else(|| if doubled { self.slots.iter().rposition(|slot| slot.index == index) } else { None });
        if let Some(at) = found {
            if self.slots[at].id.is_empty() && self.slots[at].state == State::Waiting {
                self.slots[at].id = id.to_owned();
            }
            return at;
        }
        let id = if doubled { String::new() } else { id.to_owned() };
        self.slots.push(Slot {
            index,
            id,
            name: String::new(),
            kind: String::new(),
            custom: false,
            held: String::new(),
            braces: Braces::default(),
            state: State::Waiting,
        });
        self.slots.len() - 1
    }

    /// Lets the next waiting calls through as far as order allows.
    fn advance(&mut self, out: &mut Vec<Event>) {
        while let Some(at) = self.slots.iter().position(|slot| slot.state == State::Waiting) {
            if self.slots[at].name.is_empty() {
                return;
            }
            match self.open {
                Some(Open::Call(live)) if !self.slots[live].braces.complete() => return,
                Some(_) => self.close(out),
                None => {}
            }
            self.begin(at, out);
        }
    }

    fn begin(&mut self, at: usize, out: &mut Vec<Event>) {
        let seed = self.seed;
        let slot = &mut self.slots[at];
        if slot.id.is_empty() {
            slot.id = format!("call_{seed:016x}{at}");
        }
        slot.state = State::Live;
        out.push(Event::Open(Part::ToolCall { id: slot.id.clone(), name: slot.name.clone() }));
        let held = std::mem::take(&mut slot.held);
        if !held.is_empty() {
            out.push(Event::Delta(Delta::Arguments(held)));
        }
        self.open = Some(Open::Call(at));
    }

    /// Ends the live part and every call that waited for it.
    pub(super) fn finish_calls(&mut self, out: &mut Vec<Event>) {
        self.close(out);
        while let Some(at) = self.slots.iter().position(|slot| slot.state == State::Waiting) {
            if self.slots[at].name.is_empty() {
                let fault = nameless(&self.slots[at].kind);
                return self.fail(fault, out);
            }
            self.begin(at, out);
            self.close(out);
        }
    }
}

/// A call that names no function: a client of another API could not be told of it.
fn nameless(kind: &str) -> Fault {
    let message = match kind {
        "" => "The backend sent a tool call without a name.".to_owned(),
        kind => format!(
            "The backend sent a tool call of type `{kind}`, and only those of functions and of custom tools can be read."
        ),
    };
    Fault::new(FaultKind::BackendError, message)
}
