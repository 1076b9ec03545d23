//! Mutations: the same edits as the records API makes, through the same guard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_graphql::dynamic::{FieldFuture, FieldValue, ResolverContext};
use axum::http::StatusCode;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::RecordId;
use mobo_core::limits;
use mobo_core::query::{Filter, Op, Select, SelectedColumn};
use mobo_core::rights::Action;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};

use super::page::Row;
use super::values::{Filters, row};
use super::{Caller, Table, arguments, failed};
use crate::backend::WriteRequest;
use crate::problem::Problem;
use crate::rest::insert;

/// What a mutation does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mutation {
    Insert,
    Update,
    Delete,
}

impl Mutation {
    const fn action(self) -> Action {
        match self {
            Self::Insert => Action::Create,
            Self::Update => Action::Update,
            Self::Delete => Action::Delete,
        }
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) count: usize,
    pub(super) rows: Vec<Row>,
}

/// Resolves a mutation.
pub(super) fn resolve<'a>(table: &Arc<Table>, mutation: Mutation, ctx: ResolverContext<'a>) -> FieldFuture<'a> {
    let table = Arc::clone(table);
    FieldFuture::new(async move {
        let shows = ctx.look_ahead().field("records").exists();
        let caller = ctx.data::<Caller>()?;
        let _turn = caller.turn((&table.collection.name, mutation.action())).await.map_err(failed)?;
        let given = arguments(&ctx);
        let written = match mutation {
            Mutation::Insert => insert_rows(caller, &table, (&given, shows)).await,
            Mutation::Update | Mutation::Delete => change(caller, &table, mutation, (&given, shows)).await,
        };
        Ok(Some(FieldValue::owned_any(written.map_err(failed)?)))
    })
}

async fn insert_rows(caller: &Caller, table: &Table, (given, shows): (&Map<String, Json>, bool)) -> Result<Written, Problem> {
    let objects = given.get("objects").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if objects.len() > limits::ROWS_PER_WRITE_MAX || (shows && objects.len() as u64 > limits::ROWS_MAX) {
        return Err(Problem::too_large(format!("{} objects are too many for one mutation", objects.len())));
    }
    let edit = |object: &Json| insert::edit(row(&table.columns, object)?, Intent::Insert, None);
    let edits = objects.iter().map(edit).collect::<Result<Vec<Edit>, Problem>>()?;
    let ids: Vec<RecordId> = edits.iter().map(|edit| edit.id.clone()).collect();
    write(caller, table, edits).await?;
    let rows = if shows { rows(caller, table, &ids).await? } else { Vec::new() };
    Ok(Written { count: ids.len(), rows })
}

async fn change(
    caller: &Caller,
    table: &Table,
    mutation: Mutation,
    (given, shows): (&Map<String, Json>, bool),
) -> Result<Written, Problem> {
    let most = match given.get("atMost") {
        None | Some(Json::Null) => 1,
        Some(most) => most.as_u64().ok_or_else(|| Problem::parse("atMost is a number from 0"))?,
    };
    let most = most.min(if shows { limits::ROWS_MAX } else { limits::ROWS_PER_WRITE_MAX as u64 });
    let filter = Filters::of(&table.columns).read(given.get("filter"))?;
    let (action, intent) = match mutation {
        Mutation::Delete => (Action::Delete, Intent::Delete),
        Mutation::Insert | Mutation::Update => (Action::Update, Intent::Patch),
    };
    let fields = match given.get("set") {
        Some(set) => row(&table.columns, set)?,
        None => Map::new(),
    };
    let columns = table.shown(caller, Action::Read)?.into_iter().map(SelectedColumn::from).collect();
    let select = Select { columns, filter, limit: most + 1, ..table.select(caller) };
    let before = caller.guard.select_for(select, action).await?.rows;
    if before.len() as u64 > most {
        let message = format!(
            "{} impacts too many records: more than atMost, which is {most}",
            if intent == Intent::Delete { "delete" } else { "update" }
        );
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "PGRST124", "Too many rows", message).hint("give a larger atMost; nothing was written");
        return Err(problem);
    }
    let id = |row: &Map<String, Json>| row.get("id").and_then(Json::as_str).and_then(|id| RecordId::new(id.to_owned()).ok());
    let ids: Vec<RecordId> = before.iter().filter_map(id).collect();
    let edit = |id: &RecordId| Edit { id: id.clone(), intent, fields: fields.clone() };
    let is_empty = intent == Intent::Patch && fields.is_empty();
    let changed = write(caller, table, if is_empty { Vec::new() } else { ids.iter().map(edit).collect() }).await?;
    if mutation == Mutation::Delete {
        // What somebody else has removed in between is not told of.
        let mut gone: Vec<Row> = ids.iter().zip(before).filter(|(id, _)| changed.contains(id)).map(|(_, row)| Arc::new(row)).collect();
        let count = gone.len();
        gone.truncate(if shows { count } else { 0 });
        return Ok(Written { count, rows: gone });
    }
    let rows = if shows { rows(caller, table, &ids).await? } else { Vec::new() };
    Ok(Written { count: ids.len(), rows })
}

/// Writes edits, if there are any; gives the records that are not as before.
async fn write(caller: &Caller, table: &Table, edits: Vec<Edit>) -> Result<BTreeSet<RecordId>, Problem> {
    if edits.is_empty() {
        return Ok(BTreeSet::new());
    }
    let collection = Arc::clone(&table.collection);
    let done = caller.guard.write(WriteRequest { collection, edits, author: None, patience: None, bounds: None }).await?;
    Ok(done.changed.into_iter().collect())
}

/// The rows of these records as they are now, in this order, as far as the caller may read them.
async fn rows(caller: &Caller, table: &Table, ids: &[RecordId]) -> Result<Vec<Row>, Problem> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let values = ids.iter().map(|id| Value::Text(id.as_str().to_owned())).collect();
    let columns = table.shown(caller, Action::Read)?.into_iter().map(SelectedColumn::from).collect();
    let select = Select { columns, filter: Filter::is(table.key(), Op::In(values)), limit: ids.len() as u64, ..table.select(caller) };
    let found = caller.guard.select(select).await?.rows;
    let by_id = |row: Map<String, Json>| Some((row.get("id")?.as_str()?.to_owned(), Arc::new(row)));
    let mut found: BTreeMap<String, Row> = found.into_iter().filter_map(by_id).collect();
    Ok(ids.iter().filter_map(|id| found.remove(id.as_str())).collect())
}
