//! Reading: one query for both databases. The gate parses it, the adapters translate it.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::ids::ProjectId;
use crate::schema::{Collection, FieldType, Kind};
use crate::value::Value;

/// A query over one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The project.
    pub project: ProjectId,
    /// The collection.
    pub collection: Arc<Collection>,
    /// The columns to give, in order.
    pub columns: Vec<SelectedColumn>,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// The order; rows that tie follow in the order of their key.
    pub order: Vec<Order>,
    /// At most so many rows.
    pub limit: u64,
    /// Rows to pass over first.
    pub offset: u64,
    /// True: count all rows that the filters let through, too.
    pub count: bool,
}

/// A column of a collection's table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Its name in SQL.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnType {
    /// The record's key, or the device of a sample as hex.
    Key,
    /// A declared field.
    Field(FieldType),
}

/// A column that is given, under a name of the caller's choice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelectedColumn {
    /// The column.
    pub column: Column,
    /// Its name in the answer.
    pub alias: String,
}

/// A condition on one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// The column.
    pub column: Column,
    /// How it is compared.
    pub op: FilterOp,
    /// True: the opposite holds.
    pub negated: bool,
}

/// How a column is compared. NULL compares with nothing, as in SQL.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterOp {
    /// Equal.
    Eq(Value),
    /// Not equal.
    Neq(Value),
    /// Greater.
    Gt(Value),
    /// Greater or equal.
    Gte(Value),
    /// Less.
    Lt(Value),
    /// Less or equal.
    Lte(Value),
    /// One of these.
    In(Vec<Value>),
    /// Is null.
    IsNull,
}

/// One key of the order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// The column.
    pub column: Column,
    /// True: descending.
    pub descending: bool,
    /// True: rows without a value come first. As in Postgres, the default is `descending`.
    pub nulls_first: bool,
}

/// Rows, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows, by alias.
    pub rows: Vec<Map<String, Json>>,
    /// All rows that the filters let through, where it was asked.
    pub total: Option<u64>,
}

/// The columns that a collection's table shows to readers, in order: `id` and the fields, or `at`, `device` and the fields of a stream.
#[must_use]
pub fn columns(collection: &Collection) -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let mut columns = match collection.kind {
        Kind::Table | Kind::Document => vec![column("id", ColumnType::Key)],
        Kind::Stream => vec![column("at", ColumnType::Field(FieldType::Timestamp)), column("device", ColumnType::Key)],
    };
    columns.extend(collection.live_fields().map(|field| column(&field.name, ColumnType::Field(field.kind))));
    columns
}
