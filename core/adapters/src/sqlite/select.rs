//! Queries over a collection, and over those that are related to it.

use mobo_core::limits;
use mobo_core::query::{Page, Select, Unreadable};
use mobo_core::store::StoreError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, ToSql};

use super::columns;
use super::error::Failure;
use crate::sql::{self, Argument, Dialect};

/// The rows that a query asks for. Run it in a snapshot, so that the total fits the rows.
pub(crate) fn select(connection: &Connection, query: &Select) -> Result<Page, Failure> {
    select_and(connection, query, ("", |_, _| Ok(())))
}

/// The same; `more` are further columns ([`sql::rows_and`]), and what takes them from each row, given the place of the first.
pub(crate) fn select_and(
    connection: &Connection,
    select: &Select,
    (more, mut take): (&str, impl FnMut(&Row<'_>, usize) -> Result<(), Failure>),
) -> Result<Page, Failure> {
    let total = if select.count { Some(count(connection, select)?) } else { None };
    let mut statement = prepare(connection, &sql::rows_and(Dialect::Sqlite, select, more).map_err(Failure::refused)?)?;
    let needed = select.needed();
    let (shown, mut related_bytes) = (select.shown_embeds().count(), 0);
    let mut page = Page { rows: Vec::new(), total };
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(needed.len());
        for (index, column) in needed.iter().enumerate() {
            let damaged = || Failure::damaged(format!("column \"{}\" holds a value of another type; run a health check", column.name));
            values.push(columns::value(row.get_ref(index)?, column.kind.field()).ok_or_else(damaged)?);
        }
        let mut members = select.row(&needed, values).map_err(StoreError::BadValue)?;
        if shown > 0 {
            let cells = (0..shown).map(|n| row.get::<_, String>(needed.len() + n)).collect::<Result<Vec<_>, _>>()?;
            related_bytes += cells.iter().map(String::len).sum::<usize>();
            check_related(related_bytes)?;
            select.embed(&mut members, &cells).map_err(|unreadable| match unreadable {
                Unreadable::Refused(why) => StoreError::BadValue(why).into(),
                Unreadable::Damaged(why) => Failure::damaged(format!("{why}; run a health check")),
            })?;
        }
        // A row without columns holds a NULL.
        take(row, needed.len().max(usize::from(shown == 0)) + shown)?;
        page.rows.push(members);
    }
    Ok(page)
}

fn check_related(bytes: usize) -> Result<(), Failure> {
    if bytes <= limits::EMBEDDED_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::refused(sql::TOO_MUCH_RELATED))
}

fn count(connection: &Connection, select: &Select) -> Result<u64, Failure> {
    let mut statement = prepare(connection, &sql::total(Dialect::Sqlite, select).map_err(Failure::refused)?)?;
    let mut rows = statement.raw_query();
    let count = rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()?;
    Ok(count.unwrap_or_default().cast_unsigned())
}

fn prepare<'c>(connection: &'c Connection, sql: &sql::Statement<'_>) -> Result<CachedStatement<'c>, Failure> {
    let mut statement = connection.prepare_cached(&sql.text)?;
    for (index, argument) in (1..).zip(&sql.arguments) {
        statement.raw_bind_parameter(index, argument)?;
    }
    Ok(statement)
}

impl ToSql for Argument<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Argument::Value(value, _) => columns::bound(value),
            Argument::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Argument::Path(steps) => ToSqlOutput::Owned(rusqlite::types::Value::Text(serde_json::json!(steps).to_string())),
            Argument::Rows(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
        })
    }
}
