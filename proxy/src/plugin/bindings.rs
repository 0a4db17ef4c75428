//! What `wit/` says, as Rust. The compiler compares it with both sides.
#![allow(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    imports: {
        "tidegate:plugin/kv": async | trappable,
        "tidegate:plugin/http": async | trappable,
        "tidegate:plugin/model": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: { "tidegate:plugin/calls.call": super::view::View },
});

pub use exports::tidegate::plugin::hooks;
pub use tidegate::plugin::{calls, config, http, kv, log, metrics, model, request, system, types};
