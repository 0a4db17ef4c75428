//! Where jobs wait: first for their prompt to be tokenized, then for a free slot.
//!
//! A mutex and a condition variable instead of a channel, because a full queue must forget the callers who have gone
//! before it refuses a new one, and because two threads take from it.

use super::Stop;
use super::sequence::Sequence;
use super::{Job, Piece, SubmitError};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Pieces in flight to one reader, mostly two a token; then its sequence pauses.
const PIECES: usize = 128;

/// A job and where its answer goes.
pub struct Waiting {
    pub job: Job,
    pub outlet: Sender<Piece>,
}

/// The waiting room between callers and the engine's threads.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Waiting>,
    /// Jobs whose prompt is being tokenized now.
    preparing: usize,
    ready: VecDeque<Sequence>,
    /// Slots that were free when the engine last looked: so many of those that are here do not wait for one.
    room: usize,
    stopped: bool,
}

/// How long to wait for work.
pub enum Patience {
    /// There is other work.
    None,
    /// Something else wants a look after this time.
    Until(Duration),
    /// Nothing else to do.
    Forever,
}

impl Queue {
    /// Room for `limit` jobs that wait for a slot.
    pub fn new(limit: usize) -> Queue {
        Queue { state: Mutex::default(), changed: Condvar::new(), limit: limit.max(1) }
    }

    /// Queues a job, never blocking for longer than a lock is held.
    pub fn submit(&self, job: Job) -> Result<Receiver<Piece>, SubmitError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(SubmitError::Stopped);
        }
        let limit = self.limit.saturating_add(state.room);
        if state.waiting() >= limit {
            state.jobs.retain(|waiting| !waiting.outlet.is_closed());
            state.ready.retain(|sequence| !sequence.is_cancelled());
            if state.waiting() >= limit {
                return Err(SubmitError::Full);
            }
        }
        let (outlet, pieces) = channel(PIECES);
        state.jobs.push_back(Waiting { job, outlet });
        self.changed.notify_all();
        Ok(pieces)
    }

    /// The next job whose prompt is to be prepared; `None` once stopped. Each must be answered by [`Queue::prepared`].
    pub fn next_job(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(waiting) = state.jobs.pop_front() {
                state.preparing += 1;
                return Some(waiting);
            }
            self.changed.wait(&mut state);
        }
    }

    /// A job became a sequence, or ended before it was one.
    pub fn prepared(&self, sequence: Option<Sequence>) {
        let mut state = self.state.lock();
        state.preparing -= 1;
        state.ready.extend(sequence);
        self.changed.notify_all();
    }

    /// Up to `room` sequences to start; `None` once stopped.
    pub fn take(&self, room: usize, patience: Patience) -> Option<Vec<Sequence>> {
        let mut state = self.state.lock();
        state.room = room;
        match patience {
            Patience::None => {}
            Patience::Until(time) => {
                if !state.stopped && (room == 0 || state.ready.is_empty()) {
                    self.changed.wait_for(&mut state, time);
                }
            }
            Patience::Forever => {
                while !state.stopped && state.ready.is_empty() {
                    self.changed.wait(&mut state);
                }
            }
        }
        if state.stopped {
            return None;
        }
        let started = room.min(state.ready.len());
        state.room -= started;
        Some(state.ready.drain(..started).collect())
    }
}

impl Stop for Queue {
    /// No more work: wakes both threads and tells everyone who waits.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        for waiting in state.jobs.drain(..) {
            // Room is certain, nothing was sent to it yet; a reader who has gone does not mind.
            let _ = waiting.outlet.try_send(Piece::stopped());
        }
        for mut sequence in state.ready.drain(..) {
            sequence.fail(Piece::stopped());
        }
        self.changed.notify_all();
    }

    fn has_stopped(&self) -> bool {
        self.state.lock().stopped
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.jobs.len() + self.preparing + self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_a_free_slot_does_not_wait() {
        let queue = Queue::new(1);
        let submit = || queue.submit(Job::new(serde_json::json!([])));
        let look = |room| queue.take(room, Patience::None).map(|started| started.len());
        assert_eq!(look(2), Some(0));
        let inside: Vec<_> = (0..3).map(|_| submit().unwrap()).collect();
        assert_eq!(submit().unwrap_err(), SubmitError::Full);
        drop(inside);
        assert_eq!(look(0), Some(0));
        let inside = submit().unwrap();
        assert_eq!(submit().unwrap_err(), SubmitError::Full);
        drop(inside);
    }
}
