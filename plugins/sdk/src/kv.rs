//! Small state that outlives a request: the `kv` grant. A plugin sees only its own keys, and only those of the organization
//! the request belongs to, unless the grant says otherwise.

use crate::{Error, host::kv};

/// The value of a key.
///
/// # Errors
/// Not granted, not in time, or failed.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    kv::get(key)
}

/// Sets a key for so many seconds; `None` is the grant's longest.
///
/// # Errors
/// Not granted, too large, not in time, or failed.
pub fn set(key: &str, value: &[u8], ttl: Option<u32>) -> Result<(), Error> {
    kv::set(key, value, ttl)
}

/// Forgets a key.
///
/// # Errors
/// Not granted, not in time, or failed.
pub fn delete(key: &str) -> Result<(), Error> {
    kv::delete(key)
}

/// Adds to a number, atomically over all replicas, and answers the sum. A missing key is 0 and gets `ttl`.
///
/// # Errors
/// Not granted, no number, not in time, or failed.
pub fn increment(key: &str, by: i64, ttl: Option<u32>) -> Result<i64, Error> {
    kv::increment(key, by, ttl)
}
