//! What a request has in common with others that should go the same way.
//!
//! Keys hold the organization: what one tenant sends decides nothing for another.

use crate::canon::Policy;
use crate::canon::header::{SESSION_ID, X_SESSION_ID};
use crate::wire::request::Request;
use http::HeaderMap;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// Where keys come from; nothing is looked at before one is asked for.
#[derive(Clone, Copy)]
pub struct Affinity<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Whose it is.
    pub organization: &'a str,
}

impl Affinity<'_> {
    /// The key under this policy, if it has any and the request tells.
    pub fn key(&self, policy: Policy) -> Option<u64> {
        let tenant = || xxh3_64(self.organization.as_bytes());
        match policy {
            Policy::Session => {
                let named = [&X_SESSION_ID, &SESSION_ID].into_iter().find_map(|name| self.headers.get(name));
                match named.filter(|value| !value.is_empty()) {
                    Some(value) => Some(xxh3_64_with_seed(value.as_bytes(), tenant())),
                    None => self.request.session().map(|session| xxh3_64_with_seed(session.as_bytes(), tenant())),
                }
            }
            Policy::Prefix => {
                let mut hash = Xxh3::with_seed(tenant());
                self.request.lead(&mut |piece| hash.update(piece)).then(|| hash.digest())
            }
            Policy::LeastLoad | Policy::RoundRobin | Policy::Weighted => None,
        }
    }
}

/// The key of a member, from what is the same in every process.
pub(in crate::backend) fn of(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}
