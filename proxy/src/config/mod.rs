//! The configuration: a list of the rooms' own structs, read by figment from layers.
//!
//! Weakest first: built-in defaults, the file, the environment (`TIDEGATE_SERVER__LISTEN`), the command line. No room below
//! imports this one; each knows its own struct, and `app` builds the rooms from them and checks what goes beyond one of them.

mod change;
mod part;
mod place;
mod read;
mod watch;

pub use change::{changes, waiting};
pub use part::{books, operator};
pub use place::Problem;
pub use read::{files, load, place};
pub use watch::Watch;

use crate::canon::Secret;
use crate::{admin, backend, gate, ledger, plugin, route, server};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The whole configuration. docs/configuration.md explains every key.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The API's listener.
    pub server: server::Config,
    /// The operator's listener.
    pub admin: admin::Config,
    /// The books.
    pub ledger: ledger::Config,
    /// What replicas share.
    pub limits: Limits,
    /// How the API answers.
    pub api: Api,
    /// Servers of models, by name.
    pub backends: backend::Config,
    /// Models, by name or pattern.
    pub models: route::Config,
    /// Organizations, by id.
    pub organizations: BTreeMap<Arc<str>, gate::Organization>,
    /// Users, by id.
    pub users: BTreeMap<Arc<str>, gate::User>,
    /// Plugins, by name.
    pub plugins: plugin::Config,
    /// The first 12 digits of the SHA-256 of the file it was read from; `None` where there is no file. Not of what the file names:
    /// a short secret in a file of its own could be guessed by it.
    #[serde(skip)]
    pub digest: Option<String>,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SharedLimits")]
pub struct Limits {
    /// Address of a Redis that all replicas share: `redis://host:6379`. In this version it keeps what plugins keep (`kv`).
    pub redis: Option<Secret>,
    /// PEM file of the authorities that may vouch for its certificate, instead of the public ones.
    pub redis_ca: Option<PathBuf>,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Write DeepFellow's misspelt `cache_creation_inpuit_tokens` beside the right key.
    pub deepfellow_compat: bool,
}

impl Default for Api {
    fn default() -> Self {
        Self { deepfellow_compat: true }
    }
}

/// Sections and keys of the contract that this version does not serve yet: refused by name instead of ignored.
const NOT_YET: &[(&str, &str)] = &[
    ("ledger.postgres", "PostgreSQL is not available in this version; the books are in SQLite"),
    ("models.*.on_disconnect", "`on_disconnect` is not available in this version; the backend is told at once"),
    ("organizations.*.limits", "limits and budgets are not available in this version"),
    ("organizations.*.projects.*.limits", "limits and budgets are not available in this version"),
];

/// The JSON Schema of the configuration, for editors.
pub fn schema() -> serde_json::Value {
    serde_json::to_value(schemars::schema_for!(Config)).unwrap_or_default()
}
