-- Who wrote each change of a document, and when: the automerge changes themselves name a log by a hash only, and no time.

CREATE TABLE mobo.change(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  actor bytea NOT NULL CHECK (octet_length(actor) = 16),
  seq bigint NOT NULL,                 -- the change's place among its author's in this document
  stamp bytea NOT NULL,                -- of the operation that brought it
  PRIMARY KEY (project, collection, id, actor, seq)
);

-- Open decisions in the order in which they are listed.
CREATE INDEX conflict_open ON mobo.conflict(project, at_us DESC, collection, id, field, loser_stamp) WHERE status = 0;
