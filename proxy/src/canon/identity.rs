//! Who is calling, once the gate has decided. Never holds a secret.

use std::sync::Arc;

/// The caller of a request: the account it is booked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Organization id as configured.
    pub organization: Arc<str>,
    /// Project id as configured; empty for calls that need none.
    pub project: Arc<str>,
    /// Id of the key that was used.
    pub key: Arc<str>,
    /// Id of the gateway's own user, for user keys.
    pub user: Option<Arc<str>>,
}
