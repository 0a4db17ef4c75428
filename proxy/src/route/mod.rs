//! Model name → where it is served: names, patterns, aliases, fallbacks.

use crate::canon::{Capacity, Fault, Hedge, Hop, Period, Policy, Prices, Route, Turn};
use foldhash::HashMap;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `[models]`, by name or pattern.
pub type Config = BTreeMap<Arc<str>, Model>;

/// `[models."NAME"]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Places that serve it.
    pub targets: Vec<Target>,
    /// How to choose among targets of one priority.
    #[serde(default)]
    pub policy: Policy,
    /// Further tries over the targets, only before the first byte.
    #[serde(default = "one")]
    pub retries: u32,
    /// Ask a second target for a stream that is slow to begin.
    pub hedge: Option<Hedging>,
    /// Models to try when no target answers, in order.
    #[serde(default)]
    pub fallbacks: Vec<Arc<str>>,
    /// Price of its tokens, or a list of prices and the days they are from.
    pub price: Option<Prices>,
    /// Most tokens it can write: said to backends that must be told (Anthropic).
    pub max_output: Option<u64>,
    /// Requests at work on it at the same time, streams to their last byte; the others wait for their turn. No limit where
    /// absent.
    pub concurrent: Option<usize>,
    /// How many may wait; four times `concurrent` where absent.
    pub queue: Option<usize>,
    /// How long each may wait; 30 s where absent.
    pub queue_time: Option<Period>,
}

/// When a second target is asked for a stream that the first has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hedging {
    /// After so many in a hundred of the model's streams would have begun.
    pub percentile: f64,
    /// And not sooner than this.
    pub at_least: Period,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { percentile: 95.0, at_least: Period(Duration::from_millis(100)) }
    }
}

/// Those who wait, to each that is at work: with requests of seven seconds the last of them has its turn in 28.
const WAITING: usize = 4;
const WAIT: Duration = Duration::from_secs(30);

impl Model {
    /// How much it can do with at a time, if there is a limit.
    pub fn capacity(&self) -> Option<Capacity> {
        let at_work = self.concurrent?;
        let waiting = self.queue.unwrap_or(at_work.saturating_mul(WAITING));
        Some(Capacity { at_work, waiting, wait: self.queue_time.map_or(WAIT, |time| time.0) })
    }

    fn errors(&self, place: &str) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        if self.concurrent == Some(0) {
            let what = "a limit of 0 would let no request through; leave it out for no limit";
            errors.push((format!("{place}.concurrent"), what.to_owned()));
        }
        if self.hedge.is_some_and(|hedge| !(50.0..=99.9).contains(&hedge.percentile)) {
            let what = "from 50 to 99.9: below, most requests would be asked twice";
            errors.push((format!("{place}.hedge.percentile"), what.to_owned()));
        }
        if self.hedge.is_some() && self.retries == 0 {
            let what = "a second target is a further try, and `retries = 0` allows none";
            errors.push((format!("{place}.hedge"), what.to_owned()));
        }
        let priced = self.targets.iter().map(|target| ("targets", &target.price)).chain([("price", &self.price)]);
        for (key, prices) in priced {
            if prices.as_ref().is_some_and(|prices| !prices.are_sound()) {
                let what = "prices are numbers from 0 on; another would make totals that nobody can pay";
                errors.push((format!("{place}.{key}"), what.to_owned()));
            }
        }
        for (key, given) in [("queue", self.queue.is_some()), ("queue_time", self.queue_time.is_some())] {
            if given && self.concurrent.is_none() {
                let what = format!("`{key}` is for models with `concurrent`: without a limit nobody waits");
                errors.push((format!("{place}.{key}"), what));
            }
        }
        errors
    }
}

/// One place that serves a model.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A name from `[backends]`.
    pub backend: Arc<str>,
    /// The model's name there; the name asked for where absent.
    pub model: Option<Arc<str>>,
    /// Share of the traffic among its priority.
    #[serde(default = "one")]
    pub weight: u32,
    /// Lower is tried first.
    #[serde(default)]
    pub priority: u32,
    /// Price of the tokens of requests that it serves, instead of the model's.
    pub price: Option<Prices>,
}

fn one() -> u32 {
    1
}

/// The routes of one configuration.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Arc<str>, Arc<Route>>,
    /// Most specific first.
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    head: Box<str>,
    tail: Box<str>,
    name: Arc<str>,
    model: Model,
    /// Hops of the fallbacks, which have names of their own.
    fallbacks: Vec<Hop>,
    shared: Shared,
}

/// What all requests of a model share.
#[derive(Debug)]
struct Shared {
    turn: Turn,
    hedge: Option<Hedge>,
}

impl Shared {
    fn of(model: &Model) -> Self {
        let hedge = |hedge: Hedging| Hedge::new(hedge.percentile / 100.0, hedge.at_least.0);
        Self { turn: Turn::default(), hedge: model.hedge.map(hedge) }
    }
}

impl Routes {
    /// Builds the routes.
    ///
    /// # Errors
    /// Place and sentence of everything that cannot work: unknown backends and fallbacks, two `*`, no targets.
    pub fn build(config: &Config, backends: &[Arc<str>]) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        let mut routes = Self::default();
        for (name, model) in config {
            let place = format!("models.\"{name}\"");
            errors.extend(model.errors(&place));
            if model.targets.is_empty() {
                errors.push((format!("{place}.targets"), "a model needs at least one target".into()));
            }
            for target in model.targets.iter().filter(|target| !backends.contains(&target.backend)) {
                errors.push((
                    format!("{place}.targets"),
                    format!("there is no backend `{}`{}", target.backend, near(&target.backend, backends)),
                ));
            }
            for target in model.targets.iter().filter(|target| target.weight == 0) {
                errors.push((
                    format!("{place}.targets"),
                    format!("the target on `{}` has weight 0 and would never be used; remove it", target.backend),
                ));
            }
            let mut hops = Vec::new();
            for fallback in &model.fallbacks {
                match config.get(fallback) {
                    Some(other) => hops.extend(other.targets.iter().map(|target| hop(target, fallback, fallback))),
                    None => errors.push((
                        format!("{place}.fallbacks"),
                        format!(
                            "there is no model `{fallback}`{}",
                            near(fallback, &config.keys().cloned().collect::<Vec<_>>())
                        ),
                    )),
                }
            }
            match name.split_once('*') {
                None => {
                    routes.exact.insert(name.clone(), Arc::new(resolve(name, name, model, &hops, &Shared::of(model))));
                }
                Some((_, tail)) if tail.contains('*') => errors.push((place, "a pattern may have one `*`".into())),
                Some((head, tail)) => routes.patterns.push(Pattern {
                    head: head.into(),
                    tail: tail.into(),
                    name: name.clone(),
                    model: model.clone(),
                    fallbacks: hops,
                    shared: Shared::of(model),
                }),
            }
        }
        routes.patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.name.len()));
        if errors.is_empty() { Ok(routes) } else { Err(errors) }
    }

    /// Where this model is served.
    ///
    /// # Errors
    /// 404: no model or pattern of this name.
    pub fn pick(&self, model: &str) -> Result<Arc<Route>, Fault> {
        if let Some(route) = self.exact.get(self.named(model)) {
            return Ok(route.clone());
        }
        let pattern = self.pattern(model).ok_or_else(|| Fault::model_not_found(model))?;
        Ok(Arc::new(resolve(&pattern.name, &model.into(), &pattern.model, &pattern.fallbacks, &pattern.shared)))
    }

    /// The name that is meant: a name of the configuration that has no tag may be asked for with Ollama's default one, which its
    /// clients put behind it. Every other name means itself.
    pub fn named<'m>(&self, model: &'m str) -> &'m str {
        match model.strip_suffix(":latest").filter(|name| !name.contains(':')) {
            Some(name) if !self.exact.contains_key(model) && self.exact.contains_key(name) => name,
            _ => model,
        }
    }

    fn pattern(&self, model: &str) -> Option<&Pattern> {
        self.patterns.iter().find(|pattern| {
            model.len() >= pattern.head.len() + pattern.tail.len()
                && model.starts_with(&*pattern.head)
                && model.ends_with(&*pattern.tail)
        })
    }

    /// Whether a model of this name on this backend is there for whoever asks for it by that name, through a pattern.
    pub fn passes(&self, model: &str, backend: &str) -> bool {
        let there = |target: &Target| {
            *target.backend == *backend && target.model.as_ref().is_none_or(|renamed| **renamed == *model)
        };
        !self.exact.contains_key(self.named(model))
            && self.pattern(model).is_some_and(|pattern| pattern.model.targets.iter().any(there))
    }

    /// The models that have a name of their own, in order.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.exact.keys().cloned().collect();
        names.sort();
        names
    }
}

/// `of`: the model it is configured for; `model`: what it is asked for, where the target has no other name for it.
fn hop(target: &Target, of: &Arc<str>, model: &Arc<str>) -> Hop {
    Hop {
        of: of.clone(),
        backend: target.backend.clone(),
        model: target.model.clone().unwrap_or_else(|| model.clone()),
        weight: target.weight,
        priority: target.priority,
        price: target.price.clone(),
    }
}

/// Fallbacks come after every target of the model's own.
fn resolve(name: &Arc<str>, asked: &Arc<str>, model: &Model, fallbacks: &[Hop], shared: &Shared) -> Route {
    let mut hops: Vec<Hop> = model.targets.iter().map(|target| hop(target, name, asked)).collect();
    hops.sort_by_key(|hop| hop.priority);
    let own = hops.len();
    let behind = hops.last().map_or(0, |hop| hop.priority) + 1;
    hops.extend(fallbacks.iter().enumerate().map(|(at, hop)| Hop { priority: behind + at as u32, ..hop.clone() }));
    Route {
        name: name.clone(),
        hops,
        own,
        full: false,
        policy: model.policy,
        turn: shared.turn.clone(),
        retries: model.retries,
        hedge: shared.hedge.clone(),
        price: model.price.clone(),
        max_output: model.max_output,
    }
}

fn near(word: &str, known: &[Arc<str>]) -> String {
    let best = known.iter().max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)));
    best.filter(|best| strsim::jaro_winkler(word, best) > 0.75)
        .map_or_else(String::new, |best| format!("; did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(json: &str) -> Result<Routes, Vec<(String, String)>> {
        Routes::build(&serde_json::from_str(json).unwrap(), &["gpu".into(), "laptop".into()])
    }

    #[test]
    fn the_most_specific_name_wins() {
        let routes = routes(
            r#"{"qwen3:0.6b":{"targets":[{"backend":"laptop","priority":1},{"backend":"gpu","model":"Qwen/Qwen3"}],"fallbacks":["tiny"]},
                "tiny":{"targets":[{"backend":"laptop"}]},"qwen3:*":{"targets":[{"backend":"gpu"}]},"*":{"targets":[{"backend":"laptop"}]}}"#,
        )
        .unwrap();
        let hops = |model: &str| {
            routes
                .pick(model)
                .unwrap()
                .hops
                .iter()
                .map(|hop| format!("{}:{}", hop.backend, hop.model))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(hops("qwen3:0.6b"), "gpu:Qwen/Qwen3 laptop:qwen3:0.6b laptop:tiny");
        assert_eq!(hops("qwen3:8b"), "gpu:qwen3:8b");
        assert_eq!(hops("a/b:c"), "laptop:a/b:c");
        assert_eq!(&*routes.pick("a/b:c").unwrap().name, "*", "a caller's string never becomes a label");
        assert_eq!(hops("tiny:latest"), "laptop:tiny");
        assert_eq!(hops("other:latest"), "laptop:other:latest");
        assert_eq!(hops("qwen3:0.6b:latest"), "gpu:qwen3:0.6b:latest");
        assert_eq!(routes.names(), ["qwen3:0.6b".into(), Arc::<str>::from("tiny")]);
        for (model, backend, passes) in [
            ("qwen3:8b", "gpu", true),
            ("qwen3:8b", "laptop", false),
            ("other", "laptop", true),
            ("other", "gpu", false),
            ("tiny", "laptop", false),
            ("tiny:latest", "laptop", false),
        ] {
            assert_eq!(routes.passes(model, backend), passes, "{model} on {backend}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        let errors = routes(r#"{"a":{"targets":[{"backend":"gqu"}],"fallbacks":["b"]},"c":{"targets":[]},"x*y*":{"targets":[{"backend":"gpu"}]},
            "d":{"targets":[{"backend":"gpu"}],"concurrent":0},"e":{"targets":[{"backend":"gpu"}],"queue_time":"1s"},
            "f":{"targets":[{"backend":"gpu"}],"hedge":{"percentile":5},"retries":0},
            "g":{"targets":[{"backend":"gpu","price":{"currency":"USD","output":-1}}]},
            "h":{"targets":[{"backend":"gpu"}],"price":{"currency":"USD","input":-0.1}}}"#).unwrap_err();
        let text = format!("{errors:?}");
        for part in [
            "did you mean `gpu`?",
            "no model `b`",
            "at least one target",
            "one `*`",
            "limit of 0",
            "without a limit nobody waits",
            "from 50 to 99.9",
            "`retries = 0` allows none",
            r#"models.\"g\".targets", "prices are numbers from 0 on"#,
            r#"models.\"h\".price", "prices are numbers from 0 on"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(Routes::default().pick("x").unwrap_err().status(), 404);
    }
}
