//! The host's side of every import: the gateway's in a component, an in-memory one in native tests. Both have the same
//! functions, so nothing above this line knows which it talks to.

#[cfg(target_family = "wasm")]
pub use crate::bindings::tidegate::plugin::{calls::Call, config, http, kv, log, metrics, model, request, system};

#[cfg(not(target_family = "wasm"))]
pub use crate::testing::host::{Call, config, http, kv, log, metrics, model, request, system};
