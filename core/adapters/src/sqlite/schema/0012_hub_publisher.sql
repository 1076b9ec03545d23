-- Which hub publishes to an external server (publish.url), until when, and how far it is in the log of changes; the same words and meanings as
-- hub/src/postgres/schema/0014_publisher.sql. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo_publisher(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  holder BLOB NOT NULL,                -- drawn by the hub when it starts
  until_us INTEGER NOT NULL,           -- by the hub's time; from then on the turn is anybody's
  log INTEGER NOT NULL,
  n INTEGER NOT NULL
) STRICT;
INSERT INTO mobo_publisher VALUES (1, x'', 0, 0, 0);
