//! The targets of one request, one after the other until one takes it: what is tried, what that means for the next, and what
//! is left to say when none did.

use super::pick::{self, Candidate};
use super::verdict::Verdict;
use super::{Backend, Backends};
use crate::canon::{Fault, FaultKind, Route};
use crate::wire::Target;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far a request has come, for the books: its outcome may never be known.
pub enum Step<'a> {
    /// A target is about to be tried.
    Try(Try<'a>),
    /// There is a connection to it, and the request goes out.
    Handed,
}

/// A try at a target.
pub struct Try<'a> {
    /// Backend name.
    pub backend: &'a Arc<str>,
    /// Address label.
    pub target: &'a Arc<str>,
    /// The model's name there.
    pub model: &'a Arc<str>,
    /// The kind's provider name.
    pub provider: &'static str,
    /// Counted from 1.
    pub attempt: u32,
}

/// See the module.
pub(super) struct Tries<'a> {
    candidates: Vec<Candidate<'a>>,
    /// How many of them have been tried.
    tried: usize,
    /// When the one tried last was asked.
    pub began: Instant,
    /// Time spent waiting for backends.
    pub waited: Duration,
    last: Option<Fault>,
    max_output: Option<u64>,
    request_id: &'a str,
}

impl<'a> Tries<'a> {
    /// Over the targets of a route, in the order of its policy.
    pub fn over(backends: &'a Backends, route: &'a Route, request_id: &'a str) -> Self {
        Self::among(backends, route, request_id, |_| true)
    }

    /// Over those of its targets whose backend can do what the request is for.
    pub fn among(
        backends: &'a Backends,
        route: &'a Route,
        request_id: &'a str,
        can: impl Fn(&Backend) -> bool,
    ) -> Self {
        Self {
            candidates: pick::order(backends, route, can),
            tried: 0,
            began: Instant::now(),
            waited: Duration::ZERO,
            last: None,
            max_output: route.max_output,
            request_id,
        }
    }

    /// The next one, and what a dialect must know of it; the books are told.
    pub fn next(&mut self, note: &mut dyn FnMut(Step<'_>)) -> Option<(Candidate<'a>, Target)> {
        let candidate = *self.candidates.get(self.tried)?;
        self.tried += 1;
        let backend = candidate.backend;
        note(Step::Try(Try {
            backend: &backend.name,
            target: candidate.label(),
            model: &candidate.hop.model,
            provider: backend.traits.provider,
            attempt: self.tried as u32,
        }));
        self.began = Instant::now();
        Some((candidate, backend.traits.target(&candidate.hop.model, self.max_output)))
    }

    /// There is none left.
    pub fn is_over(&self) -> bool {
        self.tried == self.candidates.len()
    }

    /// Waits for a backend, on the clock.
    pub async fn waiting<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let answer = answer.await;
        self.waited += asked.elapsed();
        answer
    }

    /// The one tried last did not take it.
    ///
    /// # Errors
    /// No other would.
    pub fn failed(&mut self, verdict: Verdict) -> Result<(), Fault> {
        let fault = match verdict {
            Verdict::Final(fault) => return Err(fault),
            Verdict::Another(fault) => fault,
        };
        tracing::warn!(
            request_id = self.request_id,
            target = self.tried.checked_sub(1).map(|at| &**self.candidates[at].label()),
            attempt = self.tried,
            error = fault.message,
            waited_ms = self.began.elapsed().as_millis() as u64,
            "a backend gave no reply"
        );
        self.last = Some(fault);
        Ok(())
    }

    /// What to say when none took it.
    pub fn exhausted(self) -> Fault {
        let none = || Fault::new(FaultKind::BackendUnavailable, "No backend serves this model at the moment.");
        Fault { exhausted: self.candidates.len() > 1, ..self.last.unwrap_or_else(none) }
    }
}
