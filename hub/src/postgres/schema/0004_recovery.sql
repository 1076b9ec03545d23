-- A hub that has gone back in time, and devices that appear twice (R16-R23, D2); the same words and meanings as
-- schema/0004_hub_recovery.sql of mobo-adapters.

-- Sessions are counted for each log: an image that was restored or copied while idle shows an older one (R17).
ALTER TABLE mobo.incarnation ADD COLUMN session bigint NOT NULL DEFAULT 0;
ALTER TABLE mobo.incarnation ADD COLUMN confirmed bigint NOT NULL DEFAULT 0;

-- The recovery that goes on, or the last one.
CREATE TABLE mobo.recovery(
  one integer PRIMARY KEY CHECK (one = 1),
  timeline bytea NOT NULL CHECK (octet_length(timeline) = 16),
  since_us bigint NOT NULL,
  ended_us bigint,                    -- NULL: it goes on
  by_operator boolean NOT NULL DEFAULT false,
  joined bigint NOT NULL DEFAULT 0,   -- records that devices gave back
  refused bigint NOT NULL DEFAULT 0   -- offered records that are in mobo.offer
);

-- Devices that have offered all that they hold since it began.
CREATE TABLE mobo.offered(
  project bigint NOT NULL,
  device bytea NOT NULL,
  at_us bigint NOT NULL,
  PRIMARY KEY (project, device)
);

-- Offered records that were refused (R19): kept, for somebody to look at.
CREATE TABLE mobo.offer(
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project bigint NOT NULL,
  device bytea NOT NULL,
  bucket bigint NOT NULL,
  timeline bytea NOT NULL,              -- that the device says the MAC is of
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ver bigint NOT NULL,
  epoch integer NOT NULL,
  state bytea,                          -- NULL: a leave, which nobody can offer
  mac bytea NOT NULL,
  code integer NOT NULL,
  detail text NOT NULL,
  at_us bigint NOT NULL,
  UNIQUE (project, device, collection, id, mac)
);

-- Logs that were found in two places: an alarm for each.
CREATE TABLE mobo.twice(
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  reason text NOT NULL,
  at_us bigint NOT NULL,
  PRIMARY KEY (project, device, incarnation)
);
