//! Statements of the small tables, as SQLite reads them.

use rusqlite::{Connection, params_from_iter};

use super::transfer::{Bound, cell};
use crate::desk::{Done, Statement};
use crate::sqlite::error::Failure;

/// Runs one statement.
pub(super) fn run(connection: &Connection, statement: &Statement) -> Result<Done, Failure> {
    let mut prepared = connection.prepare_cached(&statement.sql.replace('$', "?"))?;
    let cells = params_from_iter(statement.cells.iter().map(Bound));
    let columns = prepared.column_count();
    if columns == 0 {
        return Ok(Done { rows: Vec::new(), changed: prepared.execute(cells)? as u64 });
    }
    let mut found = prepared.query(cells)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..columns).map(|column| cell(row.get_ref(column)?)).collect::<Result<Vec<_>, Failure>>()?);
    }
    Ok(Done { changed: rows.len() as u64, rows })
}
