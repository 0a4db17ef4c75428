//! One instance of a plugin: made, asked within its bounds, kept warm for the next request, thrown away after any failure.

use super::bindings::Plugin as World;
use super::bounds::Bounds;
use super::config::Isolation;
use super::load::Plugin;
use super::state::{About, HostFailed, State};
use crate::canon::{Fault, FaultKind};
use foldhash::HashMap;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wasmtime::{Store, Trap};

/// Requests an instance serves before a fresh one takes its place: whatever it hoards goes with it.
const SERVES: u32 = 10_000;
/// Warm instances kept by each worker for a plugin and organization, and for all of them.
const WARM: (usize, usize) = (64, 256);

/// See the module.
pub(super) struct Instance {
    store: Store<State>,
    world: World,
    served: u32,
    /// `None` while it lies warm.
    place: Option<Place>,
    plugin: Arc<Plugin>,
}

/// How a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// `trap`, `timeout`, `memory`, `rejected`; without a fault of the plugin's: `full` or `host`.
    pub kind: &'static str,
    /// What happened, for the log.
    pub message: String,
}

impl Failure {
    /// The plugin's answer breaks a rule.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self { kind: "rejected", message: message.into() }
    }

    /// There is no room for another instance.
    fn full(message: impl Into<String>) -> Self {
        Self { kind: "full", message: message.into() }
    }

    /// Nothing is broken: there was no room.
    fn is_full(&self) -> bool {
        self.kind == "full"
    }

    /// What the client is told where its request may not go on without this plugin.
    pub fn told(&self, plugin: &str) -> Fault {
        let full = self.is_full();
        let message = if full {
            format!("The plugin `{plugin}` is busy with as many requests as it takes; try again in a moment.")
        } else {
            format!(
                "The plugin `{plugin}` failed, and requests may not pass without it. The gateway's log says why under this request's id."
            )
        };
        Fault {
            // Soon there may be room, and clients know what to do about this status.
            status: full.then_some(503),
            retry_after: full.then_some(Duration::from_secs(1)),
            ..Fault::new(FaultKind::PluginFailed, message).with_code("plugin_failed")
        }
    }

    /// The gateway or the system under it failed.
    pub fn host(message: impl Into<String>) -> Self {
        Self { kind: "host", message: message.into() }
    }

    /// No instance could be made. One could when the plugin was loaded, so unless its code trapped it is not to blame.
    fn of_start(error: &wasmtime::Error, plugin: &Plugin) -> Self {
        match Self::of(error) {
            Self { kind: "trap", message } if plugin.series().is_some() && !error.is::<Trap>() => Self::host(message),
            failure => failure,
        }
    }

    fn of(error: &wasmtime::Error) -> Self {
        let chain = format!("{error:#}");
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                return Self { kind: "timeout", message: "it computed for longer than limits.time".into() };
            }
            _ if chain.contains("forcing trap when growing memory") || chain.contains("memory minimum size") => {
                "memory"
            }
            _ if error.is::<wasmtime::PoolConcurrencyLimitError>() => "full",
            _ if error.is::<HostFailed>() => "host",
            _ if chain.contains("fuel") || chain.contains("too much data") => "rejected",
            _ => "trap",
        };
        Self { kind, message: chain }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}

impl Instance {
    /// Makes one.
    pub async fn new(plugin: &Arc<Plugin>) -> Result<Self, Failure> {
        Self::at(Place::take(plugin)?).await
    }

    async fn at(place: Place) -> Result<Self, Failure> {
        let plugin = &place.plugin;
        let bounds = Bounds::new(plugin.limits.memory.0);
        let mut store = Store::new(&plugin.engine.engine, State::new(plugin.clone(), bounds, plugin.budget()));
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(plugin.limits.output.0);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().tick()));
        store.set_epoch_deadline(1);
        let running = plugin.engine.clock.run();
        let made = tokio::time::timeout(plugin.limits.wait.0, plugin.pre.instantiate_async(&mut store)).await;
        drop(running);
        let world = made
            .map_err(|_| Failure { kind: "timeout", message: "it did not start within limits.wait".into() })?
            .map_err(|error| Failure::of_start(&error, plugin))?;
        let plugin = plugin.clone();
        Ok(Self { store, world, served: 0, place: Some(place), plugin })
    }

    /// Takes a warm one of this organization's, or makes one.
    pub async fn take(plugin: &Arc<Plugin>, organization: &Arc<str>) -> Result<Self, Failure> {
        let place = Place::take(plugin)?;
        let warm = key(plugin, organization).and_then(|key| WARMED.with_borrow_mut(|warm| warm.get_mut(&key)?.pop()));
        if let Some(warm) = warm {
            return Ok(Self { place: Some(place), ..warm });
        }
        match Self::at(place).await {
            // The engine's pool may be full of instances that lie warm for others.
            Err(failure) if failure.is_full() && forget_warm() => Self::new(plugin).await,
            made => made,
        }
    }

    /// Gives it back after a request that went well. Dropping it instead throws it away.
    pub fn give(mut self, organization: &Arc<str>) {
        self.place = None;
        self.served += 1;
        self.store.data_mut().begin(None);
        keep(self, organization);
    }

    /// Asks it something, within its bounds. After a failure it must be dropped.
    pub async fn call<T>(
        &mut self,
        about: Option<&Arc<About>>,
        ask: impl AsyncFnOnce(&World, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.store.data_mut().begin(about.cloned());
        self.store.set_epoch_deadline(1);
        self.store.set_hostcall_fuel(self.plugin.limits.output.0);
        let running = self.plugin.engine.clock.run();
        let asked = tokio::time::timeout(self.plugin.limits.wait.0, ask(&self.world, &mut self.store)).await;
        drop(running);
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure { kind: "timeout", message: "it took longer than limits.wait".into() }),
        }
    }

    pub fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }
}

/// A place among the instances at work.
struct Place {
    plugin: Arc<Plugin>,
    /// It is among those the gauge counts.
    shown: bool,
}

impl Place {
    fn take(plugin: &Arc<Plugin>) -> Result<Self, Failure> {
        let live = plugin.live.fetch_add(1, Ordering::Relaxed);
        let mut place = Self { plugin: plugin.clone(), shown: false };
        if live >= plugin.limits.instances {
            return Err(Failure::full("all its instances are busy (limits.instances)"));
        }
        // Counted up and down: the plugin of an earlier configuration may be at work under the same name.
        if let Some(series) = plugin.series() {
            series.instances.inc();
            place.shown = true;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.plugin.live.fetch_sub(1, Ordering::Relaxed);
        if self.shown
            && let Some(series) = self.plugin.series()
        {
            series.instances.dec();
        }
    }
}

type Key = (u64, Arc<str>);

thread_local! {
    static WARMED: RefCell<HashMap<Key, Vec<Instance>>> = RefCell::default();
}

/// Whose instances a request may use; `None`: it gets its own.
fn key(plugin: &Plugin, organization: &Arc<str>) -> Option<Key> {
    match plugin.isolation {
        Isolation::Request => None,
        Isolation::Organization => Some((plugin.id, organization.clone())),
        Isolation::Shared => Some((plugin.id, Arc::default())),
    }
}

fn keep(instance: Instance, organization: &Arc<str>) {
    let serves_on = instance.served < SERVES && !instance.plugin.gone.load(Ordering::Relaxed);
    let Some(key) = key(&instance.plugin, organization).filter(|_| serves_on) else { return };
    WARMED.with_borrow_mut(|warm| {
        if warm.values().map(Vec::len).sum::<usize>() >= WARM.1 {
            // Somebody else's, seldom used, make room; all of them are only a call away.
            warm.retain(|other, _| *other == key);
        }
        let mine = warm.entry(key).or_default();
        if mine.len() < WARM.0 {
            mine.push(instance);
        }
    });
}

/// Drops this thread's warm instances of plugins that no configuration has any more.
pub(super) fn tidy() {
    let gone = |instances: &Vec<Instance>| {
        instances.first().is_some_and(|instance| instance.plugin.gone.load(Ordering::Relaxed))
    };
    let left: Vec<_> = WARMED.with_borrow_mut(|warm| warm.extract_if(|_, instances| gone(instances)).collect());
    drop(left);
}

/// Drops all warm instances of this thread; false if there were none.
fn forget_warm() -> bool {
    WARMED.with_borrow_mut(|warm| !std::mem::take(warm).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_whose_they_are() {
        let told = |error: wasmtime::Error| Failure::of(&error.context("error while executing")).kind;
        assert_eq!(told(Trap::UnreachableCodeReached.into()), "trap");
        assert_eq!(told(Trap::Interrupt.into()), "timeout");
        assert_eq!(told(HostFailed("the system gives no randomness".into()).into()), "host");
        assert_eq!(told(wasmtime::format_err!("the call is used after `on-call` has returned")), "trap");
    }
}
