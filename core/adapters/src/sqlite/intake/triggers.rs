//! What watches over a table: a place for rows as they were before, and the triggers that fill it. Built-in functions only, because any
//! program with any SQLite library runs them.
//!
//! `BEFORE INSERT` is there for `REPLACE`, which takes a row away without a word, and `BEFORE UPDATE OF id` for `UPDATE OR REPLACE`. Nothing
//! here relies on `OR IGNORE`: the conflict clause of the outer statement would override it.

use std::fmt::Write as _;

use mobo_core::limits;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use rusqlite::{Connection, OptionalExtension};

use crate::sqlite::columns::sql_type;
use crate::sqlite::error::Failure;
use crate::sqlite::table::quoted;

/// Counts up when the triggers change, so that those of an older version are made anew.
const VERSION: u32 = 1;

/// The name of the place for rows as they were.
pub(crate) fn before(collection: &Collection) -> String {
    quoted(&format!("mobo_before_{}", collection.id))
}

/// Opens the table of a collection to other programs, if it is one that they may write. What waits there must have been taken in.
pub(crate) fn install(conn: &Connection, collection: &Collection) -> Result<(), Failure> {
    if collection.kind != Kind::Table {
        return Ok(());
    }
    give_defaults(conn, collection)?;
    for verb in ["insert", "update", "delete"] {
        let old = quoted(&format!("mobo_refuse_{verb}_{}", collection.id));
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS {old}"))?;
    }
    remove(conn, collection)?;
    let mut columns = String::new();
    for field in &collection.fields {
        let _ = write!(columns, "{} {}, ", quoted(&field.name), sql_type(field.kind));
    }
    conn.execute_batch(&format!(
        "CREATE TABLE {}(id TEXT PRIMARY KEY, mobo_was INTEGER NOT NULL, mobo_whole INTEGER NOT NULL, mobo_at REAL NOT NULL, {columns}\
         mobo_ver INTEGER, _extra TEXT, _mobo BLOB, _bucket INTEGER, _position INTEGER) STRICT, WITHOUT ROWID",
        before(collection)
    ))?;
    conn.execute_batch(&triggers(collection))?;
    Ok(())
}

/// Closes it again: before the table changes its shape.
pub(crate) fn remove(conn: &Connection, collection: &Collection) -> Result<(), Failure> {
    if collection.kind != Kind::Table {
        return Ok(());
    }
    let like = format!("mobo_sql*_{}", collection.id);
    let mut statement = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB ?1")?;
    let names: Vec<String> = statement.query_map([like], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        conn.execute_batch(&format!("DROP TRIGGER {}", quoted(&name)))?;
    }
    conn.execute_batch(&format!("DROP TABLE IF EXISTS {}", before(collection)))?;
    Ok(())
}

/// True if the triggers are there, and of this version.
pub(super) fn is_installed(conn: &Connection, collection: &Collection) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1";
    Ok(conn.query_row(sql, [name(collection, "inserted")], |_| Ok(())).optional()?.is_some())
}

fn name(collection: &Collection, when: &str) -> String {
    format!("mobo_sql{VERSION}_{when}_{}", collection.id)
}

/// An `id` for whoever gives none: a UUIDv7 of built-in functions.
const MADE_ID: &str = "id TEXT PRIMARY KEY DEFAULT (lower(\
    substr(printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)), 1, 8) || '-' || \
    substr(printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)), 9, 4) || '-7' || \
    substr(hex(randomblob(2)), 2, 3) || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2, 3) || '-' || \
    hex(randomblob(6))))";

/// Other programs name the fields, and nothing else: the rest gets defaults, in the words of the table and without touching a row.
fn give_defaults(conn: &Connection, collection: &Collection) -> Result<(), Failure> {
    let stored: String =
        conn.query_row("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1", [&collection.name], |row| row.get(0))?;
    if stored.contains("mobo_ver INTEGER NOT NULL DEFAULT 0") {
        return Ok(());
    }
    // Names of fields stand in quotes, so that these words are the table's own.
    let sql = stored
        .replacen("(id TEXT PRIMARY KEY", &format!("({MADE_ID}"), 1)
        .replacen("mobo_ver INTEGER NOT NULL", "mobo_ver INTEGER NOT NULL DEFAULT 0", 1)
        .replacen("_mobo BLOB NOT NULL", "_mobo BLOB NOT NULL DEFAULT x''", 1);
    conn.execute_batch("PRAGMA writable_schema = ON")?;
    let changed = conn.execute("UPDATE sqlite_schema SET sql = ?1 WHERE type = 'table' AND name = ?2", (&sql, &collection.name));
    conn.execute_batch("PRAGMA writable_schema = RESET")?;
    changed?;
    Ok(())
}

fn triggers(collection: &Collection) -> String {
    let (table, before, id) = (quoted(&collection.name), before(collection), collection.id.sql());
    let mut names = String::new();
    for field in &collection.fields {
        let _ = write!(names, "{}, ", quoted(&field.name));
    }
    let names = format!("{names}mobo_ver, _extra, _mobo, _bucket, _position");
    let olds: String = names.split(", ").map(|name| format!("OLD.{name}")).collect::<Vec<_>>().join(", ");
    let unseen = |row: &str| format!("NOT EXISTS (SELECT 1 FROM {before} WHERE id = {row}.id)");
    let mark =
        format!("INSERT INTO mobo_intake(collection) SELECT {id} WHERE NOT EXISTS (SELECT 1 FROM mobo_intake WHERE collection = {id});");
    let from_table = format!(
        "INSERT INTO {before}(id, mobo_was, mobo_whole, mobo_at, {names}) SELECT id, 1, 0, julianday('now'), {names} FROM {table} WHERE id = NEW.id AND {};",
        unseen("NEW")
    );
    let made = format!(
        "INSERT INTO {before}(id, mobo_was, mobo_whole, mobo_at) SELECT NEW.id, 0, 1, julianday('now') WHERE {}; \
         UPDATE {before} SET mobo_whole = 1 WHERE id = NEW.id AND mobo_whole = 0;",
        unseen("NEW")
    );
    let kept = format!(
        "INSERT INTO {before}(id, mobo_was, mobo_whole, mobo_at, {names}) SELECT OLD.id, 1, 0, julianday('now'), {olds} WHERE {};",
        unseen("OLD")
    );
    let check = check(collection);
    let open = "(SELECT applying FROM mobo_flag) = 0";
    let trigger = |when: &str, on: &str, condition: &str, body: &str| {
        let name = quoted(&name(collection, when));
        format!("CREATE TRIGGER {name} {on} ON {table} WHEN {condition} BEGIN {body} {mark} END; ")
    };
    [
        trigger("inserting", "BEFORE INSERT", &format!("{open} AND EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"), &from_table),
        trigger("inserted", "AFTER INSERT", open, &format!("{check} {made}")),
        trigger("renaming", "BEFORE UPDATE OF id", &format!("{open} AND NEW.id IS NOT OLD.id"), &from_table),
        trigger("updated", "AFTER UPDATE", open, &format!("{check} {kept}")),
        trigger("renamed", "AFTER UPDATE OF id", &format!("{open} AND NEW.id IS NOT OLD.id"), &made),
        trigger("deleted", "AFTER DELETE", open, &kept),
    ]
    .concat()
}

/// One statement that refuses what a field of the collection, or an id, cannot hold.
fn check(collection: &Collection) -> String {
    let mut cases = format!(
        "WHEN NEW.id IS NULL OR length(CAST(NEW.id AS BLOB)) NOT BETWEEN 1 AND {} OR instr(NEW.id, char(0)) > 0 \
         OR NEW.id GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*' \
         THEN RAISE(ABORT, 'an id of {} is 1 to {0} bytes of text without control characters')",
        limits::RECORD_ID_BYTES_MAX,
        collection.name,
    );
    for field in &collection.fields {
        if let Some((condition, takes)) = unfit(field) {
            let _ = write!(cases, " WHEN {condition} THEN RAISE(ABORT, 'field {} of {} takes {takes}')", field.name, collection.name);
        }
    }
    format!("SELECT CASE {cases} END;")
}

/// When a value is none of the field's, beyond what a STRICT table refuses by itself, and what would do.
fn unfit(field: &Field) -> Option<(String, String)> {
    let new = format!("NEW.{}", quoted(&field.name));
    let max = limits::VALUE_BYTES_MAX;
    let long = format!("length(CAST({new} AS BLOB)) > {max}");
    Some(match field.kind {
        FieldType::Bool => (format!("{new} NOT IN (0, 1)"), "0 or 1".to_owned()),
        FieldType::Text => {
            (format!("{long} OR instr({new}, char(0)) > 0"), format!("at most {max} bytes of text without the character U+0000"))
        }
        FieldType::Bytes => (format!("length({new}) > {max}"), format!("at most {max} bytes")),
        FieldType::Float => (format!("abs({new}) > 1.7976931348623157e308"), "a finite number".to_owned()),
        FieldType::Timestamp => (
            format!(
                "{new} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' \
                 OR ({new} IS NOT NULL AND julianday({new}) IS NULL)"
            ),
            "a time such as 2026-02-03T04:05:06Z".to_owned(),
        ),
        FieldType::Json | FieldType::List => (format!("json_valid({new}) = 0 OR {long}"), format!("valid JSON of at most {max} bytes")),
        FieldType::Int | FieldType::Counter => return None,
    })
}
