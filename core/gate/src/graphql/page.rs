//! Queries: pages of a collection, in the shape of Relay's connections.

use std::sync::Arc;

use async_graphql::dynamic::{FieldFuture, FieldValue, ResolverContext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mobo_core::limits;
use mobo_core::query::{Column, ColumnType, Order, Page, Select, SelectedColumn};
use mobo_core::rights::Action;
use mobo_core::schema::Kind;
use serde_json::{Map, Value as Json, json};

use super::values::{Filters, order};
use super::{Caller, Table, arguments, failed};
use crate::problem::Problem;
use crate::rest::cursor;

/// Rows of a page that names no number.
const ROWS: u64 = 30;

/// A row, under the names of its columns.
pub(super) type Row = Arc<Map<String, Json>>;

/// A page.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) edges: Vec<Edge>,
    pub(super) info: PageInfo,
    pub(super) total: Option<u64>,
}

/// A row with its place.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) cursor: String,
    pub(super) row: Row,
}

/// What is around a page.
#[derive(Clone, Debug)]
pub(super) struct PageInfo {
    pub(super) next: bool,
    pub(super) previous: bool,
    pub(super) start: Option<String>,
    pub(super) end: Option<String>,
}

/// Resolves `todosCollection`.
pub(super) fn resolve<'a>(table: &Arc<Table>, ctx: ResolverContext<'a>) -> FieldFuture<'a> {
    let table = Arc::clone(table);
    FieldFuture::new(async move {
        let counts = ctx.look_ahead().field("totalCount").exists();
        let caller = ctx.data::<Caller>()?;
        let _turn = caller.turn((&table.collection.name, Action::Read)).await.map_err(failed)?;
        let connection = connection(caller, &table, (&arguments(&ctx), counts)).await.map_err(failed)?;
        Ok(Some(FieldValue::owned_any(connection)))
    })
}

async fn connection(caller: &Caller, table: &Table, (given, counts): (&Map<String, Json>, bool)) -> Result<Connection, Problem> {
    let number = |name: &str| match given.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| Problem::parse(format!("{name} is a number from 0"))),
    };
    let cursor_of = |name: &str| given.get(name).and_then(Json::as_str);
    let (first, last, offset) = (number("first")?, number("last")?, number("offset")?.unwrap_or_default());
    let (after, before) = (cursor_of("after"), cursor_of("before"));
    if first.is_some() && last.is_some() {
        return Err(Problem::parse("give first or last, not both"));
    }
    if offset > 0 && (last.is_some() || before.is_some()) {
        return Err(Problem::parse("offset goes with first and after"));
    }
    let is_stream = table.collection.kind == Kind::Stream;
    if is_stream && (after.is_some() || before.is_some() || last.is_some()) {
        let hint = "use first with offset, orderBy at, or a filter on at";
        return Err(Problem::unsupported("last and the cursors of samples").hint(hint));
    }
    let limit = first.or(last).unwrap_or(ROWS).min(limits::ROWS_MAX);
    let backwards = last.is_some() || (before.is_some() && first.is_none());
    let total = table.total(order(&table.columns, given.get("orderBy"))?);
    let own = Filters::of(&table.columns).read(given.get("filter"))?;
    let mut filter = own.clone();
    for (cursor, is_after) in [(after, true), (before, false)] {
        if let Some(cursor) = cursor {
            let place = cursor::place(cursor, &total)?;
            filter = filter.and(cursor::beyond(&place, &if is_after { total.clone() } else { reversed(&total) }));
        }
    }
    let order = if backwards { reversed(&total) } else { total.clone() };
    let columns = table.shown(caller, Action::Read)?;
    let selected = columns.into_iter().map(SelectedColumn::from).chain(cursor::columns(&total)).collect();
    let select = Select { columns: selected, filter, order, limit: limit + 1, offset, ..table.select(caller) };
    let mut rows = caller.guard.select(select).await?.rows;
    let has_more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if backwards {
        rows.reverse();
    }
    let edge = |mut row: Map<String, Json>| {
        let cursor = cursor::take(std::slice::from_mut(&mut row), &total).unwrap_or_default();
        Edge { cursor, row: Arc::new(row) }
    };
    let edges: Vec<Edge> = rows.into_iter().map(edge).collect();
    let info = PageInfo {
        next: if backwards { before.is_some() } else { has_more },
        previous: if backwards { has_more } else { after.is_some() || offset > 0 },
        start: edges.first().map(|edge| edge.cursor.clone()),
        end: edges.last().map(|edge| edge.cursor.clone()),
    };
    let total = match counts {
        false => None,
        true => {
            let select = Select { columns: Vec::new(), filter: own, limit: 0, count: true, ..table.select(caller) };
            let Page { total, .. } = caller.guard.select(select).await?;
            total
        }
    };
    Ok(Connection { edges, info, total })
}

/// From the end to the beginning.
fn reversed(order: &[Order]) -> Vec<Order> {
    let reverse = |order: &Order| Order { descending: !order.descending, nulls_first: !order.nulls_first, ..order.clone() };
    order.iter().map(reverse).collect()
}

/// The id of a row among the rows of all collections.
pub(super) fn node_id(table: &Table, row: &Map<String, Json>) -> String {
    STANDARD.encode(json!(["public", table.collection.name, row.get("id")]).to_string())
}

impl Table {
    /// The column that tells rows apart.
    pub(super) fn key(&self) -> Column {
        let name = if self.collection.kind == Kind::Stream { "device" } else { "id" };
        Column { name: name.to_owned(), kind: ColumnType::Key }
    }

    /// The order in which no two records are the same; samples follow each other in time.
    fn total(&self, order: Vec<Order>) -> Vec<Order> {
        let ascending = |name: &str| {
            let (_, column) = self.columns.iter().find(|(_, column)| column.name == name)?;
            Some(Order { operand: column.clone().into(), through: None, descending: false, nulls_first: false })
        };
        match self.collection.kind {
            Kind::Table | Kind::Document => cursor::total(&order, &self.key()),
            Kind::Stream if order.is_empty() => ascending("at").into_iter().collect(),
            Kind::Stream => order,
        }
    }

    /// The columns that there are for this caller.
    pub(super) fn shown(&self, caller: &Caller, action: Action) -> Result<Vec<Column>, Problem> {
        Ok(caller.guard.granted(&self.collection, action)?.columns(&self.collection))
    }

    /// A query for everything, to be narrowed.
    pub(super) fn select(&self, caller: &Caller) -> Select {
        Select::all(caller.gate.backend().project(), Arc::clone(&self.collection))
    }
}
