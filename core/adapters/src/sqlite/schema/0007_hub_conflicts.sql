-- Decisions of merges, for people: under the name that a field had, by a policy for each field, and settled by a write that knew.

ALTER TABLE mobo_conflict ADD COLUMN name TEXT;  -- of the field, when it was decided

CREATE TABLE mobo_conflict_policy(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  field INTEGER NOT NULL,              -- 0: the record as a whole
  policy INTEGER NOT NULL,             -- 0 silent, 1 log, 2 review, which is the default
  PRIMARY KEY (project, collection, field)
) STRICT, WITHOUT ROWID;

CREATE VIEW mobo_conflicts AS
  SELECT c.name AS collection, k.id, k.name AS field, CASE k.kind WHEN 1 THEN 'concurrent' WHEN 2 THEN 'hidden_by_delete' ELSE 'time_uncertain' END AS kind,
    k.winner, k.loser, strftime('%Y-%m-%dT%H:%M:%fZ', k.at_us / 1e6, 'unixepoch') AS at, CASE k.status WHEN 0 THEN 'open' ELSE 'settled' END AS status
  FROM mobo_conflict k JOIN mobo_collection c ON c.project = k.project AND c.id = k.collection;
