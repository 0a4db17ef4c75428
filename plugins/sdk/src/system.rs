//! Clock and randomness. Use these, not `std`: a component without WASI has neither `SystemTime` nor entropy.

use crate::host::system;

/// Milliseconds since 1970, UTC.
pub fn now() -> f64 {
    system::now()
}

/// Milliseconds since some moment; never goes back.
pub fn elapsed() -> f64 {
    system::elapsed()
}

/// So many random bytes, 1,024 at most.
pub fn random(length: u32) -> Vec<u8> {
    system::random(length)
}

/// A number in 0..1.
pub fn chance() -> f64 {
    let bytes = random(4);
    let number = bytes.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}
