//! What stands where a model would, in a gateway that was built without them.

use crate::backend::Reply;
use crate::backend::config::Settings;
use crate::backend::verdict::Verdict;
use crate::canon::{About, EmbedCall, Embedded, Fault, FaultKind};
use crate::wire::Target;
use crate::wire::request::{Outgoing, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// See the module.
pub struct Local;

impl Local {
    pub fn load(name: &Arc<str>, _: &Path, _: &Settings) -> Arc<Self> {
        tracing::error!(backend = &**name, "this tidegate was built without the feature `local`");
        Arc::new(Self)
    }
    pub fn settled(&self) -> bool {
        true
    }
    pub fn is_ready(&self) -> bool {
        false
    }
    pub fn revive(&self, _: Instant) {}
    pub fn error(&self) -> Option<String> {
        Some("this tidegate was built without the feature `local`".into())
    }
    pub fn in_flight(&self) -> usize {
        0
    }
    pub fn context(&self) -> Option<u64> {
        None
    }
    pub fn embeds(&self) -> bool {
        true
    }
    pub fn about(&self) -> Option<About> {
        None
    }
    pub fn send(&self, _: &Request, _: &Target, _: &Arc<str>) -> Result<(Outgoing, Reply), Verdict> {
        Err(Self::none())
    }
    pub async fn embed(&self, _: &EmbedCall) -> Result<(Embedded, Vec<String>), Verdict> {
        Err(Self::none())
    }
    pub async fn count(&self, _: &Request, _: &Target) -> Result<u64, Verdict> {
        Err(Self::none())
    }
    fn none() -> Verdict {
        Verdict::Another(Fault::new(FaultKind::BackendUnavailable, "This gateway was built without local models."))
    }
}
