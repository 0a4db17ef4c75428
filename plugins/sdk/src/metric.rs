//! The plugin's own metrics: declared as constants, listed in `Plugin::METRICS`, used by name.

use crate::bindings::exports::tidegate::plugin::hooks;
use crate::host::metrics;

/// A counter or a histogram.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    /// Bounds of the buckets; `None` for a counter.
    buckets: Option<&'static [f64]>,
    label: Option<(&'static str, &'static [&'static str])>,
}

impl Metric {
    /// A number that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, buckets: None, label: None }
    }

    /// A distribution, with the upper bounds of its buckets.
    pub const fn histogram(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { name, help, buckets: Some(buckets), label: None }
    }

    /// The same, told apart by a label: its name, and all values it can have.
    #[must_use]
    pub const fn label(mut self, name: &'static str, values: &'static [&'static str]) -> Self {
        self.label = Some((name, values));
        self
    }

    /// Counts one.
    pub fn count(&self) {
        self.add("", 1.0);
    }

    /// Counts one under a label's value.
    pub fn count_as(&self, value: &str) {
        self.add(value, 1.0);
    }

    /// Adds to a counter; the value is empty where there is no label.
    pub fn add(&self, value: &str, by: f64) {
        metrics::add(self.name, value, by);
    }

    /// Puts a value into a histogram; the label's value is empty where there is none.
    pub fn observe(&self, label: &str, value: f64) {
        metrics::observe(self.name, label, value);
    }

    pub(crate) fn declare(&self) -> hooks::Metric {
        hooks::Metric {
            name: self.name.into(),
            help: self.help.into(),
            kind: self
                .buckets
                .map_or(hooks::MetricKind::Counter, |bounds| hooks::MetricKind::Histogram(bounds.to_vec())),
            label: self.label.map(|(name, values)| (name.into(), values.iter().map(|value| (*value).into()).collect())),
        }
    }
}
