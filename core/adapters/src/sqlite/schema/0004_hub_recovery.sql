-- A hub that has gone back in time, and devices that appear twice (R16-R23, D2); the same words and meanings as
-- hub/src/postgres/schema/0004_recovery.sql.

-- Sessions are counted for each log: an image that was restored or copied while idle shows an older one (R17).
ALTER TABLE mobo_incarnation ADD COLUMN session INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mobo_incarnation ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;

-- The recovery that goes on, or the last one.
CREATE TABLE mobo_recovery(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  timeline BLOB NOT NULL CHECK (length(timeline) = 16),
  since_us INTEGER NOT NULL,
  ended_us INTEGER,                    -- NULL: it goes on
  by_operator INTEGER NOT NULL DEFAULT 0,
  joined INTEGER NOT NULL DEFAULT 0,   -- records that devices gave back
  refused INTEGER NOT NULL DEFAULT 0   -- offered records that are in mobo_offer
) STRICT;

-- Devices that have offered all that they hold since it began.
CREATE TABLE mobo_offered(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  at_us INTEGER NOT NULL,
  PRIMARY KEY (project, device)
) STRICT, WITHOUT ROWID;

-- Offered records that were refused (R19): kept, for somebody to look at.
CREATE TABLE mobo_offer(
  n INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  bucket INTEGER NOT NULL,
  timeline BLOB NOT NULL,              -- that the device says the MAC is of
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  ver INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  state BLOB,                          -- NULL: a leave, which nobody can offer
  mac BLOB NOT NULL,
  code INTEGER NOT NULL,
  detail TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  UNIQUE (project, device, collection, id, mac)
) STRICT;

-- Logs that were found in two places: an alarm for each.
CREATE TABLE mobo_twice(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  reason TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  PRIMARY KEY (project, device, incarnation)
) STRICT, WITHOUT ROWID;
