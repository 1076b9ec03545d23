//! Collections beside the one that a query is over: records that a declared reference leads to, and records whose reference leads here.
//!
//! They are read in the one statement of the query. Each row comes as an array of cells in the order of [`Select::needed`], with those of its
//! own related collections behind them, so that both databases give the same JSON by the same rules as for the rows of the query itself.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Column, ColumnType, Query, Select, SelectedColumn, columns};
use crate::ids::ProjectId;
use crate::limits;
use crate::rfc3339;
use crate::schema::{Collection, FieldType, Kind, Schema};
use crate::value::Value;

/// A way from one collection, the near one, to another, the far one.
#[derive(Clone, Debug, PartialEq)]
pub struct Related {
    /// The reference: a column of the near collection where it leads to one record, else of the far one.
    pub field: Column,
    /// True: one far record, whose id is in the near one. False: all far records that name the near one.
    pub to_one: bool,
    /// The far collection.
    pub collection: Arc<Collection>,
    /// Its columns that there are for the caller.
    pub columns: Vec<Column>,
}

/// Finds ways between collections, for one caller: what the caller may not read is not there.
pub trait Relations {
    /// All ways from a collection that go by that name: of the far collection, or of the reference that leads to it.
    fn from(&self, near: &Collection, name: &str) -> Vec<Related>;
}

/// All ways from a collection that go by that name, whoever asks.
#[must_use]
pub fn related(schema: &Schema, near: &Collection, name: &str) -> Vec<Related> {
    let column = |field: &crate::schema::Field| Column { name: field.name.clone(), kind: ColumnType::Field(field.kind) };
    let mut ways = Vec::new();
    for field in near.live_fields() {
        let Some(far) = field.references.and_then(|id| schema.get(id)) else { continue };
        if (far.name == name || field.name == name) && far.kind != Kind::Stream {
            let (collection, columns) = (Arc::new(far.clone()), columns(far));
            ways.push(Related { field: column(field), to_one: true, collection, columns });
        }
    }
    let Some(far) = schema.by_name(name).filter(|_| near.kind != Kind::Stream) else { return ways };
    for field in far.live_fields().filter(|field| field.references == Some(near.id)) {
        ways.push(Related { field: column(field), to_one: false, collection: Arc::new(far.clone()), columns: columns(far) });
    }
    ways
}

/// What the rows of the query must have of a related collection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Presence {
    /// Nothing: they are given with or without.
    #[default]
    Any,
    /// At least one row (`!inner`, `name=not.is.null`).
    Some,
    /// None (`name=is.null`).
    None,
}

/// A related collection in a select list, as it was parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The name in the answer.
    pub alias: String,
    /// The name that was written.
    pub name: String,
    /// The way there.
    pub related: Related,
    /// What the rows must have of it.
    pub presence: Presence,
    /// True: the members of the one record stand among those of the row (`...name(…)`).
    pub spread: bool,
    /// What is asked of it; nothing is shown where it selects neither columns nor further collections.
    pub query: Query,
}

/// A related collection in a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    /// The name in the answer.
    pub alias: String,
    /// The reference: a column of the near collection where `to_one`, else of the far one.
    pub field: Column,
    /// True: one record or null; false: an array.
    pub to_one: bool,
    /// What the rows must have of it.
    pub presence: Presence,
    /// True: the members of the one record stand among those of the row.
    pub spread: bool,
    /// What is given of the far collection, for each near row.
    pub select: Select,
}

impl Embed {
    /// True when something of it stands in the answer.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.select.columns.is_empty() || self.select.embeds.iter().any(Self::is_shown)
    }

    /// The names that it has in a row of the answer.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match (self.is_shown(), self.spread) {
            (false, _) => Vec::new(),
            (true, false) => vec![&self.alias],
            (true, true) => self.select.names(),
        }
    }
}

impl Query {
    /// The related collections as a query has them.
    #[must_use]
    pub fn related(&self, project: ProjectId) -> Vec<Embed> {
        self.embeds.iter().map(|embedded| embedded.embed(project)).collect()
    }
}

impl Embedded {
    /// The names that it has in a row of the answer.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        if !self.spread {
            return if self.is_shown() { vec![&self.alias] } else { Vec::new() };
        }
        let columns: Vec<&str> = match &self.query.select {
            Some(columns) => columns.iter().map(|column| column.alias.as_str()).collect(),
            None => self.related.columns.iter().map(|column| column.name.as_str()).collect(),
        };
        columns.into_iter().chain(self.query.embeds.iter().flat_map(Self::names)).collect()
    }

    fn is_shown(&self) -> bool {
        self.query.select.as_ref().is_none_or(|columns| !columns.is_empty()) || self.query.embeds.iter().any(Self::is_shown)
    }

    fn embed(&self, project: ProjectId) -> Embed {
        let Self { related, query, .. } = self;
        let all = || related.columns.iter().cloned().map(SelectedColumn::from).collect();
        Embed {
            alias: self.alias.clone(),
            field: related.field.clone(),
            to_one: related.to_one,
            presence: self.presence,
            spread: self.spread,
            select: Select {
                project,
                collection: Arc::clone(&related.collection),
                columns: query.select.clone().unwrap_or_else(all),
                filter: query.filter.clone(),
                order: query.order.clone(),
                limit: if related.to_one { 1 } else { query.limit.unwrap_or(limits::ROWS_MAX).min(limits::ROWS_MAX) },
                offset: if related.to_one { 0 } else { query.offset.unwrap_or(0) },
                count: false,
                embeds: query.embeds.iter().map(|inner| inner.embed(project)).collect(),
            },
        }
    }
}

/// Why the cells of a related collection cannot be given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// A value cannot be turned into the type that was asked for.
    Refused(String),
    /// A cell holds what is never written there.
    Damaged(String),
}

impl Select {
    /// The names of a row's members in the answer, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.alias.as_str()).chain(self.embeds.iter().flat_map(Embed::names)).collect()
    }

    /// The related collections whose cells are read, in order.
    pub fn shown_embeds(&self) -> impl Iterator<Item = &Embed> {
        self.embeds.iter().filter(|embed| embed.is_shown())
    }

    /// Puts what the database gave of the [`shown_embeds`](Self::shown_embeds) into a row of the answer.
    ///
    /// # Errors
    ///
    /// As [`Unreadable`] says.
    pub fn embed(&self, row: &mut Map<String, Json>, cells: &[String]) -> Result<(), Unreadable> {
        for (embed, cell) in self.shown_embeds().zip(cells) {
            let cell = serde_json::from_str(cell).map_err(|error| Unreadable::Damaged(format!("\"{}\": {error}", embed.alias)))?;
            put(embed, row, cell)?;
        }
        Ok(())
    }

    /// A row, given its cells.
    fn of_cells(&self, cell: Json) -> Result<Map<String, Json>, Unreadable> {
        let Json::Array(cells) = cell else { return Err(Unreadable::Damaged("a row is no array".to_owned())) };
        let mut cells = cells.into_iter();
        let needed = self.needed();
        let mut values = Vec::with_capacity(needed.len());
        for column in &needed {
            let value = cells.next().and_then(|cell| value(cell, column.kind.field()));
            values.push(value.ok_or_else(|| Unreadable::Damaged(format!("column \"{}\" holds a value of another type", column.name)))?);
        }
        let mut row = self.row(&needed, values).map_err(Unreadable::Refused)?;
        for embed in self.shown_embeds() {
            put(embed, &mut row, cells.next().unwrap_or_default())?;
        }
        Ok(row)
    }
}

fn put(embed: &Embed, row: &mut Map<String, Json>, cell: Json) -> Result<(), Unreadable> {
    if embed.spread {
        let found = if cell.is_null() { None } else { Some(embed.select.of_cells(cell)?) };
        let member = |name: &str| found.as_ref().and_then(|found| found.get(name)).cloned().unwrap_or_default();
        row.extend(embed.select.names().into_iter().map(|name| (name.to_owned(), member(name))));
        return Ok(());
    }
    let shown = match cell {
        Json::Null if embed.to_one => Json::Null,
        cell if embed.to_one => Json::Object(embed.select.of_cells(cell)?),
        Json::Array(rows) => {
            let rows = rows.into_iter().map(|row| embed.select.of_cells(row).map(Json::Object));
            Json::Array(rows.collect::<Result<_, _>>()?)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            return Err(Unreadable::Damaged(format!("\"{}\" is no list", embed.alias)));
        }
    };
    row.insert(embed.alias.clone(), shown);
    Ok(())
}

/// The value of a cell: as JSON has it, but bytes as hex, JSON as its text, and a time as its text or as microseconds since 1970.
fn value(cell: Json, kind: FieldType) -> Option<Value> {
    match (kind, cell) {
        (_, Json::Null) => Some(Value::Null),
        (FieldType::Bool, Json::Bool(flag)) => Some(Value::Bool(flag)),
        (FieldType::Bool, Json::Number(number)) => {
            number.as_i64().filter(|number| (0..=1).contains(number)).map(|number| Value::Bool(number == 1))
        }
        (FieldType::Int | FieldType::Counter, Json::Number(number)) => number.as_i64().map(Value::Int),
        (FieldType::Float, Json::Number(number)) => number.as_f64().and_then(Value::float),
        (FieldType::Text, Json::String(text)) => Some(Value::Text(text)),
        (FieldType::Timestamp, Json::Number(number)) => number.as_i64().and_then(Value::timestamp),
        (FieldType::Timestamp, Json::String(text)) => rfc3339::parse(&text).filter(|us| rfc3339::format(*us) == text).map(Value::Timestamp),
        (FieldType::Bytes, Json::String(text)) => bytes(&text).map(Value::Bytes),
        (FieldType::Json | FieldType::List, Json::String(text)) => {
            let json: Json = serde_json::from_str(&text).ok()?;
            serde_json_canonicalizer::to_string(&json).ok().map(Value::Json)
        }
        _ => None,
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}
