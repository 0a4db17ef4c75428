//! A session stays where it is, as long as that is there.

use super::{Member, rendezvous};

/// See the module.
pub(super) fn choose(members: &[impl Member], key: u64) -> usize {
    rendezvous::best(members, key, |_| true).unwrap_or(0)
}
