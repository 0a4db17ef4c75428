//! What an operator sees of the queues.

use super::place::{Queue, Refusal};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::sync::Arc;
use std::time::Duration;

const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60., 120.];
const POSITIONS: [f64; 12] = [1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 4096.];

/// The families of all queues.
#[derive(Clone)]
pub(super) struct Families {
    seconds: HistogramVec,
    position: HistogramVec,
    refused: IntCounterVec,
}

/// Those of one queue.
pub(super) struct Series {
    seconds: Histogram,
    position: Histogram,
    share: IntCounter,
    full: IntCounter,
    late: IntCounter,
}

impl Families {
    pub fn register(registry: &Registry, in_use: &InUse) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["model"])
        };
        let families = Self {
            seconds: histogram(
                "tidegate_queue_seconds",
                "How long a request waited for its turn at a model.",
                &SECONDS,
            )?,
            position: histogram(
                "tidegate_queue_position",
                "How many waited for a model when a request began to, itself included.",
                &POSITIONS,
            )?,
            refused: IntCounterVec::new(
                Opts::new("tidegate_queue_refused_total", "Requests that were refused a place at a model."),
                &["model", "reason"],
            )?,
        };
        registry.register(Box::new(families.seconds.clone()))?;
        registry.register(Box::new(families.position.clone()))?;
        registry.register(Box::new(families.refused.clone()))?;
        registry.register(Box::new(Gauges::new(in_use.clone())?))?;
        Ok(families)
    }

    pub fn of(&self, model: &str) -> Series {
        let refused = |reason: &str| self.refused.with_label_values(&[model, reason]);
        Series {
            seconds: self.seconds.with_label_values(&[model]),
            position: self.position.with_label_values(&[model]),
            share: refused("share"),
            full: refused("full"),
            late: refused("time"),
        }
    }
}

impl Series {
    /// Somebody has a place.
    pub fn entered(&self, waited: Duration) {
        self.seconds.observe(waited.as_secs_f64());
    }

    /// Somebody waits, and is so manieth.
    pub fn joined(&self, position: usize) {
        self.position.observe(position as f64);
    }

    pub fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Share => &self.share,
            Refusal::Full => &self.full,
            Refusal::Late => &self.late,
        }
        .inc();
    }
}

/// The queues of the configuration in use.
pub(super) type InUse = Arc<Mutex<Vec<Arc<Queue>>>>;

/// What is so at the moment, looked up when somebody asks: so nothing is told of a model that has no limit any more.
struct Gauges {
    in_use: InUse,
    waiting: IntGaugeVec,
    at_work: IntGaugeVec,
}

impl Gauges {
    fn new(in_use: InUse) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["model"]);
        Ok(Self {
            in_use,
            waiting: gauge("tidegate_queue_waiting", "Requests that wait for their turn at a model.")?,
            at_work: gauge("tidegate_queue_at_work", "Requests at work on a model that has a limit.")?,
        })
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.waiting.desc(), self.at_work.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let queues = self.in_use.lock();
        self.waiting.reset();
        self.at_work.reset();
        for queue in queues.iter() {
            let (at_work, waiting) = queue.count();
            self.waiting.with_label_values(&[&*queue.model]).set(waiting as i64);
            self.at_work.with_label_values(&[&*queue.model]).set(at_work as i64);
        }
        [self.waiting.collect(), self.at_work.collect()].concat()
    }
}
