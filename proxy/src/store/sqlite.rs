//! The embedded ledger: one table of records, keyed by their id, and how far each journal has been read.
//!
//! The id is a UUID v7, so the primary key is also the order in time and no second index is needed: an insert touches one
//! page, a time range is a range of ids.

use crate::canon::{Outcome, Record, UsageSource};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::Path;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS records (
  id BLOB PRIMARY KEY, request_id TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL,
  organization TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, user TEXT, endpoint TEXT NOT NULL, dialect TEXT NOT NULL,
  model_requested TEXT NOT NULL, model TEXT NOT NULL, backend TEXT NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL, stream INTEGER NOT NULL,
  outcome TEXT NOT NULL, status INTEGER NOT NULL, stop_reason TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER, reasoning_tokens INTEGER, usage_source TEXT NOT NULL,
  first_token_ms REAL, duration_ms REAL NOT NULL, overhead_ms REAL NOT NULL, cost REAL, currency TEXT, tags TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS journals (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID, STRICT;
PRAGMA user_version = 1;
";

const INSERT: &str =
    "INSERT OR IGNORE INTO records VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// Columns in the order of the contract (docs/usage.md).
pub(super) const COLUMNS: &str = "id, request_id, started_at, ended_at, organization, project, key, user, endpoint, dialect, model_requested, model, backend, target, attempts, stream, \
     outcome, status, stop_reason, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_source, first_token_ms, duration_ms, overhead_ms, cost, currency, tags";

/// An open ledger.
pub struct Store {
    pub(super) connection: Connection,
}

impl Store {
    /// Opens the ledger, and makes it where there is none.
    ///
    /// # Errors
    /// SQLite's: the folder is missing or not writable, the file is no database, the schema is of a newer version.
    pub fn open(path: &Path) -> Result<Self, String> {
        let fail = |error: rusqlite::Error| format!("cannot open the ledger {}: {error}", path.display());
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(fail)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
        if version > 1 {
            return Err(format!(
                "the ledger {} has schema {version}, this tidegate knows 1: it was written by a newer version",
                path.display()
            ));
        }
        // WAL lets readers read while we write; NORMAL is safe against the death of the process, which the journal's promise is about.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").map_err(fail)?;
        if version == 0 {
            connection.execute_batch(SCHEMA).map_err(fail)?;
        }
        connection.set_prepared_statement_cache_capacity(16);
        Ok(Self { connection })
    }

    /// Starts a batch. Nothing is in the books before `Batch::commit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn batch(&mut self) -> Result<Batch<'_>, rusqlite::Error> {
        Ok(Batch { transaction: self.connection.transaction_with_behavior(TransactionBehavior::Immediate)? })
    }

    /// Forgets a journal that is read to its end and gone.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget_journal(&self, name: &str) -> Result<(), rusqlite::Error> {
        self.connection.execute("DELETE FROM journals WHERE name = ?", [name]).map(|_| ())
    }

    /// Deletes records that started before this time. Returns how many.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delete_before(&self, millis: i64) -> Result<usize, rusqlite::Error> {
        self.connection.execute("DELETE FROM records WHERE id < ?", [id_floor(millis).as_slice()])
    }
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

    /// Adds a record, unless its id is in the books already.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert(&self, record: &Record) -> Result<(), rusqlite::Error> {
        let mut insert = self.transaction.prepare_cached(INSERT)?;
        let count = |tokens: Option<u64>| tokens.map(|tokens| tokens as i64);
        insert.execute(params![
            record.id.as_bytes().as_slice(),
            record.request_id,
            record.started_at,
            record.ended_at,
            &*record.organization,
            &*record.project,
            &*record.key,
            record.user,
            &*record.endpoint,
            &*record.dialect,
            record.model_requested,
            &*record.model,
            &*record.backend,
            &*record.target,
            record.attempts,
            record.stream,
            record.outcome.as_str(),
            record.status,
            record.stop_reason.as_deref(),
            count(record.input_tokens),
            count(record.output_tokens),
            count(record.cache_read_tokens),
            count(record.cache_write_tokens),
            count(record.reasoning_tokens),
            record.usage_source.as_str(),
            record.first_token_ms,
            record.duration_ms,
            record.overhead_ms,
            record.cost,
            record.currency.as_deref(),
            record.tags.join(" "),
        ])?;
        Ok(())
    }

    /// Makes the batch true.
    ///
    /// # Errors
    /// SQLite's; nothing of the batch is in the books then.
    pub fn commit(self) -> Result<(), rusqlite::Error> {
        self.transaction.commit()
    }
}

/// Reads a row of [`COLUMNS`].
pub(super) fn record(row: &rusqlite::Row<'_>) -> Result<Record, rusqlite::Error> {
    let text = |at: usize| row.get::<_, String>(at).map(std::sync::Arc::<str>::from);
    let count = |at: usize| row.get::<_, Option<i64>>(at).map(|tokens| tokens.map(|tokens| tokens as u64));
    let word = |at: usize| row.get::<_, String>(at).map(serde_json::Value::String);
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
        outcome: serde_json::from_value::<Outcome>(word(16)?).unwrap_or_default(),
        status: row.get(17)?,
        stop_reason: row.get::<_, Option<String>>(18)?.map(Into::into),
        input_tokens: count(19)?,
        output_tokens: count(20)?,
        cache_read_tokens: count(21)?,
        cache_write_tokens: count(22)?,
        reasoning_tokens: count(23)?,
        usage_source: serde_json::from_value::<UsageSource>(word(24)?).unwrap_or_default(),
        first_token_ms: row.get(25)?,
        duration_ms: row.get(26)?,
        overhead_ms: row.get(27)?,
        cost: row.get(28)?,
        currency: row.get::<_, Option<String>>(29)?.map(Into::into),
        tags: row.get::<_, String>(30)?.split_whitespace().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Filter, Group};

    #[test]
    fn a_record_comes_back_as_it_was_and_only_once() {
        let folder = std::env::temp_dir().join(format!("tidegate-store-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut store = Store::open(&folder.join("t.db")).unwrap();
        let record = Record {
            id: uuid::Uuid::now_v7(),
            request_id: "r".into(),
            organization: "acme".into(),
            project: "web".into(),
            model_requested: "m".into(),
            outcome: Outcome::Cut,
            usage_source: UsageSource::Estimated,
            input_tokens: Some(u64::from(u32::MAX) + 1),
            output_tokens: Some(0),
            cost: Some(0.5),
            currency: Some("USD".into()),
            tags: vec!["a".into(), "b".into()],
            ..Record::default()
        };
        for _ in 0..2 {
            let batch = store.batch().unwrap();
            batch.insert(&record).unwrap();
            batch.advance("j", 7).unwrap();
            batch.commit().unwrap();
        }
        assert_eq!(store.batch().unwrap().offset("j").unwrap(), 7);
        assert_eq!(store.records(&Filter::default()).unwrap(), std::slice::from_ref(&record));
        let totals = store.totals(&Filter::default(), &[Group::Organization]).unwrap();
        assert_eq!((totals.len(), totals[0].requests, totals[0].input_tokens), (1, 1, u64::from(u32::MAX) + 1));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
