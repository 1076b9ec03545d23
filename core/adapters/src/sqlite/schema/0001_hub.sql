-- What only a hub has; the same words and meanings as hub/src/postgres/schema/0001_hub.sql.

CREATE TABLE mobo_project(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  schema_rev INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The hub's history (R17) and its time, which never goes back (R6).
CREATE TABLE mobo_hub(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  hub_key BLOB NOT NULL CHECK (length(hub_key) = 32),
  incarnation INTEGER NOT NULL,
  timeline BLOB NOT NULL CHECK (length(timeline) = 16),
  time_us INTEGER NOT NULL
) STRICT;
CREATE TABLE mobo_timeline_parent(
  depth INTEGER PRIMARY KEY,           -- 1 is the nearest
  timeline BLOB NOT NULL CHECK (length(timeline) = 16),
  heads BLOB NOT NULL                  -- CBOR [[bucket, position], …] at the fork
) STRICT;

CREATE TABLE mobo_device(
  project INTEGER NOT NULL,
  id BLOB NOT NULL CHECK (length(id) = 16),
  key BLOB NOT NULL CHECK (length(key) = 32),
  name TEXT NOT NULL,
  certificate BLOB NOT NULL,
  enrolled_us INTEGER NOT NULL,
  revoked_us INTEGER,
  session INTEGER NOT NULL DEFAULT 0,  -- the last generation given
  confirmed INTEGER NOT NULL DEFAULT 0,-- the last generation that the device has shown
  seen_us INTEGER,
  PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE mobo_grant(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  bucket TEXT NOT NULL,                -- the key: a bucket may be granted before any record is in it
  write INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (project, device, bucket)
) STRICT, WITHOUT ROWID;
CREATE TABLE mobo_invite(
  secret_hash BLOB PRIMARY KEY CHECK (length(secret_hash) = 32),
  project INTEGER NOT NULL,
  name TEXT NOT NULL,
  buckets TEXT NOT NULL,               -- JSON array of keys
  expires_us INTEGER NOT NULL,
  used_by BLOB,
  used_us INTEGER
) STRICT, WITHOUT ROWID;

-- The logs of each author in the order in which they were met (R5), and whether an author may still write there.
CREATE TABLE mobo_incarnation(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  parent INTEGER,
  parent_seq INTEGER,
  fenced INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project, device, incarnation),
  UNIQUE (project, device, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE mobo_lane(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  last INTEGER NOT NULL,
  chain BLOB NOT NULL CHECK (length(chain) = 32),
  safe INTEGER NOT NULL DEFAULT 0,
  eff INTEGER NOT NULL,                -- of the last entry: the next is later (R5)
  boot BLOB,                           -- of the last entry
  mono INTEGER,                        -- of the last entry
  signature BLOB,                      -- of the last push: the author's word for the whole prefix
  PRIMARY KEY (project, device, incarnation, lane)
) STRICT, WITHOUT ROWID;

-- What is known of each boot of each device: hub time minus the device's mono (R5).
CREATE TABLE mobo_boot(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  boot BLOB NOT NULL,
  offset_us INTEGER NOT NULL,
  PRIMARY KEY (project, device, boot)
) STRICT, WITHOUT ROWID;

-- Every entry that was merged, quarantined or on record as lost: identity for a lease (R15), bytes until they are safe.
CREATE TABLE mobo_entry(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  eid BLOB,                            -- NULL: lost
  origin_eid BLOB,                     -- of the first sealing, for a re-authored entry
  chain BLOB NOT NULL,
  eff INTEGER NOT NULL,
  outcome INTEGER NOT NULL,            -- 0 merged, 1 quarantined, 2 lost, 3 already merged under its provenance
  header BLOB,
  payload BLOB,                        -- of a lost entry the 32-byte hash of what it was, so that the chain can be recomputed
  PRIMARY KEY (project, device, incarnation, lane, seq)
) STRICT;
CREATE INDEX mobo_entry_eid ON mobo_entry(project, device, eid);
CREATE INDEX mobo_entry_origin ON mobo_entry(project, device, origin_eid) WHERE origin_eid IS NOT NULL;

-- head: positions used (R28). digest: R29.
CREATE TABLE mobo_bucket(
  project INTEGER NOT NULL,
  id INTEGER NOT NULL,
  key TEXT NOT NULL,
  head INTEGER NOT NULL DEFAULT 0,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  floor INTEGER NOT NULL DEFAULT 0,    -- tombstones and leaves below are forgotten
  PRIMARY KEY (project, id),
  UNIQUE (project, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE mobo_cursor(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  bucket INTEGER NOT NULL,
  position INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  PRIMARY KEY (project, device, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE mobo_quarantine(
  n INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  collection INTEGER,
  id TEXT,
  code INTEGER NOT NULL,
  detail TEXT NOT NULL,
  header BLOB NOT NULL,
  payload BLOB,
  at_us INTEGER NOT NULL,
  status INTEGER NOT NULL DEFAULT 0,   -- 0 open, 1 retried, 2 dropped by an operator
  UNIQUE (project, device, incarnation, lane, seq)
) STRICT;
-- Authors of a document whose change was refused: what builds on it is refused by this name.
CREATE TABLE mobo_blocked(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (project, collection, id, device, incarnation)
) STRICT, WITHOUT ROWID;

-- Decisions of merges that somebody may want to see (R12). Outside digests.
CREATE TABLE mobo_conflict(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  field INTEGER NOT NULL,              -- 0: the record as a whole
  loser_stamp BLOB NOT NULL,
  winner_stamp BLOB NOT NULL,
  kind INTEGER NOT NULL,               -- 1 concurrent, 2 hidden by a delete, 3 time uncertain
  loser TEXT,                          -- values as JSON
  winner TEXT,
  ver INTEGER NOT NULL,                -- the record's version after the merge
  at_us INTEGER NOT NULL,
  status INTEGER NOT NULL DEFAULT 0,   -- 0 open, 1 resolved
  PRIMARY KEY (project, collection, id, field, loser_stamp)
) STRICT, WITHOUT ROWID;

CREATE TABLE mobo_api_key(
  id INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  name TEXT NOT NULL,
  prefix TEXT NOT NULL,                -- what may be shown
  hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
  role TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  expires_us INTEGER,
  revoked_us INTEGER
) STRICT;
