//! The tables of collections: made, extended, and closed to writes that would not be synced.
//!
//! Their shape is in the head of `schema/0001_node.sql`. Names are checked when a collection is made ([`check_collection`]), and quoted
//! here all the same.

use std::fmt::Write as _;

use mobo_core::schema::{Collection, Field, Kind, check_collection};
use rusqlite::Connection;

use super::columns::sql_type;
use super::error::Failure;

/// Makes the table of a collection, its index and its triggers.
pub(crate) fn create(connection: &Connection, collection: &Collection) -> Result<(), Failure> {
    check(collection)?;
    let mut fields = String::new();
    for field in &collection.fields {
        let _ = write!(fields, "{} {}, ", quoted(&field.name), sql_type(field.kind));
    }
    let name = quoted(&collection.name);
    let columns = match collection.kind {
        Kind::Table | Kind::Document => format!(
            "id TEXT PRIMARY KEY, {fields}mobo_ver INTEGER NOT NULL, _extra TEXT, _mobo BLOB NOT NULL, _bucket INTEGER, _position INTEGER"
        ),
        Kind::Stream => format!(
            "at TEXT NOT NULL, device TEXT NOT NULL, {fields}_extra TEXT, _incarnation INTEGER NOT NULL, _lane INTEGER NOT NULL, \
             _seq INTEGER NOT NULL, _index INTEGER NOT NULL, PRIMARY KEY (device, _incarnation, _lane, _seq, _index)"
        ),
    };
    connection.execute_batch(&format!("CREATE TABLE {name}({columns}) STRICT, WITHOUT ROWID"))?;
    match collection.kind {
        Kind::Table => connection.execute_batch(&format!("CREATE INDEX {} ON {name}(_bucket, _position)", index(collection)))?,
        Kind::Stream => connection.execute_batch(&format!("CREATE INDEX {} ON {name}(at)", index(collection)))?,
        Kind::Document => {}
    }
    refer(connection, collection)?;
    refuse_writes(connection, collection)
}

/// Brings the table of a collection to a newer definition: labels change, fields come, nothing goes.
pub(crate) fn extend(connection: &Connection, old: &Collection, new: &Collection) -> Result<(), Failure> {
    check(new)?;
    if old.id != new.id || old.kind != new.kind {
        return Err(Failure::refused(format!("\"{}\" is not a later definition of \"{}\"", new.name, old.name)));
    }
    for verb in VERBS {
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", trigger(old, verb)))?;
    }
    if old.name != new.name {
        connection.execute_batch(&format!("ALTER TABLE {} RENAME TO {}", quoted(&old.name), quoted(&new.name)))?;
    }
    let table = quoted(&new.name);
    let renamed = |field: &&Field| old.field_by_id(field.id).is_some_and(|before| before.name != field.name);
    // Two steps, so that two fields may exchange their labels.
    for field in new.fields.iter().filter(renamed) {
        let before = old.field_by_id(field.id).map_or("", |before| &before.name);
        connection.execute_batch(&format!("ALTER TABLE {table} RENAME COLUMN {} TO \"mobo_{}\"", quoted(before), field.id))?;
    }
    for field in new.fields.iter().filter(renamed) {
        connection.execute_batch(&format!("ALTER TABLE {table} RENAME COLUMN \"mobo_{}\" TO {}", field.id, quoted(&field.name)))?;
    }
    for field in new.fields.iter().filter(|field| old.field_by_id(field.id).is_none()) {
        connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {} {}", quoted(&field.name), sql_type(field.kind)))?;
    }
    refer(connection, new)?;
    refuse_writes(connection, new)
}

/// The indexes by which the records that name another are found; those that are there stay.
fn refer(connection: &Connection, collection: &Collection) -> Result<(), Failure> {
    for field in collection.fields.iter().filter(|field| field.references.is_some()) {
        let (table, column) = (quoted(&collection.name), quoted(&field.name));
        connection.execute_batch(&format!("CREATE INDEX IF NOT EXISTS \"mobo_ref_{}\" ON {table}({column})", field.id))?;
    }
    Ok(())
}

/// A name in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const VERBS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

fn check(collection: &Collection) -> Result<(), Failure> {
    check_collection(collection).map_err(|error| Failure::refused(error.to_string()))
}

fn index(collection: &Collection) -> String {
    quoted(&format!("mobo_index_{}", collection.id))
}

fn trigger(collection: &Collection, verb: &str) -> String {
    quoted(&format!("mobo_refuse_{}_{}", verb.to_ascii_lowercase(), collection.id))
}

fn refuse_writes(connection: &Connection, collection: &Collection) -> Result<(), Failure> {
    let name = &collection.name;
    for verb in VERBS {
        connection.execute_batch(&format!(
            "CREATE TRIGGER {} BEFORE {verb} ON {} WHEN (SELECT applying FROM mobo_flag) = 0 BEGIN SELECT RAISE(ABORT, \
             'table {name} is kept by mobo: write through its API or on a device. A write here would not be synced. \
             To repair by hand: UPDATE mobo_flag SET applying = 1'); END",
            trigger(collection, verb),
            quoted(name)
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mobo_core::ids::{CollectionId, FieldId, Lane};
    use mobo_core::schema::FieldType;

    use super::*;

    fn collection(name: &str, kind: Kind, fields: &[(u64, &str, FieldType)]) -> Collection {
        let field = |(id, name, kind): &(u64, &str, FieldType)| {
            let (id, name) = (FieldId::new(*id).unwrap(), (*name).to_owned());
            Field { id, name, kind: *kind, retired: false, references: None }
        };
        let (id, name, store) = (CollectionId::new(9).unwrap(), name.to_owned(), "default".to_owned());
        let fields = fields.iter().map(field).collect();
        Collection { id, name, kind, rev: 1, fields, rules: vec![], lane: Lane::State, store }
    }

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema/0001_node.sql")).unwrap();
        connection
    }

    #[test]
    fn definitions_grow_and_labels_move() {
        let connection = connection();
        let old = collection("pumps", Kind::Table, &[(1, "a", FieldType::Text), (2, "b", FieldType::Int)]);
        create(&connection, &old).unwrap();
        connection
            .execute_batch("UPDATE mobo_flag SET applying = 1; INSERT INTO pumps VALUES ('p', 'x', 7, 1, NULL, x'00', 1, 1)")
            .unwrap();
        let new = collection("motors", Kind::Table, &[(1, "b", FieldType::Text), (2, "a", FieldType::Int), (3, "c", FieldType::Bytes)]);
        extend(&connection, &old, &new).unwrap();
        let row = connection.query_row("SELECT id, b, a, c FROM motors", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, Option<Vec<u8>>>(3)?))
        });
        assert_eq!(row.unwrap(), ("p".to_owned(), "x".to_owned(), 7, None));
        connection.execute_batch("UPDATE mobo_flag SET applying = 0").unwrap();
        let error = connection.execute_batch("DELETE FROM motors").unwrap_err().to_string();
        assert!(error.contains("table motors is kept by mobo"), "{error}");
    }

    #[test]
    fn every_kind_has_its_table_and_bad_names_have_none() {
        let connection = connection();
        for kind in [Kind::Table, Kind::Document, Kind::Stream] {
            let mut made = collection(kind.name(), kind, &[(1, "select", FieldType::Float)]);
            made.id = CollectionId::new(u64::from(kind.code())).unwrap();
            create(&connection, &made).unwrap();
        }
        for bad in ["x\"; DROP TABLE mobo_meta; --", "mobo_meta", "sqlite_x", "A"] {
            assert!(create(&connection, &collection(bad, Kind::Table, &[])).is_err(), "{bad}");
        }
    }
}
