-- Decisions of merges about records that this device holds, as its hub told them with the records: for people, and outside digests. What the
-- hub says of a record replaces what it said before.
CREATE TABLE mobo_decision(
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  field INTEGER NOT NULL,              -- 0: the record as a whole
  loser_stamp BLOB NOT NULL,
  winner_stamp BLOB NOT NULL,
  kind INTEGER NOT NULL,               -- 1 concurrent, 2 hidden by a delete, 3 time uncertain
  loser TEXT,                          -- values as JSON; none where they are too long to be told
  winner TEXT,
  at_us INTEGER NOT NULL,
  name TEXT,                           -- of the field, when it was told
  status INTEGER NOT NULL DEFAULT 0,   -- 0 open, 1 settled here, and the hub has not answered yet
  PRIMARY KEY (collection, id, field, loser_stamp)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_decision_open ON mobo_decision(at_us DESC) WHERE status = 0;

CREATE VIEW mobo_conflicts AS
  SELECT c.name AS collection, k.id, k.name AS field, CASE k.kind WHEN 1 THEN 'concurrent' WHEN 2 THEN 'hidden_by_delete' ELSE 'time_uncertain' END AS kind,
    k.winner, k.loser, strftime('%Y-%m-%dT%H:%M:%fZ', k.at_us / 1e6, 'unixepoch') AS at, CASE k.status WHEN 0 THEN 'open' ELSE 'settled' END AS status
  FROM mobo_decision k JOIN mobo_collection c ON c.id = k.collection;
