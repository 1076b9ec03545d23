-- Rights that change, and rules that do (R3, D5); the same words and meanings as schema/0003_hub_rights.sql of mobo-adapters.

-- [[name, value], …], in order, each once.
ALTER TABLE mobo.device ADD COLUMN claims jsonb NOT NULL DEFAULT '[]';
ALTER TABLE mobo.invite ADD COLUMN claims jsonb NOT NULL DEFAULT '[]';

-- NULL: the grant stands. Else it was taken away, as was what the device's claims say of this bucket; what it has made there up to then is
-- still taken when it comes.
ALTER TABLE mobo.grant ADD COLUMN ended_us bigint;

-- When a refused entry was retried or dropped.
ALTER TABLE mobo.quarantine ADD COLUMN settled_us bigint;

-- Collections whose rules were changed, until all their records are placed by the new ones.
CREATE TABLE mobo.rebucket(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  rules jsonb NOT NULL,                -- array: those before, which records that are still to come are placed by
  after text COLLATE "C" NOT NULL,     -- records up to this id are done
  done bigint NOT NULL,
  moved bigint NOT NULL,
  total bigint NOT NULL,               -- records that there were when the rules changed
  PRIMARY KEY (project, collection)
);
