//! Reading: one query for both databases. The text of it is parsed here, the adapters translate it, and what a row looks like to its
//! reader is made here again, so that no database decides it.
//!
//! The same [`Filter`] is the condition of a policy and of a subscription: [`Filter::holds`] decides it on one row, as SQL would.

mod cast;
mod filter;
mod parse;
mod path;
mod pattern;
mod regex;
mod related;

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

pub use cast::Cast;
pub use filter::{Condition, Filter, Op, Row};
pub use parse::{Parser, Query, QueryError, Reason, Variables, read_value};
pub use path::{contains, follow, jsonb_order, jsonb_text};
pub use pattern::like;
pub use regex::{Regex, RegexError};
pub use related::{Embed, Embedded, Presence, Related, Relations, Unreadable, related};

use crate::ids::ProjectId;
use crate::json::value_to_json;
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
    /// Which rows.
    pub filter: Filter,
    /// The order; rows that tie follow in the order of their key.
    pub order: Vec<Order>,
    /// At most so many rows.
    pub limit: u64,
    /// Rows to pass over first.
    pub offset: u64,
    /// True: count all rows that the filter lets through, too.
    pub count: bool,
    /// Related collections, read with each row.
    pub embeds: Vec<Embed>,
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

impl ColumnType {
    /// The type of its values: a key is text.
    #[must_use]
    pub const fn field(self) -> FieldType {
        match self {
            Self::Key => FieldType::Text,
            Self::Field(kind) => kind,
        }
    }
}

/// A column, or something inside of a column that holds JSON.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operand {
    /// The column.
    pub column: Column,
    /// The names and indexes that lead into it; empty for the whole column.
    pub path: Vec<String>,
    /// True: what is found is text (`->>`), not JSON (`->`).
    pub text: bool,
}

impl Operand {
    /// What its values are.
    #[must_use]
    pub fn kind(&self) -> FieldType {
        match (self.path.is_empty(), self.text) {
            (true, _) => self.column.kind.field(),
            (false, true) => FieldType::Text,
            (false, false) => FieldType::Json,
        }
    }

    /// Its value, given that of its column.
    #[must_use]
    pub fn of(&self, column: Value) -> Value {
        if self.path.is_empty() {
            return column;
        }
        let Value::Json(text) = column else { return Value::Null };
        let found = serde_json::from_str::<Json>(&text).ok().and_then(|json| follow(&json, &self.path).cloned());
        match found {
            None => Value::Null,
            Some(Json::Null) if self.text => Value::Null,
            Some(Json::String(text)) if self.text => Value::Text(text),
            Some(json) if self.text => Value::Text(jsonb_text(&json)),
            Some(json) => serde_json_canonicalizer::to_string(&json).map_or(Value::Null, Value::Json),
        }
    }
}

impl From<Column> for Operand {
    fn from(column: Column) -> Self {
        Self { column, path: Vec::new(), text: false }
    }
}

/// A column that is given, under a name of the caller's choice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelectedColumn {
    /// What is given.
    pub operand: Operand,
    /// The type that it is turned into; `None` leaves it as it is.
    pub cast: Option<Cast>,
    /// Its name in the answer.
    pub alias: String,
}

impl SelectedColumn {
    /// What the reader gets, given the value of its column.
    ///
    /// # Errors
    ///
    /// A sentence, when the value cannot be turned into the type that was asked for.
    pub fn render(&self, column: Value) -> Result<Json, String> {
        let value = self.operand.of(column);
        match self.cast {
            None => Ok(value_to_json(&value, self.operand.kind())),
            Some(cast) => cast.apply(&value, self.operand.kind()),
        }
    }
}

impl From<Column> for SelectedColumn {
    fn from(column: Column) -> Self {
        Self { alias: column.name.clone(), operand: column.into(), cast: None }
    }
}

/// One key of the order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// By what.
    pub operand: Operand,
    /// The related collection whose one record has it, by its place in [`Select::embeds`]; `None` for the row itself.
    pub through: Option<usize>,
    /// True: descending.
    pub descending: bool,
    /// True: rows without a value come first. As in Postgres, the default is `descending`.
    pub nulls_first: bool,
}

impl Order {
    /// How two values follow each other.
    #[must_use]
    pub fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let nulls = |first: bool| if first { Ordering::Less } else { Ordering::Greater };
        match (*a == Value::Null, *b == Value::Null) {
            (true, true) => Ordering::Equal,
            (true, false) => nulls(self.nulls_first),
            (false, true) => nulls(!self.nulls_first),
            (false, false) => {
                let order = filter::order(a, b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
        }
    }
}

/// Rows, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows, by alias.
    pub rows: Vec<Map<String, Json>>,
    /// All rows that the filter lets through, where it was asked.
    pub total: Option<u64>,
}

impl Select {
    /// All columns of a collection, all rows, in the order of their keys.
    #[must_use]
    pub fn all(project: ProjectId, collection: Arc<Collection>) -> Self {
        let columns = columns(&collection).into_iter().map(SelectedColumn::from).collect();
        Self {
            project,
            collection,
            columns,
            filter: Filter::all(),
            order: Vec::new(),
            limit: i64::MAX.unsigned_abs(),
            offset: 0,
            count: false,
            embeds: Vec::new(),
        }
    }

    /// The name of a column that the query uses and the collection does not have.
    #[must_use]
    pub fn foreign_column(&self) -> Option<&str> {
        let mut used: Vec<&Operand> = self.columns.iter().map(|selected| &selected.operand).collect();
        used.extend(self.order.iter().filter(|order| order.through.is_none()).map(|order| &order.operand));
        self.filter.each(&mut |condition| used.push(&condition.operand));
        let own = used
            .into_iter()
            .map(|operand| &operand.column)
            .find(|column| !has(&self.collection, column))
            .map(|column| column.name.as_str());
        own.or_else(|| self.embeds.iter().find_map(|embed| self.foreign_to(embed)))
    }

    fn foreign_to<'s>(&'s self, embed: &'s Embed) -> Option<&'s str> {
        let far = &embed.select.collection;
        let through = self.order.iter().filter(|order| order.through.and_then(|at| self.embeds.get(at)) == Some(embed));
        let ordering = through.map(|order| &order.operand.column).find(|column| !has(far, column));
        let link = Some(&embed.field).filter(|field| !has(if embed.to_one { &self.collection } else { far }, field));
        ordering.or(link).map(|column| column.name.as_str()).or_else(|| embed.select.foreign_column())
    }

    /// The columns that must be read for an answer, each once; [`row`](Self::row) takes their values in this order.
    #[must_use]
    pub fn needed(&self) -> Vec<&Column> {
        let mut needed: Vec<&Column> = Vec::new();
        for selected in &self.columns {
            if !needed.contains(&&selected.operand.column) {
                needed.push(&selected.operand.column);
            }
        }
        needed
    }

    /// A row as its reader gets it, given the values of the [`needed`](Self::needed) columns.
    ///
    /// # Errors
    ///
    /// As [`SelectedColumn::render`].
    pub fn row(&self, needed: &[&Column], values: Vec<Value>) -> Result<Map<String, Json>, String> {
        let mut members = Map::new();
        // The common case: every column once.
        if needed.len() == self.columns.len() {
            for (selected, value) in self.columns.iter().zip(values) {
                members.insert(selected.alias.clone(), selected.render(value)?);
            }
            return Ok(members);
        }
        for selected in &self.columns {
            let at = needed.iter().position(|column| **column == selected.operand.column);
            let value = at.and_then(|at| values.get(at)).cloned().unwrap_or(Value::Null);
            members.insert(selected.alias.clone(), selected.render(value)?);
        }
        Ok(members)
    }
}

/// True for one of the [`columns`] of a collection.
fn has(collection: &Collection, column: &Column) -> bool {
    let name = column.name.as_str();
    let is_own = match collection.kind {
        Kind::Table | Kind::Document => name == "id" && column.kind == ColumnType::Key,
        Kind::Stream => match column.kind {
            ColumnType::Key => name == "device",
            ColumnType::Field(kind) => name == "at" && kind == FieldType::Timestamp,
        },
    };
    is_own || collection.live_fields().any(|field| field.name == name && column.kind == ColumnType::Field(field.kind))
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
