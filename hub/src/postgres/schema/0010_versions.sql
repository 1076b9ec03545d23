-- A row that is written by SQL has its next version at once, and not only when the hub has taken it in: whoever has read it before, and says so by
-- writing the version that it read (R24), did not know of that write. What the writer says is kept beside the row.

CREATE TABLE mobo.intake_seen(
  txid bigint NOT NULL,
  collection bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ver bigint NOT NULL                  -- what a statement of the transaction wrote as the version, where it was not the row's
);
CREATE INDEX intake_txid ON mobo.intake(txid, n);

CREATE FUNCTION mobo.note_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  mobo_of bigint := TG_ARGV[0]::bigint;
  mobo_txid bigint := pg_current_xact_id()::text::bigint;
  mobo_said bigint := NEW.mobo_ver;
BEGIN
  NEW.mobo_ver := OLD.mobo_ver;
  IF NEW *= OLD THEN
    RETURN NEW;
  END IF;
  IF mobo_said <> OLD.mobo_ver THEN
    INSERT INTO mobo.intake_seen(txid, collection, id, ver) VALUES (mobo_txid, mobo_of, OLD.id, mobo_said);
  END IF;
  -- Once for each transaction, which is merged as one.
  IF NOT EXISTS (SELECT 1 FROM mobo.intake i WHERE i.collection = mobo_of AND i.id = OLD.id AND i.txid = mobo_txid) THEN
    NEW.mobo_ver := OLD.mobo_ver + 1;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION mobo.version_table(name text, collection bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  -- What the first merge gives a row.
  EXECUTE format('ALTER TABLE public.%I ALTER COLUMN mobo_ver SET DEFAULT 1', name);
  EXECUTE format('CREATE TRIGGER mobo_sql_version BEFORE UPDATE ON public.%I FOR EACH ROW '
    'WHEN (pg_catalog.current_setting(''mobo.applying'', true) IS DISTINCT FROM ''on'') EXECUTE FUNCTION mobo.note_version(%L)',
    name, collection::text);
END $$;

SELECT mobo.version_table(name, id) FROM mobo.collection WHERE kind = 2;
