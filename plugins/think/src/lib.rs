//! Reasoning that a model writes between tags (`<think>…</think>`) becomes a reasoning part, or is hidden.
//!
//! A reply that does not begin with a tag passes as it came as soon as that is certain: mostly with the first character.

mod config;
mod split;

use tidegate_plugin::prelude::*;

use crate::config::Config;
use crate::split::{Mode, Split};

const FOUND: Metric = Metric::counter("found", "Pieces of reasoning found between tags.");

/// The plugin.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Think {
    tags: Vec<(String, String)>,
    mode: Option<Mode>,
    anywhere: bool,
    opened: bool,
}

/// How far the reply has come.
#[derive(Default)]
struct Memory {
    /// The text part being read.
    split: Option<Split>,
    /// The first text part is behind, or was decided: nothing else is of interest.
    done: bool,
}

impl Plugin for Think {
    type Exchange = Memory;
    const HOOKS: Hooks = Hooks::ON_EVENTS;
    const EVENTS: Interests = Interests::TEXT;
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[FOUND];

    fn hooks(&self) -> Hooks {
        if self.mode.is_some() { Self::HOOKS } else { Hooks::empty() }
    }

    fn on_events(&self, memory: &mut Memory, events: Vec<Event>) -> Rewrite {
        let Some(mode) = self.mode.filter(|_| !memory.done) else { return Rewrite::Pass };
        let mut out = Vec::with_capacity(events.len() + 4);
        for event in &events {
            match event {
                Event::Open(Part::Text) if !memory.done => memory.split = Some(Split::new(mode, self.opened)),
                event => match &mut memory.split {
                    None => out.push(event.clone()),
                    Some(split) => match event {
                        Event::Delta(Delta::Text(text)) => split.text(self, text, &mut out),
                        Event::Delta(delta) => split.other(delta, &mut out),
                        Event::Close => {
                            split.close(self, &mut out);
                            memory.split = None;
                            memory.done = !self.anywhere;
                        }
                        other => out.push(other.clone()),
                    },
                },
            }
            if !self.anywhere && memory.split.as_ref().is_some_and(Split::is_plain) {
                memory.split = None;
                memory.done = true;
            }
        }
        if out == events { Rewrite::Pass } else { Rewrite::Change(out) }
    }
}
tidegate_plugin::export!(Think);

#[cfg(test)]
mod tests;
