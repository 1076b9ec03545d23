//! Statements of the small tables, as Postgres reads them.

use mobo_adapters::desk::{Desk, Done, Outcome, Statement};
use mobo_core::store::StoreFuture;
use mobo_core::store::transfer::Cell;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo};

use super::PostgresHubStore;
use super::error::Failure;
use super::session::{Purpose, Tx};

impl Desk for PostgresHubStore {
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let mut done = Vec::with_capacity(statements.len());
            for (at, statement) in statements.iter().enumerate() {
                match run(&mut tx, statement).await {
                    Ok(step) if statement.must && step.changed == 0 => {
                        tx.rollback().await?;
                        return Ok(Outcome::Missed(at));
                    }
                    Ok(step) => done.push(step),
                    Err(failure) => return Ok(tx.finish(Err(failure)).await?),
                }
            }
            Ok(tx.finish(Ok(Outcome::Done(done))).await?)
        })
    }
}

/// Runs one statement.
async fn run(tx: &mut Tx, statement: &Statement) -> Result<Done, Failure> {
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
