//! The one trait a plugin implements.
//!
//! The type that implements it *is* the configuration, read: `#[derive(Deserialize)]` for a plain one,
//! `#[serde(try_from = "…")]` for one that compiles something from it and may find a mistake. There is one value per
//! instance; what belongs to one request lives in its [`Plugin::Exchange`].

use serde::de::DeserializeOwned;

use crate::{Call, End, Event, Hooks, Interests, Metric, Rewrite, Verdict};

/// A plugin.
pub trait Plugin: Package + DeserializeOwned + 'static {
    /// Its memory of one request, made empty before the first hook; `()` for a plugin that needs none.
    type Exchange: Default + 'static;

    /// What it wants to be called for.
    const HOOKS: Hooks;

    /// Which batches of a reply it wants to see.
    const EVENTS: Interests = Interests::empty();

    /// JSON Schema of its configuration, as JSON text: `Some(include_str!("../config.schema.json"))`.
    const SCHEMA: Option<&'static str> = None;

    /// The metrics it keeps.
    const METRICS: &'static [Metric] = &[];

    /// What it wants to be called for under this configuration.
    fn hooks(&self) -> Hooks {
        Self::HOOKS
    }

    /// What it wants to see under this configuration.
    fn events(&self) -> Interests {
        Self::EVENTS
    }

    /// Judges a call: after authentication and limits, before routing. Edits on `call` count with `Change` and `Route`.
    fn on_call(&self, call: &Call, exchange: &mut Self::Exchange) -> Verdict {
        let _ = (call, exchange);
        Verdict::Pass
    }

    /// Looks at a batch of the reply's events. All answers of one exchange together keep to the grammar.
    fn on_events(&self, exchange: &mut Self::Exchange, events: Vec<Event>) -> Rewrite {
        let _ = (exchange, events);
        Rewrite::Pass
    }

    /// The request is over.
    fn on_end(&self, exchange: Self::Exchange, end: End) {
        let _ = (exchange, end);
    }
}

/// Name and version of the crate a plugin lives in. [`export!`](crate::export) implements it.
#[diagnostic::on_unimplemented(message = "`{Self}` is not exported", note = "add `tidegate_plugin::export!({Self});`")]
pub trait Package {
    /// `CARGO_PKG_NAME`.
    const NAME: &'static str;
    /// `CARGO_PKG_VERSION`.
    const VERSION: &'static str;
}
