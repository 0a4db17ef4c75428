//! `tidegate serve`

use super::From;
use crate::server::Inherited;
use clap::Args;
use rustix::fs::Mode;
use rustix::process::umask;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serve the API until SIGTERM or Ctrl-C; a second signal stops at once. The configuration is read again when its file changes,
/// and on SIGHUP.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate serve --config tidegate.toml --listen 0.0.0.0:8080")]
pub(super) struct Serve {
    #[command(flatten)]
    from: From,
    /// Address of the API.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub fn run(self) -> Result<(), String> {
        // First: it may have to change the environment, which only a process of one thread may.
        let inherited = Inherited::from_environment()?;
        super::log::start(self.log_json);
        keep_to_owner_and_group();
        crate::server::raise_open_files();
        let signals = Signals::listen()?;
        let overrides: Vec<_> = [("server.listen", self.listen), ("admin.listen", self.admin)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_string())))
            .collect();
        let config = self.from.load(&overrides)?;
        let source = crate::app::Source { file: self.from.file(), overrides };
        let ended = crate::app::run(source, config, inherited, signals.told.cancelled(), |_| signals.serve());
        super::log::flush();
        ended
    }
}

/// What the gateway writes, its books above all, is not for everybody on the machine. A stricter mask stays.
fn keep_to_owner_and_group() {
    let ours = Mode::WGRP | Mode::RWXO;
    let before = umask(ours);
    umask(before | ours);
}

/// SIGTERM and Ctrl-C, heard by a thread of their own. The main one may be reading books or compiling plugins for seconds before
/// it serves, and the first process of a container never gets a signal that it does not listen for when it comes.
struct Signals {
    told: CancellationToken,
    serving: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> Result<Self, String> {
        let fail = |error: io::Error| format!("signals cannot be received: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
        let inside = runtime.enter();
        let mut both = (signal(SignalKind::terminate()).map_err(fail)?, signal(SignalKind::interrupt()).map_err(fail)?);
        drop(inside);
        let signals = Self { told: CancellationToken::new(), serving: Arc::default() };
        let (told, serving) = (signals.told.clone(), signals.serving.clone());
        let heard = async move {
            either(&mut both).await;
            if !serving.load(Ordering::Acquire) {
                tracing::info!("told to stop before it served");
                end(0);
            }
            told.cancel();
            either(&mut both).await;
            tracing::warn!("a second signal: stopping at once");
            end(130);
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(move || runtime.block_on(heard)).map_err(fail)?;
        Ok(signals)
    }

    /// From now on there is something to bring to an end.
    fn serve(&self) {
        self.serving.store(true, Ordering::Release);
    }
}

async fn either((term, interrupt): &mut (Signal, Signal)) {
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
}

fn end(code: i32) -> ! {
    super::log::flush();
    std::process::exit(code);
}
