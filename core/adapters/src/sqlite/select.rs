//! Queries over one collection, as SQL. Values are parameters; names are columns of the collection or refused.

use std::fmt::Write as _;

use mobo_core::json;
use mobo_core::query::{self, Column, ColumnType, Filter, FilterOp, Page, Select};
use mobo_core::schema::Kind;
use mobo_core::value::Value;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};
use serde_json::{Map, Value as Json};

use super::columns::{self, Bound};
use super::error::Failure;
use super::table::quoted;

/// The rows that a query asks for. Run it in a snapshot, so that the total fits the rows.
pub(crate) fn select(connection: &Connection, select: &Select) -> Result<Page, Failure> {
    check_columns(select)?;
    let mut parameters = Vec::new();
    let from = from(select, &mut parameters);
    let total = if select.count { Some(count(connection, &from, &parameters)?) } else { None };
    let mut statement = connection.prepare_cached(&format!("{}{from}{}", head(select), order(select)))?;
    bind(&mut statement, &parameters)?;
    statement.raw_bind_parameter(parameters.len() + 1, i64::try_from(select.limit).unwrap_or(i64::MAX))?;
    statement.raw_bind_parameter(parameters.len() + 2, i64::try_from(select.offset).unwrap_or(i64::MAX))?;
    let mut page = Page { rows: Vec::new(), total };
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let mut members = Map::new();
        for (index, column) in select.columns.iter().enumerate() {
            members.insert(column.alias.clone(), json_of(row.get_ref(index)?, &column.column)?);
        }
        page.rows.push(members);
    }
    Ok(page)
}

fn check_columns(select: &Select) -> Result<(), Failure> {
    let known = query::columns(&select.collection);
    let selected = select.columns.iter().map(|selected| &selected.column);
    let filtered = select.filters.iter().map(|filter| &filter.column);
    let mut used = selected.chain(filtered).chain(select.order.iter().map(|order| &order.column));
    match used.find(|column| !known.contains(column)) {
        Some(column) => Err(Failure::refused(format!("\"{}\" has no column \"{}\"", select.collection.name, column.name))),
        None => Ok(()),
    }
}

fn json_of(stored: ValueRef<'_>, column: &Column) -> Result<Json, Failure> {
    let damaged = || Failure::damaged(format!("column \"{}\" holds a value of another type; run a health check", column.name));
    match column.kind {
        ColumnType::Key => Ok(Json::from(stored.as_str().map_err(|_| damaged())?)),
        ColumnType::Field(kind) => Ok(json::value_to_json(&columns::value(stored, kind).ok_or_else(damaged)?, kind)),
    }
}

fn head(select: &Select) -> String {
    let columns: Vec<String> = select.columns.iter().map(|selected| quoted(&selected.column.name)).collect();
    // A query without columns still has rows.
    format!("SELECT {}", if columns.is_empty() { "NULL".to_owned() } else { columns.join(", ") })
}

fn from<'s>(select: &'s Select, parameters: &mut Vec<&'s Value>) -> String {
    let mut sql = format!(" FROM {}", quoted(&select.collection.name));
    for (index, filter) in select.filters.iter().enumerate() {
        sql.push_str(if index == 0 { " WHERE " } else { " AND " });
        condition(&mut sql, filter, parameters);
    }
    sql
}

fn condition<'s>(sql: &mut String, filter: &'s Filter, parameters: &mut Vec<&'s Value>) {
    let column = quoted(&filter.column.name);
    let (operator, value) = match &filter.op {
        FilterOp::Eq(value) => ("=", value),
        FilterOp::Neq(value) => ("<>", value),
        FilterOp::Gt(value) => (">", value),
        FilterOp::Gte(value) => (">=", value),
        FilterOp::Lt(value) => ("<", value),
        FilterOp::Lte(value) => ("<=", value),
        FilterOp::IsNull => {
            let _ = write!(sql, "{column} IS {}NULL", if filter.negated { "NOT " } else { "" });
            return;
        }
        FilterOp::In(values) => {
            let marks: Vec<String> = values.iter().map(|value| mark(parameters, value)).collect();
            let _ = write!(sql, "{column} {}IN ({})", if filter.negated { "NOT " } else { "" }, marks.join(", "));
            return;
        }
    };
    let mark = mark(parameters, value);
    let _ = if filter.negated { write!(sql, "NOT ({column} {operator} {mark})") } else { write!(sql, "{column} {operator} {mark}") };
}

fn mark<'s>(parameters: &mut Vec<&'s Value>, value: &'s Value) -> String {
    parameters.push(value);
    format!("?{}", parameters.len())
}

fn order(select: &Select) -> String {
    let mut keys: Vec<String> = select
        .order
        .iter()
        .map(|order| {
            let direction = if order.descending { "DESC" } else { "ASC" };
            format!("{} {direction} NULLS {}", quoted(&order.column.name), if order.nulls_first { "FIRST" } else { "LAST" })
        })
        .collect();
    let key: &[&str] = match (select.collection.kind, keys.is_empty()) {
        (Kind::Table | Kind::Document, _) => &["id"],
        (Kind::Stream, true) => &["at", "device", "_incarnation", "_lane", "_seq", "_index"],
        (Kind::Stream, false) => &["device", "_incarnation", "_lane", "_seq", "_index"],
    };
    keys.extend(key.iter().map(|column| quoted(column)));
    // The marks of limit and offset follow the numbered ones.
    format!(" ORDER BY {} LIMIT ? OFFSET ?", keys.join(", "))
}

fn count(connection: &Connection, from: &str, parameters: &[&Value]) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached(&format!("SELECT count(*){from}"))?;
    bind(&mut statement, parameters)?;
    let mut rows = statement.raw_query();
    let count = rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()?;
    Ok(count.unwrap_or_default().cast_unsigned())
}

fn bind(statement: &mut CachedStatement<'_>, parameters: &[&Value]) -> Result<(), Failure> {
    for (index, value) in (1..).zip(parameters) {
        statement.raw_bind_parameter(index, Bound(value))?;
    }
    Ok(())
}
