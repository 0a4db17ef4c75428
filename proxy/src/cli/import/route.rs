//! What LiteLLM's router is told: how to choose, other names, fallbacks.

use super::draft::{Draft, Model, Times};
use super::section::{Section, Step};
use serde_json::Value;

/// What holds for all models.
pub(super) struct Defaults {
    pub policy: &'static str,
    pub retries: Option<u64>,
    pub times: Times,
}

impl Defaults {
    /// `router_settings` come before `litellm_settings`.
    pub fn read(router: &mut Section, settings: &mut Section) -> Self {
        let total = router.seconds("timeout");
        let general = settings.seconds("request_timeout");
        if total.is_some() && general.is_some() {
            settings.note("request_timeout", "`router_settings.timeout` counts");
        }
        let first_token = router.seconds("stream_timeout");
        let retries = router.whole("num_retries");
        let more = settings.whole("num_retries");
        if retries.is_some() && more.is_some() {
            settings.note("num_retries", "`router_settings.num_retries` counts");
        }
        let times = Times { total: total.or(general), first_token };
        Self { policy: policy(router), retries: retries.or(more), times }
    }
}

fn policy(router: &mut Section) -> &'static str {
    let strategy = router.text("routing_strategy");
    let why = match strategy.as_deref() {
        None | Some("simple-shuffle") => return "weighted",
        Some("least-busy" | "latency-based-routing") => return "least_load",
        Some("usage-based-routing" | "usage-based-routing-v2") => {
            "tokens and requests a minute are not counted: `least_load` goes by load and by time to first token"
        }
        Some(_) => "there is no such policy: `least_load` goes by load and by time to first token",
    };
    router.note("routing_strategy", why);
    "least_load"
}

impl Times {
    /// Those of the two that let a request take longer.
    pub fn longer(self, other: Self) -> Self {
        let longer = |one: Option<f64>, other: Option<f64>| Some(one?.max(other?));
        Self { total: longer(self.total, other.total), first_token: longer(self.first_token, other.first_token) }
    }
}

/// Shares of `weight`, `rpm` and `tpm`: the first of them that the first deployment has counts for all (LiteLLM's
/// `simple_shuffle.py`). 0: it would not be chosen.
pub(super) fn weights(of: &[[Option<f64>; 3]]) -> Vec<u64> {
    let Some(by) = of.first().and_then(|first| first.iter().position(Option::is_some)) else {
        return vec![1; of.len()];
    };
    let raw: Vec<f64> = of.iter().map(|weights| weights[by].unwrap_or(0.0)).collect();
    let is_whole = |scale: &f64| raw.iter().all(|weight| (weight * scale - (weight * scale).round()).abs() < 1e-6);
    let scale = [1.0, 10.0, 100.0, 1e3, 1e4].into_iter().find(is_whole).unwrap_or(1e4);
    let whole: Vec<u64> = raw.iter().map(|weight| (weight * scale).round() as u64).collect();
    let common = whole.iter().copied().fold(0, divisor).max(1);
    whole.iter().map(|weight| (weight / common).min(u64::from(u32::MAX))).collect()
}

/// The greatest that divides both.
fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// `model_group_alias`: other names, which Tidegate knows as models with the same targets.
pub(super) fn aliases(router: &mut Section, draft: &mut Draft) {
    let mut aliases = router.section("model_group_alias");
    for alias in aliases.keys() {
        let (name, hidden) = match aliases.take(&alias) {
            Some(Value::String(name)) => (name, false),
            Some(Value::Object(of)) => match of.get("model").and_then(Value::as_str) {
                Some(name) => (name.to_owned(), of.get("hidden").and_then(Value::as_bool) == Some(true)),
                None => {
                    aliases.note(&alias, "it names no model");
                    continue;
                }
            },
            _ => {
                aliases.note(&alias, "it names no model");
                continue;
            }
        };
        if hidden {
            aliases.note(&alias, "a model with a name of its own is listed: it cannot be hidden");
        }
        let is_there = draft.has(&alias);
        let Some(model) = draft.models.iter().find(|model| model.name == name && !is_there && !name.contains('*'))
        else {
            let why =
                if is_there { "there is a model of this name" } else { "there is no model of the name it stands for" };
            aliases.note(&alias, why);
            continue;
        };
        let mut model = Model { name: alias.clone(), of: Some(name.clone()), notes: Vec::new(), ..model.clone() };
        for target in &mut model.targets {
            target.model.get_or_insert_with(|| name.clone());
        }
        draft.models.push(model);
    }
    draft.notes.extend(aliases.close(|_| "it is not understood"));
}

/// `fallbacks` and `default_fallbacks`, of either section.
pub(super) fn fallbacks(router: &mut Section, settings: &mut Section, draft: &mut Draft) {
    let mut usual = Vec::new();
    for section in [router, settings] {
        for (at, item) in section.list("fallbacks").into_iter().enumerate() {
            let Value::Object(of) = item else {
                section.note("fallbacks", "a list of mappings, each from a model to others, is expected here");
                continue;
            };
            for (name, others) in of {
                let place = [Step::Key("fallbacks".into()), Step::Item(at), Step::Key(name.clone())];
                let others = names(section, &place, others);
                if name == "*" {
                    usual.extend(others.into_iter().map(|other| (place.to_vec(), other)));
                    continue;
                }
                let of_it = |model: &Model| *model.of.as_ref().unwrap_or(&model.name) == name;
                if !draft.models.iter().any(of_it) {
                    section.note_at(&place, "there is no model of this name");
                }
                for other in others {
                    if !add(draft, &other, of_it) {
                        section.note_at(&place, format!("there is no model `{other}` to fall back to"));
                    }
                }
            }
        }
        let place = [Step::Key("default_fallbacks".into())];
        let others = section.take("default_fallbacks").unwrap_or_default();
        let others = if others.is_null() { Vec::new() } else { names(section, &place, others) };
        usual.extend(others.into_iter().map(|other| (place.to_vec(), other)));
        // Those of the router stand before; what is the same is there already.
        for (place, other) in &usual {
            if !draft.has(other) {
                section.note_at(place, format!("there is no model `{other}` to fall back to"));
            }
        }
        usual.retain(|(_, other)| draft.has(other));
    }
    let bare: Vec<String> =
        draft.models.iter().filter(|it| it.fallbacks.is_empty()).map(|it| it.name.clone()).collect();
    for (_, other) in usual {
        add(draft, &other, |model| bare.contains(&model.name));
    }
}

/// Adds a fallback to these models, if there is a model of its name. None falls back to itself.
fn add(draft: &mut Draft, other: &str, to: impl Fn(&Model) -> bool) -> bool {
    let is_there = draft.has(other);
    let of = draft.models.iter().find(|model| model.name == other).and_then(|model| model.of.clone());
    for model in draft.models.iter_mut().filter(|model| is_there && to(model)) {
        let is_itself = model.name == other || model.of.as_deref() == Some(other) || of.as_ref() == Some(&model.name);
        if !is_itself && !model.fallbacks.iter().any(|name| name == other) {
            model.fallbacks.push(other.to_owned());
        }
    }
    is_there
}

/// The names in a list; what is said of them besides is noted.
fn names(section: &mut Section, place: &[Step], list: Value) -> Vec<String> {
    let Value::Array(items) = list else {
        section.note_at(place, "a list of names is expected here");
        return Vec::new();
    };
    let mut names = Vec::new();
    for item in items {
        match item {
            Value::String(name) => names.push(name),
            _ => section.note_at(place, "only names can be fallen back to, not parameters"),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_are_whole_and_small() {
        let weighed = |weights: &[Option<f64>]| {
            super::weights(&weights.iter().map(|weight| [None, *weight, None]).collect::<Vec<_>>())
        };
        for (given, expect) in [
            (&[Some(600.0), Some(200.0)][..], vec![3, 1]),
            (&[Some(0.9), Some(0.1)][..], vec![9, 1]),
            (&[Some(0.25), Some(0.75)][..], vec![1, 3]),
            (&[Some(2.0), None, Some(0.0)][..], vec![1, 0, 0]),
            (&[None, Some(7.0)][..], vec![1, 1]),
            (&[Some(0.0)][..], vec![0]),
        ] {
            assert_eq!(weighed(given), expect, "{given:?}");
        }
        assert_eq!(super::weights(&[[None, Some(5.0), Some(1.0)], [Some(1.0), Some(10.0), None]]), [1, 2]);
    }
}
