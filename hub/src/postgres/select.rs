//! Queries over a collection, and over those that are related to it.

use mobo_adapters::sql::{self, Argument, Dialect};
use mobo_core::limits;
use mobo_core::query::{Page, Select, Unreadable};
use mobo_core::store::StoreError;
use serde_json::{Map, Value as Json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::cells;
use super::error::Failure;
use super::session::{Statement, Tx};

/// The rows, and how many there are in all where it is asked.
pub(super) async fn select(tx: &mut Tx, query: &Select) -> Result<Page, Failure> {
    select_and(tx, query, ("", |_, _| Ok(()))).await
}

/// The same; `more` are further columns ([`sql::rows_and`]), and what takes them from each row, given the place of the first.
pub(super) async fn select_and(
    tx: &mut Tx,
    select: &Select,
    (more, take): (&str, impl FnMut(&PgRow, usize) -> Result<(), Failure>),
) -> Result<Page, Failure> {
    let total = if select.count {
        let row = tx.row(statement(sql::total(Dialect::Postgres, select).map_err(Failure::refused)?)?).await?;
        row.map(|row| row.try_get::<i64, _>(0)).transpose()?.map(i64::cast_unsigned)
    } else {
        None
    };
    let shown = select.shown_embeds().count();
    let first = select.needed().len();
    let mut related_bytes = 0;
    let fits = |row: &PgRow| {
        for n in first..first + shown {
            related_bytes += row.try_get_raw(n)?.as_bytes().map_or(0, <[u8]>::len);
        }
        if related_bytes > limits::EMBEDDED_BYTES_MAX { Err(Failure::refused(sql::TOO_MUCH_RELATED)) } else { Ok(()) }
    };
    let rows = rows(select, more)?;
    // Nobody collects more than an answer holds.
    let found = if shown > 0 { tx.rows_while(rows, fits).await? } else { tx.rows(rows).await? };
    Ok(Page { rows: read(select, &found, take)?, total })
}

/// The statement that gives the rows, and behind their columns these.
pub(super) fn rows(select: &Select, more: &str) -> Result<Statement<'static>, Failure> {
    statement(sql::rows_and(Dialect::Postgres, select, more).map_err(Failure::refused)?)
}

/// The rows as readers see them; `take` gets each of them, with the place of the first column that is none of theirs.
pub(super) fn read(
    select: &Select,
    found: &[PgRow],
    mut take: impl FnMut(&PgRow, usize) -> Result<(), Failure>,
) -> Result<Vec<Map<String, Json>>, Failure> {
    let (needed, shown) = (select.needed(), select.shown_embeds().count());
    let first = needed.len();
    let mut rows = Vec::with_capacity(found.len());
    for row in found {
        let mut values = Vec::with_capacity(needed.len());
        for (index, column) in needed.iter().enumerate() {
            let kind = column.kind.field();
            let value = cells::value(row, index, kind)?;
            values.push(value.ok_or_else(|| Failure::damaged(format!("column \"{}\" holds no {}", column.name, kind.name())))?);
        }
        let mut members = select.row(&needed, values).map_err(StoreError::BadValue)?;
        if shown > 0 {
            let cells = (first..first + shown).map(|n| row.try_get::<String, _>(n)).collect::<Result<Vec<_>, _>>()?;
            select.embed(&mut members, &cells).map_err(|unreadable| match unreadable {
                Unreadable::Refused(why) => StoreError::BadValue(why).into(),
                Unreadable::Damaged(why) => Failure::damaged(why),
            })?;
        }
        // A row without columns holds a NULL.
        take(row, first.max(usize::from(shown == 0)) + shown)?;
        rows.push(members);
    }
    Ok(rows)
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
