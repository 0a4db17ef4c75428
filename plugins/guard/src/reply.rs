//! Rules on a reply, over the window's text.

use tidegate_plugin::json;
use tidegate_plugin::window::{Held, Kind, Scan, Step};

use crate::rules::Rules;
use crate::{MASKED, REFUSED};

/// Watches a reply.
pub struct Watch<'g> {
    pub rules: &'g Rules,
    pub kinds: &'g [Kind],
    pub window: usize,
}

impl Scan for Watch<'_> {
    fn reads(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    fn scan(&mut self, held: Held) -> Step {
        let step = if held.kind == Kind::Arguments { self.arguments(held) } else { self.text(held) };
        match &step {
            Step::Replace(..) => MASKED.count_as("reply"),
            Step::Refuse(_) => REFUSED.count_as("reply"),
            Step::Keep(_) => {}
        }
        step
    }
}

impl Watch<'_> {
    fn text(&self, held: Held) -> Step {
        match self.rules.look(held.text, held.from, held.last, self.window) {
            Err(refusal) => Step::Refuse(refusal),
            Ok(look) => match look.masked {
                Some(text) => Step::Replace(look.until - held.from, text),
                None => Step::Keep(look.until - held.from),
            },
        }
    }

    /// Arguments are JSON text and must stay so: their strings are read, once all of them are there.
    fn arguments(&self, held: Held) -> Step {
        if !held.last {
            return Step::Keep(0);
        }
        let mut refusal = None;
        let masked = json::edit_strings(held.rest(), |text| match self.rules.rewrite(text) {
            Ok(masked) => masked,
            Err(found) => {
                refusal.get_or_insert(found);
                None
            }
        });
        match (refusal, masked) {
            (Some(refusal), _) => Step::Refuse(refusal),
            (None, Some(text)) => Step::Replace(held.rest().len(), text),
            (None, None) => Step::Keep(held.rest().len()),
        }
    }
}
