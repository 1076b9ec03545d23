-- Rights that change, and rules that do (R3, D5); the same words and meanings as hub/src/postgres/schema/0003_rights.sql.

-- JSON: [[name, value], …], in order, each once.
ALTER TABLE mobo_device ADD COLUMN claims TEXT NOT NULL DEFAULT '[]';
ALTER TABLE mobo_invite ADD COLUMN claims TEXT NOT NULL DEFAULT '[]';

-- NULL: the grant stands. Else it was taken away, as was what the device's claims say of this bucket; what it has made there up to then is
-- still taken when it comes.
ALTER TABLE mobo_grant ADD COLUMN ended_us INTEGER;

-- When a refused entry was retried or dropped.
ALTER TABLE mobo_quarantine ADD COLUMN settled_us INTEGER;

-- Collections whose rules were changed, until all their records are placed by the new ones.
CREATE TABLE mobo_rebucket(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  rules TEXT NOT NULL,                 -- JSON array: those before, which records that are still to come are placed by
  after TEXT NOT NULL,                 -- records up to this id are done
  done INTEGER NOT NULL,
  moved INTEGER NOT NULL,
  total INTEGER NOT NULL,              -- records that there were when the rules changed
  PRIMARY KEY (project, collection)
) STRICT, WITHOUT ROWID;
