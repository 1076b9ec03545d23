-- The hub's own record of its backups: what the vault must still have (B-6); the same words and meanings as 0006_hub_backup.sql of
-- mobo-adapters. It is in no backup.

CREATE TABLE mobo.backup(
  one integer PRIMARY KEY CHECK (one = 1),
  repository bytea NOT NULL CHECK (octet_length(repository) = 16),
  place text NOT NULL,
  number bigint NOT NULL,              -- of the newest manifest
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  taken_us bigint NOT NULL,
  base bigint NOT NULL                 -- the manifest with the snapshot that it builds on
);
-- How far each bucket is in that manifest.
CREATE TABLE mobo.backup_head(
  bucket bigint PRIMARY KEY,
  position bigint NOT NULL
);
