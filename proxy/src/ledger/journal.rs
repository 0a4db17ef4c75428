//! Records on their way to the database: append-only files, one line of JSON a record.
//!
//! Appending is one `write(2)`: the page cache keeps it when the process dies. A database commit per reply would cost more
//! than everything else the gateway does for a request, and a group commit would make requests wait for it. Each worker
//! thread has a file of its own, so appends do not queue behind one lock.
//!
//! Reading is safe from any process, at any time: a batch of rows and the offset they were read up to are one transaction.
//! Writing is safe beside others, too: each process has files of its own, and locks them, so that nobody deletes what is
//! still appended to. That is for the moment in which one gateway takes over from another; else there is one to a ledger.

use super::{Config, Ledger};
use crate::canon::Record;
use crate::store::Store;
use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A file is left for a new one beyond this size, so that what is in the database can be deleted.
const SEGMENT: u64 = 8 << 20;
/// Bytes read into one transaction.
const BATCH: u64 = 4 << 20;
/// How often the database catches up.
const TICK: Duration = Duration::from_millis(200);
/// How often it does while there is much to do: many small batches keep less in memory, and share the processor better with
/// requests, than a few large ones.
const BUSY_TICK: Duration = Duration::from_millis(20);
/// Records in a batch that mean there is much to do.
const MUCH: u64 = 64;
/// Lines kept in memory while the disk is full; beyond it they are counted as rejected.
const BACKLOG: usize = 10_000;

/// The files being appended to.
pub struct Journal {
    folder: PathBuf,
    shards: Vec<Mutex<Shard>>,
    /// Lines the disk did not take.
    backlog: Mutex<Vec<Vec<u8>>>,
    /// Records that were appended since the keeper last looked, so that it need not read them back.
    fresh: Mutex<Fresh>,
    failing: AtomicBool,
    pub(super) appended: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) rejected: AtomicU64,
    closing: AtomicBool,
    keeper: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Locked for the life of the process: one gateway to a ledger.
    lock: File,
    /// Not locked yet: the gateway before this one is still at work.
    waiting: AtomicBool,
}

/// A record with the journal it is in and where it ends there.
type Appended = (Record, Arc<str>, u64);

/// What was appended of late, while it fits into memory.
#[derive(Default)]
struct Fresh {
    records: Vec<Appended>,
    /// There were more: the files know them.
    overflown: bool,
}

/// Records kept for the keeper; a burst beyond it is read back from the files.
const FRESH: usize = 16_384;

struct Shard {
    name: Arc<str>,
    file: File,
    length: u64,
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

impl Journal {
    pub(super) fn open(ledger: &Path, shards: usize, successor: bool) -> Result<Self, String> {
        let folder = folder(ledger);
        let fail = |error: io::Error| format!("cannot use the ledger's journal {}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let lock = OpenOptions::new().create(true).append(true).open(folder.join("lock")).map_err(fail)?;
        let waiting = lock.try_lock().is_err();
        if waiting && !successor {
            return Err(format!(
                "another gateway is using the ledger {}; give each its own [ledger] path, or set [server] reuse_port if this one is to take over from it",
                ledger.display()
            ));
        }
        let shards = (0..shards.max(1))
            .map(|_| Shard::create(&folder).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        Ok(Self {
            folder,
            shards,
            backlog: Mutex::default(),
            fresh: Mutex::default(),
            failing: AtomicBool::new(false),
            appended: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            keeper: Mutex::new(None),
            lock,
            waiting: AtomicBool::new(waiting),
        })
    }

    /// Puts a record where the death of the process cannot reach it.
    pub(super) fn append(&self, record: Record) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            super::line::write(line, &record);
            let shard = SHARD.get();
            let shard = if shard == usize::MAX { NEXT_SHARD.fetch_add(1, Ordering::Relaxed) } else { shard };
            SHARD.set(shard);
            let mut shard = self.shards[shard % self.shards.len()].lock().unwrap_or_else(PoisonError::into_inner);
            match shard.append(&self.folder, line) {
                Ok(()) => {
                    // Under the shard's lock, so that the records of a file stand in its order.
                    let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
                    self.appended.fetch_add(1, Ordering::Relaxed);
                    if fresh.records.len() < FRESH {
                        fresh.records.push((record, shard.name.clone(), shard.length));
                    } else {
                        fresh.overflown = true;
                    }
                }
                Err(error) => {
                    drop(shard);
                    self.appended.fetch_add(1, Ordering::Relaxed);
                    self.keep_back(line, record.attempts > 0, &error);
                }
            }
        });
    }

    /// The last append failed and the next will probably, too.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    fn keep_back(&self, line: &[u8], billable: bool, error: &io::Error) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, folder = %self.folder.display(), "the disk takes no usage records; free some space");
        }
        // While the disk is full every refusal is a record, too; they must not push out what has to be paid for.
        if billable && backlog.len() < BACKLOG {
            backlog.push(line.to_vec());
        } else {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tries again what the disk did not take.
    fn write_backlog(&self) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_failing() {
            return;
        }
        let mut shard = self.shards[0].lock().unwrap_or_else(PoisonError::into_inner);
        let written = backlog.iter().take_while(|line| shard.append(&self.folder, line).is_ok()).count();
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).overflown = true;
        backlog.drain(..written);
        if backlog.is_empty() {
            self.failing.store(false, Ordering::Relaxed);
            tracing::info!("the disk takes usage records again");
        }
    }

    /// Records not yet in the database.
    pub(super) fn pending(&self) -> u64 {
        self.appended
            .load(Ordering::Relaxed)
            .saturating_sub(self.committed.load(Ordering::Relaxed) + self.rejected.load(Ordering::Relaxed))
    }

    /// Brings the database up to date. `spare` changes places with what was appended, so that neither grows anew each time.
    fn catch_up(&self, store: &mut Store, ledger: &Path, spare: &mut Vec<Appended>) -> Result<(), String> {
        let backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        spare.clear();
        let (overflown, appended) = {
            let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut fresh.records, spare);
            (std::mem::take(&mut fresh.overflown), self.appended.load(Ordering::Relaxed))
        };
        let records = spare;
        if overflown || insert(store, records).is_err() {
            // The files have them all, and the database knows how far it has read them.
            let (_, rejected) = ingest(store, ledger).inspect_err(|_| {
                // What was taken out of memory is still only in the files: the next round reads them, too.
                self.fresh.lock().unwrap_or_else(PoisonError::into_inner).overflown = true;
            })?;
            self.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
        self.committed
            .store(appended.saturating_sub(backlog + self.rejected.load(Ordering::Relaxed)), Ordering::Relaxed);
        Ok(())
    }

    /// Once the gateway before this one has gone: what it did not bring into the database is ours.
    fn succeed(&self, store: &mut Store, ledger: &Path) -> Result<(), String> {
        if self.waiting.load(Ordering::Relaxed) && self.lock.try_lock().is_ok() {
            let (records, _) = ingest(store, ledger)?;
            self.waiting.store(false, Ordering::Relaxed);
            tracing::info!(records, "the gateway before this one has left the ledger");
        }
        Ok(())
    }

    /// Deletes files that nobody appends to and that are in the database to the end.
    fn sweep(&self, store: &mut Store) -> Result<(), rusqlite::Error> {
        for (name, path) in segments(&self.folder) {
            // Who appends to it, here or in another process, has it locked.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_err() {
                continue;
            }
            let length = file.metadata().map_or(u64::MAX, |meta| meta.len());
            let offset = store.batch()?.offset(&name)?;
            if offset >= length && std::fs::remove_file(&path).is_ok() {
                store.forget_journal(&name)?;
            }
        }
        Ok(())
    }

    /// Ends the keeper after a last round.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
    }
}

impl Shard {
    fn create(folder: &Path) -> io::Result<Self> {
        let name: Arc<str> = format!("{}.jsonl", uuid::Uuid::now_v7()).into();
        // It gets its name when it is locked: nobody may find it abandoned before.
        let new = folder.join(format!("{name}.new"));
        let file = OpenOptions::new().create_new(true).append(true).open(&new)?;
        file.lock()?;
        std::fs::rename(new, folder.join(&*name))?;
        Ok(Self { name, file, length: 0 })
    }

    fn append(&mut self, folder: &Path, line: &[u8]) -> io::Result<()> {
        if self.length > SEGMENT {
            *self = Self::create(folder)?;
        }
        if let Err(error) = self.file.write_all(line) {
            // Half a line must not stand before the next one.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

fn folder(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".spool");
    name.into()
}

/// Journal files, oldest first.
fn segments(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name.ends_with(".jsonl") && name != REJECTED)
        .collect();
    files.sort();
    files
}

/// Lines that are no records, kept for a person to look at.
const REJECTED: &str = "rejected.jsonl";

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

/// Carries journal lines that are not in the database yet into it. Safe while a gateway runs, and from several processes.
/// Returns how many records it added and how many lines it had to set aside.
///
/// # Errors
/// SQLite's, or a journal that cannot be read.
pub fn ingest(store: &mut Store, ledger: &Path) -> Result<(u64, u64), String> {
    let folder = folder(ledger);
    let (mut added, mut rejected) = (0, 0);
    for (name, path) in segments(&folder) {
        loop {
            let (more, bad) = ingest_some(store, &folder, &name, &path)
                .map_err(|error| format!("cannot read the journal {} into the ledger: {error}", path.display()))?;
            added += more;
            rejected += bad;
            if more + bad == 0 {
                break;
            }
        }
    }
    Ok((added, rejected))
}

fn ingest_some(
    store: &mut Store,
    folder: &Path,
    name: &str,
    path: &Path,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Read to its end and deleted by the gateway since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error.into()),
    };
    let mut batch = store.batch()?;
    let offset = batch.offset(name)?;
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    Read::by_ref(&mut file).take(BATCH).read_to_end(&mut text)?;
    if text.len() as u64 == BATCH && memchr::memchr(b'\n', &text).is_none() {
        // One line longer than a batch must not hide the ones behind it.
        file.read_to_end(&mut text)?;
    }
    // The last line may still be in the making.
    text.truncate(memchr::memrchr(b'\n', &text).map_or(0, |newline| newline + 1));
    let (mut records, mut rejected) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // Fields may be absent, for their defaults are; only the id never is.
        let read = serde_json::from_slice::<Record>(line).map_err(|error| error.to_string());
        match read.and_then(|record| if record.id.is_nil() { Err("it has no id".into()) } else { Ok(record) }) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::error!(error, journal = name, "a journal line is no record; it is kept in rejected.jsonl");
                OpenOptions::new().create(true).append(true).open(folder.join(REJECTED))?.write_all(line)?;
                rejected += 1;
            }
        }
    }
    batch.insert(&records)?;
    if !text.is_empty() {
        batch.advance(name, offset + text.len() as u64)?;
        batch.commit()?;
    }
    Ok((records.len() as u64, rejected))
}

/// Starts the thread that brings the journal into the database.
pub(super) fn keep(ledger: &Arc<Ledger>, config: &Config) -> Result<(), String> {
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
            let (mut swept, mut spare) = (None::<Instant>, Vec::new());
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
                if swept.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) || closing {
                    swept = Some(Instant::now());
                    let horizon = SystemTime::now()
                        .duration_since(SystemTime::UNIX_EPOCH)
                        .unwrap_or_default()
                        .saturating_sub(ledger.retention());
                    let swept =
                        journal.sweep(&mut store).and_then(|()| store.delete_before(horizon.as_millis() as i64));
                    if let Err(error) = swept {
                        tracing::warn!(%error, "could not tidy the ledger; trying again in a minute");
                    }
                }
                drop(ledger);
                if closing {
                    break;
                }
                std::thread::park_timeout(if pending > MUCH { BUSY_TICK } else { TICK });
            }
        })
        .map_err(|error| format!("cannot start the ledger's thread: {error}"))?;
    *ledger.journal.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    Ok(())
}

impl Journal {
    /// Bytes of journal on disk.
    pub(super) fn bytes(&self) -> u64 {
        segments(&self.folder).iter().filter_map(|(_, path)| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Filter;

    fn record(id: u128) -> Record {
        Record { id: uuid::Uuid::from_u128(id), ..Record::default() }
    }

    #[test]
    fn lines_become_rows_once_and_half_lines_wait() {
        let root = std::env::temp_dir().join(format!("tidegate-journal-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&root).unwrap();
        let path = root.join("t.db");
        let journal = Journal::open(&path, 2, false).unwrap();
        assert!(Journal::open(&path, 1, false).is_err(), "a second gateway must not share a ledger");
        journal.append(record(1));
        journal.append(record(2));
        let shard = journal.shards[SHARD.get() % 2].lock().unwrap();
        let file = folder(&path).join(&*shard.name);
        drop(shard);
        let mut half = OpenOptions::new().append(true).open(&file).unwrap();
        half.write_all(b"not a record\n").unwrap();
        let line = serde_json::to_vec(&record(3)).unwrap();
        half.write_all(&line[..20]).unwrap();

        let mut store = Store::open(&path).unwrap();
        assert_eq!(ingest(&mut store, &path).unwrap(), (2, 1));
        assert_eq!(ingest(&mut store, &path).unwrap(), (0, 0));
        half.write_all(&line[20..]).unwrap();
        half.write_all(b"\n").unwrap();
        // Another process with its own connection goes on where the first stopped.
        assert_eq!(ingest(&mut Store::open(&path).unwrap(), &path).unwrap(), (1, 0));
        assert_eq!(store.records(&Filter::default()).unwrap().len(), 3);
        assert_eq!(std::fs::read(folder(&path).join(REJECTED)).unwrap(), b"not a record\n");

        drop(journal);
        Journal::open(&path, 1, false).unwrap().sweep(&mut store).unwrap();
        assert_eq!(segments(&folder(&path)).len(), 1, "only the open file is left");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_successor_shares_the_books_and_takes_over_what_is_left() {
        let root = std::env::temp_dir().join(format!("tidegate-successor-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&root).unwrap();
        let path = root.join("t.db");
        let first = Journal::open(&path, 1, false).unwrap();
        let second = Journal::open(&path, 1, true).unwrap();
        let (mut store, files) = (Store::open(&path).unwrap(), || segments(&folder(&path)).len());
        // All of both is in the database, and neither deletes what the other may append to.
        first.append(record(1));
        second.append(record(2));
        assert_eq!(ingest(&mut store, &path).unwrap(), (2, 0));
        first.sweep(&mut store).unwrap();
        second.sweep(&mut store).unwrap();
        assert_eq!(files(), 2);
        second.succeed(&mut store, &path).unwrap();
        assert!(second.waiting.load(Ordering::Relaxed), "the first is still there");
        first.append(record(3));
        drop(first);
        second.succeed(&mut store, &path).unwrap();
        assert!(!second.waiting.load(Ordering::Relaxed));
        assert_eq!(store.records(&Filter::default()).unwrap().len(), 3, "what it left has been taken over");
        second.sweep(&mut store).unwrap();
        assert_eq!(files(), 1);
        assert!(Journal::open(&path, 1, false).is_err(), "it is the one gateway now");
        std::fs::remove_dir_all(root).unwrap();
    }
}
