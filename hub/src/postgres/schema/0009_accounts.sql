-- Who may use the API, and what was done about it; the same words and meanings as the SQLite file of mobo-adapters.

-- JSON array such as ["read:orders"]; [] is all that the role may.
ALTER TABLE mobo.api_key ADD COLUMN scopes text COLLATE "C" NOT NULL DEFAULT '[]';
ALTER TABLE mobo.api_key ADD COLUMN used_us bigint;

-- Users, and services that sign in as users do.
CREATE TABLE mobo.account(
  project bigint NOT NULL,
  id text COLLATE "C" NOT NULL,                    -- a UUID
  email text COLLATE "C" NOT NULL,                 -- in small letters
  password text COLLATE "C",                       -- argon2id in the PHC form; NULL: no password opens it
  role text COLLATE "C" NOT NULL,
  app text COLLATE "C" NOT NULL,                   -- JSON object: what administrators say of it
  about text COLLATE "C" NOT NULL,                 -- JSON object: what it says of itself
  created_us bigint NOT NULL,
  changed_us bigint NOT NULL,
  signed_in_us bigint,
  banned_us bigint,                   -- until when
  PRIMARY KEY (project, id),
  UNIQUE (project, email)
);
-- A sign-in, from the password to the sign-out: a family of refresh tokens.
CREATE TABLE mobo.sign_in(
  project bigint NOT NULL,
  id text COLLATE "C" NOT NULL,                    -- a UUID
  account text COLLATE "C" NOT NULL,
  created_us bigint NOT NULL,
  ended_us bigint,
  PRIMARY KEY (project, id)
);
CREATE INDEX sign_in_account ON mobo.sign_in(project, account);
CREATE TABLE mobo.refresh(
  hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
  project bigint NOT NULL,
  sign_in text COLLATE "C" NOT NULL,
  created_us bigint NOT NULL,
  next bytea                            -- the one that it was exchanged for
);
CREATE INDEX refresh_sign_in ON mobo.refresh(project, sign_in);
-- Links that open an account once, without a password.
CREATE TABLE mobo.setup(
  hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
  project bigint NOT NULL,
  account text COLLATE "C" NOT NULL,
  expires_us bigint NOT NULL,
  used_us bigint
);
CREATE TABLE mobo.role(
  project bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  created_us bigint NOT NULL,
  PRIMARY KEY (project, name)
);
CREATE TABLE mobo.policy(
  project bigint NOT NULL,
  collection bigint NOT NULL,
  role text COLLATE "C" NOT NULL,
  action text COLLATE "C" NOT NULL,                -- read, create, update, delete
  condition text COLLATE "C",                      -- NULL: all rows
  fields text COLLATE "C",                         -- JSON array; NULL: all fields
  PRIMARY KEY (project, collection, role, action)
);
-- Keys that users' tokens are signed with.
CREATE TABLE mobo.signing_key(
  project bigint NOT NULL,
  kid text COLLATE "C" NOT NULL,
  public bytea NOT NULL,                -- a point on P-256
  sealed bytea NOT NULL,                -- the private key, under a key that is made of the hub's
  state text COLLATE "C" NOT NULL,                 -- standby, current, previous
  created_us bigint NOT NULL,
  PRIMARY KEY (project, kid)
);
-- Others whose tokens are taken.
CREATE TABLE mobo.issuer(
  project bigint NOT NULL,
  issuer text COLLATE "C" NOT NULL,
  jwks_url text COLLATE "C" NOT NULL,
  audience text COLLATE "C" NOT NULL,
  role text COLLATE "C" NOT NULL,
  PRIMARY KEY (project, issuer)
);
-- Grows with every change of the tables above that rights depend on: how hubs on one store hear of each other.
CREATE TABLE mobo.rights(
  project bigint PRIMARY KEY,
  rev bigint NOT NULL
);
CREATE TABLE mobo.audit(
  project bigint NOT NULL,
  n bigint NOT NULL,                  -- 1, 2, 3 …
  at_us bigint NOT NULL,
  event text COLLATE "C" NOT NULL,
  actor text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  detail text COLLATE "C" NOT NULL,                -- JSON object
  hash bytea NOT NULL CHECK (octet_length(hash) = 32), -- over the one before and all of this row
  PRIMARY KEY (project, n)
);
