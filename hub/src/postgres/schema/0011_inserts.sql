-- Whoever inserts by SQL holds no lock for that any more: it kept out every merge that made any record of the collection. A merge that makes a
-- record which somebody has inserted meanwhile finds its row when it writes its own, and begins again.

CREATE OR REPLACE FUNCTION mobo.open_table(name text, collection bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  EXECUTE format('DROP TRIGGER IF EXISTS mobo_refuse_write ON public.%I', name);
  EXECUTE format('ALTER TABLE public.%I ALTER COLUMN id SET DEFAULT gen_random_uuid()::text, ALTER COLUMN mobo_ver SET DEFAULT 0, '
    'ALTER COLUMN _mobo SET DEFAULT ''''', name);
  EXECUTE format('CREATE TRIGGER mobo_refuse_write BEFORE TRUNCATE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION mobo.refuse_write()', name);
  EXECUTE format('CREATE TRIGGER mobo_sql_inserted AFTER INSERT ON public.%I REFERENCING NEW TABLE AS news '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
  EXECUTE format('CREATE TRIGGER mobo_sql_updated AFTER UPDATE ON public.%I REFERENCING OLD TABLE AS olds NEW TABLE AS news '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
  EXECUTE format('CREATE TRIGGER mobo_sql_deleted AFTER DELETE ON public.%I REFERENCING OLD TABLE AS olds '
    'FOR EACH STATEMENT EXECUTE FUNCTION mobo.note_write(%L)', name, collection::text);
END $$;

-- With the triggers that call it, in all tables.
DROP FUNCTION mobo.before_write() CASCADE;
