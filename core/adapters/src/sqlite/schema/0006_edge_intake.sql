-- SQL that other programs write into the tables of this device (replication.md D10). Each collection of kind table has, beside its table,
-- `mobo_before_<id>`: every record that was written by SQL since the last intake, as it was before (`was` 0: it was not there), and triggers
-- that fill it. The intake compares it with the table, seals one entry, and empties it; a transaction is in one intake whole.

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
