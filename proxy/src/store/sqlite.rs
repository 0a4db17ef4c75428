//! The embedded ledger: a row for every request, and how far each journal has been read.
//!
//! What thousands of requests have in common (who asked, for what, what served it, how it ended) stands once, as a *kind*,
//! and their rows point to it: binding and storing thirty columns of text for every request was a sixth of its whole cost.
//! The view `records` is the contract (docs/usage.md); the tables below it may change.
//!
//! The id is a UUID v7, so the primary key is also the order in time and no second index is needed: an insert touches one
//! page, a time range is a range of ids.

mod schema;

use crate::canon::Record;
use foldhash::HashMap;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use schema::VERSION;
use std::path::Path;
use std::sync::Arc;

const INSERT: &str = "INSERT OR IGNORE INTO requests VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
const INSERT_KIND: &str = "INSERT INTO kinds VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
const DELETE_OLDEST: &str =
    "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE id < ? ORDER BY id LIMIT ?)";

/// Columns in the order of the contract (docs/usage.md).
pub(super) const COLUMNS: &str = "id, request_id, started_at, ended_at, organization, project, key, user, endpoint, dialect, model_requested, model, backend, target, attempts, stream, \
     outcome, status, stop_reason, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_source, first_token_ms, duration_ms, overhead_ms, cost, currency, tags, queue_ms, abandoned_tokens";

/// Milliseconds.
const DAY: i64 = 86_400_000;

/// An open ledger.
pub struct Store {
    pub(super) connection: Connection,
    /// Kinds by what they say. They are made of configured names, addresses and closed sets of words, and go when they have not
    /// been met for as long as records are kept, so all of them fit into memory.
    kinds: HashMap<Vec<u8>, Kind>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Kind {
    number: i64,
    /// The day of its newest request, or one before: it is written once a day.
    last_day: i64,
}

impl Store {
    /// Opens the ledger, makes it where there is none, and brings an older one up to date.
    ///
    /// # Errors
    /// SQLite's: the folder is missing or not writable, the file is no database, the schema is of a newer version.
    pub fn open(path: &Path) -> Result<Self, String> {
        let fail = |error: rusqlite::Error| format!("cannot open the ledger {}: {error}", path.display());
        let mut connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(fail)?;
        let version = schema::migrate(&mut connection).map_err(fail)?;
        if version > VERSION {
            return Err(format!(
                "the ledger {} has schema {version}, this tidegate knows {VERSION}: it was written by a newer version",
                path.display()
            ));
        }
        // WAL lets readers read while we write; NORMAL is safe against the death of the process, which the journal's promise is about.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").map_err(fail)?;
        connection.set_prepared_statement_cache_capacity(16);
        let kinds = kinds(&connection).map_err(fail)?;
        Ok(Self { connection, kinds })
    }

    /// Opens a ledger that nobody uses where nothing can be written, not even the files that SQLite puts beside it to read it.
    ///
    /// # Errors
    /// SQLite's; the schema is of another version; not all of it is in this file.
    pub fn open_read_only(path: &Path) -> Result<Self, String> {
        let fail = |error: rusqlite::Error| format!("cannot read the ledger {}: {error}", path.display());
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // It would be passed over, and with it what a gateway writes meanwhile.
        if std::fs::metadata(&log).is_ok_and(|log| log.is_file() && log.len() > 0) {
            return Err(format!("some of the ledger {} is only in its write-ahead log", path.display()));
        }
        let name = percent_encode(path.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(fail)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
        if version != VERSION {
            return Err(format!("the ledger {} has schema {version}, not {VERSION}", path.display()));
        }
        Ok(Self { connection, kinds: HashMap::default() })
    }

    /// Starts a batch. Nothing is in the books before `Batch::commit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn batch(&mut self) -> Result<Batch<'_>, rusqlite::Error> {
        Ok(Batch {
            transaction: self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?,
            kinds: &mut self.kinds,
            fresh: HashMap::default(),
        })
    }

    /// Forgets a journal that is read to its end and gone.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget_journal(&self, name: &str) -> Result<(), rusqlite::Error> {
        self.connection.execute("DELETE FROM journals WHERE name = ?", [name]).map(|_| ())
    }

    /// Deletes the oldest of the records that started before this time, so many at most, and after the last of them the kinds that
    /// only they can have been of. Returns how many records.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delete_before(&mut self, millis: i64, most: usize) -> Result<usize, rusqlite::Error> {
        let deleted = self.connection.execute(DELETE_OLDEST, params![id_floor(millis).as_slice(), most as i64])?;
        if deleted == most {
            return Ok(deleted);
        }
        let day = millis.max(0) / DAY;
        // Not by looking for requests of each, which would be all there are.
        if self.kinds.values().any(|kind| kind.last_day < day) {
            self.connection.execute("DELETE FROM kinds WHERE last_day < ?", [day])?;
            self.kinds.retain(|_, kind| kind.last_day >= day);
        }
        Ok(deleted)
    }
}

/// What is known of a kind, as bytes to look it up by. `0xff` stands in no text.
fn kind_key(record: &Record, key: &mut Vec<u8>) {
    key.clear();
    for text in [
        &*record.organization,
        &*record.project,
        &*record.key,
        &*record.endpoint,
        &*record.dialect,
        &*record.backend,
        &*record.target,
        record.outcome.as_str(),
        record.stop_reason.as_deref().unwrap_or("\u{0}"),
        record.usage_source.as_str(),
        record.currency.as_deref().unwrap_or("\u{0}"),
    ] {
        key.extend_from_slice(text.as_bytes());
        key.push(0xff);
    }
    key.extend_from_slice(&record.attempts.to_le_bytes());
    key.extend_from_slice(&record.status.to_le_bytes());
    key.push(record.stream.into());
}

/// The day of a record, counted from 1970; by its id, as retention goes by ids.
fn day(record: &Record) -> i64 {
    (record.id.as_u128() >> 80) as i64 / DAY
}

fn kinds(connection: &Connection) -> Result<HashMap<Vec<u8>, Kind>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT kind, organization, project, key, endpoint, dialect, backend, target, attempts, stream, outcome, status, stop_reason, usage_source, currency, last_day FROM kinds",
    )?;
    let mut key = Vec::new();
    statement
        .query_map([], |row| {
            let record = Record {
                organization: text(row, 1)?,
                project: text(row, 2)?,
                key: text(row, 3)?,
                endpoint: text(row, 4)?,
                dialect: text(row, 5)?,
                backend: text(row, 6)?,
                target: text(row, 7)?,
                attempts: row.get(8)?,
                stream: row.get(9)?,
                outcome: word(row, 10)?,
                status: row.get(11)?,
                stop_reason: row.get::<_, Option<String>>(12)?.map(Into::into),
                usage_source: word(row, 13)?,
                currency: row.get::<_, Option<String>>(14)?.map(Into::into),
                ..Record::default()
            };
            kind_key(&record, &mut key);
            Ok((key.clone(), Kind { number: row.get(0)?, last_day: row.get(15)? }))
        })?
        .collect()
}

/// The smallest id a record of this time can have: UUID v7 begins with 48 bits of milliseconds (RFC 9562 §5.7).
pub(super) fn id_floor(millis: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(millis.max(0) as u64).to_be_bytes()[2..]);
    id
}

/// Records and journal positions that become true together.
pub struct Batch<'a> {
    transaction: Transaction<'a>,
    kinds: &'a mut HashMap<Vec<u8>, Kind>,
    /// Kinds as they are once the batch is committed.
    fresh: HashMap<Vec<u8>, Kind>,
}

impl Batch<'_> {
    /// How far this journal has been read, in bytes.
    ///
    /// # Errors
    /// SQLite's.
    pub fn offset(&self, journal: &str) -> Result<u64, rusqlite::Error> {
        self.transaction
            .prepare_cached("SELECT offset FROM journals WHERE name = ?")?
            .query_row([journal], |row| row.get::<_, i64>(0))
            .optional()
            .map(|offset| offset.unwrap_or(0) as u64)
    }

    /// Says how far it is now read.
    ///
    /// # Errors
    /// SQLite's.
    pub fn advance(&self, journal: &str, offset: u64) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached("INSERT INTO journals VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET offset = ?2")?
            .execute(params![journal, offset as i64])
            .map(|_| ())
    }

    /// Adds records, except those whose ids are in the books already.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert<'r>(&mut self, records: impl IntoIterator<Item = &'r Record>) -> Result<(), rusqlite::Error> {
        let mut insert = self.transaction.prepare_cached(INSERT)?;
        let count = |tokens: Option<u64>| tokens.map(|tokens| tokens as i64);
        let micros = |millis: f64| (millis * 1e3).round() as i64;
        let (mut key, mut own_id) = (Vec::new(), uuid::Uuid::encode_buffer());
        for record in records {
            kind_key(record, &mut key);
            let day = day(record);
            let kind = match self.fresh.get(&key).or_else(|| self.kinds.get(&key)).copied() {
                Some(kind) if kind.last_day >= day => kind.number,
                known => {
                    let number = match known {
                        Some(kind) if renew_kind(&self.transaction, kind.number, day)? => kind.number,
                        _ => insert_kind(&self.transaction, record, day)?,
                    };
                    self.fresh.insert(key.clone(), Kind { number, last_day: day });
                    number
                }
            };
            let own_id = record.id.as_hyphenated().encode_lower(&mut own_id);
            insert.execute(params![
                record.id.as_bytes().as_slice(),
                kind,
                Some(&record.request_id).filter(|id| *id != own_id),
                record.started_at,
                record.ended_at,
                record.user,
                record.model_requested,
                Some(&*record.model).filter(|model| *model != record.model_requested),
                Some(record.tags.join(" ")).filter(|tags| !tags.is_empty()),
                count(record.input_tokens),
                count(record.output_tokens),
                count(record.cache_read_tokens),
                count(record.cache_write_tokens),
                count(record.reasoning_tokens),
                record.first_token_ms.map(micros),
                micros(record.duration_ms),
                micros(record.overhead_ms),
                record.cost,
                record.queue_ms.map(micros),
                count(Some(record.abandoned_tokens).filter(|tokens| *tokens > 0)),
            ])?;
        }
        Ok(())
    }

    /// Makes the batch true.
    ///
    /// # Errors
    /// SQLite's; nothing of the batch is in the books then.
    pub fn commit(self) -> Result<(), rusqlite::Error> {
        self.transaction.commit()?;
        self.kinds.extend(self.fresh);
        Ok(())
    }
}

/// Says that there is a request of this day. False if the kind is there no more: another process has deleted it.
fn renew_kind(transaction: &Transaction<'_>, number: i64, day: i64) -> Result<bool, rusqlite::Error> {
    let mut renew = transaction.prepare_cached("UPDATE kinds SET last_day = max(last_day, ?2) WHERE kind = ?1")?;
    renew.execute(params![number, day]).map(|changed| changed == 1)
}

fn insert_kind(transaction: &Transaction<'_>, record: &Record, day: i64) -> Result<i64, rusqlite::Error> {
    transaction.prepare_cached(INSERT_KIND)?.execute(params![
        &*record.organization,
        &*record.project,
        &*record.key,
        &*record.endpoint,
        &*record.dialect,
        &*record.backend,
        &*record.target,
        record.attempts,
        record.stream,
        record.outcome.as_str(),
        record.status,
        record.stop_reason.as_deref(),
        record.usage_source.as_str(),
        record.currency.as_deref(),
        day,
    ])?;
    Ok(transaction.last_insert_rowid())
}

fn text(row: &rusqlite::Row<'_>, at: usize) -> Result<Arc<str>, rusqlite::Error> {
    row.get::<_, String>(at).map(Into::into)
}

/// One of a closed set of words; one that a later version wrote becomes the default.
fn word<T: serde::de::DeserializeOwned + Default>(row: &rusqlite::Row<'_>, at: usize) -> Result<T, rusqlite::Error> {
    let word = row.get::<_, String>(at)?;
    Ok(serde_json::from_value(serde_json::Value::String(word)).unwrap_or_default())
}

/// Reads a row of [`COLUMNS`].
pub(super) fn record(row: &rusqlite::Row<'_>) -> Result<Record, rusqlite::Error> {
    let text = |at: usize| text(row, at);
    let count = |at: usize| row.get::<_, Option<i64>>(at).map(|tokens| tokens.map(|tokens| tokens as u64));
    Ok(Record {
        id: uuid::Uuid::from_slice(&row.get::<_, Vec<u8>>(0)?).unwrap_or_default(),
        request_id: row.get(1)?,
        started_at: row.get(2)?,
        ended_at: row.get(3)?,
        organization: text(4)?,
        project: text(5)?,
        key: text(6)?,
        user: row.get(7)?,
        endpoint: text(8)?,
        dialect: text(9)?,
        model_requested: row.get(10)?,
        model: text(11)?,
        backend: text(12)?,
        target: text(13)?,
        attempts: row.get(14)?,
        stream: row.get(15)?,
        outcome: word(row, 16)?,
        status: row.get(17)?,
        stop_reason: row.get::<_, Option<String>>(18)?.map(Into::into),
        input_tokens: count(19)?,
        output_tokens: count(20)?,
        cache_read_tokens: count(21)?,
        cache_write_tokens: count(22)?,
        reasoning_tokens: count(23)?,
        usage_source: word(row, 24)?,
        first_token_ms: row.get(25)?,
        duration_ms: row.get(26)?,
        overhead_ms: row.get(27)?,
        cost: row.get(28)?,
        currency: row.get::<_, Option<String>>(29)?.map(Into::into),
        tags: row.get::<_, String>(30)?.split_whitespace().map(str::to_owned).collect(),
        queue_ms: row.get(31)?,
        abandoned_tokens: count(32)?.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
