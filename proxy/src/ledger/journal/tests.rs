use super::*;
use crate::ledger::series::Series;
use crate::store::{Filter, Store};
use prometheus::Registry;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

fn record(id: u128) -> Record {
    Record { id: uuid::Uuid::from_u128(id), ..Record::default() }
}

#[test]
fn lines_become_rows_once_and_half_lines_wait() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let journal = Journal::open(&path, 2, false).unwrap();
    assert!(Journal::open(&path, 1, false).is_err(), "a second gateway must not share a ledger");
    journal.append(record(1));
    journal.append(record(2));
    let shard = journal.shards[SHARD.get() % 2].lock();
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
}

#[test]
fn what_a_dead_process_left_half_done_goes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let journal = Journal::open(&path, 1, false).unwrap();
    let (mut store, left) = (Store::open(&path).unwrap(), folder(&path).join("0.jsonl"));
    let mut text = serde_json::to_vec(&record(1)).unwrap();
    text.extend_from_slice(b"\n{\"id\":");
    std::fs::write(&left, text).unwrap();
    for (name, age) in [("old.jsonl.new", 7200), ("young.jsonl.new", 0)] {
        let file = File::create(folder(&path).join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    journal.sweep(&mut store).unwrap();
    assert!(left.exists(), "there is a record in it that is not in the database");
    assert_eq!(ingest(&mut store, &path).unwrap(), (1, 0));
    journal.sweep(&mut store).unwrap();
    assert_eq!(segments(&folder(&path)).len(), 1, "only the open file is left");
    assert_eq!(std::fs::read(folder(&path).join(REJECTED)).unwrap(), b"{\"id\":\n");
    assert_eq!(store.batch().unwrap().offset("0.jsonl").unwrap(), 0, "nor is its place in it known any more");
    let there = |name: &str| folder(&path).join(name).exists();
    assert_eq!((there("old.jsonl.new"), there("young.jsonl.new")), (false, true));
}

#[test]
fn a_full_disk_is_full_until_it_takes_a_line() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let journal = Journal::open(&path, 1, false).unwrap();
    let registry = Registry::new();
    let series = Series::register(&registry).unwrap();
    let told = |line: &str| {
        series.follow(&journal);
        let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(page.lines().any(|other| other == line), "{line} in {page}");
    };
    told("tidegate_usage_journal_failing 0");
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let real = std::mem::replace(&mut journal.shards[0].lock().file, full);
    // A refusal and what has to be paid for.
    journal.append(record(1));
    journal.write_backlog();
    assert!(journal.is_failing(), "nothing says that there is room again");
    told("tidegate_usage_journal_failing 1");
    journal.append(record(2));
    journal.append(Record { attempts: 1, ..record(3) });
    journal.shards[0].lock().file = real;
    journal.write_backlog();
    assert!(!journal.is_failing());
    told("tidegate_usage_journal_failing 0");
    let mut store = Store::open(&path).unwrap();
    assert_eq!(ingest(&mut store, &path).unwrap(), (2, 0), "of the refusals only the first is kept");
    assert_eq!(journal.rejected.load(Ordering::Relaxed), 1);
}

#[test]
fn what_a_full_disk_took_stays_where_others_have_read_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let journal = Journal::open(&path, 1, false).unwrap();
    // A socket whose buffer gets full takes part of a write, as a disk does.
    let (disk, mut taken) = UnixStream::pair().unwrap();
    disk.set_nonblocking(true).unwrap();
    let real = std::mem::replace(&mut journal.shards[0].lock().file, File::from(OwnedFd::from(disk)));
    journal.gather(true);
    journal.append(record(1));
    journal.append(record(2));
    journal.append(Record { model_requested: "m".repeat(4 << 20), ..record(3) });
    journal.gather(false);
    assert!(journal.is_failing());
    assert_eq!(journal.backlog.lock().len(), 1, "two of them are written");
    assert_eq!(journal.rejected.load(Ordering::Relaxed), 0);

    drop(std::mem::replace(&mut journal.shards[0].lock().file, real));
    let mut text = Vec::new();
    taken.read_to_end(&mut text).unwrap();
    journal.shards[0].lock().file.write_all(&text).unwrap();
    let mut store = Store::open(&path).unwrap();
    assert_eq!(ingest(&mut store, &path).unwrap(), (2, 0), "another process may look at any time");
    journal.append(record(4));
    journal.write_backlog();
    assert!(!journal.is_failing());
    assert_eq!(ingest(&mut store, &path).unwrap(), (2, 0), "nothing came where it had looked, nor behind half a line");
    journal.sweep(&mut store).unwrap();
    assert_eq!(segments(&folder(&path)).len(), 1, "the file with half a line was left");
}

#[test]
fn a_successor_shares_the_books_and_takes_over_what_is_left() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
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
}

#[test]
fn much_that_is_old_goes_round_by_round() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let mut store = Store::open(&path).unwrap();
    let records: Vec<Record> = (1..=keeper::ROUND as u128 + 1).map(record).collect();
    let mut batch = store.batch().unwrap();
    batch.insert(&records).unwrap();
    batch.commit().unwrap();
    let config = crate::ledger::Config { path, ..Default::default() };
    let ledger = crate::ledger::Ledger::open(&config, &prometheus::Registry::new(), 1, false).unwrap();
    let (began, any) = (std::time::Instant::now(), Filter { limit: Some(1), ..Filter::default() });
    while !store.records(&any).unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "the next round does not follow at once");
        std::thread::sleep(Duration::from_millis(20));
    }
    ledger.close();
}

#[test]
fn gathered_records_are_one_append_in_time() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.db");
    let journal = Journal::open(&path, 1, false).unwrap();
    let lines = || std::fs::read_to_string(&segments(&folder(&path))[0].1).unwrap().lines().count();
    journal.gather(true);
    journal.append(record(1));
    journal.append(record(2));
    assert_eq!((lines(), journal.pending()), (0, 0));
    journal.write_gathered();
    assert_eq!((lines(), journal.pending()), (2, 2));
    // Each knows where it ends, which is how far the file is read when it is in the database.
    let ends: Vec<u64> = journal.fresh.lock().records.iter().map(|(.., end)| *end).collect();
    assert!(ends[0] < ends[1] && ends[1] == journal.shards[0].lock().length);

    // What waits is bounded, and nothing waits any longer when the thread stops gathering.
    let long = Record { model_requested: "m".repeat(GATHERED), ..record(3) };
    journal.append(long);
    assert_eq!(lines(), 3);
    journal.append(record(4));
    journal.gather(false);
    assert_eq!(lines(), 4);
    journal.append(record(5));
    assert_eq!(lines(), 5);

    // Lines that the disk does not take are kept apart, as though each had been alone.
    journal.gather(true);
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let real = std::mem::replace(&mut journal.shards[0].lock().file, full);
    journal.append(record(6));
    journal.append(record(7));
    journal.append(Record { attempts: 1, ..record(8) });
    journal.gather(false);
    journal.shards[0].lock().file = real;
    journal.write_backlog();
    let mut store = Store::open(&path).unwrap();
    assert_eq!(ingest(&mut store, &path).unwrap(), (7, 0));
    let ids = store.records(&Filter::default()).unwrap().into_iter().map(|record| record.id.as_u128());
    assert_eq!(ids.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 8], "of the refusals only the first is kept");
}
