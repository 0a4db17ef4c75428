//! What only passes: a body for an API that is known by its model alone, to the first target that takes it.

use super::said::Said;
use super::tries::{Step, Tries};
use super::{Backend, Backends, Origin, http};
use crate::canon::{Fault, Route};
use crate::wire::opaque::Parcel;
use ::http::Response;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// A reply that has begun, of whatever it is.
pub struct Carried {
    /// Its head.
    pub head: Response<()>,
    /// Its body.
    pub body: http::Body,
    /// Who sends it.
    pub backend: Arc<Backend>,
    /// When all of it must have come.
    pub until: Option<Instant>,
}

impl Backends {
    /// Carries the body to the first target that takes it. Kinds that have no such API are not asked.
    ///
    /// # Errors
    /// No target has it; the fault of the last one, when none took it; everything the request itself gets wrong.
    pub async fn carry(
        &self,
        route: &Route,
        parcel: &Parcel,
        origin: Origin<'_>,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<Carried, Fault> {
        let here = self.here(route);
        let mut tries = Tries::among(&here, origin, |backend| backend.traits.opaque);
        if tries.is_over() {
            let message = format!("The model `{}` is on no backend that has {}.", parcel.model, parcel.to.path);
            return Err(Fault::unsupported("model", message));
        }
        while let Some((candidate, target)) = tries.next(note) {
            let backend = candidate.backend;
            let Some(endpoint) = candidate.endpoint else {
                tries.failed(candidate, backend.nowhere(), note)?;
                continue;
            };
            let body = parcel.body(&target.model);
            let said = Said::carry(parcel, &body, origin);
            let answer = tries.waiting(pin!(backend.call(&endpoint.address, &said, || note(Step::Handed)))).await;
            match answer {
                Ok((head, body)) => {
                    return Ok(Carried { head, body, backend: backend.clone(), until: tries.until(backend) });
                }
                Err(verdict) => tries.failed(candidate, verdict, note)?,
            }
        }
        Err(tries.exhausted())
    }
}
