//! Who waits for a model: as many requests at work on it as it can do with, the others in line, fairly between organizations.
//!
//! A model without a limit has no queue, and its requests pass a branch. Where there is one it belongs to the configured name
//! (all models of a pattern share one), is of the whole process, and outlives a configuration: requests that are at work count
//! under the next one, too. docs/decisions/0018-queues.md has the reasons.

mod place;
mod series;
mod turns;

pub use place::{Place, Queue};
pub use turns::Weights;

use crate::canon::Capacity;
use foldhash::HashMap;
use parking_lot::Mutex;
use prometheus::Registry;
use series::{Families, InUse};
use std::sync::{Arc, Weak};

/// The queues of one configuration.
#[derive(Default)]
pub struct Queues {
    by_model: HashMap<Arc<str>, (Arc<Queue>, Capacity)>,
    weights: Arc<Weights>,
}

impl Queues {
    /// The queues of these models, with those of them that are known already. Nothing changes for anybody before
    /// [`Kept::settle`].
    pub fn build(capacities: impl IntoIterator<Item = (Arc<str>, Capacity)>, weights: Weights, kept: &Kept) -> Self {
        let weights = Arc::new(weights);
        let queue = |(model, capacity)| {
            let queue = kept.queue(&model, capacity, &weights);
            (model, (queue, capacity))
        };
        Self { by_model: capacities.into_iter().map(queue).collect(), weights }
    }

    /// The queue of the model that is configured under this name, if it has a limit.
    pub fn of(&self, model: &str) -> Option<&Arc<Queue>> {
        self.by_model.get(model).map(|(queue, _)| queue)
    }
}

/// What outlives every configuration: queues, for as long as somebody has a place or waits, and their metrics.
pub struct Kept {
    known: Mutex<Vec<Weak<Queue>>>,
    families: Families,
    in_use: InUse,
}

impl Kept {
    /// Registers the metrics.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, String> {
        let in_use = InUse::default();
        let families = Families::register(registry, &in_use).map_err(|error| error.to_string())?;
        Ok(Self { known: Mutex::default(), families, in_use })
    }

    /// These are the queues from now on. Where there was a limit and is none any more, those who wait go.
    pub fn settle(&self, now: &Queues) {
        let mut known = self.known.lock();
        known.retain(|queue| queue.strong_count() > 0);
        let mut in_use = Vec::new();
        for queue in known.iter().filter_map(Weak::upgrade) {
            let capacity = now.by_model.get(&queue.model).map(|(_, capacity)| *capacity);
            queue.settle(capacity, &now.weights);
            in_use.extend(capacity.map(|_| queue));
        }
        *self.in_use.lock() = in_use;
    }

    fn queue(&self, model: &Arc<str>, capacity: Capacity, weights: &Arc<Weights>) -> Arc<Queue> {
        let mut known = self.known.lock();
        let found = known.iter().filter_map(Weak::upgrade).find(|queue| queue.model == *model);
        found.unwrap_or_else(|| {
            let queue = Queue::new(model, capacity, weights, self.families.of(model));
            known.push(Arc::downgrade(&queue));
            queue
        })
    }
}
