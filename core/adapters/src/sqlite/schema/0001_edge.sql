-- What only a device has. mobo_meta holds: project, device, hub_key, hub_addresses, certificate, certificate_signature, incarnation,
-- parent_incarnation, parent_seq, ordinal, timeline, timeline_parents (CBOR), session, session_timeline, checkpoint, checkpoint_signature,
-- schema_rev, schema_changes, outbox_bytes, fingerprint.

-- Its own lanes. Everything up to `acked` is committed at the hub, everything up to `safe` is in a verified backup.
CREATE TABLE mobo_lane(
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  last INTEGER NOT NULL,
  chain BLOB NOT NULL CHECK (length(chain) = 32),
  acked INTEGER NOT NULL DEFAULT 0,
  safe INTEGER NOT NULL DEFAULT 0,
  trimmed INTEGER NOT NULL DEFAULT 0,  -- entries up to here are kept no more (R21)
  trimmed_chain BLOB,                  -- the chain there, from which a push or an audit goes on
  proof_timeline BLOB,                 -- the hub's last signed ack (R17), which may be of less than `acked`
  proof_seq INTEGER,
  proof_chain BLOB,
  proof_signature BLOB,
  PRIMARY KEY (incarnation, lane)
) STRICT, WITHOUT ROWID;

-- Sealed entries, verbatim. Kept past their ack for a hub that goes back in time (R21).
CREATE TABLE mobo_outbox(
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  header BLOB NOT NULL,
  payload BLOB,                        -- NULL: dropped under quota, the chain stays whole
  payload_hash BLOB NOT NULL CHECK (length(payload_hash) = 32),
  chain BLOB NOT NULL CHECK (length(chain) = 32),
  eff INTEGER,                         -- the hub's, from the ack (R7)
  state INTEGER NOT NULL DEFAULT 0,    -- 0 pending, 1 acked, 2 rejected, 3 superseded by a re-authored entry
  sealed_us INTEGER NOT NULL,
  PRIMARY KEY (incarnation, lane, seq)
) STRICT;
CREATE INDEX mobo_outbox_pending ON mobo_outbox(incarnation, lane, seq) WHERE state = 0;

-- Records with own entries that no delivered row holds yet, and the row as the hub last delivered it (R14). `row` NULL: it did not exist.
CREATE TABLE mobo_base(
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  row BLOB,                            -- a _mobo column with every value inline, or a stored document
  epoch INTEGER NOT NULL DEFAULT 0,
  ver INTEGER NOT NULL,
  state_hash BLOB,
  mac BLOB,
  PRIMARY KEY (collection, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mobo_overlay(
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (collection, id, incarnation, lane, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_overlay_entry ON mobo_overlay(incarnation, lane, seq);

-- The buckets that it may read. `digest` is over delivered (base) states, recomputed from what was applied, never copied from the hub (R13).
-- While a pull from the start is under way, members that it has not named yet stand at their position plus 2^62 and do not count in it.
CREATE TABLE mobo_bucket(
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  write INTEGER NOT NULL,
  timeline BLOB NOT NULL CHECK (length(timeline) = 16),
  cursor INTEGER NOT NULL DEFAULT 0,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  checked INTEGER NOT NULL DEFAULT 0,  -- the last position at which hub and device agreed
  diverged INTEGER NOT NULL DEFAULT 0, -- how many times they did not, since
  sweep INTEGER NOT NULL DEFAULT 0     -- a pull from the start is under way: 1 what it does not name is gone, 2 it is kept for an offer (R18)
) STRICT;

-- What the hub refused, and why: it is told, never dropped.
CREATE TABLE mobo_inbox(
  n INTEGER PRIMARY KEY,
  incarnation INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  collection INTEGER,
  id TEXT,
  code INTEGER NOT NULL,
  detail TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  seen INTEGER NOT NULL DEFAULT 0,
  UNIQUE (incarnation, lane, seq)
) STRICT;
