//! What the listeners show their clients: read from the files of a configuration, exchanged with it.

use super::Foundation;
use crate::config::{Config, Problem};
use crate::trust::{self, Papers};

/// The listeners in metrics, in the configuration, and the HTTP that they speak.
pub(super) const LISTENERS: [(&str, &str, &[&str]); 2] =
    [("api", "server.tls", &["h2", "http/1.1"]), ("admin", "admin.tls", &["http/1.1"])];

/// What the listeners show, where they speak TLS.
pub(super) type Shown = [Option<Papers>; 2];

/// Reads what the listeners show.
pub(super) fn read(config: &Config) -> Result<Shown, Vec<Problem>> {
    let mut wrong = Vec::new();
    let mut papers = |files: &Option<trust::Files>, listener: usize| {
        let (_, section, protocols) = LISTENERS[listener];
        let read = Papers::read(files.as_ref()?, protocols);
        read.map_err(|errors| {
            wrong.extend(errors.into_iter().map(|(key, what)| Problem::new(format!("{section}.{key}"), what)));
        })
        .ok()
    };
    let shown = [papers(&config.server.tls, 0), papers(&config.admin.tls, 1)];
    if wrong.is_empty() { Ok(shown) } else { Err(wrong) }
}

/// What clients will not like about the certificates of the listeners, by section.
pub fn warnings(config: &Config) -> Vec<(&'static str, String)> {
    let shown = read(config).unwrap_or_default();
    let warnings = shown.iter().zip(LISTENERS).filter_map(|(papers, (_, section, _))| {
        papers.as_ref().and_then(Papers::warning).map(|warning| (section, warning))
    });
    warnings.collect()
}

impl Foundation {
    /// The listeners show these from now on. Returns the sections whose papers are others than before.
    pub(super) fn show(&self, papers: Shown, config: &Config) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for ((papers, tls), (_, section, _)) in papers.into_iter().zip(&self.tls).zip(LISTENERS) {
            if let Some(warning) = papers.as_ref().and_then(Papers::warning) {
                tracing::warn!(section, warning, "clients will not accept a certificate");
            }
            if tls.settle(papers, config.server.max_in_flight) {
                changed.push(section);
            }
        }
        changed
    }
}
