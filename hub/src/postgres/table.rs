//! The tables of collections: made, and closed to writes that would not be synced.
//!
//! Their shape is in the head of `schema/0001_hub.sql`. Names are checked when a collection is made, and quoted here all the same. Every
//! table is named with its schema: nobody's `search_path` leads elsewhere.

use std::fmt::Write as _;

use mobo_core::schema::{Collection, Field, FieldType, Kind};

use super::cells::sql_type;

/// The name of a field's column.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name of a collection's table.
pub(super) fn table(collection: &Collection) -> String {
    format!("public.{}", quoted(&collection.name))
}

/// The fields that are registers: those whose column holds the value, not only shows it.
pub(super) fn registers(collection: &Collection) -> impl Iterator<Item = &Field> {
    collection.fields.iter().filter(|field| field.kind != FieldType::Counter)
}

/// Brings the table of a collection to a later definition: labels change, fields come, nothing goes, and no row is written.
pub(super) fn extend(old: &Collection, new: &Collection) -> String {
    let name = table(new);
    // Locked also where nothing is to be done.
    let mut sql = format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; ");
    let renamed: Vec<(&Field, &Field)> = new
        .fields
        .iter()
        .filter_map(|field| Some((old.field_by_id(field.id)?, field)))
        .filter(|(before, after)| before.name != after.name)
        .collect();
    // Two steps, so that two fields may exchange their labels.
    for (before, after) in &renamed {
        let _ = write!(sql, "ALTER TABLE {name} RENAME COLUMN {} TO \"mobo_{}\"; ", quoted(&before.name), after.id);
    }
    for (_, after) in &renamed {
        let _ = write!(sql, "ALTER TABLE {name} RENAME COLUMN \"mobo_{}\" TO {}; ", after.id, quoted(&after.name));
    }
    for field in new.fields.iter().filter(|field| old.field_by_id(field.id).is_none()) {
        let _ = write!(sql, "ALTER TABLE {name} ADD COLUMN {} {}; ", quoted(&field.name), sql_type(field.kind));
    }
    sql.push_str(&references(new));
    sql
}

/// The indexes by which the records that name another are found; those that are there stay.
fn references(collection: &Collection) -> String {
    let mut sql = String::new();
    for field in collection.fields.iter().filter(|field| field.references.is_some()) {
        let _ = write!(sql, "CREATE INDEX IF NOT EXISTS mobo_ref_{} ON {}({}); ", field.id, table(collection), quoted(&field.name));
    }
    sql
}

/// Makes the table of a collection, its index and its triggers.
pub(super) fn create(collection: &Collection) -> String {
    let (name, id) = (table(collection), collection.id);
    let mut sql = format!("CREATE TABLE {name}(");
    sql.push_str(match collection.kind {
        Kind::Table | Kind::Document => "id text COLLATE \"C\" PRIMARY KEY, ",
        Kind::Stream => "at timestamptz NOT NULL, device text COLLATE \"C\" NOT NULL, ",
    });
    for field in &collection.fields {
        let _ = write!(sql, "{} {}, ", quoted(&field.name), sql_type(field.kind));
    }
    sql.push_str(match collection.kind {
        Kind::Table | Kind::Document => {
            "mobo_ver bigint NOT NULL, _extra jsonb, _mobo bytea NOT NULL, _bucket bigint, _position bigint) WITH (fillfactor = 80); "
        }
        Kind::Stream => {
            "_extra jsonb, _incarnation bigint NOT NULL, _lane smallint NOT NULL, _seq bigint NOT NULL, _index integer NOT NULL, \
             PRIMARY KEY (device, _incarnation, _lane, _seq, _index)); "
        }
    });
    // No collection's name begins so: these names meet no table.
    match collection.kind {
        Kind::Table => {
            let _ = write!(sql, "CREATE INDEX mobo_position_{id} ON {name}(_bucket, _position); ");
        }
        Kind::Stream => {
            let _ = write!(sql, "CREATE INDEX mobo_at_{id} ON {name}(at); ");
        }
        Kind::Document => {}
    }
    sql.push_str(&references(collection));
    if collection.kind == Kind::Table {
        let (name, id) = (collection.name.replace('\'', "''"), collection.id.sql());
        let _ = write!(sql, "SELECT mobo.open_table('{name}', {id}); SELECT mobo.version_table('{name}', {id})");
        return sql;
    }
    let _ = write!(
        sql,
        "CREATE TRIGGER mobo_refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} \
         FOR EACH STATEMENT EXECUTE FUNCTION mobo.refuse_write()"
    );
    sql
}
