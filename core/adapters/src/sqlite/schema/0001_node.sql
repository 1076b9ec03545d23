-- What an edge and a hub on SQLite share. Ids are 63-bit integers (R1), hashes and keys are blobs, times are microseconds since 1970 UTC.
-- The tables of collections are made beside these, one for each, by `collection_table` (R27):
--
--   CREATE TABLE "work_orders"(
--     id TEXT PRIMARY KEY, "title" TEXT, "hours" INTEGER, …        one typed column for each declared field
--     mobo_ver INTEGER NOT NULL,                                   the record's version; what R24 calls base_ver when a writer gives it back
--     _extra TEXT,                                                 unknown fields as JSON, read-only
--     _mobo BLOB NOT NULL,                                         stamps, counters, unknown fields, version, MAC, state hash
--     _bucket INTEGER, _position INTEGER) STRICT, WITHOUT ROWID;   its first bucket and its place there; of a document, mobo_document has it
--   CREATE INDEX … ON "work_orders"(_bucket, _position);           tables only
--
--   CREATE TABLE "vitals"(                                         a stream: R27's identity is the key
--     at TEXT NOT NULL, device TEXT NOT NULL, "cpu" REAL, …, _extra TEXT,
--     _incarnation INTEGER NOT NULL, _lane INTEGER NOT NULL, _seq INTEGER NOT NULL, _index INTEGER NOT NULL,
--     PRIMARY KEY(device, _incarnation, _lane, _seq, _index)) STRICT, WITHOUT ROWID;
--   CREATE INDEX … ON "vitals"(at);
--
-- Only visible rows are there, so that any SQL tool reads plain data; hidden ones are in mobo_hidden. Triggers refuse SQL writes while
-- mobo_flag.applying is 0, in a sentence. mobo's own connection runs without triggers; the flag is for people who repair by hand.

CREATE TABLE mobo_meta(
  key TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mobo_flag(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  applying INTEGER NOT NULL CHECK (applying IN (0, 1))
) STRICT;
INSERT INTO mobo_flag VALUES (1, 0);

CREATE TABLE mobo_collection(
  project INTEGER NOT NULL,
  id INTEGER NOT NULL,
  name TEXT NOT NULL,
  kind INTEGER NOT NULL,
  rev INTEGER NOT NULL,
  definition BLOB NOT NULL,            -- the canonical CBOR of SPEC.md, the truth
  mac BLOB,                            -- the hub's, on a device (R19)
  PRIMARY KEY (project, id),
  UNIQUE (project, name)
) STRICT, WITHOUT ROWID;

-- Records that are not visible: deleted ones, and ones that were patched but never put. `row` is a _mobo column with every value inline.
CREATE TABLE mobo_hidden(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  ver INTEGER NOT NULL,
  row BLOB NOT NULL,
  bucket INTEGER,
  position INTEGER,
  PRIMARY KEY (project, collection, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_hidden_position ON mobo_hidden(bucket, position);

-- The stored document of each record of a document collection, visible or not; its projected row is in the collection's table.
CREATE TABLE mobo_document(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  ver INTEGER NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,
  doc BLOB NOT NULL,
  state_hash BLOB NOT NULL CHECK (length(state_hash) = 32),
  visible INTEGER NOT NULL,
  mac BLOB,
  bucket INTEGER,
  position INTEGER,
  PRIMARY KEY (project, collection, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_document_position ON mobo_document(bucket, position);

-- Memberships beyond a record's first bucket, and buckets that a record has left (present = 0), until every device has heard (R20).
CREATE TABLE mobo_member(
  bucket INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  position INTEGER NOT NULL,
  present INTEGER NOT NULL,
  PRIMARY KEY (bucket, collection, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_member_position ON mobo_member(bucket, position);
CREATE INDEX mobo_member_record ON mobo_member(collection, id);
