//! Refuses calls and holds back replies that break its rules.
//!
//! Rules are phrases or patterns; another model may be asked about calls, too. On a stream nothing of a refused text leaves: a phrase is held from its first word, and where
//! there are patterns, the last `window` bytes are held at any time.

mod config;
mod injection;
mod judge;
mod reply;
mod rules;

use tidegate_plugin::prelude::*;
use tidegate_plugin::window::{Kind, Window};
use tidegate_plugin::{Opaque, Passage, PassageKind, json};

use crate::config::{Config, Reader};
use crate::judge::{JUDGED, Judge, Read};
use crate::reply::Watch;
use crate::rules::{Action, Rules};

const REFUSED: Metric = Metric::counter("refused", "Calls and replies refused.").label("side", &["call", "reply"]);
const MASKED: Metric = Metric::counter("masked", "Texts masked.").label("side", &["call", "reply"]);

/// The plugin.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Guard {
    on_calls: Rules,
    on_replies: Rules,
    readers: Vec<Reader>,
    kinds: Vec<Kind>,
    window: usize,
    refuse_parts: Vec<Opaque>,
    judge: Option<Judge>,
}

impl Plugin for Guard {
    type Exchange = Window;
    const HOOKS: Hooks = Hooks::ON_CALL.union(Hooks::ON_EVENTS);
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[REFUSED, MASKED, JUDGED];

    fn hooks(&self) -> Hooks {
        let mut hooks = Hooks::empty();
        let judges = self.judge.is_some() || !self.refuse_parts.is_empty();
        hooks.set(Hooks::ON_CALL, judges || !self.on_calls.is_empty() || self.reads_replies());
        hooks.set(Hooks::ON_EVENTS, self.reads_replies());
        hooks
    }

    fn events(&self) -> Interests {
        self.kinds.iter().fold(Interests::empty(), |all, kind| {
            all | match kind {
                Kind::Text => Interests::TEXT,
                Kind::Thinking => Interests::THINKING,
                Kind::Refusal => Interests::REFUSAL,
                Kind::Arguments => Interests::TOOL_CALLS,
            }
        })
    }

    fn on_call(&self, call: &Call, _: &mut Window) -> Verdict {
        if let Some(part) = Opaque::first_in(call, &self.refuse_parts) {
            REFUSED.count_as("call");
            return Verdict::refuse("unreadable_part", format!("This gateway lets no {} pass unread.", part.words()));
        }
        if self.reads_replies() && call.asks_for_several() {
            REFUSED.count_as("call");
            let message = "This gateway reads what is replied, and of several replies only the first: ask for one.";
            return Verdict::Refuse(Refusal::new("several_replies", message).status(400));
        }
        if self.judge.is_none() && self.on_calls.is_empty() {
            return Verdict::Pass;
        }
        let (mut masked, mut shown) = (0, Vec::new());
        for passage in call.texts(0) {
            if passage.role == Role::Assistant && self.judge.as_ref().is_some_and(|judge| judge.read == Read::Last) {
                shown.clear();
            }
            if !self.readers.iter().any(|reader| reader.reads(&passage)) {
                continue;
            }
            match self.look(&passage) {
                Ok(None) => shown.push(passage.text),
                Ok(Some(text)) => {
                    call.set_text(passage.place, &text);
                    shown.push(text);
                    masked += 1;
                }
                Err(refusal) => {
                    REFUSED.count_as("call");
                    return Verdict::Refuse(refusal);
                }
            }
        }
        // Last, because it costs most; and so it is shown what the model will be shown.
        if let Some(refusal) = self.judge.as_ref().and_then(|judge| judge.ask(&shown)) {
            REFUSED.count_as("call");
            return Verdict::Refuse(refusal);
        }
        if masked == 0 {
            return Verdict::Pass;
        }
        MASKED.add("call", f64::from(masked));
        Verdict::Change
    }

    fn on_events(&self, window: &mut Window, events: Vec<Event>) -> Rewrite {
        window.rewrite(events, &mut Watch { rules: &self.on_replies, kinds: &self.kinds, window: self.window })
    }
}
tidegate_plugin::export!(Guard);

impl Guard {
    fn reads_replies(&self) -> bool {
        !self.on_replies.is_empty() && !self.kinds.is_empty()
    }

    /// The text of a passage with what is masked in it, if anything is.
    fn look(&self, passage: &Passage) -> Result<Option<String>, Refusal> {
        let mut refusal = None;
        let mut look = |text: &str| match self.on_calls.rewrite(text) {
            Ok(masked) => masked,
            Err(found) => {
                refusal.get_or_insert(found);
                None
            }
        };
        let masked = match passage.kind {
            PassageKind::Arguments => json::edit_strings(&passage.text, look),
            _ => look(&passage.text),
        };
        refusal.map_or(Ok(masked), Err)
    }
}

#[cfg(test)]
mod tests;
