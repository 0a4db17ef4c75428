//! Metrics of plugins: what each hook took and how it failed, and the plugins' own.

use super::bindings::hooks::{Metric, MetricKind};
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A microsecond to a second.
const SECONDS: [f64; 13] = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 1.0];

/// The hooks, as labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Call,
    Events,
    End,
}

impl Hook {
    pub const ALL: [Self; 3] = [Self::Call, Self::Events, Self::End];

    pub fn label(self) -> &'static str {
        match self {
            Self::Call => "on_call",
            Self::Events => "on_events",
            Self::End => "on_end",
        }
    }
}

/// The families of all plugins.
#[derive(Clone)]
pub(super) struct Series {
    registry: Registry,
    duration: HistogramVec,
    errors: IntCounterVec,
    actions: IntCounterVec,
    instances: IntGaugeVec,
    families: Families,
}

impl Series {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let duration = HistogramVec::new(
            HistogramOpts::new("tidegate_plugin_duration_seconds", "Time a hook of a plugin took, waiting included.")
                .buckets(SECONDS.to_vec()),
            &["plugin", "hook"],
        )?;
        let errors = IntCounterVec::new(
            Opts::new("tidegate_plugin_errors_total", "Failures of plugins, by what failed."),
            &["plugin", "hook", "kind"],
        )?;
        let actions = IntCounterVec::new(
            Opts::new(
                "tidegate_plugin_actions_total",
                "What plugins did to requests and replies other than letting them pass.",
            ),
            &["plugin", "action"],
        )?;
        let instances = IntGaugeVec::new(
            Opts::new("tidegate_plugin_instances", "Instances of a plugin that are at work."),
            &["plugin"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(instances.clone()))?;
        Ok(Self { registry: registry.clone(), duration, errors, actions, instances, families: Families::default() })
    }

    /// The handles of one plugin, with the metrics of its own.
    ///
    /// # Errors
    /// What is wrong with those.
    pub fn of(&self, plugin: &Arc<str>, own: &[Metric]) -> Result<Handles, String> {
        // First: one that is refused leaves no gauge behind.
        let own = self.own(plugin, own)?;
        Ok(Handles {
            plugin: plugin.clone(),
            duration: Hook::ALL.map(|hook| self.duration.with_label_values(&[&**plugin, hook.label()])),
            errors: self.errors.clone(),
            actions: self.actions.clone(),
            instances: self.instances.with_label_values(&[&**plugin]),
            own,
        })
    }
}

impl Series {
    /// A plugin of this name is configured no more. Its gauge would tell of nothing; its counters keep what they counted.
    pub fn forget(&self, plugin: &str) {
        let _ = self.instances.remove_label_values(&[plugin]);
    }
}

/// One plugin's metrics.
pub(super) struct Handles {
    plugin: Arc<str>,
    duration: [Histogram; 3],
    errors: IntCounterVec,
    actions: IntCounterVec,
    pub instances: prometheus::IntGauge,
    /// By name and label value.
    own: HashMap<(String, String), Own>,
}

enum Own {
    Counter(Counter),
    Histogram(Histogram),
}

impl Handles {
    pub fn took(&self, hook: Hook, seconds: f64) {
        self.duration[hook as usize].observe(seconds);
    }

    pub fn failed(&self, hook: Hook, kind: &'static str) {
        self.errors.with_label_values(&[&*self.plugin, hook.label(), kind]).inc();
    }

    /// `change`, `respond`, `route`, `refuse` or `rewrite`.
    pub fn acted(&self, action: &'static str) {
        self.actions.with_label_values(&[&*self.plugin, action]).inc();
    }

    /// Adds to a counter of the plugin's own; false for one it has not declared.
    pub fn add(&self, name: &str, label: &str, by: f64) -> bool {
        match self.own.get(&(name.to_owned(), label.to_owned())) {
            Some(Own::Counter(counter)) if by >= 0.0 && by.is_finite() => {
                counter.inc_by(by);
                true
            }
            _ => false,
        }
    }

    /// Observes a value; false for a histogram it has not declared.
    pub fn observe(&self, name: &str, label: &str, value: f64) -> bool {
        match self.own.get(&(name.to_owned(), label.to_owned())) {
            Some(Own::Histogram(histogram)) if value.is_finite() => {
                histogram.observe(value);
                true
            }
            _ => false,
        }
    }
}

/// A word for a metric's name.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The families plugins have declared, by name: one that is loaded anew goes on with those it had.
type Families = Arc<Mutex<HashMap<String, (Option<String>, Family)>>>;

#[derive(Clone)]
enum Family {
    Counter(CounterVec),
    Histogram(HistogramVec),
}

impl Series {
    fn own(&self, plugin: &str, own: &[Metric]) -> Result<HashMap<(String, String), Own>, String> {
        if own.len() > 32 {
            return Err(format!("it declares {} metrics; 32 are the most", own.len()));
        }
        let mut handles = HashMap::new();
        for metric in own {
            if !is_word(&metric.name) {
                return Err(format!("it declares a metric `{}`: names are of a-z, 0-9 and _", metric.name));
            }
            let (label, values) = match &metric.label {
                Some((label, values)) if !is_word(label) || values.is_empty() || values.len() > 16 => {
                    return Err(format!(
                        "the metric `{}` needs a label of a-z, 0-9, _ with 1 to 16 values",
                        metric.name
                    ));
                }
                Some((label, values)) => (Some(label.clone()), values.clone()),
                None => (None, vec![String::new()]),
            };
            let family = self.family(plugin, metric, label.as_ref())?;
            for value in values {
                let of: Vec<&str> = label.iter().map(|_| value.as_str()).collect();
                let handle = match &family {
                    Family::Counter(family) => Own::Counter(family.with_label_values(&of)),
                    Family::Histogram(family) => Own::Histogram(family.with_label_values(&of)),
                };
                handles.insert((metric.name.clone(), value), handle);
            }
        }
        Ok(handles)
    }

    fn family(&self, plugin: &str, metric: &Metric, label: Option<&String>) -> Result<Family, String> {
        let prefix = format!("tidegate_plugin_{}_{}", plugin.replace('-', "_"), metric.name);
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, family)) = families.get(&prefix) {
            let alike = matches!(
                (family, &metric.kind),
                (Family::Counter(_), MetricKind::Counter) | (Family::Histogram(_), MetricKind::Histogram(_))
            );
            if alike && known.as_ref() == label {
                return Ok(family.clone());
            }
            return Err(format!(
                "the metric `{}` was declared otherwise before; give it another name, or restart the gateway",
                metric.name
            ));
        }
        let fail = |error: prometheus::Error| format!("the metric `{}` cannot be made: {error}", metric.name);
        let labels: Vec<&str> = label.into_iter().map(String::as_str).collect();
        let family = match &metric.kind {
            MetricKind::Counter => {
                let family =
                    CounterVec::new(Opts::new(format!("{prefix}_total"), &metric.help), &labels).map_err(fail)?;
                self.registry.register(Box::new(family.clone())).map_err(fail)?;
                Family::Counter(family)
            }
            MetricKind::Histogram(buckets) => {
                let options = HistogramOpts::new(prefix.clone(), &metric.help).buckets(buckets.clone());
                let family = HistogramVec::new(options, &labels).map_err(fail)?;
                self.registry.register(Box::new(family.clone())).map_err(fail)?;
                Family::Histogram(family)
            }
        };
        families.insert(prefix, (label.cloned(), family.clone()));
        Ok(family)
    }
}
