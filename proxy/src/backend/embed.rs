//! Requests for vectors, carried to the first target that takes them.
//!
//! As [`Backends::send`] does it for text, but that targets which make no vectors are not among the candidates at all: of a
//! model's fallbacks often only some do.

use super::said::Said;
use super::tries::Tries;
use super::verdict::Verdict;
use super::{Backend, Backends, Origin, Step, http};
use crate::canon::{Embedded, Fault, Route};
use crate::wire::Written;
use crate::wire::embed::{EmbedOutgoing, EmbedRequest};
use std::pin::pin;
use std::sync::Arc;

/// An answer that has begun.
pub struct SentEmbed {
    /// The answer.
    pub reply: EmbedSource,
    /// What had to be dropped for it.
    pub written: Written,
    /// Who sends it.
    pub backend: Arc<Backend>,
}

/// Where vectors come from.
pub enum EmbedSource {
    /// A server, as bytes of this protocol.
    Http(crate::wire::embed::EmbedApi, http::Body),
    /// This process.
    Here(Embedded),
}

impl Backends {
    /// Carries the request to the first target that takes it.
    ///
    /// # Errors
    /// As [`Backends::send`]; no target of the model makes vectors.
    pub async fn embed(
        &self,
        route: &Route,
        request: &EmbedRequest,
        origin: Origin<'_>,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<SentEmbed, Fault> {
        let here = self.here(route);
        let mut tries = Tries::among(&here, origin, Backend::makes_vectors);
        if tries.is_over() {
            return Err(makes_none());
        }
        while let Some((candidate, target)) = tries.next(note) {
            let backend = candidate.backend;
            let answer = match candidate.endpoint {
                // Only to be loaded, and not by a server that does so.
                _ if request.call.inputs.is_empty() && !backend.embeds.contains(&request.api) => {
                    Ok((Written::default(), EmbedSource::Here(Embedded::default())))
                }
                Some(endpoint) => match request.write(&backend.embeds, &target) {
                    Ok(EmbedOutgoing { api, written }) => {
                        let said = Said::json(api.path(), api.dialect(), &written.body, origin);
                        let handed = || note(Step::Handed);
                        let answer = tries.waiting(pin!(backend.call(&endpoint.address, &said, handed))).await;
                        answer.map(|(_, body)| (written, EmbedSource::Http(api, body)))
                    }
                    Err(fault) => Err(Verdict::Final(fault)),
                },
                None => match &backend.local {
                    Some(local) => {
                        note(Step::Handed);
                        let answer = tries.waiting(pin!(local.embed(&request.call))).await;
                        answer.map(|(vectors, dropped)| {
                            (Written { dropped, ..Written::default() }, EmbedSource::Here(vectors))
                        })
                    }
                    None => Err(backend.nowhere()),
                },
            };
            match answer {
                Ok((written, reply)) => {
                    return Ok(SentEmbed { reply, written, backend: backend.clone() });
                }
                Err(verdict) => tries.failed(candidate, verdict, note)?,
            }
        }
        Err(tries.exhausted())
    }
}

impl Backend {
    /// Whether there is a way to ask it for vectors.
    fn makes_vectors(&self) -> bool {
        self.local.as_ref().map_or(!self.embeds.is_empty(), |local| local.embeds())
    }
}

/// Said where no target of a model makes vectors.
pub(super) fn makes_none() -> Fault {
    Fault::unsupported("model", "This model makes no embeddings: what serves it has no API for them.")
}
