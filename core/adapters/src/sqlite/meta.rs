//! Single facts of a node, by name, in `mobo_meta`.

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, ToSql};

use super::error::Failure;

/// The fact of that name.
pub(crate) fn get<T: FromSql>(connection: &Connection, key: &str) -> Result<Option<T>, Failure> {
    let mut statement = connection.prepare_cached("SELECT value FROM mobo_meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// Keeps a fact, in place of the one before.
pub(crate) fn set(connection: &Connection, key: &str, value: impl ToSql) -> Result<(), Failure> {
    let sql = "INSERT INTO mobo_meta(key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(sql)?.execute((key, value))?;
    Ok(())
}
