//! Instructions and parameters by organization, project, model or endpoint.

mod parameters;
mod prompt;

use tidegate_plugin::names::Names;
use tidegate_plugin::prelude::*;

use crate::parameters::{Limits, Name, Values};
use crate::prompt::Prompt;

const CHANGED: Metric = Metric::counter("changed", "Calls changed.");

/// The plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decorate {
    rules: Vec<Rule>,
}

/// What is done to the calls that fit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Rule {
    organizations: Names,
    projects: Names,
    models: Names,
    endpoints: Names,
    prepend: Option<Prompt>,
    append: Option<Prompt>,
    defaults: Values,
    overrides: Values,
    limits: Limits,
    remove: Vec<Name>,
}

impl Plugin for Decorate {
    type Exchange = ();
    const HOOKS: Hooks = Hooks::ON_CALL;
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[CHANGED];

    fn on_call(&self, call: &Call, _: &mut ()) -> Verdict {
        let mut changed = false;
        for rule in self.rules.iter().filter(|rule| rule.fits(call)) {
            changed |= rule.apply(call);
        }
        if !changed {
            return Verdict::Pass;
        }
        CHANGED.count();
        Verdict::Change
    }
}
tidegate_plugin::export!(Decorate);

impl Rule {
    fn fits(&self, call: &Call) -> bool {
        let caller = request::caller();
        self.organizations.choose(&caller.organization)
            && self.projects.choose(&caller.project)
            && self.models.choose(&call.model())
            && self.endpoints.choose(&request::endpoint())
    }

    /// Answers whether it changed anything.
    fn apply(&self, call: &Call) -> bool {
        if let Some(prompt) = &self.prepend {
            call.prepend_system(&prompt.fill(call));
        }
        if let Some(prompt) = &self.append {
            call.append_system(&prompt.fill(call));
        }
        // Reading the parameters reads the whole call: not for a rule that has none.
        let said = self.defaults != Values::default() || self.overrides != Values::default();
        let changed = (said || self.limits != Limits::default() || !self.remove.is_empty())
            && call.edit_parameters(|parameters| {
                self.remove.iter().for_each(|name| name.remove(parameters));
                self.defaults.fill(parameters);
                self.overrides.set(parameters);
                self.limits.cut(parameters);
            });
        changed || self.prepend.is_some() || self.append.is_some()
    }
}

#[cfg(test)]
mod tests;
