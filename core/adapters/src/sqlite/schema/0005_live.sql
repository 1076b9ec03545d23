-- The log of committed changes for realtime subscribers: on a hub the same words and meanings as hub/src/postgres/schema/0005_live.sql.

-- The log: drawn once, so that a file which is made anew is another one.
CREATE TABLE mobo_live_log(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  log INTEGER NOT NULL,
  head INTEGER NOT NULL,               -- the last change
  floor INTEGER NOT NULL,              -- changes up to here are gone
  bytes INTEGER NOT NULL               -- of all rows that ever were in it
) STRICT;
INSERT INTO mobo_live_log VALUES (1, random(), 0, 0, 0);

-- Collections whose changes are logged, since which number, and until when.
CREATE TABLE mobo_live_follow(
  collection INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  since INTEGER NOT NULL,
  until_us INTEGER NOT NULL
) STRICT;

-- One row for each record that a commit changed, and for the samples of each entry.
CREATE TABLE mobo_live(
  n INTEGER PRIMARY KEY,               -- of its last change
  count INTEGER NOT NULL,              -- its changes: 1, or the number of samples
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  before TEXT,                         -- the row as readers saw it, as JSON
  after TEXT,                          -- as they see it now; the samples, as an array
  at_us INTEGER NOT NULL,
  bytes INTEGER NOT NULL               -- of all rows up to this one
) STRICT;
