//! At random, by weight.

use super::{Member, at, total};

/// See the module.
pub(super) fn choose(members: &[impl Member]) -> usize {
    at(members, fastrand::u64(..total(members).max(1)))
}
