//! How many tokens a prompt has: asked of the backend that would answer it, where it can count, and estimated where it cannot.

use super::pick::Candidate;
use super::said::Said;
use super::tries::{Step, Tries};
use super::verdict::Verdict;
use super::{Backend, Backends, Origin};
use crate::canon::{Fault, FaultKind, Route, UsageSource};
use crate::wire::Target;
use crate::wire::count::{self, Counter};
use crate::wire::request::Request;
use bytes::Bytes;
use std::pin::pin;
use std::time::Duration;

/// After so long an estimate now is worth more than a count later.
const PATIENCE: Duration = Duration::from_secs(10);
/// vLLM's answer names every token of the prompt.
const ANSWER: usize = 64 << 20;

/// What a client is told.
pub struct Counted {
    /// In the client's dialect.
    pub answer: Bytes,
    /// Reported by a counter, or estimated.
    pub source: UsageSource,
}

impl Backends {
    /// Counts the tokens of the request's prompt at the first target that can. Where that one has no counter, or all fail, the
    /// prompt is estimated.
    ///
    /// # Errors
    /// The request itself is the trouble: the target could not answer it either.
    pub async fn measure(
        &self,
        route: &Route,
        request: &Request,
        origin: Origin<'_>,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<Counted, Fault> {
        let here = self.here(route);
        let mut tries = Tries::over(&here, origin);
        while let Some((candidate, target)) = tries.next(note) {
            let asked = ask(candidate, request, &target, origin);
            let asked = tries.waiting(pin!(tokio::time::timeout(PATIENCE, asked))).await;
            let slow = || Fault::new(FaultKind::BackendTimeout, "The backend did not count in time.");
            match asked.unwrap_or_else(|_| Err(Verdict::Another(slow()))) {
                Ok(Some(answer)) => {
                    return Ok(Counted { answer, source: UsageSource::Reported });
                }
                Ok(None) => break,
                Err(verdict) => tries.failed(candidate, verdict, note)?,
            }
        }
        let answer = count::write(request.dialect, request.estimate_input());
        Ok(Counted { answer, source: UsageSource::Estimated })
    }
}

/// Asks one target; `None` where it cannot count.
async fn ask(
    candidate: Candidate<'_>,
    request: &Request,
    target: &Target,
    origin: Origin<'_>,
) -> Result<Option<Bytes>, Verdict> {
    let backend = candidate.backend;
    if let Some(local) = &backend.local {
        return Ok(Some(count::write(request.dialect, local.count(request, target).await?)));
    }
    let (Some(endpoint), Some(counter)) = (candidate.endpoint, backend.counter(request)) else {
        // It is not sent; what could not be sent is refused all the same.
        return request.write(&backend.dialects, target).map(|_| None).map_err(Verdict::Final);
    };
    let body = request.write_to_count(counter, target).map_err(Verdict::Final)?;
    let said = Said::json(counter.path(), counter.dialect(), &body, origin);
    let alike = counter.dialect() == request.dialect;
    match backend.call(&endpoint.address, &said, || {}).await {
        Ok((_, mut body)) => match (body.whole(ANSWER).await.ok().flatten(), alike) {
            (Some(answer), true) if counter.read(&answer).is_some() => Ok(Some(answer)),
            (Some(answer), false) => Ok(counter.read(&answer).map(|tokens| count::write(request.dialect, tokens))),
            _ => Ok(None),
        },
        // The client's own words were refused. Ours may be so because they are ours.
        Err(Verdict::Final(fault)) if alike => Err(Verdict::Final(fault)),
        Err(Verdict::Final(fault)) => {
            tracing::debug!(error = fault.message, "a counter refused a request that was written for it");
            Ok(None)
        }
        Err(another) => Err(another),
    }
}

impl Backend {
    /// What counts here: the client's own counter, else the best there is.
    fn counter(&self, request: &Request) -> Option<Counter> {
        let spoken = |counter: &&Counter| self.dialects.contains(&counter.dialect());
        let counters = || self.traits.counters.iter().filter(spoken);
        counters().find(|counter| counter.dialect() == request.dialect).or_else(|| counters().next()).copied()
    }
}
