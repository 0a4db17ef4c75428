//! The places of one model: so many requests at work, the others in their lines.
//!
//! Requests of all worker threads meet here, so there is a lock; it is held for a few look-ups and never while anything is
//! waited for. A place is given by counting it and saying so to the one who waits. Should that one have left in the same
//! moment, it finds itself no longer in its line, and gives the place back: so none is lost and none is given twice.

use super::series::Series;
use super::turns::{Turns, Weights};
use crate::canon::{Capacity, Fault, FaultKind};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// One organization may wait with so many for every place that is left in the queue. With 2 one alone fills two thirds of it,
/// two fill two fifths each: there always is room for one that comes later. (Dynamic thresholds: Choudhury, Hahne 1998.)
const SHARE: usize = 2;
/// A hint to come back is within these seconds.
const SOONEST: f64 = 1.0;
const LATEST: f64 = 60.0;

/// See the module.
pub struct Queue {
    pub(super) model: Arc<str>,
    state: Mutex<State>,
    series: Series,
}

struct State {
    /// `None`: no limit any more.
    capacity: Option<Capacity>,
    at_work: usize,
    turns: Turns<oneshot::Sender<()>>,
}

/// A request at work. Dropped, the next one's turn has come.
pub struct Place {
    queue: Arc<Queue>,
    organization: Arc<str>,
    since: Instant,
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its organization has as many waiting as it may.
    Share,
    /// All who may wait do.
    Full,
    /// Its turn did not come in time.
    Late,
}

impl Queue {
    pub(super) fn new(model: &Arc<str>, capacity: Capacity, weights: &Arc<Weights>, series: Series) -> Arc<Self> {
        let state = State { capacity: Some(capacity), at_work: 0, turns: Turns::new(weights.clone()) };
        Arc::new(Self { model: model.clone(), state: Mutex::new(state), series })
    }

    /// Goes by these from now on, for those who wait, too: none is sent away, and all go if there is no limit any more.
    pub(super) fn settle(&self, capacity: Option<Capacity>, weights: &Arc<Weights>) {
        let mut state = self.state.lock();
        state.capacity = capacity;
        state.turns.weigh(weights.clone());
        state.fill();
    }

    /// Requests at work, and requests that wait.
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.at_work, state.turns.waiting())
    }

    /// A place, when the turn of this organization's has come; `patience`: who asks will not wait for longer.
    ///
    /// # Errors
    /// 429: the organization has as many waiting as it may. 503: nobody may wait any more, or the turn did not come in time.
    pub async fn enter(self: &Arc<Self>, organization: &Arc<str>, patience: Duration) -> Result<Place, Fault> {
        let began = Instant::now();
        let (mut waiting, limit) = {
            let mut state = self.state.lock();
            let Some(capacity) = state.capacity else { return Ok(self.take(&mut state, organization)) };
            // Places that are free while somebody waits are as good as given to them.
            if state.at_work < capacity.at_work && state.turns.waiting() == 0 {
                self.series.entered(Duration::ZERO);
                return Ok(self.take(&mut state, organization));
            }
            state.admit(organization, &capacity).map_err(|refusal| self.refuse(&state, refusal))?;
            let (call, called) = oneshot::channel();
            let ticket = state.turns.join(organization, call);
            self.series.joined(state.turns.waiting());
            let waiting = Waiting { queue: self, organization, ticket, called, placed: false };
            (waiting, capacity.wait.min(patience))
        };
        match tokio::time::timeout(limit, &mut waiting.called).await {
            Ok(_) => {
                waiting.placed = true;
                self.series.entered(began.elapsed());
                Ok(self.place(organization))
            }
            Err(_) => {
                drop(waiting);
                Err(self.refuse(&self.state.lock(), Refusal::Late))
            }
        }
    }

    /// A place at once, beyond the limit if need be: for who has a part in a request that is at work already, and which would
    /// hold its place for nothing while it waits for another.
    pub fn step_in(self: &Arc<Self>, organization: &Arc<str>) -> Place {
        self.take(&mut self.state.lock(), organization)
    }

    fn take(self: &Arc<Self>, state: &mut State, organization: &Arc<str>) -> Place {
        state.at_work += 1;
        state.turns.go(organization);
        self.place(organization)
    }

    fn place(self: &Arc<Self>, organization: &Arc<str>) -> Place {
        Place { queue: self.clone(), organization: organization.clone(), since: Instant::now() }
    }

    fn refuse(&self, state: &State, refusal: Refusal) -> Fault {
        self.series.refused(refusal);
        let (kind, message) = match refusal {
            Refusal::Share => (
                FaultKind::RateLimited,
                "Your organization has as many requests waiting for this model as it may; try again later.",
            ),
            Refusal::Full => {
                (FaultKind::Overloaded, "As many requests wait for this model as may wait for it; try again later.")
            }
            Refusal::Late => (
                FaultKind::Overloaded,
                "This model was too busy for this request to get its turn in time; try again later.",
            ),
        };
        Fault { retry_after: Some(state.turn_around()), ..Fault::new(kind, message) }
    }
}

impl State {
    fn admit(&self, organization: &str, capacity: &Capacity) -> Result<(), Refusal> {
        let left = capacity.waiting.saturating_sub(self.turns.waiting());
        if left == 0 {
            return Err(Refusal::Full);
        }
        if self.turns.waiting_of(organization) < SHARE * left { Ok(()) } else { Err(Refusal::Share) }
    }

    /// Gives the places that are free to those whose turn it is.
    fn fill(&mut self) {
        while self.capacity.is_none_or(|capacity| self.at_work < capacity.at_work)
            && let Some(call) = self.turns.call()
        {
            self.at_work += 1;
            // Who left in this moment gives it back: see `Waiting`.
            let _ = call.send(());
        }
    }

    /// When those who wait now will have had their turn, by the usual time that a place is held.
    fn turn_around(&self) -> Duration {
        let places = self.capacity.map_or(1, |capacity| capacity.at_work.max(1));
        let seconds = (self.turns.waiting() + 1) as f64 * self.turns.usual().unwrap_or(SOONEST) / places as f64;
        Duration::from_secs_f64(seconds.clamp(SOONEST, LATEST).ceil())
    }
}

/// Somebody in a line.
struct Waiting<'a> {
    queue: &'a Queue,
    organization: &'a str,
    ticket: u64,
    called: oneshot::Receiver<()>,
    /// The place that it was called to is somebody's.
    placed: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        let mut state = self.queue.state.lock();
        if !state.turns.leave(self.organization, self.ticket) {
            // It was called in this moment.
            state.at_work -= 1;
            state.fill();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.at_work -= 1;
        state.turns.held(&self.organization, self.since.elapsed().as_secs_f64());
        state.fill();
    }
}

#[cfg(test)]
mod tests;
