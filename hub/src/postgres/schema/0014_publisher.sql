-- Which of the hubs of this database publishes to an external server (publish.url), until when, and how far it is in the log of changes; the
-- same words and meanings as 0012_hub_publisher.sql of mobo-adapters. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo.publisher(
  one boolean PRIMARY KEY CHECK (one),
  holder bytea NOT NULL,               -- drawn by the hub when it starts
  until_us bigint NOT NULL,            -- by the hub's time; from then on the turn is anybody's
  log bigint NOT NULL,
  n bigint NOT NULL
);
INSERT INTO mobo.publisher VALUES (true, '', 0, 0, 0);
