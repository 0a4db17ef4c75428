//! From the journal's files into the database, by whoever looks: a gateway that starts, one that is behind, a command.

use super::{REJECTED, folder, segments};
use crate::canon::Record;
use crate::store::Store;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes read into one transaction.
const BATCH: u64 = 4 << 20;

/// Carries journal lines that are not in the database yet into it. Safe while a gateway runs, and from several processes.
/// Returns how many records it added and how many lines it had to set aside.
///
/// # Errors
/// SQLite's, or a journal that cannot be read. What was added until then stays.
pub fn ingest(store: &mut Store, ledger: &Path) -> Result<(u64, u64), String> {
    let folder = folder(ledger);
    // A folder that is not there has nothing to tell; one that is closed to us may have.
    if let Err(error) = std::fs::read_dir(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(format!("cannot read the journal {}: {error}", folder.display()));
    }
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
                set_aside(folder, line)?;
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

/// Keeps what is no record for a person to look at.
pub(super) fn set_aside(folder: &Path, line: &[u8]) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(folder.join(REJECTED))?.write_all(line)
}
