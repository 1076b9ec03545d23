//! Records as they were: `?id=eq.7&at=…`, and `/rest/v1/{collection}/{id}/history`.
//!
//! A document holds all its changes: it is read as it was at any time, or after any of the changes that its history names. A row of a table
//! holds who wrote each field last; what it was before, it does not know, and that is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mobo_core::document::past::{self, Past, Point};
use mobo_core::ids::RecordId;
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::query::Page;
use mobo_core::record::RecordState;
use mobo_core::rfc3339;
use mobo_core::rights::{Action, Granted};
use mobo_core::schema::{Collection, FieldType, Kind};
use mobo_core::stamp::Stamp;
use mobo_core::time::Eff;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json, json};

use super::{Call, Window, range, version};
use crate::access::Guard;
use crate::backend::{BackendError, Decision, History};
use crate::gate::Gate;
use crate::problem::{self, Problem};

type Columns = BTreeMap<String, Value>;

/// Answers with one record as it was.
pub(super) async fn read(call: &Call<'_>, at: &str) -> Result<Response, Problem> {
    let Some(id) = version::pinned(call) else {
        return Err(Problem::parse("at goes with a filter that names one record").hint("add id=eq.…"));
    };
    if !call.query.embeds.is_empty() {
        return Err(Problem::unsupported("related collections of what was").hint("ask for each record with its own at"));
    }
    let point = point(at)?;
    let granted = call.guard.granted(&call.collection, Action::Read)?;
    let history = history(call.gate, &call.collection, &id).await?;
    let mut rows = Vec::new();
    if let Some(row) = was(&call.collection, history, point).await?.map(|values| columns(&call.collection, &id, values))
        && granted.rows.lets_through(&row)
        && call.query.filter.lets_through(&row)
    {
        let window = Window { columns: call.wanted(), filter: call.query.filter.clone(), limit: 1, offset: 0, count: false };
        let select = call.query(window);
        let needed = select.needed();
        let values = needed.iter().map(|column| row.get(&column.name).cloned().unwrap_or(Value::Null)).collect();
        rows.push(select.row(&needed, values).map_err(BackendError::Refused)?);
    }
    let (status, content_range) = range::status(0, rows.len(), None)?;
    let mut response = call.accept.body(Page { rows, total: None }, call.names())?;
    *response.status_mut() = status;
    response.headers_mut().insert(axum::http::header::CONTENT_RANGE, content_range);
    Ok(response)
}

/// Answers a request for the history of a record.
pub(crate) async fn handle(
    State(gate): State<Gate>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let parts = request.into_parts().0;
    let Path((name, id)) = path.map_err(|_| Problem::no_route())?;
    let guard = Guard::of(&gate, &parts).await?;
    let collection = guard.collection(&name)?;
    let granted = guard.granted(&collection, Action::Read)?;
    if !["GET", "HEAD"].contains(&parts.method.as_str()) {
        return Err(problem::method("GET, HEAD"));
    }
    let missing = || Problem::new(StatusCode::NOT_FOUND, "PGRST116", "No such record", format!("there is no record \"{id}\" in {name}"));
    let id = RecordId::new(id.clone()).map_err(|_| missing())?;
    let found = history(&gate, &collection, &id).await?.ok_or_else(missing)?;
    let told = off_the_loop(move || tell(&collection, &id, &found, &granted)).await?;
    // Who may not see the record as it is sees nothing of what it was.
    told.map(|told| axum::Json(told).into_response()).ok_or_else(missing)
}

async fn history(gate: &Gate, collection: &Arc<Collection>, id: &RecordId) -> Result<Option<History>, Problem> {
    if collection.kind == Kind::Stream {
        return Err(Problem::unsupported("a history of samples: they never change"));
    }
    match gate.backend().history(Arc::clone(collection), id.clone()) {
        Some(history) => Ok(history.await?),
        None => Err(Problem::unsupported("the past of records on this node").hint("ask the hub")),
    }
}

/// Works on documents where nobody waits for it.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(BackendError::Unavailable("the history could not be read".to_owned()).into()))
}

/// A time, or a version as a history or an `ETag` names it.
fn point(text: &str) -> Result<Point, Problem> {
    if let Some(us) = rfc3339::parse(text) {
        return Ok(Point::Time(Eff(us)));
    }
    let version = text.trim_matches('"');
    if version.len() >= 8 && version.len() <= 64 && version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return Ok(Point::Version(version.to_owned()));
    }
    Err(Problem::bad_value("at takes a time such as 2026-03-01T08:00:00Z, or a version as the history of the record names it"))
}

async fn was(collection: &Arc<Collection>, history: Option<History>, point: Point) -> Result<Option<Vec<Value>>, Problem> {
    let Some(history) = history else { return Ok(None) };
    let collection = Arc::clone(collection);
    off_the_loop(move || match &history.state {
        RecordState::Document(document) => {
            let found = past::at(&collection, document, &history.changes, &point).map_err(damaged)?;
            found.ok_or_else(|| no_version(&point))
        }
        RecordState::Table(state) => {
            let cells = state.cells.values().map(|cell| cell.stamp);
            let written = cells.chain(state.put).chain(state.delete).map(|stamp| stamp.eff).max();
            let is_now = match &point {
                Point::Time(time) => written.is_none_or(|written| written <= *time) && state.counters.is_empty(),
                Point::Version(version) => mobo_core::author::tag(&history.state).starts_with(version.as_str()),
            };
            if is_now {
                return Ok(history.state.project(&collection));
            }
            Err(Problem::unsupported("older states of the rows of a table")
                .hint("collections of kind document keep them; a row keeps who wrote each field last: see its history"))
        }
    })
    .await
}

fn no_version(point: &Point) -> Problem {
    let word = if let Point::Version(version) = point { version.as_str() } else { "" };
    Problem::new(
        StatusCode::NOT_FOUND,
        "MB404",
        "No such version",
        format!("the record has no version \"{word}\", or several that begin so"),
    )
    .hint("its history names them")
}

fn damaged(refusal: mobo_core::engine::Refusal) -> Problem {
    BackendError::Damaged(refusal.to_string()).into()
}

fn columns(collection: &Collection, id: &RecordId, values: Vec<Value>) -> Columns {
    let fields = collection.fields.iter().map(|field| field.name.clone()).zip(values);
    fields.chain([("id".to_owned(), Value::Text(id.as_str().to_owned()))]).collect()
}

/// The history as far as this caller may see it; `None` where the record itself is not for this caller.
fn tell(collection: &Collection, id: &RecordId, history: &History, granted: &Granted) -> Result<Option<Json>, Problem> {
    let now = history.state.project(collection).map(|values| columns(collection, id, values));
    let is_for_caller = |row: &Option<Columns>| row.as_ref().map_or(granted.rows.is_all(), |row| granted.rows.lets_through(row));
    if !is_for_caller(&now) {
        return Ok(None);
    }
    let teller = Teller { collection, history, granted };
    let changes: Vec<Json> = match &history.state {
        RecordState::Document(document) => {
            let found = past::changes(collection, document, &history.changes, limits::HISTORY_CHANGES_MAX).map_err(damaged)?;
            let rows = |past: &Past| {
                let row = |values: &Option<Vec<Value>>| values.clone().map(|values| columns(collection, id, values));
                [row(&past.before), row(&past.after)]
            };
            let is_shown = |rows: &[Option<Columns>; 2]| rows.iter().all(|row| row.is_none() || is_for_caller(row));
            found
                .iter()
                .map(|past| (past, rows(past)))
                .filter(|(_, rows)| is_shown(rows))
                .map(|(past, rows)| teller.change(past, &rows))
                .collect()
        }
        RecordState::Table(state) => {
            let mut writes: BTreeMap<Stamp, Vec<String>> = BTreeMap::new();
            for (field, cell) in &state.cells {
                let known = collection.field_by_id(*field).filter(|field| teller.has(&field.name));
                writes.entry(cell.stamp).or_default().extend(known.map(|field| field.name.clone()));
            }
            state.delete.into_iter().for_each(|stamp| writes.entry(stamp).or_default().clear());
            writes.iter().rev().map(|(stamp, fields)| teller.write(stamp, fields, (now.as_ref(), state.delete == Some(*stamp)))).collect()
        }
    };
    // A decision holds values of rows that may not have been for this caller.
    let decisions = history.decisions.iter().filter(|_| granted.rows.is_all()).filter_map(|decision| teller.decision(decision));
    Ok(Some(json!({
        "collection": collection.name, "id": id.as_str(), "record": now.as_ref().map(|row| teller.shown(row)),
        "complete": matches!(history.state, RecordState::Document(_)), "changes": changes, "decisions": decisions.collect::<Vec<_>>(),
    })))
}

struct Teller<'h> {
    collection: &'h Collection,
    history: &'h History,
    granted: &'h Granted,
}

impl Teller<'_> {
    fn has(&self, name: &str) -> bool {
        self.granted.fields.as_ref().is_none_or(|fields| fields.contains(name))
    }

    fn value(&self, row: &Columns, name: &str) -> Json {
        let kind = match self.collection.field(name).map(|field| field.kind) {
            Some(FieldType::Counter) => FieldType::Int,
            Some(kind) => kind,
            None => FieldType::Text,
        };
        row.get(name).map_or(Json::Null, |value| value_to_json(value, kind))
    }

    fn shown(&self, row: &Columns) -> Map<String, Json> {
        let fields = self.collection.live_fields().map(|field| field.name.as_str()).filter(|name| self.has(name));
        ["id"].into_iter().chain(fields).map(|name| (name.to_owned(), self.value(row, name))).collect()
    }

    /// Who, when and from where.
    fn by(&self, stamp: Option<&Stamp>) -> Map<String, Json> {
        let writer = stamp.and_then(|stamp| self.history.writers.get(&(stamp.device, stamp.ordinal, stamp.seq)));
        Map::from_iter([
            ("at".to_owned(), json!(stamp.map(|stamp| rfc3339::format(stamp.eff.0)))),
            ("device".to_owned(), json!(writer.map(|writer| &writer.device))),
            ("by".to_owned(), json!(writer.and_then(|writer| writer.author.as_ref()))),
        ])
    }

    fn change(&self, past: &Past, [before, after]: &[Option<Columns>; 2]) -> Json {
        let mut told = self.by(past.stamp.as_ref());
        told.insert("version".to_owned(), json!(past::hex(&past.hash)));
        let action = match (before, after) {
            (None, Some(_)) => "insert",
            (Some(_), None) => "delete",
            (Some(_), Some(_)) | (None, None) => "update",
        };
        told.insert("action".to_owned(), json!(action));
        let nothing = Columns::new();
        let (old, new) = (before.as_ref().unwrap_or(&nothing), after.as_ref().unwrap_or(&nothing));
        let names = self.collection.live_fields().map(|field| field.name.as_str()).filter(|name| self.has(name));
        let changed = names.filter(|name| old.get(*name).unwrap_or(&Value::Null) != new.get(*name).unwrap_or(&Value::Null));
        let changed: Map<String, Json> =
            changed.map(|name| (name.to_owned(), json!({ "from": self.value(old, name), "to": self.value(new, name) }))).collect();
        told.insert("changed".to_owned(), Json::Object(changed));
        Json::Object(told)
    }

    /// What still stands of one write to a row.
    fn write(&self, stamp: &Stamp, fields: &[String], (now, is_delete): (Option<&Columns>, bool)) -> Json {
        let mut told = self.by(Some(stamp));
        told.insert("action".to_owned(), json!(if is_delete { "delete" } else { "write" }));
        let nothing = Columns::new();
        let stands = fields.iter().map(|name| (name.clone(), json!({ "to": self.value(now.unwrap_or(&nothing), name) })));
        told.insert("changed".to_owned(), Json::Object(stands.collect()));
        Json::Object(told)
    }

    fn decision(&self, decision: &Decision) -> Option<Json> {
        if decision.field.as_ref().is_some_and(|field| !self.has(field)) || (decision.field.is_none() && self.granted.fields.is_some()) {
            return None;
        }
        let side = |value: &Json, stamp: &Stamp| {
            let mut side = self.by(Some(stamp));
            side.insert("value".to_owned(), value.clone());
            side
        };
        Some(json!({
            "field": decision.field, "kind": decision.kind, "at": rfc3339::format(decision.at.0), "settled": decision.settled,
            "winner": side(&decision.winner, &decision.winner_stamp), "loser": side(&decision.loser, &decision.loser_stamp),
        }))
    }
}
