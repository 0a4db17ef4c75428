//! One address is asked, and what its answer, or the lack of one, says of it.

use super::breaker::Ended;
use super::endpoint::Address;
use super::endpoints::Endpoints;
use super::pick::Candidate;
use super::said::Said;
use super::verdict::{self, Verdict};
use super::{Backend, Origin, Reply, http, standing};
use crate::canon::{Fault, FaultKind};
use crate::wire::reply::begins_with_fault;
use crate::wire::request::{Outgoing, Request};
use crate::wire::{Dialect, Target};
use ::http::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a target answered.
pub(super) type Answer = Result<(Outgoing, Reply), Verdict>;

/// Asks one address for a reply; `handed` is called when there is a connection.
pub(super) async fn ask(
    candidate: Candidate<'_>,
    request: &Request,
    target: &Target,
    origin: Origin<'_>,
    mut handed: impl FnMut(),
) -> Answer {
    let backend = candidate.backend;
    let Some(endpoint) = candidate.endpoint else {
        return Err(backend.nowhere());
    };
    let mut outgoing = request.write(&backend.dialects, target).map_err(Verdict::Unable)?;
    // Not before: translating is the gateway's own time.
    let (_wait, asked) = (origin.waited.begin(), Instant::now());
    let (head, mut body) = loop {
        let said = Said::generate(&outgoing, request.stream, origin);
        let verdict = match backend.call(&endpoint.address, &said, &mut handed).await {
            Ok(reply) => break reply,
            Err(verdict) => verdict,
        };
        let Verdict::Final(fault) = &verdict else { return Err(verdict) };
        // A member less each time, so this ends.
        let Some(less) = request.spare(&outgoing, &fault.message) else { return Err(verdict) };
        outgoing = less;
    };
    if request.stream {
        let left = backend.timeouts.first_token.0.saturating_sub(asked.elapsed());
        backend.begins(&endpoint.address, outgoing.dialect, &mut body, left, origin.silence).await?;
    }
    Ok((outgoing, Reply::Http(head, body)))
}

impl Backend {
    /// Says it to one address; `handed` is called when there is a connection.
    pub(super) async fn call(
        &self,
        address: &Arc<Address>,
        said: &Said<'_>,
        mut handed: impl FnMut(),
    ) -> Result<(Response<()>, http::Body), Verdict> {
        let message = || {
            handed();
            said.message(address, self.credentials.as_ref())
        };
        let began = said.stream.then(standing::now);
        let sending = http::send(address, message, self.traits.idle, self.timeouts.connect.0);
        // Only a stream owes a first token: a whole reply is as long in coming as it is long.
        let first = said.stream.then_some(self.timeouts.first_token.0);
        let sent = match first.into_iter().chain(self.timeouts.total.map(|total| total.0)).min() {
            Some(limit) => tokio::time::timeout(limit, sending).await.unwrap_or(Err(http::Failure::Slow)),
            None => sending.await,
        };
        let (head, mut body) = sent.map_err(|failure| {
            if !matches!(failure, http::Failure::Slow) {
                self.report(address, Ended::Broken);
            }
            verdict::unreachable(&failure)
        })?;
        if head.status().is_success() {
            self.report(address, Ended::Well);
            body.watch(began, self.rules.clone());
            return Ok((head, body));
        }
        match verdict::says(&head) {
            verdict::Says::Ended(ended) => self.report(address, ended),
            verdict::Says::Full(wait) => address.standing.full(standing::now(), wait),
            verdict::Says::Nothing => address.standing.heard(),
        }
        Err(Box::pin(verdict::refused(head, body, self.key.as_ref())).await)
    }

    /// Waits for a stream's first bytes, because as long as its client has none another target can be asked instead: some servers
    /// send a head at once and fail, or hang, only then. `silence`: how long that client may hear nothing; after it, it is told
    /// to go on waiting for this one.
    async fn begins(
        &self,
        address: &Address,
        dialect: Dialect,
        body: &mut http::Body,
        left: Duration,
        silence: Option<Duration>,
    ) -> Result<(), Verdict> {
        let (limit, last) = silence.filter(|silence| *silence < left).map_or((left, true), |silence| (silence, false));
        match tokio::time::timeout(limit, body.begin()).await {
            Ok(Ok(first)) => {
                let Some(mut fault) = begins_with_fault(dialect, first) else { return Ok(()) };
                self.hide_key(&mut fault);
                let invalid = fault.kind == FaultKind::BackendInvalid;
                self.report(address, if invalid { Ended::Refused } else { Ended::Failed });
                Err(if invalid { Verdict::Final(fault) } else { Verdict::Another(fault) })
            }
            // One that broke off has told the address's standing so.
            Ok(Err(failure)) => {
                if matches!(failure, http::Failure::Empty) {
                    self.report(address, Ended::Failed);
                }
                Err(verdict::unreachable(&failure))
            }
            Err(_) if last => Err(verdict::unreachable(&http::Failure::Slow)),
            Err(_) => Ok(()),
        }
    }

    /// Tells an address's standing how a request ended.
    fn report(&self, address: &Address, ended: Ended) {
        if address.standing.report(ended, standing::now(), &self.rules) {
            let closed = address.standing.breaker.is_closed();
            tracing::warn!(
                backend = &*self.name,
                address = address.id,
                closed,
                "the breaker of a backend's address changed"
            );
        }
    }

    /// Nobody knows where it is.
    pub(super) fn nowhere(&self) -> Verdict {
        let why = match &self.endpoints {
            Endpoints::Named(name) => name.lacks(),
            Endpoints::Fixed(_) => "none is configured",
        };
        let message = format!("The backend `{}` has no address at the moment: {why}.", self.name);
        let retry_after = Some(Duration::from_secs(1));
        Verdict::Another(Fault { retry_after, ..Fault::new(FaultKind::BackendUnavailable, message) })
    }

    /// Takes the gateway's key there out of what this backend said is wrong.
    pub fn hide_key(&self, fault: &mut Fault) {
        verdict::hide_key(fault, self.key.as_ref());
    }
}
