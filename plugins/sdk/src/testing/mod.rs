//! A gateway in memory: runs a plugin in `cargo test`, without wasm.
//!
//! ```
//! # use tidegate_plugin::prelude::*;
//! # #[derive(Deserialize)]
//! # struct Greet { prompt: String }
//! # impl Plugin for Greet {
//! #     type Exchange = ();
//! #     const HOOKS: Hooks = Hooks::ON_CALL;
//! #     fn on_call(&self, call: &Call, _: &mut ()) -> Verdict { call.prepend_system(&self.prompt); Verdict::Change }
//! # }
//! # tidegate_plugin::export!(Greet);
//! use tidegate_plugin::testing::{Chat, Trial};
//! use serde_json::json;
//!
//! let trial = Trial::<Greet>::new(json!({"prompt": "Answer in English."}));
//! let request = trial.call(Chat::user("Wie geht's?"));
//! assert_eq!(request.verdict, Verdict::Change);
//! assert_eq!(request.texts(), ["Answer in English.", "Wie geht's?"]);
//! ```
//!
//! What the gateway would refuse, a trial refuses too: a reply that leaves the grammar, a fault the plugin made up, a metric it
//! did not declare. Where a stream is cut must not matter: [`Trial::same_at_every_split`] tries them all.
//!
//! The state around a request (headers, identity, kv, what http and models answer) is the thread's [`World`]; a new trial
//! makes a new one.

mod call;
mod chat;
mod grammar;
#[doc(hidden)]
pub mod host;
mod schema;
mod splits;
mod trial;
mod world;

pub use call::Call;
pub use chat::Chat;
pub use grammar::Grammar;
pub use splits::splits;
pub use trial::{Request, Trial};
pub use world::World;
