//! `tidegate serve`

use super::From;
use crate::server::Inherited;
use clap::Args;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

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
        let overrides: Vec<_> = [("server.listen", self.listen), ("admin.listen", self.admin)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_string())))
            .collect();
        let config = self.from.load(&overrides)?;
        let source = crate::app::Source { file: self.from.file(), overrides };
        let ended = crate::app::run(source, config, inherited, stop(), |_| {});
        super::log::flush();
        ended
    }
}

async fn stop() {
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be received; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    tokio::task::spawn_local(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("a second signal: stopping at once");
        std::process::exit(130);
    });
}
