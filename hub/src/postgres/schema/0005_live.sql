-- The log of committed changes for realtime subscribers: the same words and meanings as core/adapters/src/sqlite/schema/0005_live.sql.

-- The log: drawn once, so that a database which is made anew is another one. Whoever writes to it holds this row until it commits: numbers
-- are in the order of the commits, without gaps, over all hubs.
CREATE TABLE mobo.live_log(
  one boolean PRIMARY KEY CHECK (one),
  log bigint NOT NULL,
  head bigint NOT NULL,                -- the last change
  floor bigint NOT NULL,               -- changes up to here are gone
  bytes bigint NOT NULL                -- of all rows that ever were in it
);
INSERT INTO mobo.live_log VALUES (true, (random() * 9e18)::bigint, 0, 0, 0);

-- Collections whose changes are logged, since which number, and until when.
CREATE TABLE mobo.live_follow(
  collection bigint PRIMARY KEY,
  project bigint NOT NULL,
  since bigint NOT NULL,
  until_us bigint NOT NULL
);

-- One row for each record that a commit changed, and for the samples of each entry.
CREATE TABLE mobo.live(
  n bigint PRIMARY KEY,                -- of its last change
  count bigint NOT NULL,               -- its changes: 1, or the number of samples
  project bigint NOT NULL,
  collection bigint NOT NULL,
  before text,                         -- the row as readers saw it, as JSON
  after text,                          -- as they see it now; the samples, as an array
  at_us bigint NOT NULL,
  bytes bigint NOT NULL                -- of all rows up to this one
);
