//! Plugins: WebAssembly components that see every call and every event of its reply, and may change, answer, route or refuse
//! it (`wit/` is the interface, docs/plugins.md the story).
//!
//! [`Plugins`] are loaded with the configuration, all or nothing, off the path of requests. [`Plugins::invite`] finds those
//! attached to a request; where there are none it costs a branch. What runs is bounded in memory, in time it computes, in
//! time it waits and in what it answers; it fails alone.

mod ask;
#[allow(missing_docs, clippy::all, reason = "generated from wit/, where the documentation is")]
mod bindings;
mod bounds;
mod chain;
mod config;
mod convert;
mod engine;
mod image;
mod instance;
mod known;
mod kv;
mod lines;
mod load;
mod outside;
mod own;
mod registry;
mod series;
mod shelf;
mod state;
mod view;

pub use ask::{Ask, Asking};
pub use chain::{Answered, Guests, Judged, Seen};
pub use config::{Config, Isolation, Settings, errors};
pub use image::{Image, Login};
pub use load::{Facts, Plugin};
pub use state::{About, Hop, Notes};

use crate::canon::Secret;
use crate::trust;
use engine::Engine;
use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use series::Series;
use shelf::Shelf;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with the address of a Redis and the file of its authorities: place and sentence. The address is not repeated.
pub fn redis_errors(redis: Option<&Secret>, ca: Option<&Path>) -> Vec<(String, String)> {
    let address = redis.map(|redis| kv::Redis::check(redis.reveal()));
    let file = ca.map(|ca| match redis {
        Some(redis) if !kv::Redis::is_tls(redis.reveal()) => {
            Err("`redis_ca` is for an address that begins with rediss://".to_owned())
        }
        Some(_) => trust::authorities_text(ca).map(drop),
        None => Err("`redis_ca` is for the Redis of `redis`, and there is none".to_owned()),
    });
    let problem = |place: &str, checked: Option<Result<(), String>>| Some((place.to_owned(), checked?.err()?));
    [problem("limits.redis", address), problem("limits.redis_ca", file)].into_iter().flatten().collect()
}

/// Where a host keeps things, in folders that are made when needed. `None`: it keeps none of them.
#[derive(Debug, Default)]
pub struct Folders {
    /// Compiled plugins.
    pub compiled: Option<PathBuf>,
    /// What was pulled from registries.
    pub pulled: Option<PathBuf>,
}

impl Folders {
    /// Beside the ledger's file.
    pub fn beside(ledger: &Path) -> Self {
        let folder = |ending: &str| {
            let mut name = OsString::from(ledger);
            name.push(ending);
            // Absolute, as the engine wants it.
            std::path::absolute(name).ok()
        };
        Self { compiled: folder(".plugins"), pulled: folder(".pulled") }
    }
}

/// What outlives every configuration: the engine, what plugins keep, their metrics.
pub struct Host {
    /// Started with the first plugin: a gateway without any has no use for it.
    engine: Mutex<Option<Arc<Engine>>>,
    /// Where compiled plugins are kept.
    cache: Option<PathBuf>,
    /// What was pulled from registries.
    shelf: Shelf,
    kv: Arc<kv::Store>,
    series: Series,
    known: known::Known,
}

impl Host {
    /// Prepares a house for plugins.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(folders: Folders, registry: &Registry) -> Result<Self, String> {
        let series = Series::register(registry).map_err(|error| error.to_string())?;
        let shelf = Shelf::new(folders.pulled);
        let (engine, kv, known) = Default::default();
        Ok(Self { engine, cache: folders.compiled, shelf, kv, series, known })
    }

    /// Keeps in this Redis what plugins keep, instead of in memory; the authorities of the file `ca`, else the public ones,
    /// vouch for it. To be called inside a runtime, before any is loaded.
    ///
    /// # Errors
    /// It is no address, the file is not one, or the metric is registered already. That nobody answers there is none: it
    /// may come.
    pub fn share(&mut self, redis: &Secret, ca: Option<&Path>, registry: &Registry) -> Result<(), String> {
        let up =
            IntGauge::new("tidegate_plugin_redis_up", "1 while Redis keeps what plugins keep, 0 while it is away.");
        let up = up.map_err(|error| error.to_string())?;
        registry.register(Box::new(up.clone())).map_err(|error| error.to_string())?;
        let kv = Arc::new(kv::Store::Redis(kv::Redis::open(redis.reveal(), ca, up)?));
        self.kv = kv.clone();
        // The connection then lives on this thread, not on the worker that is the first to need it.
        tokio::spawn(async move { kv.greet().await });
        Ok(())
    }

    /// Whether this plugin can be loaded without asking a registry.
    pub async fn is_here(&self, settings: &Settings) -> bool {
        match &settings.oci {
            Some(image) => load::pull(settings, image, &self.shelf).is_kept().await,
            None => true,
        }
    }

    fn engine(&self) -> Result<Arc<Engine>, String> {
        let mut engine = self.engine.lock();
        match &*engine {
            Some(engine) => Ok(engine.clone()),
            None => Ok(engine.insert(Arc::new(Engine::start(self.cache.as_deref())?)).clone()),
        }
    }

    /// Loads one plugin, or finds it among those in use, and says what it is.
    ///
    /// # Errors
    /// Everything that can be wrong with it, for people.
    pub async fn load(&self, name: &Arc<str>, settings: &Settings) -> Result<(Arc<Plugin>, Facts), String> {
        Plugin::load(name, settings, &self.engine()?, &self.shelf, &self.kv, &self.series, &self.known).await
    }

    /// These are the plugins from now on: for others nothing is kept.
    pub fn settle(&self, now: &Plugins) {
        self.known.settle(&now.0, &self.series);
    }
}

/// Drops what this thread keeps for plugins that no configuration has any more.
pub fn tidy() {
    instance::tidy();
}

/// The plugins of one configuration, in their order.
#[derive(Default)]
pub struct Plugins(Vec<Arc<Plugin>>);

impl Plugins {
    /// Loads all of them, or says what is wrong with each: place and sentence.
    ///
    /// # Errors
    /// See above.
    pub async fn load(config: &Config, host: &Host) -> Result<Self, Vec<(String, String)>> {
        let (mut plugins, mut errors) = (Vec::new(), Vec::new());
        // Registries are asked at the same time; what is computed here is computed one after the other anyway.
        let loads = config.iter().map(async |(name, settings)| (name, host.load(name, settings).await));
        for (name, loaded) in join_all(loads).await {
            match loaded {
                Ok((plugin, _)) => plugins.push(plugin),
                Err(error) => errors.push((format!("plugins.{name}"), error)),
            }
        }
        let own = plugins.iter().filter_map(|plugin: &Arc<Plugin>| Some((&plugin.name, &plugin.series()?.own)));
        errors.extend(own::shared(own));
        if !errors.is_empty() {
            return Err(errors);
        }
        // Names are in order already; the sort keeps that among equals.
        plugins.sort_by_key(|plugin| plugin.order);
        // One that subscribes to nothing is never asked.
        plugins.retain(|plugin| plugin.subscribes());
        Ok(Self(plugins))
    }

    /// Names of those that the one before did not have as they are: new, or changed in file or settings.
    pub fn fresh<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let had = |plugin: &&Arc<Plugin>| before.0.iter().any(|other| Arc::ptr_eq(other, plugin));
        self.0.iter().filter(move |plugin| !had(plugin)).map(|plugin| &plugin.name)
    }

    /// One that was loaded by itself.
    pub fn of(plugin: Arc<Plugin>) -> Self {
        Self([plugin].into_iter().filter(|plugin| plugin.subscribes()).collect())
    }

    /// The plugins that a request of this project for this model meets; `None`: none. `about` is made only if there are, and told
    /// whether any of them may ask models.
    pub fn invite(
        &self,
        organization: &str,
        project: &str,
        model: &str,
        about: impl FnOnce(bool) -> About,
    ) -> Option<Guests> {
        let attached = |plugin: &&Arc<Plugin>| plugin.attachment.fits(organization, project, model);
        let mut invited = self.0.iter().filter(attached).peekable();
        invited.peek()?;
        let invited: Vec<_> = invited.cloned().collect();
        let ask = invited.iter().any(|plugin| !plugin.models.is_empty());
        Some(Guests::new(invited, Arc::new(about(ask))))
    }
}
