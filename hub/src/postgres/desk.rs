//! Statements of the small tables, as Postgres reads them.

use mobo_adapters::desk::{Done, Statement};
use mobo_core::store::transfer::Cell;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo};

use super::error::Failure;
use super::session::Tx;

/// Runs one statement.
pub(super) async fn run(tx: &mut Tx, statement: &Statement) -> Result<Done, Failure> {
    // The text is ours: `Statement` holds nothing else.
    // A statement that is kept prepared keeps the types of its first cells, and nothing tells the type of a null.
    let is_kept = !statement.cells.contains(&Cell::Null);
    let mut query = sqlx::query(AssertSqlSafe(statement.sql.replace("mobo_", "mobo."))).persistent(is_kept);
    for cell in &statement.cells {
        query = match cell {
            Cell::Null => query.bind(None::<String>),
            Cell::Int(number) => query.bind(*number),
            Cell::Real(number) => query.bind(*number),
            Cell::Text(text) => query.bind(text.clone()),
            Cell::Bytes(bytes) => query.bind(bytes.clone()),
        };
    }
    let gives = statement.sql.starts_with("SELECT") || statement.sql.contains("RETURNING");
    if !gives {
        return Ok(Done { rows: Vec::new(), changed: tx.run(query).await? });
    }
    let rows = tx.rows(query).await?.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
    Ok(Done { changed: rows.len() as u64, rows })
}

fn cells(row: &PgRow) -> Result<Vec<Cell>, Failure> {
    let cell = |(n, column): (usize, &sqlx::postgres::PgColumn)| {
        Ok(match column.type_info().name() {
            "INT8" => row.try_get::<Option<i64>, _>(n)?.map_or(Cell::Null, Cell::Int),
            "BYTEA" => row.try_get::<Option<Vec<u8>>, _>(n)?.map_or(Cell::Null, Cell::Bytes),
            "TEXT" => row.try_get::<Option<String>, _>(n)?.map_or(Cell::Null, Cell::Text),
            other => return Err(Failure::damaged(format!("the column {} is a {other}", column.name()))),
        })
    };
    row.columns().iter().enumerate().map(cell).collect()
}
