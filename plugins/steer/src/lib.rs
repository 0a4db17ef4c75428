//! Sends a call to a model or backend by what it is and says. Rules in order, the first that fits decides.

mod config;
mod rule;
mod script;

use tidegate_plugin::Destination;
use tidegate_plugin::prelude::*;

use crate::config::Config;
use crate::rule::Rule;

const ROUTED: Metric = Metric::counter("routed", "Calls sent elsewhere.");

/// The plugin.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Steer {
    rules: Vec<Rule>,
}

impl Plugin for Steer {
    type Exchange = ();
    const HOOKS: Hooks = Hooks::ON_CALL;
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[ROUTED];

    fn on_call(&self, call: &Call, _: &mut ()) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(call)) else { return Verdict::Pass };
        // A rule without a destination keeps calls from the rules below it.
        if rule.destination == (Destination { model: None, backend: None }) {
            return Verdict::Pass;
        }
        ROUTED.count();
        request::tag(&rule.tag);
        Verdict::Route(rule.destination.clone())
    }
}
tidegate_plugin::export!(Steer);

#[cfg(test)]
mod tests;
