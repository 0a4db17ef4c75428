//! Metrics of plugins: what each hook took and how it failed, and the plugins' own.

use super::bindings::hooks::Metric;
use super::own::{Own, Shown};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::sync::Arc;

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
    duration: HistogramVec,
    errors: IntCounterVec,
    actions: IntCounterVec,
    instances: IntGaugeVec,
    own: Shown,
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
        let own = Shown::default();
        registry.register(Box::new(own.clone()))?;
        Ok(Self { duration, errors, actions, instances, own })
    }

    /// The handles of one plugin, with the metrics of its own.
    ///
    /// # Errors
    /// What is wrong with those.
    pub fn of(&self, plugin: &Arc<str>, own: &[Metric]) -> Result<Handles, String> {
        // First: one that is refused leaves no gauge behind.
        let own = self.own.declare(plugin, own)?;
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
    /// The plugin is in force: the metrics of its own are shown.
    pub fn show(&self, handles: &Handles) {
        self.own.show(&handles.own);
    }

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
    /// Those it has declared.
    pub own: Own,
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
}
