//! A query over one collection as SQL.
//!
//! Text compares by its bytes, rows that tie follow in the order of their key, and values become JSON in the one way of
//! `mobo_core::json`: SQLite answers the same, byte for byte.

use mobo_core::json::value_to_json;
use mobo_core::query::{self, Column, ColumnType, Filter, FilterOp, Order, Page, Select};
use mobo_core::schema::{FieldType, Kind};
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::cells;
use super::error::Failure;
use super::session::{Statement, Tx};
use super::table::{quoted, table};

/// The rows, and how many there are in all where it is asked.
pub(super) async fn select(tx: &mut Tx, select: &Select) -> Result<Page, Failure> {
    check_columns(select)?;
    let mut conditions = Conditions::default();
    for filter in &select.filters {
        conditions.add(filter)?;
    }
    let (from, condition) = (table(&select.collection), conditions.sql());
    let total = if select.count {
        let sql = format!("SELECT count(*) FROM {from}{condition}");
        let row = tx.row(conditions.bind(&sql)?).await?;
        row.map(|row| row.try_get::<i64, _>(0)).transpose()?.map(i64::cast_unsigned)
    } else {
        None
    };
    let columns: Vec<String> = select.columns.iter().map(|selected| quoted(&selected.column.name)).collect();
    // A row without columns is a row all the same.
    let columns = if columns.is_empty() { "NULL".to_owned() } else { columns.join(", ") };
    let order = order(select)?;
    let (limit, offset) = (i64::try_from(select.limit).unwrap_or(i64::MAX), i64::try_from(select.offset).unwrap_or(i64::MAX));
    let sql = format!("SELECT {columns} FROM {from}{condition} ORDER BY {order} LIMIT {limit} OFFSET {offset}");
    let rows = tx.rows(conditions.bind(&sql)?).await?;
    let rows = rows.iter().map(|row| render(row, select)).collect::<Result<_, _>>()?;
    Ok(Page { rows, total })
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

fn render(row: &PgRow, select: &Select) -> Result<Map<String, Json>, Failure> {
    let mut object = Map::new();
    for (index, selected) in select.columns.iter().enumerate() {
        let json = match selected.column.kind {
            ColumnType::Key => Json::from(row.try_get::<String, _>(index)?),
            ColumnType::Field(kind) => match cells::value(row, index, kind)? {
                Some(value) => value_to_json(&value, kind),
                None => return Err(Failure::damaged(format!("column \"{}\" holds no {}", selected.column.name, kind.name()))),
            },
        };
        object.insert(selected.alias.clone(), json);
    }
    Ok(object)
}

/// Conditions with their arguments, in order.
#[derive(Default)]
struct Conditions<'q> {
    parts: Vec<String>,
    arguments: Vec<(&'q Value, ColumnType)>,
}

impl<'q> Conditions<'q> {
    fn add(&mut self, filter: &'q Filter) -> Result<(), Failure> {
        let column = &filter.column;
        let condition = match &filter.op {
            FilterOp::IsNull => format!("{} IS NULL", quoted(&column.name)),
            FilterOp::In(values) => {
                let places: Vec<String> = values.iter().map(|value| self.argument(column, value)).collect();
                // No value is none of nothing.
                if places.is_empty() { "false".to_owned() } else { format!("{} IN ({})", quoted(&column.name), places.join(", ")) }
            }
            FilterOp::Eq(value) => self.compare(column, "=", value),
            FilterOp::Neq(value) => self.compare(column, "<>", value),
            FilterOp::Gt(value) => self.compare(ordered(column)?, ">", value),
            FilterOp::Gte(value) => self.compare(ordered(column)?, ">=", value),
            FilterOp::Lt(value) => self.compare(ordered(column)?, "<", value),
            FilterOp::Lte(value) => self.compare(ordered(column)?, "<=", value),
        };
        self.parts.push(if filter.negated { format!("NOT ({condition})") } else { format!("({condition})") });
        Ok(())
    }

    fn compare(&mut self, column: &Column, operator: &str, value: &'q Value) -> String {
        let place = self.argument(column, value);
        format!("{} {operator} {place}", quoted(&column.name))
    }

    fn argument(&mut self, column: &Column, value: &'q Value) -> String {
        if *value == Value::Null {
            return "NULL".to_owned();
        }
        self.arguments.push((value, column.kind));
        let cast = match column.kind {
            ColumnType::Field(FieldType::Json | FieldType::List) => "::text::jsonb",
            ColumnType::Key | ColumnType::Field(_) => "",
        };
        format!("${}{cast}", self.arguments.len())
    }

    fn sql(&self) -> String {
        if self.parts.is_empty() { String::new() } else { format!(" WHERE {}", self.parts.join(" AND ")) }
    }

    fn bind(&self, sql: &str) -> Result<Statement<'static>, Failure> {
        let mut statement = sqlx::query(AssertSqlSafe(sql.to_owned()));
        for (value, kind) in &self.arguments {
            let kind = match kind {
                ColumnType::Key => FieldType::Text,
                ColumnType::Field(kind) => *kind,
            };
            statement = cells::bind_value(statement, value, kind)
                .ok_or_else(|| Failure::refused(format!("a column of type {} is compared with another type", kind.name())))?;
        }
        Ok(statement)
    }
}

/// A column whose values have an order that both databases share.
fn ordered(column: &Column) -> Result<&Column, Failure> {
    match column.kind {
        ColumnType::Field(kind @ (FieldType::Json | FieldType::List)) => {
            Err(Failure::refused(format!("\"{}\" is {}, which has no order: compare or sort by another column", column.name, kind.name())))
        }
        ColumnType::Key | ColumnType::Field(_) => Ok(column),
    }
}

fn order(select: &Select) -> Result<String, Failure> {
    let key = |Order { column, descending, nulls_first }: &Order| {
        let (direction, nulls) = (if *descending { "DESC" } else { "ASC" }, if *nulls_first { "FIRST" } else { "LAST" });
        Ok(format!("{} {direction} NULLS {nulls}", quoted(&ordered(column)?.name)))
    };
    let mut keys = select.order.iter().map(key).collect::<Result<Vec<_>, Failure>>()?;
    match select.collection.kind {
        Kind::Table | Kind::Document => keys.push("id".to_owned()),
        Kind::Stream => {
            if keys.is_empty() {
                keys.push("at".to_owned());
            }
            keys.push("device, _incarnation, _lane, _seq, _index".to_owned());
        }
    }
    Ok(keys.join(", "))
}
