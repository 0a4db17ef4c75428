//! The thread that brings what was appended into the database and deletes what is there to the end.

use super::ingest::set_aside;
use super::{Appended, Journal, ingest, nameless, segments};
use crate::ledger::{Config, Ledger};
use crate::store::Store;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// How often the database catches up.
const TICK: Duration = Duration::from_millis(200);
/// How often it does while there is much to do: many small batches keep less in memory, and share the processor better with
/// requests, than a few large ones.
const BUSY_TICK: Duration = Duration::from_millis(20);
/// Records in a batch that mean there is much to do.
const MUCH: u64 = 64;
/// Records deleted at a time: nothing is brought into the database meanwhile.
pub(super) const ROUND: usize = 10_000;

/// Starts the thread that brings the journal into the database.
pub(in crate::ledger) fn keep(ledger: &Arc<Ledger>, config: &Config) -> Result<(), String> {
    let mut store = Store::open(&config.path)?;
    let path = config.path.clone();
    let (left, _) = ingest(&mut store, &path)?;
    if left > 0 {
        tracing::info!(records = left, "took over records that an earlier process left in the journal");
    }
    let weak = Arc::downgrade(ledger);
    let keeper = std::thread::Builder::new()
        .name("ledger".into())
        .spawn(move || {
            let (mut swept, mut spare, mut more_is_old) = (None::<Instant>, Vec::new(), false);
            while let Some(ledger) = weak.upgrade() {
                let journal = &ledger.journal;
                let closing = journal.closing.load(Ordering::Acquire);
                journal.write_backlog();
                if let Err(error) = journal.succeed(&mut store, &path) {
                    tracing::error!(%error, "the ledger is behind; records wait in the journal");
                }
                let pending = journal.pending();
                if (pending > 0 || closing)
                    && let Err(error) = journal.catch_up(&mut store, &path, &mut spare)
                {
                    tracing::error!(%error, "the ledger is behind; records wait in the journal");
                }
                ledger.series.follow(journal);
                let due = swept.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) || closing;
                if due || more_is_old {
                    let mut tidied = Ok(());
                    if due {
                        swept = Some(Instant::now());
                        tidied = journal.sweep(&mut store);
                    }
                    more_is_old = tidied.and_then(|()| forget(&ledger, &mut store)).unwrap_or_else(|error| {
                        tracing::warn!(%error, "could not tidy the ledger; trying again in a minute");
                        false
                    });
                }
                drop(ledger);
                if closing {
                    break;
                }
                std::thread::park_timeout(if pending > MUCH { BUSY_TICK } else { TICK });
            }
        })
        .map_err(|error| format!("cannot start the ledger's thread: {error}"))?;
    *ledger.journal.keeper.lock() = Some(keeper);
    Ok(())
}

/// Deletes records that are older than they are to be kept. Returns whether there may be more of them.
fn forget(ledger: &Ledger, store: &mut Store) -> Result<bool, rusqlite::Error> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let horizon = now.saturating_sub(ledger.retention());
    store.delete_before(horizon.as_millis() as i64, ROUND).map(|deleted| deleted == ROUND)
}

impl Journal {
    /// Brings the database up to date. `spare` changes places with what was appended, so that neither grows anew each time.
    fn catch_up(&self, store: &mut Store, ledger: &Path, spare: &mut Vec<Appended>) -> Result<(), String> {
        spare.clear();
        let (overflown, appended) = {
            let mut fresh = self.fresh.lock();
            std::mem::swap(&mut fresh.records, spare);
            (std::mem::take(&mut fresh.overflown), self.appended.load(Ordering::Relaxed))
        };
        let backlog = self.backlog.lock().len() as u64;
        let records = spare;
        if overflown || insert(store, records).is_err() {
            // The files have them all, and the database knows how far it has read them.
            let (_, rejected) = ingest(store, ledger).inspect_err(|_| {
                // What was taken out of memory is still only in the files: the next round reads them, too.
                self.fresh.lock().overflown = true;
            })?;
            self.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
        self.committed
            .store(appended.saturating_sub(backlog + self.rejected.load(Ordering::Relaxed)), Ordering::Relaxed);
        Ok(())
    }

    /// Once the gateway before this one has gone: what it did not bring into the database is ours.
    pub(super) fn succeed(&self, store: &mut Store, ledger: &Path) -> Result<(), String> {
        if self.waiting.load(Ordering::Relaxed) && self.lock.try_lock().is_ok() {
            let (records, _) = ingest(store, ledger)?;
            self.waiting.store(false, Ordering::Relaxed);
            tracing::info!(records, "the gateway before this one has left the ledger");
        }
        Ok(())
    }

    /// Deletes files that nobody appends to and that are in the database to the end. Half a line there will never be a whole one:
    /// it is set aside.
    pub(super) fn sweep(&self, store: &mut Store) -> Result<(), rusqlite::Error> {
        for (name, path) in segments(&self.folder) {
            // Who appends to it, here or in another process, has it locked.
            let Ok(mut file) = File::open(&path) else { continue };
            if file.try_lock().is_err() {
                continue;
            }
            let offset = store.batch()?.offset(&name)?;
            let mut rest = Vec::new();
            let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut rest));
            if read.is_err() || rest.contains(&b'\n') {
                continue;
            }
            if !rest.is_empty() {
                tracing::error!(journal = name, "a journal ends in half a line; it is kept in rejected.jsonl");
                rest.push(b'\n');
                if set_aside(&self.folder, &rest).is_err() {
                    continue;
                }
            }
            if std::fs::remove_file(&path).is_ok() {
                store.forget_journal(&name)?;
            }
        }
        nameless(&self.folder).for_each(|path| drop(std::fs::remove_file(path)));
        Ok(())
    }

    /// Ends the keeper after a last round.
    pub(in crate::ledger) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
    }
}

/// Adds records that are still in memory, and says how far their files are known by that. If another process has read the
/// files meanwhile, their ids are in the database already and its position is as far or further.
fn insert(store: &mut Store, records: &[Appended]) -> Result<(), rusqlite::Error> {
    let mut batch = store.batch()?;
    batch.insert(records.iter().map(|(record, ..)| record))?;
    let mut ends: Vec<(&str, u64)> = Vec::new();
    for (_, name, end) in records.iter().rev() {
        if !ends.iter().any(|(known, _)| *known == &**name) {
            ends.push((name, *end));
        }
    }
    for (name, end) in ends {
        if batch.offset(name)? < end {
            batch.advance(name, end)?;
        }
    }
    batch.commit()
}
