-- The hub's own record of its backups: what the vault must still have (B-6); the same words and meanings as
-- hub/src/postgres/schema/0006_backup.sql. It is in no backup.

CREATE TABLE mobo_backup(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  repository BLOB NOT NULL CHECK (length(repository) = 16),
  place TEXT NOT NULL,
  number INTEGER NOT NULL,             -- of the newest manifest
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  taken_us INTEGER NOT NULL,
  base INTEGER NOT NULL                -- the manifest with the snapshot that it builds on
) STRICT;
-- How far each bucket is in that manifest.
CREATE TABLE mobo_backup_head(
  bucket INTEGER PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;
