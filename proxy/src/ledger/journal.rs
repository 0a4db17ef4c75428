//! Records on their way to the database: append-only files, one line of JSON a record.
//!
//! Appending is one `write(2)`: the page cache keeps it when the process dies. A database commit per reply would cost more
//! than everything else the gateway does for a request, and a group commit would make requests wait for it. Each worker
//! thread has a file of its own, so appends do not queue behind one lock. What it closes before it sends anything is one append.
//!
//! Reading is safe from any process, at any time: a batch of rows and the offset they were read up to are one transaction.
//! Writing is safe beside others, too: each process has files of its own, and locks them, so that nobody deletes what is
//! still appended to. That is for the moment in which one gateway takes over from another; else there is one to a ledger.

mod ingest;
mod keeper;
#[cfg(test)]
mod tests;

pub use ingest::ingest;
pub(super) use keeper::keep;

use crate::canon::Record;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A file is left for a new one beyond this size, so that what is in the database can be deleted.
const SEGMENT: u64 = 8 << 20;
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
    /// Of whole lines.
    length: u64,
    /// Half a line came behind them: nothing else may.
    torn: bool,
}

/// Bytes of lines that do not wait for more.
const GATHERED: usize = 64 << 10;

/// Records that a thread has closed and not written.
struct Lines {
    text: Vec<u8>,
    /// Each with where its line ends.
    records: Vec<(Record, usize)>,
    /// Others are waited for: this thread [gathers](Journal::gather).
    wait: bool,
}

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { text: Vec::new(), records: Vec::new(), wait: false }) };
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

    /// Puts a record where the death of the process cannot reach it: at once, or in time where the thread gathers.
    pub(super) fn append(&self, record: Record) {
        LINES.with_borrow_mut(|lines| {
            super::line::write(&mut lines.text, &record);
            lines.records.push((record, lines.text.len()));
            if !lines.wait || lines.text.len() > GATHERED {
                self.write(lines);
            }
        });
    }

    /// Whether this thread's records wait for [`write_gathered`](Self::write_gathered), to be written together.
    pub(super) fn gather(&self, wait: bool) {
        LINES.with_borrow_mut(|lines| lines.wait = wait);
        self.write_gathered();
    }

    /// Writes what waits in this thread.
    pub(super) fn write_gathered(&self) {
        LINES.with_borrow_mut(|lines| {
            if !lines.records.is_empty() {
                self.write(lines);
            }
        });
    }

    fn write(&self, lines: &mut Lines) {
        let shard = SHARD.get();
        let shard = if shard == usize::MAX { NEXT_SHARD.fetch_add(1, Ordering::Relaxed) } else { shard };
        SHARD.set(shard);
        let mut shard = self.shards[shard % self.shards.len()].lock();
        let (taken, ended) = shard.append(&self.folder, &lines.text);
        let before = shard.length - taken as u64;
        let written = lines.records.partition_point(|(_, end)| *end <= taken);
        {
            // Under the shard's lock, so that the records of a file stand in its order.
            let mut fresh = self.fresh.lock();
            self.appended.fetch_add(written as u64, Ordering::Relaxed);
            for (record, end) in lines.records.drain(..written) {
                if fresh.records.len() < FRESH {
                    fresh.records.push((record, shard.name.clone(), before + end as u64));
                } else {
                    fresh.overflown = true;
                }
            }
        }
        drop(shard);
        if let Err(error) = ended {
            let (mut begin, left) = (taken, lines.records.len() as u64);
            for (record, end) in lines.records.drain(..) {
                self.keep_back(&lines.text[begin..end], record.attempts > 0, &error);
                begin = end;
            }
            // Once they are known to be missing: else the keeper might take them for what it has brought into the database.
            self.appended.fetch_add(left, Ordering::Relaxed);
        }
        lines.text.clear();
    }

    /// The last append failed and the next will probably, too.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    fn keep_back(&self, line: &[u8], billable: bool, error: &io::Error) {
        let mut backlog = self.backlog.lock();
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, folder = %self.folder.display(), "the disk takes no usage records; free some space");
        }
        // While the disk is full every refusal is a record, too; they must not push out what has to be paid for. The first
        // line is kept whatever it is, to try the disk with: no request need be let in to find out.
        if backlog.is_empty() || billable && backlog.len() < BACKLOG {
            backlog.push(line.to_vec());
        } else {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tries again what the disk did not take.
    fn write_backlog(&self) {
        let mut backlog = self.backlog.lock();
        if !self.is_failing() {
            return;
        }
        let mut shard = self.shards[0].lock();
        let written = backlog.iter().take_while(|line| shard.append(&self.folder, line).1.is_ok()).count();
        self.fresh.lock().overflown = true;
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

    /// Bytes of journal on disk.
    pub(super) fn bytes(&self) -> u64 {
        segments(&self.folder).iter().filter_map(|(_, path)| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }
}

impl Shard {
    fn create(folder: &Path) -> io::Result<Self> {
        let name: Arc<str> = format!("{}.jsonl", uuid::Uuid::now_v7()).into();
        // It gets its name when it is locked: nobody may find it abandoned before.
        let new = folder.join(format!("{name}.new"));
        let file = OpenOptions::new().create_new(true).append(true).open(&new)?;
        let named = file.lock().and_then(|()| std::fs::rename(&new, folder.join(&*name)));
        named.inspect_err(|_| drop(std::fs::remove_file(&new)))?;
        Ok(Self { name, file, length: 0, torn: false })
    }

    /// Appends lines. Returns how many bytes of whole ones the disk took, and what kept it from the rest.
    ///
    /// Another process may have read those already, and half a line behind them. So they stay where they are, and nothing else is
    /// ever written where half a line was: such a file is left for a new one.
    fn append(&mut self, folder: &Path, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn || self.length > SEGMENT {
            match Self::create(folder) {
                Ok(new) => *self = new,
                Err(error) => return (0, Err(error)),
            }
        }
        let (taken, ended) = write_far(&mut self.file, lines);
        let whole = memchr::memrchr(b'\n', &lines[..taken]).map_or(0, |newline| newline + 1);
        self.length += whole as u64;
        if whole < taken {
            self.torn = true;
            // It comes again, whole, in another file. Where it cannot be taken away it is set aside in the end.
            let _ = self.file.set_len(self.length);
        }
        (whole, ended)
    }
}

/// Writes as much as can be written, and says how much that was.
fn write_far(file: &mut File, text: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while taken < text.len() {
        match file.write(&text[taken..]) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => taken += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
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

/// Files that got no name because their process died before: there is nothing in them. One that is being made is younger.
fn nameless(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let old = |entry: &DirEntry| {
        let made = entry.metadata().and_then(|meta| meta.modified()).ok();
        made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(3600))
    };
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(move |entry| entry.file_name().to_string_lossy().ends_with(".jsonl.new") && old(entry))
        .map(|entry| entry.path())
}

/// Lines that are no records, kept for a person to look at.
const REJECTED: &str = "rejected.jsonl";
