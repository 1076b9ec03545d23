-- SQL that people and programs write into the tables of collections (replication.md D10, R24): noted by triggers with what a row was before
-- and what it is, and taken in by the hub as what it is, a write of the hub's own, a transaction at a time.

CREATE TABLE mobo.intake(
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  txid bigint NOT NULL,                -- what one transaction has done is taken in together
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  old jsonb,                           -- the whole row before the statement; NULL: it was not there
  new jsonb                            -- after it; NULL: it is gone
);
CREATE INDEX intake_record ON mobo.intake(collection, id);

-- What could not be taken in, and was taken back.
CREATE TABLE mobo.intake_refused(
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  new jsonb,
  detail text NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);

-- Nobody makes a record while a merge that has not found it makes it, too.
CREATE FUNCTION mobo.before_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  IF current_setting('mobo.applying', true) IS DISTINCT FROM 'on' THEN
    PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
  END IF;
  RETURN NULL;
END $$;

-- Whatever the session has set, values are noted exactly.
-- No field is named mobo_…, so that none is taken for a row or a variable.
CREATE FUNCTION mobo.note_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
  SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
  mobo_of bigint := TG_ARGV[0]::bigint;
  mobo_txid bigint := pg_current_xact_id()::text::bigint;
BEGIN
  IF current_setting('mobo.applying', true) = 'on' THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    IF EXISTS (SELECT 1 FROM news mobo_new WHERE octet_length(mobo_new.id) NOT BETWEEN 1 AND 256 OR mobo_new.id ~ '[\u0001-\u001f\u007f-\u009f]') THEN
      RAISE EXCEPTION 'an id of % is 1 to 256 bytes of text without control characters', TG_TABLE_NAME USING ERRCODE = '22023';
    END IF;
  END IF;
  IF TG_OP = 'INSERT' THEN
    INSERT INTO mobo.intake(txid, collection, id, new) SELECT mobo_txid, mobo_of, mobo_new.id, to_jsonb(mobo_new) FROM news mobo_new;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO mobo.intake(txid, collection, id, old) SELECT mobo_txid, mobo_of, mobo_old.id, to_jsonb(mobo_old) FROM olds mobo_old;
  ELSE
    INSERT INTO mobo.intake(txid, collection, id, old, new)
      SELECT mobo_txid, mobo_of, coalesce(mobo_old.id, mobo_new.id),
        CASE WHEN mobo_old.id IS NOT NULL THEN to_jsonb(mobo_old) END, CASE WHEN mobo_new.id IS NOT NULL THEN to_jsonb(mobo_new) END
      FROM olds mobo_old FULL JOIN news mobo_new ON mobo_new.id = mobo_old.id ORDER BY mobo_old.id IS NULL;
  END IF;
  RETURN NULL;
END $$;

-- Opens the table of a collection to SQL.
CREATE FUNCTION mobo.open_table(name text, collection bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  EXECUTE format('DROP TRIGGER IF EXISTS mobo_refuse_write ON public.%I', name);
  EXECUTE format('ALTER TABLE public.%I ALTER COLUMN id SET DEFAULT gen_random_uuid()::text, ALTER COLUMN mobo_ver SET DEFAULT 0, '
    'ALTER COLUMN _mobo SET DEFAULT ''''', name);
  EXECUTE format('CREATE TRIGGER mobo_refuse_write BEFORE TRUNCATE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION mobo.refuse_write()', name);
  EXECUTE format('CREATE TRIGGER mobo_sql_before BEFORE INSERT OR UPDATE OF id ON public.%I '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.before_write(%L)', name, collection::text);
  EXECUTE format('CREATE TRIGGER mobo_sql_inserted AFTER INSERT ON public.%I REFERENCING NEW TABLE AS news '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
  EXECUTE format('CREATE TRIGGER mobo_sql_updated AFTER UPDATE ON public.%I REFERENCING OLD TABLE AS olds NEW TABLE AS news '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
  EXECUTE format('CREATE TRIGGER mobo_sql_deleted AFTER DELETE ON public.%I REFERENCING OLD TABLE AS olds '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
END $$;

SELECT mobo.open_table(name, id) FROM mobo.collection WHERE kind = 2;
