-- Which entries of the state lane write which rows of tables. It is made from the log when somebody asks what a row was, so that a merge pays
-- nothing for it. It is in no backup, and stays where it is when a hub moves.

CREATE TABLE mobo.trace(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  eff bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (project, collection, id, eff, device, incarnation, seq)
);
-- Up to which position each log is in it.
CREATE TABLE mobo.traced(
  project bigint NOT NULL,
  device bytea NOT NULL,
  incarnation bigint NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (project, device, incarnation)
);
