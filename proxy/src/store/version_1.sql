-- A ledger as version 1 left it.
CREATE TABLE records (
  id BLOB PRIMARY KEY, request_id TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL,
  organization TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, user TEXT, endpoint TEXT NOT NULL, dialect TEXT NOT NULL,
  model_requested TEXT NOT NULL, model TEXT NOT NULL, backend TEXT NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL, stream INTEGER NOT NULL,
  outcome TEXT NOT NULL, status INTEGER NOT NULL, stop_reason TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER, reasoning_tokens INTEGER, usage_source TEXT NOT NULL,
  first_token_ms REAL, duration_ms REAL NOT NULL, overhead_ms REAL NOT NULL, cost REAL, currency TEXT, tags TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID, STRICT;
CREATE TABLE journals (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID, STRICT;
PRAGMA user_version = 1;
INSERT INTO journals VALUES ('j.jsonl', 99);
INSERT INTO records VALUES
  (x'019ab1c2d3e47000800000000000000a', '019ab1c2-d3e4-7000-8000-00000000000a', 1764000000000, 1764000000043, 'acme', 'web', 'web-1', 'u', 'messages', 'anthropic',
   'chat', 'smol', 'local', 'local', 1, 1, 'ok', 200, 'end_turn', 41, 17, 0, NULL, NULL, 'reported', 12.345, 43.162, 0.063, 6.9e-6, 'USD', 'a b'),
  (x'019ab1c2d3e47000800000000000000b', '019ab1c2-d3e4-7000-8000-00000000000b', 1764000000001, 1764000000001, '', '', '', NULL, 'unknown', 'openai',
   '', '', '', '', 0, 0, 'refused', 401, NULL, NULL, NULL, NULL, NULL, NULL, 'missing', NULL, 0.05, 0.05, NULL, NULL, ''),
  (x'019ab1c2d3e47000800000000000000c', 'mine', 1764000000002, 1764000000044, 'acme', 'web', 'web-1', NULL, 'messages', 'anthropic',
   'chat', 'smol', 'local', 'local', 1, 1, 'ok', 200, 'end_turn', 41, 17, 0, NULL, NULL, 'reported', 12.345, 43.162, 0.063, 6.9e-6, 'USD', '');
