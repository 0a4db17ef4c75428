//! Repairs the JSON of small models' tool calls.
//!
//! Arguments are held back until their part closes: what is wrong shows at the end. Good ones leave unchanged; what cannot be
//! repaired does, too, and is counted. A stream of text is never looked at.

mod repair;

use tidegate_plugin::prelude::*;
use tidegate_plugin::window::{Held, Kind, Scan, Step, Window};

const CALLS: Metric =
    Metric::counter("calls", "Tool calls seen.").label("outcome", &["good", "repaired", "irreparable", "too_long"]);

/// The plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixJson {
    #[serde(default = "max_bytes")]
    max_bytes: usize,
}

/// Longer arguments than a small model writes in one breath.
fn max_bytes() -> usize {
    256 << 10
}

/// The arguments of the open tool call.
#[derive(Default)]
struct Memory {
    window: Window,
    /// They are too long: what remains of them passes.
    too_long: bool,
}

impl Plugin for FixJson {
    type Exchange = Memory;
    const HOOKS: Hooks = Hooks::ON_EVENTS;
    const EVENTS: Interests = Interests::TOOL_CALLS;
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[CALLS];

    fn on_events(&self, memory: &mut Memory, events: Vec<Event>) -> Rewrite {
        memory.window.rewrite(events, &mut Arguments { max_bytes: self.max_bytes, too_long: &mut memory.too_long })
    }
}
tidegate_plugin::export!(FixJson);

/// Looks at arguments.
struct Arguments<'m> {
    max_bytes: usize,
    too_long: &'m mut bool,
}

impl Scan for Arguments<'_> {
    fn reads(&self, kind: Kind) -> bool {
        kind == Kind::Arguments
    }

    fn open(&mut self, _: Kind) {
        *self.too_long = false;
    }

    fn scan(&mut self, held: Held) -> Step {
        let text = held.rest();
        if *self.too_long || text.len() > self.max_bytes {
            if !*self.too_long {
                CALLS.count_as("too_long");
            }
            *self.too_long = true;
            return Step::Keep(text.len());
        }
        if !held.last {
            return Step::Keep(0);
        }
        if repair::is_object(text) {
            CALLS.count_as("good");
            return Step::Keep(text.len());
        }
        let Some(repaired) = repair::repair(text) else {
            CALLS.count_as("irreparable");
            log::warn("arguments cannot be repaired", &[("bytes", &text.len())]);
            return Step::Keep(text.len());
        };
        CALLS.count_as("repaired");
        Step::Replace(text.len(), repaired)
    }
}

#[cfg(test)]
mod tests;
