//! Plugins for the Tidegate gateway, in Rust.
//!
//! ```
//! use tidegate_plugin::prelude::*;
//!
//! /// The plugin, read from its configuration: `prompt = "Answer in English."`.
//! #[derive(Deserialize)]
//! struct Greet {
//!     prompt: String,
//! }
//!
//! impl Plugin for Greet {
//!     type Exchange = ();
//!     const HOOKS: Hooks = Hooks::ON_CALL;
//!
//!     fn on_call(&self, call: &Call, _: &mut ()) -> Verdict {
//!         call.prepend_system(&self.prompt);
//!         Verdict::Change
//!     }
//! }
//! tidegate_plugin::export!(Greet);
//! # fn main() {}
//! ```
//!
//! The interface is the package `tidegate:plugin`; its types are used as generated, under the names below. What a plugin
//! never calls, its component does not import. On any other target than wasm the same code runs against an in-memory
//! gateway, [`testing`].

pub mod bindings;
#[doc(hidden)]
pub mod bridge;
mod call;
#[doc(hidden)]
pub mod host;
pub mod http;
pub mod json;
pub mod kv;
pub mod log;
mod metric;
pub mod model;
pub mod names;
mod opaque;
pub mod phrases;
mod plugin;
mod reply;
pub mod request;
pub mod system;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod types;
pub mod window;

pub use bindings::exports::tidegate::plugin::hooks::{
    Description, Destination, End, Interests, Rewrite, Subscriptions as Hooks, Verdict,
};
pub use bindings::tidegate::plugin::calls::{Passage, PassageKind, Place};
pub use bindings::tidegate::plugin::types::{
    Content, Delta, Effort, Error, Event, Fault, Format, FormatSchema, Hop, Identity, Image, ImageData, Outcome,
    Parameters, Part, Raw, Refusal, Role, Start, StopReason, Thinking, Thought, Tool, ToolCall, ToolChoice,
    ToolContent, ToolFunction, ToolHead, ToolResult, Turn, Usage, UsageSource,
};
pub use call::Call;
pub use metric::Metric;
pub use opaque::Opaque;
pub use plugin::{Package, Plugin};
pub use reply::{Piece, Reply};

#[doc(no_inline)]
pub use {serde, serde_json};

/// What nearly every plugin uses.
pub mod prelude {
    pub use crate::{
        Call, Content, Delta, End, Event, Hooks, Interests, Metric, Part, Plugin, Refusal, Reply, Rewrite, Role, Turn,
        Verdict, log, request,
    };
    pub use serde::Deserialize;
}

/// Makes the crate's component hold this plugin. Once a crate.
#[macro_export]
macro_rules! export {
    ($plugin:ident) => {
        impl $crate::Package for $plugin {
            const NAME: &'static str = env!("CARGO_PKG_NAME");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
        }
        // Natively nothing calls a plugin but its tests; it is not unused for that.
        const _: () = $crate::bridge::exported::<$plugin>();
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)] // raw exports: the component model's calling convention
        const _: () = {
            type Component = $crate::bridge::Bridge<$plugin>;
    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}
