//! Keys: made from the system's randomness, known by their hash.

use sha2::{Digest, Sha256};

/// SHA-256 of a key's text.
pub(super) fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// `sha256:…` as the configuration wants it.
pub fn hash_of(key: &str) -> String {
    format!("sha256:{}", hex::encode(digest(key.as_bytes())))
}

/// A new key with this prefix: 32 letters and digits, 190 bits of randomness.
///
/// # Errors
/// The system has no randomness to give.
pub fn fresh_key(prefix: &str) -> Result<String, String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut key = prefix.to_owned();
    while key.len() < prefix.len() + 32 {
        let mut byte = [0];
        getrandom::fill(&mut byte).map_err(|error| format!("the system gives no randomness: {error}"))?;
        // Bytes beyond a multiple of 62 would make the first letters likelier.
        if byte[0] < 248 {
            key.push(LETTERS[usize::from(byte[0] % 62)] as char);
        }
    }
    Ok(key)
}
