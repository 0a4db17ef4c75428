//! From what LiteLLM's `config.yaml` says to what Tidegate would be told.

use super::draft::{Draft, Key, Model, Price, Taken, Target, Times};
use super::provider::{self, Base, OPENAI};
use super::route::{self, Defaults};
use super::section::{ENVIRONMENT, Note, Section, Step};
use super::why;
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads it. Everything that is not carried over is among the notes of what comes out.
///
/// # Errors
/// This is no such configuration, and where not.
pub(super) fn read(tree: Value, taken: Taken) -> Result<Draft, Vec<Note>> {
    let mut top = Section::of(Vec::new(), tree).map_err(|note| vec![note])?;
    let list = top.list("model_list");
    if list.is_empty() {
        let why = "it is missing or empty: this is no configuration of LiteLLM's proxy with models in it";
        return Err(vec![Note { place: top.at("model_list"), why: why.into() }]);
    }
    let (mut router, mut settings) = (top.section("router_settings"), top.section("litellm_settings"));
    let (general, mut variables) = (top.section("general_settings"), top.section("environment_variables"));
    let defaults = Defaults::read(&mut router, &mut settings);
    let credentials = credentials(&mut top);
    let draft = Draft { taken, ..Draft::default() };
    let mut reading = Reading { draft, defaults, credentials, groups: Vec::new(), wrong: Vec::new() };
    for (at, entry) in list.into_iter().enumerate() {
        reading.deployment(at, entry);
    }
    if !reading.wrong.is_empty() {
        return Err(reading.wrong);
    }
    let Reading { mut draft, defaults, groups, .. } = reading;
    for group in groups {
        group.settle(&defaults, &mut draft);
    }
    route::aliases(&mut router, &mut draft);
    route::fallbacks(&mut router, &mut settings, &mut draft);
    for name in variables.keys() {
        variables.take(&name);
        variables.note(&name, "set it where Tidegate runs; its value stays where it is");
    }
    draft.notes.extend(top.close(|key| why::of("", key)));
    for (name, section) in [
        ("general_settings", general),
        ("litellm_settings", settings),
        ("router_settings", router),
        ("environment_variables", variables),
    ] {
        draft.notes.extend(section.close(|key| why::of(name, key)));
    }
    Ok(draft)
}

/// `credential_list`: parameters that several models share, by name.
fn credentials(top: &mut Section) -> BTreeMap<String, Value> {
    let items = top.list("credential_list").into_iter();
    let named = items.filter_map(|mut item| {
        let name = item.get("credential_name")?.as_str()?.to_owned();
        Some((name, item.get_mut("credential_values")?.take()))
    });
    named.collect()
}

struct Reading {
    draft: Draft,
    defaults: Defaults,
    credentials: BTreeMap<String, Value>,
    /// By name, in the order of the file.
    groups: Vec<Group>,
    wrong: Vec<Note>,
}

/// All deployments of one name.
struct Group {
    name: String,
    place: Vec<Step>,
    deployments: Vec<Deployment>,
    notes: Vec<Note>,
}

/// One entry of `model_list` that has a target.
struct Deployment {
    /// Of its `litellm_params`.
    place: Vec<Step>,
    backend: usize,
    model: Option<String>,
    order: Option<u64>,
    /// `weight`, `rpm`, `tpm`: the first of them that a model's first deployment has weighs all of them.
    weights: [Option<f64>; 3],
    retries: Option<u64>,
    price: Option<Price>,
    max_output: Option<u64>,
}

impl Reading {
    fn deployment(&mut self, at: usize, entry: Value) {
        let place = vec![Step::Key("model_list".into()), Step::Item(at)];
        let mut entry = match Section::of(place, entry) {
            Ok(entry) => entry,
            Err(note) => return self.wrong.push(note),
        };
        let name = entry.text("model_name");
        let (mut params, mut info) = (entry.section("litellm_params"), entry.section("model_info"));
        let model = params.text("model");
        let (Some(name), Some(model)) = (&name, &model) else {
            let place = if name.is_none() { entry.at("model_name") } else { params.at("model") };
            return self.wrong.push(Note { place, why: "it is missing".into() });
        };
        if let Some(credential) = params.text("litellm_credential_name") {
            match self.credentials.get(&credential).cloned().map(|values| params.fill(values)) {
                Some(true) => {}
                _ => params.note("litellm_credential_name", "there are no such `credential_values` in the file"),
            }
        }
        let target = self.target(name, model, &mut params);
        let weights = ["weight", "rpm", "tpm"].map(|key| params.number(key));
        for (key, _) in ["rpm", "tpm"].into_iter().zip(&weights[1..]).filter(|(_, limit)| limit.is_some()) {
            params.note(
                key,
                "limits of backends are not available in this version; where no `weight` is, it weighs targets",
            );
        }
        let (order, order_there) = (params.whole("order"), info.whole("order"));
        let (retries, more) = (params.whole("num_retries"), params.whole("max_retries"));
        let price = price(&mut params, &mut info);
        let (most, most_tokens) = (info.whole("max_output_tokens"), info.whole("max_tokens"));
        // Which path of the API a model serves, clients say themselves.
        info.text("mode");
        let place = params.place().to_vec();
        let mut notes = entry.close(|key| why::of("model_list", key));
        notes.extend(params.close(|key| why::of("litellm_params", key)));
        notes.extend(info.close(|key| why::of("model_info", key)));
        let at = self.groups.iter().position(|group| group.name == *name).unwrap_or_else(|| {
            let (deployments, notes) = (Vec::new(), Vec::new());
            self.groups.push(Group { name: name.clone(), place: place.clone(), deployments, notes });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.notes.extend(notes);
        if let Some((backend, model)) = target {
            group.deployments.push(Deployment {
                place,
                backend,
                model,
                order: order.or(order_there),
                weights,
                retries: retries.or(more),
                price,
                max_output: most.or(most_tokens),
            });
        }
    }

    /// Its backend, and the model's name there where that is another.
    fn target(&mut self, name: &str, model: &str, params: &mut Section) -> Option<(usize, Option<String>)> {
        let custom = params.text("custom_llm_provider");
        let key = key(params);
        let (address, other) = (params.text("api_base"), params.text("base_url"));
        let given = Times { total: params.seconds("timeout"), first_token: params.seconds("stream_timeout") };
        let times = Times {
            total: given.total.or(self.defaults.times.total),
            first_token: given.first_token.or(self.defaults.times.first_token),
        };
        let found = provider::split(model, custom.as_deref()).and_then(|(provider, there)| {
            let there = renamed(name, there)?;
            Ok((provider, there))
        });
        let (provider, there) = match found {
            Ok(found) => found,
            Err(why) => {
                params.note("model", why);
                return None;
            }
        };
        let address = address.or(other);
        let variable = address.as_deref().and_then(|address| address.strip_prefix(ENVIRONMENT)).map(str::to_owned);
        let base = match (&variable, &address, provider.url) {
            (Some(variable), ..) => Ok(Base::unknown(variable)),
            (None, Some(address), _) => provider::base(address),
            (None, None, Some(url)) => Ok(Base::of(url)),
            (None, None, None) => Err(format!("it is missing: nobody knows where `{model}` is")),
        };
        let base = match base {
            Ok(base) => base,
            Err(why) => {
                params.note("api_base", why);
                return None;
            }
        };
        if base.cut {
            params.note("api_base", "what is in front of its host, or behind its path, is left out: it may be secret");
        }
        let is_own = provider.url == Some(&*base.url);
        let secret = key.as_ref().is_some_and(|key| matches!(key, Key::Secret(_)));
        let usual = provider.variable.filter(|_| is_own).map(|name| Key::Variable(name.to_owned()));
        let at = self.draft.backend(provider, &base.url, key.or(usual), times);
        let backend = &mut self.draft.backends[at];
        if secret {
            let to_set = backend.variable().unwrap_or_default();
            let why = format!("a secret does not belong into a configuration: set the variable {to_set} to it");
            params.note("api_key", why);
        }
        if let Some(variable) = variable {
            let name = backend.name.to_ascii_uppercase();
            let why = format!(
                "the address is in the variable {variable}: write it here, or set TIDEGATE_BACKENDS__{name}__URL"
            );
            params.note("api_base", why);
        } else if provider.kind == "openai" && base.url != OPENAI && !base.versioned && !is_own {
            backend.hint("LiteLLM asks this address without /v1, Tidegate with it; not all servers mind.".into());
        }
        if backend.times.total.is_some() && backend.times.first_token.is_some() {
            backend.hint("`total` bounds streams, too: raise it where they are long.".into());
        }
        if backend.times != times {
            backend.times = backend.times.longer(times);
            let key = if given.total.is_some() { "timeout" } else { "stream_timeout" };
            params.note(key, "limits of time are of a backend, and its models differ: the longer ones are taken");
        }
        Some((at, there))
    }
}

/// The key that is to be sent there. Some servers want any, and their documentation says which.
fn key(params: &mut Section) -> Option<Key> {
    let key = params.text("api_key")?;
    let none = ["", "none", "empty"].iter().any(|word| key.eq_ignore_ascii_case(word));
    match key.strip_prefix(ENVIRONMENT) {
        _ if none => None,
        Some(variable) => Some(Key::Variable(variable.to_owned())),
        None => Some(Key::Secret(key)),
    }
}

/// The model's name at its target, where clients call it something else. A pattern hands on what it was asked for.
fn renamed(name: &str, there: &str) -> Result<Option<String>, String> {
    match (name.matches('*').count(), there.contains('*')) {
        (0 | 1, _) if name == there => Ok(None),
        (0 | 1, false) => Ok(Some(there.to_owned())),
        (1, true) => Err(format!(
            "a pattern hands on the name it was asked for, and does not make `{there}` of `{name}`: call the model `{there}`, \
             and have clients do so"
        )),
        (0, true) => Err(format!("clients ask for `{name}`, and `{there}` does not say for what that stands")),
        _ => Err("a pattern may have one `*`".into()),
    }
}

/// What its tokens cost, in either place.
fn price(params: &mut Section, info: &mut Section) -> Option<Price> {
    let mut cost = |key: &str| {
        let (here, there) = (params.number(key), info.number(key));
        here.or(there)
    };
    let price = Price {
        input: cost("input_cost_per_token"),
        output: cost("output_cost_per_token"),
        cache_read: cost("cache_read_input_token_cost"),
        cache_write: cost("cache_creation_input_token_cost"),
    };
    let costs = [price.input, price.output, price.cache_read, price.cache_write];
    costs.iter().any(Option::is_some).then_some(price)
}

impl Group {
    /// Makes a model of it, or says why there is none.
    fn settle(mut self, defaults: &Defaults, draft: &mut Draft) {
        let is_taken = draft.taken.models.contains(&self.name);
        if is_taken || self.deployments.is_empty() {
            let mut place = self.place.clone();
            place.push(Step::Key("model".into()));
            let why =
                if is_taken { "the configuration has it already: left out" } else { "nothing is left that serves it" };
            self.notes.push(Note { place, why: format!("model `{}`: {why}", self.name) });
            return draft.notes.append(&mut self.notes);
        }
        let targets = self.targets();
        let price = self.agreed("input_cost_per_token", |deployment| deployment.price);
        let max_output = self.agreed("max_output_tokens", |deployment| deployment.max_output);
        let retries = self.agreed("num_retries", |deployment| deployment.retries).or(defaults.retries);
        draft.models.push(Model {
            name: self.name,
            of: None,
            targets,
            policy: defaults.policy,
            retries,
            fallbacks: Vec::new(),
            price,
            max_output,
            notes: self.notes,
        });
    }

    fn targets(&mut self) -> Vec<Target> {
        let weights = route::weights(&self.deployments.iter().map(|it| it.weights).collect::<Vec<_>>());
        // What has no order is not asked while something has one.
        let last = self.deployments.iter().filter_map(|it| it.order).max();
        let priority = |order: Option<u64>| order.unwrap_or_else(|| last.map_or(0, |last| last + 1));
        let behind = self.deployments.iter().map(|it| priority(it.order)).max().unwrap_or(0) + 1;
        let mut targets = Vec::new();
        for (deployment, weight) in self.deployments.iter().zip(weights) {
            if weight == 0 {
                let mut place = deployment.place.clone();
                place.push(Step::Key("weight".into()));
                let why = "LiteLLM never chooses what weighs nothing beside others: here it is tried after them";
                self.notes.push(Note { place, why: why.into() });
            }
            targets.push(Target {
                backend: deployment.backend,
                model: deployment.model.clone(),
                weight: weight.max(1),
                priority: if weight == 0 { behind } else { priority(deployment.order) },
            });
        }
        targets
    }

    /// What the first deployment that says it says, for all of them.
    fn agreed<T: PartialEq + Copy>(&mut self, key: &str, of: impl Fn(&Deployment) -> Option<T>) -> Option<T> {
        let first = self.deployments.iter().find_map(&of)?;
        for deployment in self.deployments.iter().filter(|it| of(it).is_some_and(|other| other != first)) {
            let mut place = deployment.place.clone();
            place.push(Step::Key(key.into()));
            let why = "it is said of a model, not of its targets, and the first of them says otherwise";
            self.notes.push(Note { place, why: why.into() });
        }
        Some(first)
    }
}
