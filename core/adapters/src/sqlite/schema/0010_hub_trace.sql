-- Which entries of the state lane write which rows of tables; the same words and meanings as hub/src/postgres/schema/0012_trace.sql. It is made
-- from the log when somebody asks what a row was, so that a merge pays nothing for it. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo_trace(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  eff INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (project, collection, id, eff, device, incarnation, seq)
) STRICT, WITHOUT ROWID;
-- Up to which position each log is in it.
CREATE TABLE mobo_traced(
  project INTEGER NOT NULL,
  device BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (project, device, incarnation)
) STRICT, WITHOUT ROWID;
