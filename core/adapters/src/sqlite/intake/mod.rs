//! What a device and a hub on SQLite share for SQL of other programs: the triggers that note it, and the way through what they noted.

pub(crate) mod scan;
mod triggers;

use mobo_core::schema::{Collection, Kind};
use rusqlite::{Connection, OptionalExtension};

use super::error::Failure;
pub(crate) use triggers::{before, install, remove};

/// Opens the tables to other programs, where they are not yet: once, after an upgrade.
pub(crate) fn prepare<'c>(conn: &Connection, collections: impl Iterator<Item = &'c Collection>) -> Result<(), Failure> {
    let mut due = Vec::new();
    for collection in collections.filter(|collection| collection.kind == Kind::Table) {
        if !triggers::is_installed(conn, collection)? {
            due.push(collection);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let done: Result<(), Failure> = due.into_iter().try_for_each(|collection| install(conn, collection));
    conn.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done
}

/// True if something waits.
pub(crate) fn waits(conn: &Connection) -> Result<bool, Failure> {
    Ok(conn.prepare_cached("SELECT 1 FROM mobo_intake LIMIT 1")?.query_row([], |_| Ok(())).optional()?.is_some())
}
