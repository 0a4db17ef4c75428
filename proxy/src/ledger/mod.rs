//! The books: exactly one record for every request, whatever became of it.
//!
//! A [`Tab`] opens at the door and closes itself once. Closing appends one line to a journal, by a `write(2)` that outlives the
//! process, before the last bytes go to the client; no request waits for the database. A thread of the ledger's own carries journal lines into SQLite, each exactly once, because the rows and the position read so far are committed
//! together. (docs/decisions/0002-journal-before-database.md)

mod journal;
mod line;
mod others;
mod series;
mod tab;

pub use journal::{Journal, ingest};
pub use others::Others;
pub use tab::{AtClose, Tab};

use crate::canon::Period;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// `[ledger]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Ledger")]
pub struct Config {
    /// The SQLite file of the books. Its journal lies beside it in a folder of the same name with `.spool`.
    pub path: PathBuf,
    /// Records older than this are deleted.
    pub retention: Period,
    /// What to do when the disk takes no more records: `refuse` requests, or serve them and only `count` what was lost.
    pub when_full: WhenFull,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "tidegate.db".into(),
            retention: Period(Duration::from_secs(400 * 86400)),
            when_full: WhenFull::Refuse,
        }
    }
}

/// What a full disk means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// No book, no service: 503 until records can be written again.
    #[default]
    Refuse,
    /// Serve, and count the records that could not be kept.
    Count,
}

/// The open books of a running gateway.
pub struct Ledger {
    journal: Journal,
    series: series::Series,
    /// Whether requests are served when the disk takes no more records.
    counts: AtomicBool,
    /// Milliseconds that records are kept.
    retention: AtomicU64,
}

impl Ledger {
    /// Opens the books, takes over what an earlier process left in the journal, and starts the thread that keeps them. A
    /// gateway that is a `successor` may do so while another still uses them.
    ///
    /// # Errors
    /// The file or folder cannot be used, or another gateway uses it.
    pub fn open(
        config: &Config,
        registry: &prometheus::Registry,
        shards: usize,
        successor: bool,
    ) -> Result<Arc<Self>, String> {
        let series = series::Series::register(registry).map_err(|error| error.to_string())?;
        let journal = Journal::open(&config.path, shards, successor)?;
        let ledger = Arc::new(Self { journal, series, counts: AtomicBool::default(), retention: AtomicU64::default() });
        ledger.settle(config);
        journal::keep(&ledger, config)?;
        Ok(ledger)
    }

    /// Goes by these settings from now on; the file stays the one that was opened.
    pub fn settle(&self, config: &Config) {
        self.counts.store(config.when_full == WhenFull::Count, Ordering::Relaxed);
        self.retention.store(config.retention.0.as_millis() as u64, Ordering::Relaxed);
    }

    /// These accounts have no labels of their own in metrics from now on.
    pub fn fold(&self, others: Others) {
        self.series.fold(others);
    }

    /// How long records are kept.
    fn retention(&self) -> Duration {
        Duration::from_millis(self.retention.load(Ordering::Relaxed))
    }

    /// From now on the records of this thread are written together, when [`write_gathered`](Self::write_gathered) is called: before
    /// anything leaves the thread, so that nobody has a whole reply that is not in the books, and whenever it has nothing to do.
    pub fn gather(self: &Arc<Self>) -> Gathering {
        self.journal.gather(true);
        Gathering(self.clone())
    }

    /// Writes this thread's records that are not written yet.
    pub fn write_gathered(&self) {
        self.journal.write_gathered();
    }

    /// Writes the journal's rest into the database. Called once, when no more tabs will close.
    pub fn close(&self) {
        self.journal.close();
    }

    /// Whether new requests may be served: the disk takes records, or the operator does not mind.
    pub fn accepts(&self) -> bool {
        self.counts.load(Ordering::Relaxed) || !self.journal.is_failing()
    }
}

/// This thread gathers its records. Afterwards it writes each at once.
pub struct Gathering(Arc<Ledger>);

impl Drop for Gathering {
    fn drop(&mut self) {
        self.0.journal.gather(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_answers_has_one_name() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { path: root.path().join("t.db"), ..Config::default() };
        let ledger = Ledger::open(&config, &prometheus::Registry::new(), 1, false).unwrap();
        let endpoint: Arc<str> = "messages".into();
        let tabs = ["p", "p", "q"].map(|plugin| {
            let mut tab = ledger.open_tab(None, &endpoint, "anthropic");
            tab.answered_by(plugin);
            tab
        });
        let [first, again, other] = tabs.each_ref().map(|tab| tab.backend().as_ptr());
        assert_eq!(tabs.each_ref().map(Tab::backend), ["plugin:p", "plugin:p", "plugin:q"]);
        // The metrics know a combination of labels by where its strings are.
        assert!(first == again && first != other);
        drop(tabs);
        ledger.close();
    }
}
