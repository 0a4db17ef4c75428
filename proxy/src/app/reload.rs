//! A new configuration while requests run: read, built and tried off their path, then exchanged in one step, or not at all.
//!
//! A thread of its own looks at the files and does the work, so that a plugin that takes seconds to compile, or a file on a
//! network that hangs, delays nobody. Requests finish on the rooms they began with. Models of this process are loaded before
//! the exchange: no request finds one that is not there yet, and one that cannot be loaded is a reason to stay with what
//! works, like every other.

use super::shown::Shown;
use super::{Foundation, Source, build, others};
use crate::admin::Reloaded;
use crate::config::{self, Config, Problem, Watch, changes, waiting};
use crate::relay::Rooms;
use crate::server::Followers;
use arc_swap::ArcSwap;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How often the files are looked at; a change is taken up at the second look that finds it the same.
const LOOK: Duration = Duration::from_millis(500);
/// How long the end waits for a reload that is under way.
const LAST: Duration = Duration::from_secs(1);

/// SIGHUP, which means: read the configuration again.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// From now on the signal does not end the process.
    pub fn listen() -> Result<Self, String> {
        signal(SignalKind::hangup()).map(Self).map_err(|error| format!("SIGHUP cannot be received: {error}"))
    }
}

/// The files as they are before they are read.
pub(super) fn watch(source: &Source) -> Watch {
    Watch::of(config::files(source.file.as_deref(), &source.overrides))
}

/// Reloading, while the gateway runs.
pub(super) struct Reloading {
    hangups: tokio::task::JoinHandle<()>,
    thread: JoinHandle<()>,
    ask: Sender<Ask>,
}

/// What the thread is asked for.
enum Ask {
    /// To read the configuration again, for this reason, and to tell this one what came of it.
    Again(&'static str, Option<oneshot::Sender<Reloaded>>),
    /// To end.
    End,
}

/// Starts the thread.
pub(super) fn start(
    source: Source,
    watch: Watch,
    mut hangups: Hangups,
    foundation: &Arc<Foundation>,
    now: &Arc<ArcSwap<Config>>,
    rooms: &Arc<ArcSwap<Rooms>>,
    followers: Followers,
) -> Result<Reloading, String> {
    let reload = Reload {
        source,
        series: Series::register(&foundation.registry, &now.load()).map_err(|error| error.to_string())?,
        foundation: foundation.clone(),
        started: now.load_full(),
        now: now.clone(),
        rooms: rooms.clone(),
        followers,
    };
    let (ask, asked) = channel();
    let hung_up = ask.clone();
    let hangups = tokio::task::spawn_local(async move {
        while hangups.0.recv().await.is_some() && hung_up.send(Ask::Again("SIGHUP", None)).is_ok() {}
    });
    let thread = std::thread::Builder::new().name("config".into()).spawn(move || reload.serve(watch, &asked));
    let thread = thread.map_err(|error| format!("the configuration's thread cannot be started: {error}"))?;
    Ok(Reloading { hangups, thread, ask })
}

impl Reloading {
    /// Has the configuration read again for whoever calls it.
    pub fn on_demand(&self) -> impl Fn() -> oneshot::Receiver<Reloaded> + use<> {
        let ask = self.ask.clone();
        move || {
            let (tell, told) = oneshot::channel();
            // Nobody hears it at the very end; then nobody answers, either.
            let _ = ask.send(Ask::Again("the admin API", Some(tell)));
            told
        }
    }

    /// No more of it.
    pub async fn end(self) {
        self.hangups.abort();
        let _ = self.ask.send(Ask::End);
        let began = Instant::now();
        while !self.thread.is_finished() && began.elapsed() < LAST {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Reload {
    source: Source,
    series: Series,
    foundation: Arc<Foundation>,
    /// What the listeners and the ledger were opened with.
    started: Arc<Config>,
    now: Arc<ArcSwap<Config>>,
    rooms: Arc<ArcSwap<Rooms>>,
    followers: Followers,
}

impl Reload {
    /// Reads again whenever a file has changed or somebody asks, until the end.
    fn serve(self, mut watch: Watch, asked: &Receiver<Ask>) {
        loop {
            let (why, first) = match asked.recv_timeout(LOOK) {
                Ok(Ask::Again(why, first)) => (why, first),
                Err(RecvTimeoutError::Timeout) if watch.changed() => ("a file changed", None),
                Err(RecvTimeoutError::Timeout) => continue,
                Ok(Ask::End) | Err(RecvTimeoutError::Disconnected) => return,
            };
            // All who have asked by now are served by one reading.
            let mut askers = Vec::from_iter(first);
            for ask in asked.try_iter() {
                match ask {
                    Ask::Again(_, asker) => askers.extend(asker),
                    Ask::End => return,
                }
            }
            // What they are before they are read: a change meanwhile is seen at the next look.
            watch = self::watch(&self.source);
            let Ok(reloaded) = std::panic::catch_unwind(AssertUnwindSafe(|| self.reload(why))) else {
                self.series.success.set(0);
                tracing::error!("a reload panicked; this is a bug in tidegate");
                continue;
            };
            for asker in askers {
                // It may have gone.
                let _ = asker.send(reloaded.clone());
            }
        }
    }

    fn reload(&self, why: &str) -> Reloaded {
        let began = Instant::now();
        match self.read() {
            Ok((config, rooms, shown)) => {
                let changed = self.exchange(config, rooms, shown);
                self.series.succeeded(&self.now.load());
                let all = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
                let seconds = began.elapsed().as_secs_f32();
                tracing::info!(why, changed = all, seconds, "configuration reloaded");
                let waiting = waiting(&self.started, &self.now.load());
                if !waiting.is_empty() {
                    tracing::warn!(keys = waiting.join(", "), "changes of these keys wait for a restart");
                }
                Reloaded::Done { changed, waiting }
            }
            Err(problems) => {
                // What was built for it must not be kept.
                self.foundation.settle(&self.rooms.load());
                self.series.success.set(0);
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                let all = problems.join("; ");
                tracing::error!(
                    why,
                    problems = all,
                    "configuration not reloaded; the gateway goes on with the one before"
                );
                Reloaded::Refused { problems }
            }
        }
    }

    fn read(&self) -> Result<(Config, Rooms, Shown), Vec<Problem>> {
        let file = self.source.file.as_deref();
        let config = super::load(file, &self.source.overrides)?;
        let build = async {
            let (rooms, shown) = build(&config, &self.foundation).await?;
            rooms.backends.loaded().await.map_err(super::problems)?;
            Ok((rooms, shown))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| vec![Problem::new("", format!("cannot start the runtime: {error}"))])?;
        let built = tokio::task::LocalSet::new().block_on(&runtime, build);
        let (rooms, shown) = built.map_err(|mut problems: Vec<Problem>| {
            config::place(file, &mut problems);
            problems
        })?;
        Ok((config, rooms, shown))
    }

    /// The one step. Says what changed.
    fn exchange(&self, config: Config, rooms: Rooms, shown: Shown) -> Vec<String> {
        let (config, rooms) = (Arc::new(config), Arc::new(rooms));
        self.foundation.ledger.fold(others(&config));
        // The operator's token before the rooms: who sees the new models is let in by the new token.
        let known = self.now.swap(config.clone());
        let before = self.rooms.swap(rooms.clone());
        self.foundation.settle(&rooms);
        self.foundation.ledger.settle(&config.ledger);
        self.followers.settle(&config.server);
        let shown = self.foundation.show(shown, &config);
        let mut changed = changes(&known, &config);
        // Files that changed under the same settings.
        let (plugins, backends) = (rooms.plugins.fresh(&before.plugins), rooms.backends.fresh(&before.backends));
        let files = plugins.map(|name| format!("plugins.{name}"));
        let files = files.chain(backends.map(|name| format!("backends.{name}")));
        for key in files.chain(shown.into_iter().map(str::to_owned)) {
            // Changes of `[server]` and `[admin]` are told as one.
            let section = key.strip_suffix(".tls").unwrap_or(&key);
            if !changed.iter().any(|change| change.starts_with(&format!("{section} "))) {
                changed.push(format!("{key} changed in its file"));
            }
        }
        changed
    }
}

/// What an operator alarms on.
struct Series {
    success: IntGauge,
    timestamp: IntGauge,
    info: IntGaugeVec,
}

impl Series {
    fn register(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let info = Opts::new(
            "tidegate_config_info",
            "Which configuration file is in use: the first 12 digits of its SHA-256.",
        );
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let series = Self {
            success: gauge(
                "tidegate_config_reload_success",
                "1 when the configuration that was read last is in use, 0 when it could not be used.",
            )?,
            timestamp: gauge(
                "tidegate_config_reload_timestamp_seconds",
                "When the configuration in use was read, in seconds since 1970.",
            )?,
            info: IntGaugeVec::new(info, &["sha256"])?,
        };
        registry.register(Box::new(series.info.clone()))?;
        series.succeeded(config);
        Ok(series)
    }

    /// This one is in use.
    fn succeeded(&self, config: &Config) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.timestamp.set(now.as_secs() as i64);
        self.success.set(1);
        // One at a time: replicas are told apart by it.
        self.info.reset();
        if let Some(digest) = &config.digest {
            self.info.with_label_values(&[digest]).set(1);
        }
    }
}
