-- Messages of plain sensors (limits::INGEST_…).

-- What this device has taken and the broker may not know yet: a broker that does not sends it again, and it is not taken twice.
CREATE TABLE mobo_ingest_taken(
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  packet INTEGER NOT NULL,             -- MQTT packet id
  hash BLOB NOT NULL                   -- blake3(topic, payload), 16 bytes
) STRICT;

-- What no rule could make a row of, as it came.
CREATE TABLE mobo_ingest_refused(
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL,
  payload BLOB NOT NULL,               -- cut to limits::INGEST_KEPT_BYTES_MAX
  bytes INTEGER NOT NULL,              -- of the whole payload
  why TEXT NOT NULL,
  at_us INTEGER NOT NULL               -- by this device's clock
) STRICT;
