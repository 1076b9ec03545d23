-- Plain sensors that a hub hears (mqtt.ingest, limits::INGEST_…); the same words and meanings as 0013_hub_ingest.sql of mobo-adapters. What was kept
-- aside goes along with the hub, into backups and to another store; the rest is of the broker's session, and stays.

-- Which of the hubs of this database hears the broker, until when, and the last number that it gave to any row below.
CREATE TABLE mobo.ingest(
  one boolean PRIMARY KEY CHECK (one),
  holder bytea NOT NULL,               -- drawn by the hub when it starts
  until_us bigint NOT NULL,            -- by the hub's time; from then on the turn is anybody's
  n bigint NOT NULL
);
INSERT INTO mobo.ingest VALUES (true, '', 0, 0);

-- What was taken and the broker may not know yet: a broker that does not sends it again, and it is not taken twice. A row for each transaction.
CREATE TABLE mobo.ingest_taken(
  n bigint PRIMARY KEY,
  deliveries bytea NOT NULL            -- MQTT packet id, 2 bytes, and blake3(topic, payload), 16 bytes, of each
);

-- What each topic said last of records: a broker sends what it keeps again at every subscription, and that is no news.
CREATE TABLE mobo.ingest_said(
  topic bytea PRIMARY KEY,             -- blake3, 16 bytes
  hash bytea NOT NULL,
  n bigint NOT NULL
);
CREATE INDEX ingest_said_n ON mobo.ingest_said(n);

-- What no rule could make a row of, as it came.
CREATE TABLE mobo.ingest_refused(
  n bigint PRIMARY KEY,
  topic text NOT NULL,
  payload bytea NOT NULL,              -- cut to limits::INGEST_KEPT_BYTES_MAX
  bytes bigint NOT NULL,               -- of the whole payload
  why text NOT NULL,
  at_us bigint NOT NULL                -- by the hub's time
);
