//! The tables of the ledger, and how those of earlier versions become them.

use rusqlite::{Connection, TransactionBehavior};

pub(super) const VERSION: i64 = 4;

const TABLES: &str = "
CREATE TABLE kinds (
  kind INTEGER PRIMARY KEY,
  organization TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, endpoint TEXT NOT NULL, dialect TEXT NOT NULL,
  backend TEXT NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL, stream INTEGER NOT NULL,
  outcome TEXT NOT NULL, status INTEGER NOT NULL, stop_reason TEXT, usage_source TEXT NOT NULL, currency TEXT,
  last_day INTEGER NOT NULL
) STRICT;
CREATE TABLE requests (
  id BLOB PRIMARY KEY, kind INTEGER NOT NULL, request_id TEXT, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, user TEXT,
  model_requested TEXT NOT NULL, model TEXT, tags TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER, reasoning_tokens INTEGER,
  first_token_us INTEGER, duration_us INTEGER NOT NULL, overhead_us INTEGER NOT NULL, cost REAL, queue_us INTEGER, abandoned_tokens INTEGER
) WITHOUT ROWID, STRICT;
CREATE TABLE journals (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID, STRICT;
";

pub(super) const VIEW: &str = "
CREATE VIEW records AS SELECT
  id, coalesce(request_id, lower(format('%s-%s-%s-%s-%s', substr(hex(id), 1, 8), substr(hex(id), 9, 4), substr(hex(id), 13, 4), substr(hex(id), 17, 4), substr(hex(id), 21)))) AS request_id,
  started_at, ended_at, organization, project, key, user, endpoint, dialect, model_requested, coalesce(model, model_requested) AS model, backend, target, attempts, stream,
  outcome, status, stop_reason, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_source,
  first_token_us / 1000.0 AS first_token_ms, duration_us / 1000.0 AS duration_ms, overhead_us / 1000.0 AS overhead_ms, cost, currency, coalesce(tags, '') AS tags, queue_us / 1000.0 AS queue_ms, coalesce(abandoned_tokens, 0) AS abandoned_tokens
FROM requests JOIN kinds USING (kind);
";

/// From the one wide table of version 1.
const FROM_1: &str = "
ALTER TABLE records RENAME TO old;
ALTER TABLE journals RENAME TO old_journals;
{TABLES}
INSERT INTO journals SELECT * FROM old_journals;
INSERT INTO kinds SELECT DISTINCT NULL, organization, project, key, endpoint, dialect, backend, target, attempts, stream,
  outcome, status, stop_reason, usage_source, currency, unixepoch() / 86400 FROM old;
INSERT INTO requests SELECT id, kind, request_id, started_at, ended_at, user, model_requested, nullif(model, model_requested), nullif(tags, ''),
  input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
  CAST(round(first_token_ms * 1000) AS INTEGER), CAST(round(duration_ms * 1000) AS INTEGER), CAST(round(overhead_ms * 1000) AS INTEGER), cost, NULL, NULL
FROM old JOIN kinds USING (organization, project, key, endpoint, dialect, backend, target, attempts, stream, outcome, status, usage_source)
WHERE old.stop_reason IS kinds.stop_reason AND old.currency IS kinds.currency;
DROP TABLE old;
DROP TABLE old_journals;
";

/// Without the time that requests waited for their turn.
const FROM_2: &str = "
ALTER TABLE requests ADD COLUMN queue_us INTEGER;
";

/// Without what backends had in vain, and without the last day of kinds. Which it was is not worth a look at all requests:
/// none of them is newer than today.
const FROM_3: &str = "
DROP VIEW records;
ALTER TABLE kinds ADD COLUMN last_day INTEGER NOT NULL DEFAULT 0;
UPDATE kinds SET last_day = unixepoch() / 86400;
ALTER TABLE requests ADD COLUMN abandoned_tokens INTEGER;
";

/// Makes or updates the tables, in one transaction. Returns the version they have then; a newer one than ours is left alone.
pub(super) fn migrate(connection: &mut Connection) -> Result<i64, rusqlite::Error> {
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(connection)?;
    if found >= VERSION {
        return Ok(found);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    match version(&transaction)? {
        0 => transaction.execute_batch(TABLES)?,
        1 => transaction.execute_batch(&FROM_1.replace("{TABLES}", TABLES))?,
        2 => transaction.execute_batch(&[FROM_2, FROM_3].concat())?,
        3 => transaction.execute_batch(FROM_3)?,
        newer => return Ok(newer),
    }
    transaction.execute_batch(VIEW)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(VERSION)
}
