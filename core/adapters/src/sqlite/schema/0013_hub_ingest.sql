-- Plain sensors that a hub hears (mqtt.ingest, limits::INGEST_…); the same words and meanings as hub/src/postgres/schema/0015_ingest.sql. What was
-- kept aside goes along with the hub, into backups and to another store; the rest is of the broker's session, and stays.

-- Which hub of this store hears the broker, until when, and the last number that it gave to any row below.
CREATE TABLE mobo_ingest(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  holder BLOB NOT NULL,                -- drawn by the hub when it starts
  until_us INTEGER NOT NULL,           -- by the hub's time; from then on the turn is anybody's
  n INTEGER NOT NULL
) STRICT;
INSERT INTO mobo_ingest VALUES (1, x'', 0, 0);

-- What was taken and the broker may not know yet: a broker that does not sends it again, and it is not taken twice. A row for each transaction.
CREATE TABLE mobo_ingest_taken(
  n INTEGER PRIMARY KEY,
  deliveries BLOB NOT NULL             -- MQTT packet id, 2 bytes, and blake3(topic, payload), 16 bytes, of each
) STRICT;

-- What each topic said last of records: a broker sends what it keeps again at every subscription, and that is no news.
CREATE TABLE mobo_ingest_said(
  topic BLOB PRIMARY KEY,              -- blake3, 16 bytes
  hash BLOB NOT NULL,
  n INTEGER NOT NULL
) STRICT;
CREATE INDEX mobo_ingest_said_n ON mobo_ingest_said(n);

-- What no rule could make a row of, as it came.
CREATE TABLE mobo_ingest_refused(
  n INTEGER PRIMARY KEY,
  topic TEXT NOT NULL,
  payload BLOB NOT NULL,               -- cut to limits::INGEST_KEPT_BYTES_MAX
  bytes INTEGER NOT NULL,              -- of the whole payload
  why TEXT NOT NULL,
  at_us INTEGER NOT NULL               -- by the hub's time
) STRICT;
