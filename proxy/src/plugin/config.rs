//! `[plugins]`

use super::image::{Image, Login};
use crate::canon::{Pattern, Period, Size};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Plugins by name.
pub type Config = BTreeMap<Arc<str>, Settings>;

/// `[plugins.NAME]`
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Plugin")]
pub struct Settings {
    /// The component, a `.wasm` file. Either this or `oci`.
    pub path: Option<PathBuf>,
    /// The component in an OCI registry: `registry/repository[:tag]@sha256:…`. Either this or `path`.
    pub oci: Option<Image>,
    /// Who pulls it; without, what `docker login` has left, or nobody.
    pub registry_auth: Option<Login>,
    /// Pull over plain HTTP. Where nothing is said, that is how a registry on this machine is asked, and no other.
    pub registry_insecure: Option<bool>,
    /// SHA-256 of the component in hex; another one is not loaded.
    pub sha256: Option<String>,
    /// Lower sees the call first, and the reply last. Plugins of one order go by name.
    #[serde(default)]
    pub order: i32,
    /// What it is attached to; everything where absent.
    #[serde(default)]
    pub attach: Attach,
    /// What its failure means.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Who shares an instance of it.
    #[serde(default)]
    pub isolation: Isolation,
    /// What it may ask of the gateway beside its configuration, log and metrics.
    #[serde(default)]
    pub grants: Grants,
    /// Its bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Its own configuration. A text `"env:NAME"` or `"file:PATH"` is replaced by what it points to.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl std::fmt::Debug for Settings {
    /// Without the plugin's configuration, where secrets may be.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, oci) = (&self.path, &self.oci);
        f.debug_struct("Settings")
            .field("path", path)
            .field("oci", oci)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// Where a component is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    File(&'a Path),
    Image(&'a Image),
}

impl Settings {
    /// Where it is.
    ///
    /// # Errors
    /// Nowhere, or in two places.
    pub(super) fn source(&self) -> Result<Source<'_>, String> {
        match (&self.path, &self.oci) {
            (Some(path), None) => Ok(Source::File(path)),
            (None, Some(image)) => Ok(Source::Image(image)),
            (Some(_), Some(_)) => Err("`path` and `oci` both say where it is: leave one of them out".into()),
            (None, None) => {
                Err("nothing says where it is: add `path`, a file, or `oci`, registry/repository@sha256:…".into())
            }
        }
    }
}

/// What is wrong with the section without looking at any component: place and sentence.
pub fn errors(config: &Config) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (name, settings) in config {
        if let Err(what) = settings.source() {
            wrong.push((format!("plugins.{name}"), what));
        } else if settings.oci.is_none() {
            let unused = [
                ("registry_auth", settings.registry_auth.is_some()),
                ("registry_insecure", settings.registry_insecure == Some(true)),
            ];
            for (key, _) in unused.into_iter().filter(|(_, set)| *set) {
                wrong.push((format!("plugins.{name}.{key}"), format!("`{key}` is for plugins with `oci`")));
            }
        }
    }
    wrong
}

/// What a plugin is attached to: all that is named must fit. Names may hold `*`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attach {
    /// Models, as clients ask for them.
    pub models: Option<Vec<String>>,
    /// Organizations.
    pub organizations: Option<Vec<String>>,
    /// Projects: `web`, or `acme/web`.
    pub projects: Option<Vec<String>>,
}

/// What a failure of a plugin means for the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It fails, too.
    #[default]
    Closed,
    /// It goes on as if the plugin had let it pass, where nothing of the plugin's has reached the client yet.
    Open,
}

/// Who shares an instance, one after the other. Never two requests at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Nobody: each request gets a fresh one.
    Request,
    /// Requests of one organization.
    #[default]
    Organization,
    /// All requests: for plugins that keep nothing.
    Shared,
}

/// What a plugin may ask for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Keys and values that outlive a request.
    pub kv: bool,
    /// `organization` (default): each organization has keys of its own; `plugin`: all share them.
    pub kv_scope: KvScope,
    /// Bytes of a value; 64KiB where absent.
    pub kv_value: Option<Size>,
    /// Origins it may send HTTP requests to: `https://host`, `http://host:port`.
    pub http: Vec<String>,
    /// Models it may ask on the caller's account, where the caller may use them: names, which may hold `*`.
    pub model: Vec<String>,
}

/// Who sees a plugin's keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KvScope {
    /// Each organization its own.
    #[default]
    Organization,
    /// All of the plugin's requests.
    Plugin,
}

/// Bounds of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of an instance; at most 256MiB.
    pub memory: Size,
    /// Time a hook may compute.
    pub time: Period,
    /// Time a hook may take in all, waiting included.
    pub wait: Period,
    /// Bytes a hook may answer, and hand over in a call.
    pub output: Size,
    /// Instances at work at the same time; a request beyond it finds the plugin busy, which is a failure.
    pub instances: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: Size(64 << 20),
            time: Period(Duration::from_millis(50)),
            wait: Period(Duration::from_secs(2)),
            output: Size(16 << 20),
            instances: 1000,
        }
    }
}

/// [`Attach`], ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    models: Option<Vec<Pattern>>,
    organizations: Option<Vec<Pattern>>,
    projects: Option<Vec<Pattern>>,
}

impl Attachment {
    pub fn new(attach: &Attach) -> Self {
        let patterns = |names: &Option<Vec<String>>| {
            names.as_ref().map(|names| names.iter().map(|name| Pattern::new(name)).collect::<Vec<_>>())
        };
        Self {
            models: patterns(&attach.models),
            organizations: patterns(&attach.organizations),
            projects: patterns(&attach.projects),
        }
    }

    pub fn fits(&self, organization: &str, project: &str, model: &str) -> bool {
        let any = |patterns: &Option<Vec<Pattern>>, fits: &dyn Fn(&Pattern) -> bool| {
            patterns.as_ref().is_none_or(|patterns| patterns.iter().any(fits))
        };
        any(&self.models, &|pattern| pattern.matches(model))
            && any(&self.organizations, &|pattern| pattern.matches(organization))
            && any(&self.projects, &|pattern| {
                pattern.matches(project) || pattern.matches(&format!("{organization}/{project}"))
            })
    }
}
