-- Who may use the API, and what was done about it; the same words and meanings as hub/src/postgres/schema/0009_accounts.sql.

-- JSON array such as ["read:orders"]; [] is all that the role may.
ALTER TABLE mobo_api_key ADD COLUMN scopes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE mobo_api_key ADD COLUMN used_us INTEGER;

-- Users, and services that sign in as users do.
CREATE TABLE mobo_account(
  project INTEGER NOT NULL,
  id TEXT NOT NULL,                    -- a UUID
  email TEXT NOT NULL,                 -- in small letters
  password TEXT,                       -- argon2id in the PHC form; NULL: no password opens it
  role TEXT NOT NULL,
  app TEXT NOT NULL,                   -- JSON object: what administrators say of it
  about TEXT NOT NULL,                 -- JSON object: what it says of itself
  created_us INTEGER NOT NULL,
  changed_us INTEGER NOT NULL,
  signed_in_us INTEGER,
  banned_us INTEGER,                   -- until when
  PRIMARY KEY (project, id),
  UNIQUE (project, email)
) STRICT, WITHOUT ROWID;
-- A sign-in, from the password to the sign-out: a family of refresh tokens.
CREATE TABLE mobo_sign_in(
  project INTEGER NOT NULL,
  id TEXT NOT NULL,                    -- a UUID
  account TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  ended_us INTEGER,
  PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_sign_in_account ON mobo_sign_in(project, account);
CREATE TABLE mobo_refresh(
  hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
  project INTEGER NOT NULL,
  sign_in TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  next BLOB                            -- the one that it was exchanged for
) STRICT, WITHOUT ROWID;
CREATE INDEX mobo_refresh_sign_in ON mobo_refresh(project, sign_in);
-- Links that open an account once, without a password.
CREATE TABLE mobo_setup(
  hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
  project INTEGER NOT NULL,
  account TEXT NOT NULL,
  expires_us INTEGER NOT NULL,
  used_us INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE mobo_role(
  project INTEGER NOT NULL,
  name TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE mobo_policy(
  project INTEGER NOT NULL,
  collection INTEGER NOT NULL,
  role TEXT NOT NULL,
  action TEXT NOT NULL,                -- read, create, update, delete
  condition TEXT,                      -- NULL: all rows
  fields TEXT,                         -- JSON array; NULL: all fields
  PRIMARY KEY (project, collection, role, action)
) STRICT, WITHOUT ROWID;
-- Keys that users' tokens are signed with.
CREATE TABLE mobo_signing_key(
  project INTEGER NOT NULL,
  kid TEXT NOT NULL,
  public BLOB NOT NULL,                -- a point on P-256
  sealed BLOB NOT NULL,                -- the private key, under a key that is made of the hub's
  state TEXT NOT NULL,                 -- standby, current, previous
  created_us INTEGER NOT NULL,
  PRIMARY KEY (project, kid)
) STRICT, WITHOUT ROWID;
-- Others whose tokens are taken.
CREATE TABLE mobo_issuer(
  project INTEGER NOT NULL,
  issuer TEXT NOT NULL,
  jwks_url TEXT NOT NULL,
  audience TEXT NOT NULL,
  role TEXT NOT NULL,
  PRIMARY KEY (project, issuer)
) STRICT, WITHOUT ROWID;
-- Grows with every change of the tables above that rights depend on: how hubs on one store hear of each other.
CREATE TABLE mobo_rights(
  project INTEGER PRIMARY KEY,
  rev INTEGER NOT NULL
) STRICT;
CREATE TABLE mobo_audit(
  project INTEGER NOT NULL,
  n INTEGER NOT NULL,                  -- 1, 2, 3 …
  at_us INTEGER NOT NULL,
  event TEXT NOT NULL,
  actor TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,                -- JSON object
  hash BLOB NOT NULL CHECK (length(hash) = 32), -- over the one before and all of this row
  PRIMARY KEY (project, n)
) STRICT, WITHOUT ROWID;
