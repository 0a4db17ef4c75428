//! The targets of one request, one after the other until one takes it: what is tried, what that means for the next, and what
//! is left to say when none did.

use super::pick::{self, Candidate};
use super::pool::{Affinity, Member as _};
use super::standing::now;
use super::verdict::Verdict;
use super::{Backend, Backends, Origin, endpoints::Here, standing::Aside};
use crate::canon::{Fault, FaultKind, Prices, Route};
use crate::wire::Target;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far a request has come, for the books: its outcome may never be known.
pub enum Step<'a> {
    /// A target is about to be tried.
    Try(Try<'a>),
    /// There is a connection to it, and the request goes out.
    Handed,
    /// No target was tried after all: none could be told what is asked for.
    Untried,
    /// It gives no reply. It may have `worked` for one.
    Over {
        /// It did not say no.
        worked: bool,
    },
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
    /// What tokens cost there, where it has prices of its own.
    pub price: Option<&'a Prices>,
}

/// See the module.
pub(super) struct Tries<'a> {
    backends: &'a Backends,
    route: &'a Route,
    /// Those that have been tried stand first, in order.
    candidates: Vec<Candidate<'a>>,
    /// How many of them have been tried.
    tried: usize,
    affinity: Option<Affinity<'a>>,
    /// When the one tried last was asked.
    began: Option<Instant>,
    last: Option<Fault>,
    /// The last that had no room; who is told of it knows when to come again.
    busy: Option<Fault>,
    /// Why the first that could not be told what is asked for could not.
    unable: Option<Fault>,
    /// The last one is wrong for this request at any time: going on is no load on anybody.
    elsewhere: bool,
    /// When the first of those that said so wants to be asked again.
    retry_after: Option<Duration>,
    origin: Origin<'a>,
}

impl<'a> Tries<'a> {
    /// Over the targets of a route, in the order of its policy.
    pub fn over(here: &'a Here<'_>, origin: Origin<'a>) -> Self {
        Self::among(here, origin, |_| true)
    }

    /// Over those of its targets whose backend can do what the request is for.
    pub fn among(here: &'a Here<'_>, origin: Origin<'a>, can: impl Fn(&Backend) -> bool) -> Self {
        Self {
            backends: here.backends,
            route: here.route,
            candidates: pick::all(here, can),
            tried: 0,
            affinity: None,
            began: None,
            last: None,
            busy: None,
            unable: None,
            elsewhere: false,
            retry_after: None,
            origin,
        }
    }

    /// With what policies may go by that keep alike requests together.
    pub fn alike(self, affinity: Affinity<'a>) -> Self {
        Self { affinity: Some(affinity), ..self }
    }

    /// The next one, and what a dialect must know of it; the books are told.
    pub fn next(&mut self, note: &mut dyn FnMut(Step<'_>)) -> Option<(Candidate<'a>, Target)> {
        let (tried, backends, origin) = (self.tried, self.backends, self.origin);
        let further = if self.elsewhere { Further::Misplaced } else { Further::Failed };
        let fit = |to: &Candidate<'_>| tried == 0 || further.may_go_to(to, backends, origin);
        if !pick::next(&mut self.candidates, tried, self.route, self.affinity, fit) {
            return None;
        }
        let candidate = self.candidates[tried];
        if tried == 0 {
            candidate.backend.budget.first();
        }
        let set_aside = if self.route.full { "queue" } else { "set_aside" };
        self.count(&candidate, self.last.as_ref().map_or(set_aside, |fault| reason(fault, self.elsewhere)));
        Some(self.begin(candidate, note))
    }

    /// One to ask at the same time as the one tried last: of the model itself, elsewhere, and one that stands well.
    pub fn beside(&mut self, note: &mut dyn FnMut(Step<'_>)) -> Option<(Candidate<'a>, Target)> {
        let (tried, backends, origin) = (self.tried, self.backends, self.origin);
        let other = self.candidates[tried.checked_sub(1)?];
        let fit = |to: &Candidate<'_>| {
            to.own && to.stands_well() && !to.is_at(&other) && Further::Slow.may_go_to(to, backends, origin)
        };
        if !pick::next(&mut self.candidates, tried, self.route, self.affinity, fit) {
            return None;
        }
        let candidate = self.candidates[tried];
        self.count(&candidate, "slow");
        Some(self.begin(candidate, note))
    }

    /// Of two that are asked at the same time the books are told of this one from now on, and whether it has the request.
    pub fn turn_to(&self, candidate: Candidate<'_>, handed: bool, note: &mut dyn FnMut(Step<'_>)) {
        self.tell(candidate, note);
        if handed {
            note(Step::Handed);
        }
    }

    /// Of two that were asked at the same time this one answered, and with a stream if it did `well`.
    pub fn won(&mut self, began: Instant, which: Which, well: bool) {
        self.began = Some(began);
        if let Some(watch) = self.backends.watch.as_ref().filter(|_| well) {
            watch.series.hedges.with_label_values(&[&*self.route.name, which.as_str()]).inc();
        }
    }

    fn begin(&mut self, candidate: Candidate<'a>, note: &mut dyn FnMut(Step<'_>)) -> (Candidate<'a>, Target) {
        self.tried += 1;
        self.tell(candidate, note);
        self.began = Some(Instant::now());
        (candidate, candidate.backend.traits.target(&candidate.hop.model, self.route.max_output))
    }

    fn tell(&self, candidate: Candidate<'_>, note: &mut dyn FnMut(Step<'_>)) {
        let backend = candidate.backend;
        note(Step::Try(Try {
            backend: &backend.name,
            target: candidate.label(),
            model: &candidate.hop.model,
            provider: backend.traits.provider,
            attempt: self.tried as u32,
            price: candidate.hop.price.as_ref(),
        }));
    }

    /// Counts what is no first try at a target of the model's own.
    fn count(&self, to: &Candidate<'_>, reason: &str) {
        if self.tried == 0 && to.own {
            return;
        }
        let Some(watch) = &self.backends.watch else { return };
        if !to.own {
            watch.series.fallbacks.with_label_values(&[&*self.route.name, &*to.backend.name, reason]).inc();
        } else if let Some(before) = self.tried.checked_sub(1).map(|at| self.candidates[at].backend) {
            watch.series.retries.with_label_values(&[&*self.route.name, &*before.name, reason]).inc();
        }
    }

    /// Whose request it is.
    pub fn origin(&self) -> Origin<'a> {
        self.origin
    }

    /// There is none left.
    pub fn is_over(&self) -> bool {
        self.tried == self.candidates.len()
    }

    /// Waits for a backend, on the clock. Pinned where it is: it would be copied otherwise.
    pub async fn waiting<T>(&self, answer: Pin<&mut impl Future<Output = T>>) -> T {
        let _wait = self.origin.waited.begin();
        answer.await
    }

    /// When all of the reply must have come from the one tried last, where it has a limit.
    pub fn until(&self, backend: &Backend) -> Option<Instant> {
        Some(self.began? + backend.timeouts.total?.0)
    }

    /// This one did not take it.
    ///
    /// # Errors
    /// No other would.
    pub fn failed(
        &mut self,
        candidate: Candidate<'_>,
        verdict: Verdict,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<(), Fault> {
        note(Step::Over { worked: verdict.worked() });
        // Of two that were asked at the same time it need not be the last; of two tries at one place it is the later one.
        let at = self.candidates[..self.tried].iter().rposition(|tried| tried.is_at(&candidate));
        let (fault, elsewhere) = match verdict {
            Verdict::Final(fault) => return Err(fault),
            Verdict::Another(fault) => (fault, false),
            Verdict::Elsewhere(fault) => (fault, true),
            Verdict::Unable(fault) => {
                // It was not asked, so this was no try.
                if let Some(at) = at {
                    self.candidates.remove(at);
                    self.tried -= 1;
                }
                match self.tried.checked_sub(1).map(|at| self.candidates[at]) {
                    Some(before) => self.tell(before, note),
                    None => note(Step::Untried),
                }
                self.unable.get_or_insert(fault);
                return Ok(());
            }
        };
        tracing::warn!(
            request_id = self.origin.request_id,
            target = &**candidate.label(),
            attempt = at.map(|at| at + 1),
            error = fault.message,
            waited_ms = self.began.map_or(0, |began| began.elapsed().as_millis() as u64),
            "a backend gave no reply"
        );
        self.retry_after = [self.retry_after, fault.retry_after].into_iter().flatten().min();
        if matches!(fault.kind, FaultKind::BackendBusy | FaultKind::BackendUnavailable) {
            self.busy = Some(fault.clone());
        }
        (self.last, self.elsewhere) = (Some(fault), elsewhere);
        Ok(())
    }

    /// What to say when none took it.
    pub fn exhausted(self) -> Fault {
        let none = || Fault::new(FaultKind::BackendUnavailable, "No backend serves this model at the moment.");
        let Some(last) = self.last.clone() else { return self.unable.unwrap_or_else(none) };
        let fault = match self.busy.clone() {
            Some(busy) => Fault { retry_after: self.retry_after, ..busy },
            None => self.all_out(&last.message).unwrap_or(last),
        };
        Fault { exhausted: self.candidates.len() > 1, ..fault }
    }

    /// Every target is known not to work: that is not this request's bad luck.
    fn all_out(&self, last: &str) -> Option<Fault> {
        let (now, mut failing, mut down, mut better) = (now(), 0, 0, u64::MAX);
        for candidate in &self.candidates {
            let standing = &candidate.endpoint?.address.standing;
            // One whose trial has just failed, or is due, is no better than one that waits for it.
            match standing.aside(now) {
                Some(Aside::Down | Aside::NotReady) => down += 1,
                Some(Aside::Full) => return None,
                Some(Aside::Failing) => failing += 1,
                None if !standing.breaker.is_closed() => failing += 1,
                None => return None,
            }
            better = better.min(standing.better_in(now).unwrap_or(1000));
        }
        let known = match (failing, down) {
            (failing, 0) => format!("{failing} failed too often of late"),
            (0, down) => format!("{down} did not answer their last probe"),
            (failing, down) => format!("{failing} failed too often of late, {down} did not answer their last probe"),
        };
        let message = format!("None of this model's targets works at the moment: {known}. The last said: {last}");
        let wait = Some(Duration::from_millis(better.clamp(1000, 10_000)));
        Some(Fault { retry_after: wait, ..Fault::new(FaultKind::BackendUnavailable, message) })
    }
}

/// One of two that are asked at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

impl Which {
    fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// What a further try is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Further {
    /// The target before does not serve the request at any time: going on is no load on anybody.
    Misplaced,
    /// The target before failed.
    Failed,
    /// It has not begun, and may still.
    Slow,
}

impl Further {
    /// Whether it makes sense: the backend can bear it, and its answer would find somebody.
    fn may_go_to(self, to: &Candidate<'_>, backends: &Backends, origin: Origin<'_>) -> bool {
        let (request_id, target) = (origin.request_id, &**to.label());
        if origin.time_left().is_some_and(|left| left.as_secs_f64() <= to.first_token()) {
            tracing::debug!(request_id, target, "no further try: the client will not wait for it");
            return false;
        }
        if self == Self::Misplaced || to.backend.budget.take(now(), to.backend.bears) {
            return true;
        }
        // No client is worse off without a second target for what may still come.
        if let Some(watch) = backends.watch.as_ref().filter(|_| self == Self::Failed) {
            watch.series.exhausted.with_label_values(&[&*to.backend.name]).inc();
        }
        tracing::debug!(request_id, target, "no further try: there are enough");
        false
    }
}

/// Why another target is tried, as a label.
fn reason(fault: &Fault, elsewhere: bool) -> &'static str {
    match fault.kind {
        _ if elsewhere => "misplaced",
        FaultKind::BackendUnreachable => "unreachable",
        FaultKind::BackendTimeout => "timeout",
        FaultKind::BackendBusy => "busy",
        FaultKind::BackendUnavailable => "unavailable",
        _ => "error",
    }
}
