//! From a file to a plugin that can be used: pinned, compiled, linked, asked what it is. Off the path of requests.

use super::bindings::{PluginPre, hooks};
use super::config::{Attachment, Grants, Isolation, Limits, OnFailure, Settings, Source};
use super::engine::{Engine, MEMORY, TICK};
use super::image::Image;
use super::instance::Instance;
use super::known::{Known, Origin as Made};
use super::kv;
use super::lines::Lines;
use super::outside::Origin;
use super::own::{Told, Vain};
use super::registry::Pull;
use super::series::{Handles, Series};
use super::shelf::{Shelf, sha256};
use super::state::State;
use crate::canon::Pattern;
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use wasmtime::component::Component;

/// A plugin that is loaded.
pub struct Plugin {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Never used twice; instances of another are not this one's.
    pub(super) id: u64,
    pub(super) order: i32,
    pub(super) attachment: Attachment,
    pub(super) on_failure: OnFailure,
    pub(super) isolation: Isolation,
    pub(super) grants: Grants,
    pub(super) origins: Vec<Origin>,
    /// The models it may ask.
    pub(super) models: Vec<Pattern>,
    pub(super) limits: Limits,
    /// `[plugins.NAME.config]` as JSON text.
    pub(super) config: String,
    /// What it was made of.
    pub(super) made: Made,
    pub(super) engine: Arc<Engine>,
    pub(super) kv: Arc<kv::Store>,
    pub(super) pre: PluginPre<State>,
    /// Instances at work.
    pub(super) live: AtomicUsize,
    /// What it may still log.
    pub(super) lines: Lines,
    /// No configuration has it any more: its instances are not kept.
    pub(super) gone: AtomicBool,
    described: OnceLock<Described>,
    /// Metrics it counted in vain.
    told: Told,
}

/// What a plugin says of itself.
pub(super) struct Described {
    pub hooks: hooks::Subscriptions,
    pub events: hooks::Interests,
    series: Handles,
    facts: Facts,
}

/// What `tidegate plugin check` prints of a component.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Bytes of it.
    pub size: usize,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Its own name and version.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Hooks it subscribes to.
    pub hooks: Vec<&'static str>,
    /// Kinds of events it wants.
    pub events: Vec<&'static str>,
    /// Schema of its configuration.
    pub schema: Option<String>,
}

impl Plugin {
    /// Loads a plugin: everything that can be wrong with it is found here.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(super) async fn load(
        name: &Arc<str>,
        settings: &Settings,
        engine: &Arc<Engine>,
        shelf: &Shelf,
        kv: &Arc<kv::Store>,
        series: &Series,
        known: &Known,
    ) -> Result<(Arc<Self>, Facts), String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err("a plugin's name is of letters, digits, `-` and `_`: it stands in headers and metrics".into());
        }
        let (path, bytes) = bytes_of(settings, shelf).await?;
        pinned(settings.sha256.as_deref(), &bytes)?;
        if settings.limits.memory.0 > MEMORY {
            return Err(format!("limits.memory may be at most {}MiB", MEMORY >> 20));
        }
        let mut config = serde_json::Value::Object(settings.config.clone());
        reveal(&mut config)?;
        let made = Made { name: name.clone(), settings: settings.clone(), digest: Sha256::digest(&bytes).into() };
        if let Some(plugin) = known.plugin(&made, &config.to_string()) {
            let facts = plugin.described().facts.clone();
            return Ok((plugin, facts));
        }
        let compile = || Component::from_binary(&engine.engine, &bytes);
        let component = known.component(&made.digest).map_or_else(compile, Ok);
        let component = component.map_err(|error| not_a_component(&bytes, &error))?;
        let imports: Vec<String> =
            component.component_type().imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
        let wants_wasi = imports.iter().any(|import| import.starts_with("wasi:"));
        let pre = engine
            .linker(wants_wasi)
            .instantiate_pre(&component)
            .and_then(PluginPre::new)
            .map_err(|error| format!("{path} does not fit the interface tidegate:plugin@0.1.0: {error:#}"))?;
        let origin = |url: &String| Origin::read(url).map_err(|error| format!("grants.http: `{url}`: {error}"));
        let origins = settings.grants.http.iter().map(origin).collect::<Result<_, _>>()?;
        let plugin = Arc::new(Self {
            name: name.clone(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            order: settings.order,
            attachment: Attachment::new(&settings.attach),
            on_failure: settings.on_failure,
            isolation: settings.isolation,
            grants: settings.grants.clone(),
            origins,
            models: settings.grants.model.iter().map(|name| Pattern::new(name)).collect(),
            limits: settings.limits,
            config: config.to_string(),
            made,
            engine: engine.clone(),
            kv: kv.clone(),
            pre,
            live: AtomicUsize::new(0),
            lines: Lines::default(),
            gone: AtomicBool::new(false),
            described: OnceLock::new(),
            told: Told::default(),
        });
        let said = describe(&plugin).await?;
        conforms(&config, said.config_schema.as_deref())?;
        if let Some(problem) = &said.config_problem {
            return Err(format!("config: {problem}"));
        }
        let facts = Facts {
            size: bytes.len(),
            imports,
            name: said.name.clone(),
            version: said.version.clone(),
            hooks: hook_names(said.hooks),
            events: event_names(said.events),
            schema: said.config_schema.clone(),
        };
        let series = series.of(name, &said.metrics)?;
        let described = Described { hooks: said.hooks, events: said.events, series, facts: facts.clone() };
        let _ = plugin.described.set(described);
        known.add(&plugin);
        tracing::info!(plugin = &**name, version = facts.version, hooks = facts.hooks.join(" "), "plugin loaded");
        Ok((plugin, facts))
    }

    /// What it says of itself. Only `load` sees a plugin without.
    pub(super) fn described(&self) -> &Described {
        self.described.get().expect("a plugin that is not described was not loaded")
    }

    /// Whether it wants to be called at all.
    pub(super) fn subscribes(&self) -> bool {
        self.described().hooks != hooks::Subscriptions::empty()
    }

    /// Its metrics; none while it is being loaded.
    pub(super) fn series(&self) -> Option<&Handles> {
        self.described.get().map(|described| &described.series)
    }

    /// Milliseconds a hook may compute.
    pub(super) fn budget(&self) -> u64 {
        (self.limits.time.0.as_millis() / TICK.as_millis()).max(1) as u64
    }

    /// Says that a metric of its own could not be counted.
    pub(super) fn in_vain(&self, name: &str, label: &str, why: Vain) {
        let Some((metric, label)) = self.told.first(name, label) else { return };
        let plugin = &*self.name;
        match why {
            Vain::Undeclared => {
                tracing::warn!(plugin, metric, label, "a plugin uses a metric it has not declared");
            }
            Vain::Value => {
                tracing::warn!(plugin, metric, label, "a plugin gives a metric a value that it cannot have");
            }
        }
    }
}

/// A fresh instance is asked, and dropped.
async fn describe(plugin: &Arc<Plugin>) -> Result<hooks::Description, String> {
    let mut instance = Instance::new(plugin).await.map_err(|failure| failure.to_string())?;
    instance
        .call(None, async |world, store| world.tidegate_plugin_hooks().call_describe(store).await)
        .await
        .map_err(|failure| format!("`describe` failed: {failure}"))
}

/// The component, and where it is from.
async fn bytes_of(settings: &Settings, shelf: &Shelf) -> Result<(String, Vec<u8>), String> {
    match settings.source()? {
        Source::File(path) => {
            let name = path.display().to_string();
            let bytes = std::fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
            Ok((name, bytes))
        }
        Source::Image(image) => Ok((image.to_string(), pull(settings, image, shelf).component().await?)),
    }
}

/// How a plugin's image is pulled.
pub(super) fn pull<'a>(settings: &'a Settings, image: &'a Image, shelf: &'a Shelf) -> Pull<'a> {
    Pull { image, login: settings.registry_auth.as_ref(), insecure: settings.registry_insecure, shelf }
}

/// The component is the one that was meant.
fn pinned(pin: Option<&str>, bytes: &[u8]) -> Result<(), String> {
    let Some(pin) = pin else { return Ok(()) };
    let digest = sha256(bytes);
    if pin.trim_start_matches("sha256:").eq_ignore_ascii_case(&digest) {
        return Ok(());
    }
    Err(format!("the component's SHA-256 is {digest}, not the pinned {pin}: it is another one than was meant"))
}

fn not_a_component(bytes: &[u8], error: &wasmtime::Error) -> String {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "this is a core WebAssembly module, not a component: build it for wasm32-wasip2, or make it one with `wasm-tools component new`".into()
        }
        [0, b'a', b's', b'm', ..] => format!("this component cannot be used: {error:#}"),
        _ => "this is no WebAssembly file".into(),
    }
}

/// Replaces texts that point to secrets.
fn reveal(value: &mut serde_json::Value) -> Result<(), String> {
    match value {
        serde_json::Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => {
            let secret: crate::canon::Secret = serde_json::from_value(serde_json::Value::String(text.clone()))
                .map_err(|error| format!("config: {error}"))?;
            *text = secret.reveal().to_owned();
            Ok(())
        }
        serde_json::Value::Array(items) => items.iter_mut().try_for_each(reveal),
        serde_json::Value::Object(members) => members.values_mut().try_for_each(reveal),
        _ => Ok(()),
    }
}

/// The configuration is what the plugin's schema asks for. The message names places, never values: they may be secret.
fn conforms(config: &serde_json::Value, schema: Option<&str>) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    let schema = serde_json::from_str(schema).map_err(|error| format!("the plugin's schema is no JSON: {error}"))?;
    let validator =
        jsonschema::validator_for(&schema).map_err(|error| format!("the plugin's schema is none: {error}"))?;
    let wrong: Vec<String> = validator
        .iter_errors(config)
        .take(8)
        .map(|error| format!("config{}: {}", error.instance_path().to_string().replace('/', "."), error.masked()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn hook_names(hooks: hooks::Subscriptions) -> Vec<&'static str> {
    use hooks::Subscriptions as S;
    [(S::ON_CALL, "on-call"), (S::ON_EVENTS, "on-events"), (S::ON_END, "on-end")]
        .into_iter()
        .filter_map(|(flag, name)| hooks.contains(flag).then_some(name))
        .collect()
}

fn event_names(events: hooks::Interests) -> Vec<&'static str> {
    use hooks::Interests as I;
    [
        (I::TEXT, "text"),
        (I::THINKING, "thinking"),
        (I::REFUSAL, "refusal"),
        (I::TOOL_CALLS, "tool-calls"),
        (I::OTHER, "other"),
        (I::USAGE, "usage"),
        (I::BOUNDARIES, "boundaries"),
    ]
    .into_iter()
    .filter_map(|(flag, name)| events.contains(flag).then_some(name))
    .collect()
}
