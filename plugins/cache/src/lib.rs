//! The same call gets the same answer, from memory.
//!
//! "The same" is decided by what a model would see, not by how a client wrote it; and by who asks: organization and project are
//! part of the key, beside what the gateway does to keep tenants apart. Only replies that came to their own end are kept.

mod key;

use tidegate_plugin::names::Names;
use tidegate_plugin::prelude::*;
use tidegate_plugin::{Outcome, StopReason, kv, serde_json};

use crate::key::Per;

const LOOKUPS: Metric =
    Metric::counter("lookups", "Calls looked up.").label("outcome", &["hit", "miss", "skipped", "failed"]);
const STORES: Metric = Metric::counter("stores", "Replies that could have been kept.")
    .label("outcome", &["kept", "too_large", "incomplete", "failed"]);

/// The plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cache {
    ttl: u32,
    max_bytes: usize,
    max_temperature: f64,
    explicit_temperature: bool,
    tools: bool,
    models: Names,
    per: Per,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            ttl: 3600,
            max_bytes: 64 << 10,
            max_temperature: 0.0,
            explicit_temperature: false,
            tools: false,
            models: Names::default(),
            per: Per::Project,
        }
    }
}

/// A reply that may be kept.
#[derive(Default)]
struct Memory {
    key: String,
    reply: Reply,
    /// Bytes of it so far, about.
    bytes: usize,
}

impl Plugin for Cache {
    type Exchange = Memory;
    const HOOKS: Hooks = Hooks::all();
    const EVENTS: Interests = Interests::all();
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[LOOKUPS, STORES];

    fn on_call(&self, call: &Call, memory: &mut Memory) -> Verdict {
        if !self.wants(call) {
            LOOKUPS.count_as("skipped");
            call.ignore_reply();
            return Verdict::Pass;
        }
        memory.key = key::of(call, self.per);
        if header_says("no-cache") {
            // The client wants it fresh, and kept.
            LOOKUPS.count_as("miss");
            return Verdict::Pass;
        }
        match kv::get(&memory.key) {
            Ok(None) => LOOKUPS.count_as("miss"),
            Ok(Some(kept)) => match serde_json::from_slice::<Reply>(&kept) {
                Ok(reply) => {
                    LOOKUPS.count_as("hit");
                    request::tag("cache_hit");
                    call.ignore_reply();
                    return Verdict::Respond(reply.into_events());
                }
                // Kept by another version of this plugin: it will be overwritten.
                Err(_) => LOOKUPS.count_as("miss"),
            },
            Err(error) => {
                LOOKUPS.count_as("failed");
                log::warn("the cache cannot be read", &[("error", &error)]);
                call.ignore_reply();
            }
        }
        Verdict::Pass
    }

    fn on_events(&self, memory: &mut Memory, events: Vec<Event>) -> Rewrite {
        for event in events {
            memory.bytes += size(&event);
            // What is too large already need not be gathered.
            if memory.bytes <= self.max_bytes || event.is_end() {
                memory.reply.fold(&event);
            }
        }
        Rewrite::Pass
    }

    fn on_end(&self, memory: Memory, end: End) {
        STORES.count_as(self.store(memory, &end));
    }
}
tidegate_plugin::export!(Cache);

impl Cache {
    fn wants(&self, call: &Call) -> bool {
        if !self.models.choose(&call.model()) || header_says("no-store") {
            return false;
        }
        // Not a conversation (embeddings, speech): the key would not say what is asked.
        if call.turn_count() == 0 {
            return false;
        }
        let parameters = call.parameters();
        let calm = match parameters.temperature {
            Some(temperature) => temperature <= self.max_temperature,
            None => !self.explicit_temperature,
        };
        calm && !call.asks_for_several() && (self.tools || call.tools().is_empty())
    }

    /// Keeps a reply, and says what came of it.
    fn store(&self, memory: Memory, end: &End) -> &'static str {
        let Memory { key, mut reply, bytes } = memory;
        let ended = matches!(reply.stop, Some(StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::ToolUse));
        // A part that only one dialect can say cannot be told to a client of another.
        let foreign = reply.parts.iter().any(|piece| matches!(piece.part, Part::Other(_) | Part::RedactedThinking(_)));
        if end.outcome != Outcome::Ok || !ended || foreign {
            return "incomplete";
        }
        if bytes > self.max_bytes {
            return "too_large";
        }
        // The next reply is another one: its id is not this one's.
        if let Some(start) = &mut reply.start {
            start.id = None;
        }
        let Ok(text) = serde_json::to_vec(&reply) else { return "failed" };
        match kv::set(&key, &text, Some(self.ttl)) {
            Ok(()) => "kept",
            Err(tidegate_plugin::Error::TooLarge) => "too_large",
            Err(error) => {
                log::warn("the cache cannot be written", &[("error", &error)]);
                "failed"
            }
        }
    }
}

/// What the client says in `cache-control`.
fn header_says(word: &str) -> bool {
    request::header("cache-control")
        .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
}

/// About what an event takes when it is kept.
fn size(event: &Event) -> usize {
    match event {
        Event::Delta(
            Delta::Text(text)
            | Delta::Thinking(text)
            | Delta::Signature(text)
            | Delta::Arguments(text)
            | Delta::Citation(text),
        ) => text.len(),
        Event::Open(Part::ToolCall(head)) => head.id.len() + head.name.len() + 64,
        _ => 64,
    }
}

#[cfg(test)]
mod tests;
