-- The hub on Postgres: the same words and meanings as the SQLite files of mobo-adapters. Own tables live in schema `mobo`, the tables of
-- collections in `public`, one for each, with one typed column for each declared field, so that any SQL tool reads plain data (R27):
--
--   CREATE TABLE "work_orders"(id text PRIMARY KEY, "title" text, "hours" bigint, …,
--     mobo_ver bigint NOT NULL, _extra jsonb, _mobo bytea NOT NULL, _bucket bigint, _position bigint) WITH (fillfactor = 80);
--   text columns are COLLATE "C": they sort as on a device
--   CREATE INDEX … ON "work_orders"(_bucket, _position);
--   CREATE TABLE "vitals"(at timestamptz NOT NULL, device text NOT NULL, "cpu" float8, …, _extra jsonb,
--     _incarnation bigint NOT NULL, _lane smallint NOT NULL, _seq bigint NOT NULL, _index integer NOT NULL,
--     PRIMARY KEY (device, _incarnation, _lane, _seq, _index));
--
-- A trigger on each refuses SQL writes unless `mobo.applying` is `on` in that transaction. Times are microseconds since 1970 UTC where
-- people do not read them, timestamptz where they do.

-- Text that is a key or is sorted is COLLATE "C": it sorts by its bytes, as on a device, and no new version of the C library ever makes an
-- index wrong.

CREATE SCHEMA mobo;

-- What was done to this database, by which version of this folder's files.
CREATE TABLE mobo.migration(
  version integer PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION mobo.refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('mobo.applying', true) = 'on' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'table % is kept by mobo: write through its API or on a device', TG_TABLE_NAME
    USING ERRCODE = '25006', HINT = 'A write here would not be synced. To repair by hand: SET mobo.applying = ''on''.';
END $$;

CREATE TABLE mobo.collection(
  project bigint NOT NULL,
  id bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  kind smallint NOT NULL,
  rev bigint NOT NULL,
  definition bytea NOT NULL,            -- the canonical CBOR of SPEC.md, the truth
  mac bytea,                            -- the hub's, on a device (R19)
  PRIMARY KEY (project, id),
  UNIQUE (project, name)
);

-- Records that are not visible: deleted ones, and ones that were patched but never put. `row` is a _mobo column with every value inline.
CREATE TABLE mobo.hidden(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ver bigint NOT NULL,
  row bytea NOT NULL,
  bucket bigint,
  position bigint,
  PRIMARY KEY (project, collection, id)
);
CREATE INDEX hidden_position ON mobo.hidden(bucket, position);

-- The stored document of each record of a document collection, visible or not; its projected row is in the collection's table.
CREATE TABLE mobo.document(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ver bigint NOT NULL,
  epoch integer NOT NULL DEFAULT 0,
  doc bytea NOT NULL,
  state_hash bytea NOT NULL CHECK (octet_length(state_hash) = 32),
  visible boolean NOT NULL,
  mac bytea,
  bucket bigint,
  position bigint,
  PRIMARY KEY (project, collection, id)
);
CREATE INDEX document_position ON mobo.document(bucket, position);

-- Memberships beyond a record's first bucket, and buckets that a record has left (present = 0), until every device has heard (R20).
CREATE TABLE mobo.member(
  bucket bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  present boolean NOT NULL,
  PRIMARY KEY (bucket, collection, id)
);
CREATE INDEX member_position ON mobo.member(bucket, position);
CREATE INDEX member_record ON mobo.member(collection, id);

CREATE TABLE mobo.project(
  id bigint PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  schema_rev bigint NOT NULL DEFAULT 0
);

-- The hub's history (R17) and its time, which never goes back (R6).
CREATE TABLE mobo.hub(
  one integer PRIMARY KEY CHECK (one = 1),
  hub_key bytea NOT NULL CHECK (octet_length(hub_key) = 32),
  incarnation bigint NOT NULL,
  timeline bytea NOT NULL CHECK (octet_length(timeline) = 16),
  time_us bigint NOT NULL
);
CREATE TABLE mobo.timeline_parent(
  depth integer PRIMARY KEY,           -- 1 is the nearest
  timeline bytea NOT NULL CHECK (octet_length(timeline) = 16),
  heads bytea NOT NULL                  -- CBOR [[bucket, position], …] at the fork
);

CREATE TABLE mobo.device(
  project bigint NOT NULL,
  id bytea NOT NULL CHECK (octet_length(id) = 16),
  key bytea NOT NULL CHECK (octet_length(key) = 32),
  name text COLLATE "C" NOT NULL,
  certificate bytea NOT NULL,
  enrolled_us bigint NOT NULL,
  revoked_us bigint,
  session bigint NOT NULL DEFAULT 0,  -- the last generation given
  confirmed bigint NOT NULL DEFAULT 0,-- the last generation that the device has shown
  seen_us bigint,
  PRIMARY KEY (project, id)
);
CREATE TABLE mobo.grant(
  project bigint NOT NULL,
  device bytea NOT NULL,
  bucket text COLLATE "C" NOT NULL,    -- the key: a bucket may be granted before any record is in it
  write boolean NOT NULL DEFAULT true,
  PRIMARY KEY (project, device, bucket)
);
CREATE TABLE mobo.invite(
  secret_hash bytea PRIMARY KEY CHECK (octet_length(secret_hash) = 32),
  project bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  buckets jsonb NOT NULL,              -- array of keys
  expires_us bigint NOT NULL,
  used_by bytea,
  used_us bigint
);

-- The logs of each author in the order in which they were met (R5), and whether an author may still write there.
CREATE TABLE mobo.incarnation(
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  ordinal integer NOT NULL,
  parent bigint,
  parent_seq bigint,
  fenced boolean NOT NULL DEFAULT false,
  PRIMARY KEY (project, device, incarnation),
  UNIQUE (project, device, ordinal)
);

CREATE TABLE mobo.lane(
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  lane smallint NOT NULL,
  last bigint NOT NULL,
  chain bytea NOT NULL CHECK (octet_length(chain) = 32),
  safe bigint NOT NULL DEFAULT 0,
  eff bigint NOT NULL,                -- of the last entry: the next is later (R5)
  boot bytea,                           -- of the last entry
  mono bigint,                        -- of the last entry
  signature bytea,                      -- of the last push: the author's word for the whole prefix
  PRIMARY KEY (project, device, incarnation, lane)
) WITH (fillfactor = 50);

-- What is known of each boot of each device: hub time minus the device's mono (R5).
CREATE TABLE mobo.boot(
  project bigint NOT NULL,
  device bytea NOT NULL,
  boot bytea NOT NULL,
  offset_us bigint NOT NULL,
  PRIMARY KEY (project, device, boot)
);

-- Every entry that was merged, quarantined or on record as lost: identity for a lease (R15), bytes until they are safe.
CREATE TABLE mobo.entry(
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  lane smallint NOT NULL,
  seq bigint NOT NULL,
  eid bytea,                            -- NULL: lost
  origin_eid bytea,                     -- of the first sealing, for a re-authored entry
  chain bytea NOT NULL,
  eff bigint NOT NULL,
  outcome smallint NOT NULL,            -- 0 merged, 1 quarantined, 2 lost, 3 already merged under its provenance
  header bytea,
  payload bytea,                        -- of a lost entry the 32-byte hash of what it was, so that the chain can be recomputed
  PRIMARY KEY (project, device, incarnation, lane, seq)
);
CREATE INDEX entry_eid ON mobo.entry(project, device, eid);
CREATE INDEX entry_origin ON mobo.entry(project, device, origin_eid) WHERE origin_eid IS NOT NULL;

-- head: positions used (R28). digest: R29.
CREATE TABLE mobo.bucket(
  project bigint NOT NULL,
  id bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  head bigint NOT NULL DEFAULT 0,
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  floor bigint NOT NULL DEFAULT 0,    -- tombstones and leaves below are forgotten
  PRIMARY KEY (project, id),
  UNIQUE (project, key)
) WITH (fillfactor = 50);
CREATE TABLE mobo.cursor(
  project bigint NOT NULL,
  device bytea NOT NULL,
  bucket bigint NOT NULL,
  position bigint NOT NULL,
  at_us bigint NOT NULL,
  PRIMARY KEY (project, device, bucket)
);

CREATE TABLE mobo.quarantine(
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  lane smallint NOT NULL,
  seq bigint NOT NULL,
  collection bigint,
  id text COLLATE "C",
  code integer NOT NULL,
  detail text NOT NULL,
  header bytea NOT NULL,
  payload bytea,
  at_us bigint NOT NULL,
  status smallint NOT NULL DEFAULT 0,   -- 0 open, 1 retried, 2 dropped by an operator
  UNIQUE (project, device, incarnation, lane, seq)
);
-- Authors of a document whose change was refused: what builds on it is refused by this name.
CREATE TABLE mobo.blocked(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (project, collection, id, device, incarnation)
);

-- Decisions of merges that somebody may want to see (R12). Outside digests.
CREATE TABLE mobo.conflict(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  field bigint NOT NULL,              -- 0: the record as a whole
  loser_stamp bytea NOT NULL,
  winner_stamp bytea NOT NULL,
  kind smallint NOT NULL,               -- 1 concurrent, 2 hidden by a delete, 3 time uncertain
  loser jsonb,
  winner jsonb,
  ver bigint NOT NULL,                -- the record's version after the merge
  at_us bigint NOT NULL,
  status smallint NOT NULL DEFAULT 0,   -- 0 open, 1 resolved
  PRIMARY KEY (project, collection, id, field, loser_stamp)
);

CREATE TABLE mobo.api_key(
  id bigint PRIMARY KEY,
  project bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  prefix text NOT NULL,                -- what may be shown
  hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
  role text NOT NULL,
  created_us bigint NOT NULL,
  expires_us bigint,
  revoked_us bigint
);
