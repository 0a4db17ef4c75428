//! Personal data leaves as placeholders (`<EMAIL_1>`) and comes back restored, wherever the reply is cut into chunks.
//!
//! Within one request the same value has the same placeholder, numbered in order of appearance: a conversation that grows by a
//! turn keeps the numbers of the turns before, and with them the backend's prompt cache.

mod config;
mod find;
mod restore;
mod vault;

use tidegate_plugin::json;
use tidegate_plugin::prelude::*;
use tidegate_plugin::window::Window;
use tidegate_plugin::{Opaque, PassageKind};

use crate::config::Config;
use crate::find::Finder;
use crate::restore::{Kinds, Restore};
use crate::vault::Vault;

const REDACTED: Metric = Metric::counter("redacted", "Values replaced in calls.").label("kind", find::KINDS);
const RESTORED: Metric = Metric::counter("restored", "Placeholders put back in replies.");

/// The plugin.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Redact {
    finder: Finder,
    /// Placeholders have numbers, and so a way back.
    numbered: bool,
    restore_in: Kinds,
    refuse_parts: Vec<Opaque>,
}

/// What was replaced in a request, and the reply's text that may hold a part of a placeholder.
#[derive(Default)]
struct Memory {
    vault: Vault,
    window: Window,
}

/// How many values of each kind were replaced: told to the gateway once a call.
type Counts = [u32; find::KINDS.len()];

impl Plugin for Redact {
    type Exchange = Memory;
    const HOOKS: Hooks = Hooks::ON_CALL.union(Hooks::ON_EVENTS);
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[REDACTED, RESTORED];

    fn hooks(&self) -> Hooks {
        if self.restore_in.is_empty() { Hooks::ON_CALL } else { Self::HOOKS }
    }

    fn events(&self) -> Interests {
        self.restore_in.interests()
    }

    fn on_call(&self, call: &Call, memory: &mut Memory) -> Verdict {
        if let Some(part) = Opaque::first_in(call, &self.refuse_parts) {
            return Verdict::refuse("unreadable_part", format!("This gateway lets no {} pass unread.", part.words()));
        }
        let passages = call.texts(0);
        for passage in &passages {
            memory.vault.reserve(&passage.text);
        }
        let mut counts = Counts::default();
        let mut changed = false;
        for passage in passages {
            let redacted = match passage.kind {
                // JSON text, and must stay so: only what its strings say is looked at.
                PassageKind::Arguments => {
                    json::edit_strings(&passage.text, |text| self.redact(text, &mut memory.vault, &mut counts))
                }
                _ => self.redact(&passage.text, &mut memory.vault, &mut counts),
            };
            if let Some(text) = redacted {
                call.set_text(passage.place, &text);
                changed = true;
            }
        }
        for (kind, count) in find::KINDS.iter().zip(counts).filter(|(_, count)| *count > 0) {
            REDACTED.add(kind, f64::from(count));
        }
        if !changed {
            call.ignore_reply();
            return Verdict::Pass;
        }
        Verdict::Change
    }

    fn on_events(&self, memory: &mut Memory, events: Vec<Event>) -> Rewrite {
        let mut restore = Restore { vault: &memory.vault, kinds: self.restore_in };
        memory.window.rewrite(events, &mut restore)
    }
}
tidegate_plugin::export!(Redact);

impl Redact {
    /// The text with placeholders; `None` if there is nothing to replace.
    fn redact(&self, text: &str, vault: &mut Vault, counts: &mut Counts) -> Option<String> {
        let found = self.finder.find(text);
        let mut out = String::with_capacity(text.len());
        let mut kept = 0;
        for hit in &found {
            out.push_str(&text[kept..hit.start]);
            let label = self.finder.label(hit.kind);
            match self.numbered {
                true => out.push_str(vault.placeholder(label, &text[hit.start..hit.end])),
                false => out.extend(["<", label, ">"]),
            }
            kept = hit.end;
            counts[hit.kind.index()] += 1;
        }
        out.push_str(&text[kept..]);
        (!found.is_empty()).then_some(out)
    }
}

#[cfg(test)]
mod tests;
