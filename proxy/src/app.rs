//! Building the house and keeping it: what is poured once, what is built from each configuration, and the order of the end.

mod reload;
mod shown;

pub use shown::warnings;

use crate::admin::{self, Admin, Readiness};
use crate::backend::{self, Backends};
use crate::config::{self, Config, Problem};
use crate::gate::{self, Gate};
use crate::ledger::{Ledger, Others};
use crate::plugin::{self, Plugins};
use crate::queue::{self, Queues};
use crate::relay::{Limits, Rooms};
use crate::route::Routes;
use crate::server::{self, Inherited, Workers};
use crate::trust::{self, Handshakes};
use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use prometheus::{IntGauge, Opts, Registry};
use shown::Shown;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What outlives every configuration: the books, the metrics, what rooms keep, the signals of the end.
pub struct Foundation {
    registry: Registry,
    ledger: Arc<Ledger>,
    plugins: plugin::Host,
    backends: backend::Kept,
    /// The API's, then the operator's.
    tls: [Arc<Handshakes>; 2],
    queues: queue::Kept,
    /// Connections end after the requests they have.
    drain: CancellationToken,
    /// Streams end now.
    cut: CancellationToken,
}

impl Foundation {
    /// Opens the books and the registry.
    ///
    /// # Errors
    /// The ledger cannot be used.
    pub fn pour(config: &Config) -> Result<Self, String> {
        let registry = Registry::new();
        let build = IntGauge::with_opts(
            Opts::new("tidegate_build_info", "Which tidegate this is.")
                .const_label("version", env!("CARGO_PKG_VERSION"))
                .const_label("commit", option_env!("TIDEGATE_COMMIT").unwrap_or("unknown")),
        );
        let build = build.map_err(|error| error.to_string())?;
        build.set(1);
        registry.register(Box::new(build)).map_err(|error| error.to_string())?;
        // Who may share the address of another gateway may share its books: it is there to take over.
        let ledger = Ledger::open(&config.ledger, &registry, config.server.workers(), config.server.reuse_port)?;
        ledger.fold(others(config));
        let mut plugins = plugin::Host::new(plugin::Folders::beside(&config.ledger.path), &registry)?;
        if let Some(redis) = &config.limits.redis {
            plugins.share(redis, config.limits.redis_ca.as_deref(), &registry)?;
        }
        let backends = backend::Kept::register(&registry)?;
        let series = trust::Series::register(&registry).map_err(|error| error.to_string())?;
        let tls = shown::LISTENERS.map(|(name, ..)| Arc::new(Handshakes::new(name, series.clone())));
        let queues = queue::Kept::register(&registry)?;
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self { registry, ledger, plugins, backends, queues, tls, drain, cut })
    }
}

/// Where a configuration comes from, each time it is read.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Values from the command line, by dotted key.
    pub overrides: Vec<(String, String)>,
}

impl Foundation {
    /// These are the rooms from now on: what was kept for others only is not kept any more.
    fn settle(&self, now: &Rooms) {
        self.plugins.settle(&now.plugins);
        self.backends.settle(&now.backends);
        self.queues.settle(&now.queues);
    }
}

/// Reads a configuration from its layers and checks it as a whole.
///
/// # Errors
/// Every problem, with file, line and key.
pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, Vec<Problem>> {
    config::load(file, overrides, |config| check(config).err().unwrap_or_default())
}

/// Builds the rooms of a configuration, all or nothing, and reads what its listeners show.
///
/// # Errors
/// Everything that is wrong, each with its place in the configuration.
async fn build(config: &Config, foundation: &Foundation) -> Result<(Rooms, Shown), Vec<Problem>> {
    let (gate, routes, shown) = check(config)?;
    let plugins = Plugins::load(&config.plugins, &foundation.plugins).await.map_err(problems)?;
    let backends = Backends::build(&config.backends, &foundation.backends).map_err(problems)?;
    backends.resolved().await;
    let rooms = Rooms {
        gate,
        routes,
        queues: queues(config, &foundation.queues),
        plugins,
        backends,
        ledger: foundation.ledger.clone(),
        limits: Limits::of(&config.server),
        deepfellow: config.api.deepfellow_compat,
        cut: foundation.cut.clone(),
    };
    Ok((rooms, shown))
}

/// The queues of models that have a limit, shared by the weights of organizations.
fn queues(config: &Config, kept: &queue::Kept) -> Queues {
    let capacities = config.models.iter().filter_map(|(name, model)| Some((name.clone(), model.capacity()?)));
    let weight = |(id, organization): (&Arc<str>, &gate::Organization)| (id.clone(), organization.weight.unwrap_or(1));
    Queues::build(capacities, config.organizations.iter().map(weight).collect(), kept)
}

/// The accounts that metrics do not name.
fn others(config: &Config) -> Others {
    let accounts = config.organizations.iter().map(|(id, organization)| (id, organization.projects.keys()));
    Others::beyond(config.admin.metric_projects, accounts)
}

/// What can be known of a configuration without touching the world outside, but for the files of its secrets,
/// certificates and authorities.
///
/// # Errors
/// As [`build`].
fn check(config: &Config) -> Result<(Gate, Routes, Shown), Vec<Problem>> {
    let accounts = gate::Config { organizations: config.organizations.clone(), users: config.users.clone() };
    let names: Vec<_> = config.backends.keys().cloned().collect();
    let mut wrong = problems(config.server.errors());
    wrong.extend(problems(accounts.errors()));
    let gate = Gate::build(&accounts).unwrap_or_else(|errors| {
        wrong.extend(errors.into_iter().map(|text| {
            text.split_once(": ")
                .map_or_else(|| Problem::new("", text.clone()), |(place, what)| Problem::new(place, what))
        }));
        Gate::default()
    });
    let routes = Routes::build(&config.models, &names).unwrap_or_else(|errors| {
        wrong.extend(problems(errors));
        Routes::default()
    });
    wrong.extend(problems(Backends::check(&config.backends)));
    let shown = shown::read(config).unwrap_or_else(|errors| {
        wrong.extend(errors);
        Shown::default()
    });
    wrong.extend(problems(plugin::errors(&config.plugins)));
    if config.admin.token.as_ref().is_some_and(|token| token.reveal().is_empty()) {
        let what = "an empty token would let everybody in; leave it out and the admin API stays closed";
        wrong.push(Problem::new("admin.token", what));
    }
    wrong.extend(problems(plugin::redis_errors(config.limits.redis.as_ref(), config.limits.redis_ca.as_deref())));
    if wrong.is_empty() { Ok((gate, routes, shown)) } else { Err(wrong) }
}

/// What a room says is wrong with its part of a configuration.
pub fn problems(errors: Vec<(String, String)>) -> Vec<Problem> {
    errors.into_iter().map(|(place, what)| Problem::new(place, what)).collect()
}

/// A gateway that takes connections.
pub struct Running {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the operator's listener is.
    pub admin: SocketAddr,
}

/// Runs a gateway until `stop`, on this thread and its workers, on this configuration and on what becomes of it at its source.
/// Sockets that are `inherited` stand for the addresses of the configuration. `ready` is told the addresses once connections
/// are taken.
///
/// # Errors
/// It could not be started.
pub fn run(
    source: Source,
    config: Config,
    inherited: Inherited,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Running),
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let api = server::bind(config.server.listen, config.server.reuse_port, inherited.api)?;
        let operator = server::bind(config.admin.listen, false, inherited.admin)?;
        let running = Running { api: api.address()?, admin: operator.address()? };
        // Before anything takes long: the signal ends a process that has not said what it means.
        let hangups = reload::Hangups::listen()?;
        let watch = reload::watch(&source);
        let foundation = Arc::new(Foundation::pour(&config)?);
        let (built, shown) = build(&config, &foundation).await.map_err(|mut wrong| {
            config::place(source.file.as_deref(), &mut wrong);
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        foundation.show(shown, &config);
        foundation.settle(&built);
        let rooms = Arc::new(ArcSwap::from_pointee(built));
        let tls = foundation.tls[0].clone();
        let workers = Workers::start(&config.server, rooms.clone(), tls, &foundation.registry, &foundation.drain)?;
        let now = Arc::new(ArcSwap::from_pointee(config));
        let reloading = reload::start(source, watch, hangups, &foundation, &now, &rooms, workers.followers())?;
        let phase = Rc::new(Cell::new(Phase::Starting));
        let (readiness, configured) = (phased(phase.clone(), rooms.clone()), now.clone());
        let admin = Admin {
            registry: foundation.registry.clone(),
            readiness: Box::new(readiness),
            tls: foundation.tls[1].clone(),
            token: Box::new(move || configured.load().admin.token.clone()),
            reload: Box::new(reloading.on_demand()),
        };
        let (operator, admin) = (operator.listen()?, Rc::new(admin));
        tokio::task::spawn_local(admin::serve(async move || operator.next().await, admin));
        let stop = stop.shared();
        if api.is_shared() {
            // The other process goes on with all of it until this one can do as well; one that failed is told by readiness.
            let now = rooms.load_full();
            tokio::select! { _ = now.backends.loaded() => {}, () = stop.clone() => {} }
        }
        let closed = CancellationToken::new();
        let accepting = api.listen()?.serve(&workers, closed.clone());
        phase.set(Phase::Serving);
        ready(&running);
        tracing::info!(api = %running.api, admin = %running.admin, version = env!("CARGO_PKG_VERSION"), "tidegate serves");
        let ending = async {
            stop.await;
            phase.set(Phase::Stopping);
            workers.leave();
            tracing::info!("stopping: readiness fails, no new connections soon");
            tokio::time::sleep(now.load().server.drain_delay.0).await;
            closed.cancel();
        };
        tokio::join!(accepting, ending);
        drain(&now.load(), &foundation, workers).await;
        reloading.end().await;
        Ok(())
    })
}

/// Where a gateway is in its life.
#[derive(Clone, Copy)]
enum Phase {
    /// It may not take connections yet.
    Starting,
    Serving,
    Stopping,
}

/// Whether a gateway in this phase of its life should be asked.
fn phased(phase: Rc<Cell<Phase>>, rooms: Arc<ArcSwap<Rooms>>) -> impl Fn() -> Readiness {
    move || match (phase.get(), readiness(&rooms.load())) {
        (Phase::Stopping, _) => unready("stopping"),
        (Phase::Starting, Readiness::Ready | Readiness::Degraded(_)) => unready("starting"),
        (_, readiness) => readiness,
    }
}

/// Whether a gateway that serves should be asked.
fn readiness(rooms: &Rooms) -> Readiness {
    if !rooms.backends.settled() {
        return unready("a local model is being loaded");
    }
    if !rooms.ledger.accepts() {
        return unready("the ledger takes no records");
    }
    let failed = rooms.backends.failed();
    let says = failed.iter().map(|name| format!("local model {name} failed to load")).collect::<Vec<_>>().join(", ");
    match failed.len() {
        0 => Readiness::Ready,
        // Every request would be refused: better that another replica has them.
        all if all == rooms.backends.count() => Readiness::Unready(says),
        _ => Readiness::Degraded(says),
    }
}

fn unready(why: &str) -> Readiness {
    Readiness::Unready(why.to_owned())
}

/// Lets requests finish, up to the limit; ends the rest with an error; writes the books.
async fn drain(config: &Config, foundation: &Foundation, workers: Workers) {
    foundation.drain.cancel();
    let began = Instant::now();
    // Connections, not requests: a reply that was handed over may not have been sent yet.
    while workers.open() > 0 && began.elapsed() < config.server.drain.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if workers.open() > 0 {
        tracing::warn!(connections = workers.open(), "the drain is over; ending the rest with an error");
        foundation.cut.cancel();
    }
    workers.finish(Duration::from_secs(3)).await;
    foundation.ledger.close();
    tracing::info!("stopped");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_files_are_checked_and_have_a_line() {
        let gpu = "[backends.gpu]\nkind = \"vllm\"\n";
        for (text, says) in [
            (
                "url = \"http://x\"\n[models.\"m:1\"]\ntargets = [ { backend = \"gpx\" } ]\n",
                "5: models.\"m:1\".targets: there is no backend `gpx`; did you mean `gpu`?",
            ),
            (
                "url = \"http://x\"\n[models.m]\ntargets = [ { backend = \"gpu\" } ]\nprice = [ { currency = \"USD\" }, { from = \"2026-13-01\", currency = \"USD\" } ]\n",
                "6: models.m.price.1.from: expected a date in quotes, such as \"2026-07-01\"; found \"2026-13-01\"",
            ),
            (
                "url = \"http://x\"\n[models.m]\ntargets = [ { backend = \"gpu\", price = [ { currency = \"USD\" }, { currency = \"EUR\" } ] } ]\n",
                "5: models.m.targets.0.price: two prices have no `from`, and only one can be the first",
            ),
            ("url = \"https://x\"\nca = \"no.pem\"\n", "4: backends.gpu.ca: cannot read the certificates of no.pem: "),
            (
                "url = \"http://x\"\n[plugins.p]\noci = \"ghcr.io/acme/p:1\"\n",
                "5: plugins.p.oci: `ghcr.io/acme/p:1` names no digest, and what a tag points to can change: put @sha256:",
            ),
            (
                "url = \"http://x\"\n[limits]\nredis = \"http://:hunter2@x\"\n",
                "5: limits.redis: this is no address of a Redis: write redis://host:6379",
            ),
            (
                "url = \"http://x\"\n[limits]\nredis = \"redis://:hunter2@x\"\nredis_ca = \"no.pem\"\n",
                "6: limits.redis_ca: `redis_ca` is for an address that begins with rediss://",
            ),
            (
                "url = \"http://x\"\n[limits]\nredis = \"rediss://:hunter2@x\"\nredis_ca = \"no.pem\"\n",
                "6: limits.redis_ca: cannot read the certificates of no.pem: ",
            ),
            (
                "url = \"http://x\"\n[limits]\nredis_ca = \"no.pem\"\n",
                "5: limits.redis_ca: `redis_ca` is for the Redis of `redis`, and there is none",
            ),
            (
                "url = \"http://x\"\n[server]\nheader_timeout = \"0s\"\n",
                "5: server.header_timeout: with 0 hardly a request could be served",
            ),
            ("url = \"http://x\"\n[server]\nmax_in_flight = 0\n", "5: server.max_in_flight: with 0 hardly a request"),
            ("url = \"http://x\"\n[admin]\ntoken = \"\"\n", "5: admin.token: an empty token would let everybody in"),
            (
                "url = \"http://x\"\n[plugins.p]\norder = 1\n",
                "4: plugins.p: nothing says where it is: add `path`, a file, or `oci`",
            ),
            (
                "url = \"http://x\"\n[plugins.p]\npath = \"p.wasm\"\nregistry_insecure = true\n",
                "6: plugins.p.registry_insecure: `registry_insecure` is for plugins with `oci`",
            ),
            (
                "url = \"http://x\"\nca = \"no.pem\"\n",
                "4: backends.gpu.ca: `ca` is for addresses that begin with https://",
            ),
        ] {
            let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
            std::fs::write(&file, format!("{gpu}{text}")).unwrap();
            let found = load(Some(file.path()), &[]).unwrap_err();
            assert!(found[0].to_string().starts_with(&format!("{}:{says}", file.path().display())), "{found:?}");
            assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
        }
    }
}
