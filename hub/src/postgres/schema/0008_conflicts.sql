-- Decisions of merges, for people; the same words and meanings as schema/0007_hub_conflicts.sql of mobo-adapters.

ALTER TABLE mobo.conflict ADD COLUMN name text;  -- of the field, when it was decided

CREATE TABLE mobo.conflict_policy(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  field bigint NOT NULL,               -- 0: the record as a whole
  policy smallint NOT NULL,            -- 0 silent, 1 log, 2 review, which is the default
  PRIMARY KEY (project, collection, field)
);

CREATE VIEW public.mobo_conflicts AS
  SELECT c.name AS collection, k.id, k.name AS field, CASE k.kind WHEN 1 THEN 'concurrent' WHEN 2 THEN 'hidden_by_delete' ELSE 'time_uncertain' END AS kind,
    k.winner, k.loser, to_timestamp(k.at_us / 1e6) AS at, CASE k.status WHEN 0 THEN 'open' ELSE 'settled' END AS status
  FROM mobo.conflict k JOIN mobo.collection c ON c.project = k.project AND c.id = k.collection;
