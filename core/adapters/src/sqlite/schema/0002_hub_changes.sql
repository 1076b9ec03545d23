-- Who wrote each change of a document, and when: the same words and meanings as hub/src/postgres/schema/0002_changes.sql.

CREATE TABLE mobo_change(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  actor BLOB NOT NULL CHECK (length(actor) = 16),
  seq INTEGER NOT NULL,                -- the change's place among its author's in this document
  stamp BLOB NOT NULL,                 -- of the operation that brought it
  PRIMARY KEY (project, collection, id, actor, seq)
) STRICT, WITHOUT ROWID;

-- Open decisions in the order in which they are listed.
CREATE INDEX mobo_conflict_open ON mobo_conflict(project, at_us DESC, collection, id, field, loser_stamp) WHERE status = 0;
