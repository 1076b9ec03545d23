-- SQL that other programs write into the tables of this hub (replication.md D10); the same words and meanings as 0006_edge_intake.sql. Beside
-- the table of each collection of kind table is `mobo_before_<id>`. It is in no backup, and stays where it is when a hub moves.

-- Collections with something to take in.
CREATE TABLE mobo_intake(
  collection INTEGER PRIMARY KEY
) STRICT;

-- What could not be taken in, and was taken back: it is told, never dropped in silence.
CREATE TABLE mobo_intake_refused(
  n INTEGER PRIMARY KEY,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  detail TEXT NOT NULL,
  at_us INTEGER NOT NULL
) STRICT;
