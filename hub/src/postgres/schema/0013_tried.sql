-- Manifests of backups that were about to be written (B-8); the same words and meanings as 0011_hub_tried.sql of mobo-adapters. A hub that was
-- killed between the vault and its record has one here. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo.backup_tried(
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the last ones stay
  repository bytea NOT NULL CHECK (octet_length(repository) = 16),
  number bigint NOT NULL,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
