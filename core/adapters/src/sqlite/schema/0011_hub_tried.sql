-- Manifests of backups that were about to be written (B-8); the same words and meanings as hub/src/postgres/schema/0013_tried.sql. A hub that
-- was killed between the vault and its record has one here. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo_backup_tried(
  n INTEGER PRIMARY KEY,               -- the last ones stay
  repository BLOB NOT NULL CHECK (length(repository) = 16),
  number INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
