//! Metrics that plugins declare themselves: `tidegate_plugin_NAME_…`.
//!
//! A plugin that is loaded anew goes on with the series it had where it declares them as before, and with fresh ones where it
//! does not. The registry wants a name to keep its labels as long as the process lives, and plugins come and go meanwhile:
//! so these families are not registered one by one. One collector, which promises no names, shows those of the plugins that
//! are in force; what a configuration that is refused would have declared is not among them.

use super::bindings::hooks::{Metric, MetricKind};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Error, Histogram, HistogramOpts, HistogramVec, Opts};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Most metrics of a plugin, most values of a label, and most buckets of a histogram: each is a line of the page or several.
const MOST: (usize, usize, usize) = (32, 16, 64);
/// Longest name of a metric, and so many that are not counted are told.
const NAME: usize = 64;
const NAMES: usize = 64;
/// Families of the gateway's that a plugin's name and a histogram's could make together.
const OURS: [&str; 4] = [
    "tidegate_plugin_actions_total",
    "tidegate_plugin_duration_seconds",
    "tidegate_plugin_errors_total",
    "tidegate_plugin_redis_up",
];

/// The families of plugins in force, by their whole names. Those of plugins that are gone stay: what was counted was counted.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<BTreeMap<String, Family>>>);

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.lock().values().flat_map(Family::collect).collect()
    }
}

impl Shown {
    /// What a plugin declares, to be counted in; it is shown when [`Shown::show`] says so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn declare(&self, plugin: &str, metrics: &[Metric]) -> Result<Own, String> {
        if metrics.len() > MOST.0 {
            return Err(format!("it declares {} metrics; {} are the most", metrics.len(), MOST.0));
        }
        let mut own = Own::default();
        for metric in metrics {
            let (label, values) = label_of(metric)?;
            bounded(metric)?;
            let family = self.family(&mut own, plugin, metric, label)?;
            for value in values {
                let of: Vec<&str> = label.iter().map(|_| value.as_str()).collect();
                let handle = family.of(&of).map_err(|error| cannot(metric, &error))?;
                own.handles.entry(metric.name.clone()).or_default().insert(value.clone(), handle);
            }
        }
        Ok(own)
    }

    /// The plugin is in force: its families take the place of others of their names.
    pub fn show(&self, own: &Own) {
        self.0.lock().extend(own.families.iter().map(|(name, family)| (name.clone(), family.clone())));
    }

    /// The family of a metric: the one that is shown if it is alike, else a fresh one.
    fn family(&self, own: &mut Own, plugin: &str, metric: &Metric, label: Option<&str>) -> Result<Family, String> {
        let ending = if matches!(metric.kind, MetricKind::Counter) { "_total" } else { "" };
        let name = format!("tidegate_plugin_{}_{}{ending}", plugin.replace('-', "_"), metric.name);
        if OURS.contains(&name.as_str()) {
            return Err(format!(
                "the metric `{}` would be the gateway's own {name}: give it another name",
                metric.name
            ));
        }
        if let Some(family) = own.families.get(&name) {
            let twice = || format!("it declares the metric `{}` twice, and not alike", metric.name);
            return Some(family.clone()).filter(|family| family.is_of(metric, label)).ok_or_else(twice);
        }
        let shown = self.0.lock().get(&name).filter(|family| family.is_of(metric, label)).cloned();
        let fresh = || Family::new(&name, metric, label);
        let family = shown.map_or_else(fresh, Ok).map_err(|error| cannot(metric, &error))?;
        own.families.insert(name, family.clone());
        Ok(family)
    }
}

/// One plugin's metrics.
#[derive(Default)]
pub(super) struct Own {
    /// By whole name.
    families: BTreeMap<String, Family>,
    /// By name, then by label value.
    handles: HashMap<String, HashMap<String, Handle>>,
}

enum Handle {
    Counter(Counter),
    Histogram(Histogram),
}

impl Own {
    /// Adds to a counter.
    pub fn add(&self, name: &str, label: &str, by: f64) -> Result<(), Vain> {
        let Some(Handle::Counter(counter)) = self.handle(name, label) else { return Err(Vain::Undeclared) };
        if by < 0.0 || !by.is_finite() {
            return Err(Vain::Value);
        }
        counter.inc_by(by);
        Ok(())
    }

    /// Observes a value.
    pub fn observe(&self, name: &str, label: &str, value: f64) -> Result<(), Vain> {
        let Some(Handle::Histogram(histogram)) = self.handle(name, label) else { return Err(Vain::Undeclared) };
        if !value.is_finite() {
            return Err(Vain::Value);
        }
        histogram.observe(value);
        Ok(())
    }

    fn handle(&self, name: &str, label: &str) -> Option<&Handle> {
        self.handles.get(name)?.get(label)
    }
}

/// Why something could not be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vain {
    /// The plugin has not declared such a counter or histogram, or no such label value of it.
    Undeclared,
    /// A counter never falls, and no metric has values that are no number.
    Value,
}

/// Metrics that a plugin counted in vain: each is told once.
#[derive(Default)]
pub(super) struct Told(Mutex<HashSet<(String, String)>>);

impl Told {
    /// A metric and its label value as they are told, unless they were or enough was. What a plugin calls a metric may be as long
    /// as it likes.
    pub fn first(&self, name: &str, label: &str) -> Option<(String, String)> {
        let cut = |text: &str| text[..text.floor_char_boundary(NAME)].to_owned();
        let metric = (cut(name), cut(label));
        let mut told = self.0.lock();
        (told.len() < NAMES && told.insert(metric.clone())).then_some(metric)
    }
}

/// Names that two plugins of one configuration make: place and sentence.
pub(super) fn shared<'a>(plugins: impl Iterator<Item = (&'a Arc<str>, &'a Own)>) -> Vec<(String, String)> {
    let (mut owners, mut errors) = (HashMap::new(), Vec::new());
    for (plugin, own) in plugins {
        for name in own.families.keys() {
            if let Some(other) = owners.insert(name, plugin) {
                let what =
                    format!("its metric {name} is one of the plugin `{other}`, too: give one of them another name");
                errors.push((format!("plugins.{plugin}"), what));
            }
        }
    }
    errors
}

/// A family as it was declared.
#[derive(Clone)]
struct Family {
    label: Option<String>,
    series: Vecs,
}

#[derive(Clone)]
enum Vecs {
    Counter(CounterVec),
    /// And its buckets.
    Histogram(HistogramVec, Vec<f64>),
}

impl Family {
    fn new(name: &str, metric: &Metric, label: Option<&str>) -> Result<Self, Error> {
        let labels: Vec<&str> = label.into_iter().collect();
        let series = match &metric.kind {
            MetricKind::Counter => Vecs::Counter(CounterVec::new(Opts::new(name, &metric.help), &labels)?),
            MetricKind::Histogram(buckets) => {
                let options = HistogramOpts::new(name, &metric.help).buckets(buckets.clone());
                Vecs::Histogram(HistogramVec::new(options, &labels)?, buckets.clone())
            }
        };
        Ok(Self { label: label.map(str::to_owned), series })
    }

    /// Whether this metric can be counted in it. Other words of help are no reason to begin anew.
    fn is_of(&self, metric: &Metric, label: Option<&str>) -> bool {
        let alike = match (&self.series, &metric.kind) {
            (Vecs::Counter(_), MetricKind::Counter) => true,
            (Vecs::Histogram(_, had), MetricKind::Histogram(buckets)) => had == buckets,
            _ => false,
        };
        alike && self.label.as_deref() == label
    }

    /// The series of a label's value.
    fn of(&self, value: &[&str]) -> Result<Handle, Error> {
        Ok(match &self.series {
            Vecs::Counter(counters) => Handle::Counter(counters.get_metric_with_label_values(value)?),
            Vecs::Histogram(histograms, _) => Handle::Histogram(histograms.get_metric_with_label_values(value)?),
        })
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match &self.series {
            Vecs::Counter(counters) => counters.collect(),
            Vecs::Histogram(histograms, _) => histograms.collect(),
        }
    }
}

/// A metric's label and all values it can have: one empty value without a label.
fn label_of(metric: &Metric) -> Result<(Option<&str>, &[String]), String> {
    static NONE: [String; 1] = [String::new()];
    if !is_word(&metric.name) {
        return Err(format!("it declares a metric `{}`: names are of a-z, 0-9 and _", metric.name));
    }
    match &metric.label {
        Some((label, values)) if !is_word(label) || values.is_empty() || values.len() > MOST.1 => {
            Err(format!("the metric `{}` needs a label of a-z, 0-9, _ with 1 to {} values", metric.name, MOST.1))
        }
        Some((label, values)) => Ok((Some(label), values)),
        None => Ok((None, &NONE)),
    }
}

/// The buckets of a histogram are few, and ascend.
fn bounded(metric: &Metric) -> Result<(), String> {
    let MetricKind::Histogram(bounds) = &metric.kind else { return Ok(()) };
    let ascend = bounds.windows(2).all(|pair| pair[0] < pair[1]) && !bounds.iter().any(|bound| bound.is_nan());
    if bounds.len() > MOST.2 || !ascend {
        return Err(format!("the metric `{}` needs at most {} buckets, whose bounds ascend", metric.name, MOST.2));
    }
    Ok(())
}

fn cannot(metric: &Metric, error: &Error) -> String {
    format!("the metric `{}` cannot be made: {error}", metric.name)
}

/// A word for a metric's name.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Registry, TextEncoder};

    fn metric(name: &str, kind: MetricKind, label: Option<&str>) -> Metric {
        let label = label.map(|label| (label.to_owned(), vec!["x".to_owned(), "y".to_owned()]));
        Metric { name: name.to_owned(), help: "What it counts.".to_owned(), kind, label }
    }

    fn house() -> (Shown, impl Fn() -> String) {
        let (shown, registry) = (Shown::default(), Registry::new());
        registry.register(Box::new(shown.clone())).unwrap();
        (shown, move || TextEncoder::new().encode_to_string(&registry.gather()).unwrap())
    }

    #[test]
    fn a_plugin_goes_on_with_what_it_declares_alike_and_begins_anew_with_the_rest() {
        let (shown, page) = house();
        let histogram = |buckets: &[f64]| MetricKind::Histogram(buckets.to_vec());
        let steps: [(MetricKind, Option<&str>, &str, &str); 7] = [
            (MetricKind::Counter, None, "", "seen_total 1\n"),
            (MetricKind::Counter, None, "", "seen_total 2\n"),
            (MetricKind::Counter, Some("kind"), "x", "seen_total{kind=\"x\"} 1\n"),
            (MetricKind::Counter, Some("sort"), "y", "seen_total{sort=\"y\"} 1\n"),
            (histogram(&[1.0]), None, "", "seen_bucket{le=\"1\"} 1\n"),
            (histogram(&[1.0]), None, "", "seen_bucket{le=\"1\"} 2\n"),
            (histogram(&[5.0]), None, "", "seen_bucket{le=\"5\"} 1\n"),
        ];
        for (step, (kind, label, value, says)) in steps.into_iter().enumerate() {
            let before = page();
            let own = shown.declare("a-b", &[metric("seen", kind, label)]).unwrap();
            assert_eq!(page(), before, "{step}: nothing is shown of what is not in force");
            shown.show(&own);
            assert!(own.add("seen", value, 1.0).is_ok() || own.observe("seen", value, 1.0).is_ok(), "{step}");
            assert!(page().contains(&format!("\ntidegate_plugin_a_b_{says}")), "{step}: {}", page());
            assert_eq!(own.add("other", value, 1.0), Err(Vain::Undeclared), "{step}");
            assert_eq!(own.observe("seen", "z", 1.0), Err(Vain::Undeclared), "{step}");
        }
        // A counter and a histogram have two names; each has been shown as one thing only.
        assert_eq!(page().matches("# TYPE").count(), 2, "{}", page());
        assert!(!page().contains("kind="), "{}", page());
    }

    #[test]
    fn what_is_not_counted_is_told_once_and_briefly() {
        let (shown, page) = house();
        let histogram = MetricKind::Histogram(vec![1.0]);
        let own = shown.declare("p", &[metric("c", MetricKind::Counter, None), metric("h", histogram, None)]).unwrap();
        shown.show(&own);
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(own.add("c", "", value), Err(Vain::Value), "{value}");
            assert_eq!(own.add("h", "", value), Err(Vain::Undeclared), "{value}");
            assert_eq!(own.observe("h", "", value).is_ok(), value.is_finite(), "{value}");
        }
        assert!(page().contains("\ntidegate_plugin_p_c_total 0\n"), "{}", page());
        let (told, long) = (Told::default(), "é".repeat(1 << 20));
        assert_eq!(told.first("m", "x"), Some(("m".into(), "x".into())));
        assert_eq!(told.first("m", "x"), None);
        assert_eq!(told.first(&long, &long).map(|(name, label)| (name.len(), label.len())), Some((NAME, NAME)));
        let more = (0..2 * NAMES).filter(|number| told.first(&number.to_string(), "").is_some()).count();
        assert_eq!(more, NAMES - 2);
    }

    #[test]
    fn what_cannot_be_declared_is_told() {
        let (shown, _) = house();
        let histogram = || MetricKind::Histogram(vec![1.0]);
        let many = (0..33).map(|number| metric(&format!("m{number}"), histogram(), None)).collect();
        for (plugin, metrics, says) in [
            ("p", many, "it declares 33 metrics; 32 are the most"),
            ("p", vec![metric("No", histogram(), None)], "names are of a-z"),
            ("p", vec![metric("m", histogram(), Some(""))], "needs a label"),
            ("p", vec![metric("m", histogram(), Some("le"))], "cannot be made"),
            ("p", vec![metric("m", MetricKind::Histogram(vec![f64::NAN]), None)], "whose bounds ascend"),
            ("p", vec![metric("m", MetricKind::Histogram(vec![2.0, 1.0]), None)], "whose bounds ascend"),
            ("p", vec![metric("m", MetricKind::Histogram(vec![1.0, 1.0]), None)], "whose bounds ascend"),
            (
                "p",
                vec![metric("m", MetricKind::Histogram((0..65).map(f64::from).collect()), None)],
                "at most 64 buckets",
            ),
            ("p", vec![metric("m", histogram(), None), metric("m", histogram(), Some("l"))], "twice, and not alike"),
            (
                "duration",
                vec![metric("seconds", histogram(), None)],
                "the gateway's own tidegate_plugin_duration_seconds",
            ),
        ] {
            let error = shown.declare(plugin, &metrics).err().unwrap();
            assert!(error.contains(says), "{error}");
        }
        let (one, other) = (Arc::from("a"), Arc::from("a_b"));
        let [first, second] = [(&one, "b_c"), (&other, "c")]
            .map(|(plugin, name): (&Arc<str>, _)| shown.declare(plugin, &[metric(name, histogram(), None)]).unwrap());
        assert!(shared([(&one, &first)].into_iter()).is_empty());
        let errors = shared([(&one, &first), (&other, &second)].into_iter());
        assert!(
            errors[0].0 == "plugins.a_b" && errors[0].1.contains("tidegate_plugin_a_b_c is one of the plugin `a`"),
            "{errors:?}"
        );
    }
}
