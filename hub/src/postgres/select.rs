//! Queries over one collection.

use mobo_adapters::sql::{self, Argument, Dialect};
use mobo_core::query::{Page, Select};
use sqlx::{AssertSqlSafe, Row};

use super::cells;
use super::error::Failure;
use super::session::{Statement, Tx};

/// The rows, and how many there are in all where it is asked.
pub(super) async fn select(tx: &mut Tx, select: &Select) -> Result<Page, Failure> {
    let total = if select.count {
        let row = tx.row(statement(sql::total(Dialect::Postgres, select).map_err(Failure::refused)?)?).await?;
        row.map(|row| row.try_get::<i64, _>(0)).transpose()?.map(i64::cast_unsigned)
    } else {
        None
    };
    let found = tx.rows(statement(sql::rows(Dialect::Postgres, select).map_err(Failure::refused)?)?).await?;
    let needed = select.needed();
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let mut values = Vec::with_capacity(needed.len());
        for (index, column) in needed.iter().enumerate() {
            let kind = column.kind.field();
            let value = cells::value(row, index, kind)?;
            values.push(value.ok_or_else(|| Failure::damaged(format!("column \"{}\" holds no {}", column.name, kind.name())))?);
        }
        rows.push(select.row(&needed, values).map_err(Failure::refused)?);
    }
    Ok(Page { rows, total })
}

fn statement(sql: sql::Statement<'_>) -> Result<Statement<'static>, Failure> {
    // Safe: nothing that a caller wrote is in the text (`mobo_adapters::sql`).
    let mut statement = sqlx::query(AssertSqlSafe(sql.text));
    for argument in sql.arguments {
        statement = match argument {
            Argument::Value(value, kind) => cells::bind_value(statement, value, kind)
                .ok_or_else(|| Failure::refused(format!("a column of type {} is compared with another type", kind.name())))?,
            Argument::Text(text) => statement.bind(text.to_owned()),
            Argument::Path(steps) => statement.bind(steps.to_vec()),
            Argument::Rows(number) => statement.bind(number),
        };
    }
    Ok(statement)
}
