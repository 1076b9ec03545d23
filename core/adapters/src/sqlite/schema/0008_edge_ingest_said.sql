-- What each topic of plain sensors said last of records: a broker sends what it keeps again at every subscription, and that is no news.
CREATE TABLE mobo_ingest_said(
  n     INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL UNIQUE,
  hash  BLOB NOT NULL
);
