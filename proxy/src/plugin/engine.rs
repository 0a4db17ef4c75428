//! The WebAssembly engine: one for all plugins, and the clock that ends what computes too long.

use super::bindings::Plugin as World;
use super::state::State;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How long one tick of the clock is: what a hook may compute is counted in these.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// The most memory any instance may have.
pub(super) const MEMORY: usize = 256 << 20;
/// Elements of a guest's tables; Python's need most.
pub(super) const TABLE: usize = 40_000;
/// Instances of all plugins together.
pub(super) const INSTANCES: u32 = 2000;

/// The engine with what every guest is linked to.
pub(super) struct Engine {
    pub engine: wasmtime::Engine,
    /// The interface alone, and the interface with an empty WASI for guests whose language brings one.
    plain: Linker<State>,
    wasi: Linker<State>,
    pub clock: Arc<Clock>,
}

impl Engine {
    /// Starts the engine; compiled guests are kept in `cache`.
    ///
    /// # Errors
    /// It cannot be started here.
    pub fn start(cache: Option<&Path>) -> Result<Self, String> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(4 * INSTANCES)
            .total_memories(INSTANCES)
            .total_tables(4 * INSTANCES)
            .total_stacks(INSTANCES)
            .max_memory_size(MEMORY)
            .max_component_instance_size(1 << 20)
            .max_core_instance_size(1 << 20)
            .table_elements(TABLE)
            .max_core_instances_per_component(96)
            .max_memories_per_module(4)
            .max_memories_per_component(4)
            .max_tables_per_component(64)
            .max_unused_warm_slots(32)
            .linear_memory_keep_resident(256 << 10)
            .table_keep_resident(16 << 10);
        let mut config = Config::new();
        config
            .allocation_strategy(pool)
            .epoch_interruption(true)
            .max_wasm_stack(512 << 10)
            .async_stack_size(1 << 20)
            .wasm_backtrace_max_frames(None);
        if let Some(folder) = cache {
            let mut kept = wasmtime::CacheConfig::new();
            kept.with_directory(folder);
            match wasmtime::Cache::new(kept) {
                Ok(cache) => drop(config.cache(Some(cache))),
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "compiled plugins are not kept: each start compiles them");
                }
            }
        }
        let engine = wasmtime::Engine::new(&config).or_else(|error| {
            // Address space is limited here: each pooled memory reserves gigabytes of it.
            tracing::warn!(%error, "plugins get their memory one by one, which is slower");
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            wasmtime::Engine::new(&config)
        });
        let engine = engine.map_err(|error| format!("the WebAssembly engine cannot be started: {error:#}"))?;
        let fail = |error: wasmtime::Error| format!("the plugin interface cannot be linked: {error:#}");
        let mut plain = Linker::<State>::new(&engine);
        World::add_to_linker::<_, HasSelf<State>>(&mut plain, |state| state).map_err(fail)?;
        let mut wasi = plain.clone();
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi).map_err(fail)?;
        let clock = Clock::start(&engine)?;
        Ok(Self { engine, plain, wasi, clock })
    }

    /// What a component is linked to.
    pub fn linker(&self, wants_wasi: bool) -> &Linker<State> {
        if wants_wasi { &self.wasi } else { &self.plain }
    }
}

/// Advances the engine's epoch each millisecond while a guest computes, and sleeps while none has for a while.
pub(super) struct Clock {
    running: AtomicUsize,
    asleep: AtomicBool,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

/// A guest is computing; see [`Clock::run`].
pub(super) struct Running<'a>(&'a Clock);

impl Clock {
    fn start(engine: &wasmtime::Engine) -> Result<Arc<Self>, String> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
        });
        let (weak, engine) = (Arc::downgrade(&clock), engine.weak());
        let ticking = std::thread::Builder::new().name("plugin-clock".into()).spawn(move || {
            let mut idle = 0;
            while let (Some(clock), Some(engine)) = (weak.upgrade(), engine.upgrade()) {
                if clock.running.load(Ordering::SeqCst) > 0 {
                    idle = 0;
                    engine.increment_epoch();
                } else {
                    idle += 1;
                }
                if idle > 100 {
                    clock.asleep.store(true, Ordering::SeqCst);
                    // One that began before it could see this must not wait for the alarm.
                    if clock.running.load(Ordering::SeqCst) > 0 {
                        clock.asleep.store(false, Ordering::SeqCst);
                        continue;
                    }
                    drop((clock, engine));
                    // Not for ever: the gateway may be gone meanwhile.
                    std::thread::park_timeout(Duration::from_secs(1));
                    if let Some(clock) = weak.upgrade() {
                        clock.asleep.store(false, Ordering::SeqCst);
                    }
                } else {
                    drop((clock, engine));
                    std::thread::sleep(TICK);
                }
            }
        });
        let ticking = ticking.map_err(|error| format!("the plugins' clock cannot be started: {error}"))?;
        let _ = clock.thread.set(ticking.thread().clone());
        Ok(clock)
    }

    /// Ticks until what it returns is dropped.
    pub fn run(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
