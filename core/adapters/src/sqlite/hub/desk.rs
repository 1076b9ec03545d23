//! Statements of the small tables, as SQLite reads them.

use mobo_core::store::transfer::Cell;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use crate::desk::{Done, Statement};
use crate::sqlite::error::Failure;

struct Given<'a>(&'a Cell);

impl ToSql for Given<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Runs one statement.
pub(super) fn run(connection: &Connection, statement: &Statement) -> Result<Done, Failure> {
    let mut prepared = connection.prepare_cached(&statement.sql.replace('$', "?"))?;
    let cells = params_from_iter(statement.cells.iter().map(Given));
    let columns = prepared.column_count();
    if columns == 0 {
        return Ok(Done { rows: Vec::new(), changed: prepared.execute(cells)? as u64 });
    }
    let mut found = prepared.query(cells)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..columns).map(|column| Ok(cell(row.get_ref(column)?))).collect::<Result<Vec<_>, Failure>>()?);
    }
    Ok(Done { changed: rows.len() as u64, rows })
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
    }
}
