//! Records as they were: `?id=eq.7&at=…`, and `/rest/v1/{collection}/{id}/history`.
//!
//! A document holds all its changes. What a row was is read from the entries that wrote it, as far as a log keeps them: a hub has everybody's,
//! a device its own. Where something of a log is missing, what was is refused by name, and the history says from where on it is whole.

mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{HeaderName, LINK};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::document::past as document;
use mobo_core::ids::RecordId;
use mobo_core::limits;
use mobo_core::query::Page;
use mobo_core::record::RecordState;
use mobo_core::rfc3339;
use mobo_core::rights::{Action, Granted};
use mobo_core::schema::{Collection, Kind};
use mobo_core::table::TableState;
use mobo_core::table::past::{self as table, Known, Was};
use mobo_core::time::Eff;
use mobo_core::value::Value;

use super::{Call, Window, cursor, range, version};
use crate::access::Guard;
use crate::backend::{BackendError, History};
use crate::gate::Gate;
use crate::problem::{self, Problem};
use crate::query;
use crate::timing::{Stage, Timing};
use told::{Asked, tell};

/// When the hub was restored last, where what was may lack something because of that.
const RESTORED: HeaderName = HeaderName::from_static("mobo-restored");

type Columns = BTreeMap<String, Value>;

/// A moment in the life of a record.
enum Point {
    /// After everything that was made up to then.
    Time(Eff),
    /// After a change, by how its name begins.
    Version(String),
}

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
    let history = call.timing.during(Stage::Db, history(call.gate, &call.collection, &id)).await?;
    // Who may not see the record as it is sees nothing of what it was.
    let history = history.filter(|history| is_for(&granted, now(&call.collection, &id, history).as_ref()));
    let restored = history.as_ref().and_then(|history| history.log.restored);
    let restored = restored.filter(|restored| !matches!(&point, Point::Time(time) if time >= restored));
    let mut rows = Vec::new();
    if let Some(row) = was(&call.collection, history, point).await?.map(|values| columns(&call.collection, &id, values))
        && granted.rows.lets_through(&row)
        && call.query.filter.lets_through(&row)
    {
        let window = Window { columns: call.wanted(), filter: call.query.filter.clone(), limit: 1, offset: 0, count: false };
        let select = call.query(window);
        let needed = select.needed();
        let values = needed.iter().map(|column| row.get(&column.name).cloned().unwrap_or(Value::Null)).collect();
        rows.push(select.row(&needed, values).map_err(BackendError::BadValue)?);
    }
    call.timing.enter(Stage::Response);
    let (status, content_range) = range::status(0, rows.len(), None)?;
    let mut response = call.accept.body(Page { rows, total: None }, call.names())?;
    *response.status_mut() = status;
    response.headers_mut().insert(axum::http::header::CONTENT_RANGE, content_range);
    if let Some(restored) = restored.and_then(|restored| HeaderValue::try_from(rfc3339::format(restored.0)).ok()) {
        response.headers_mut().insert(RESTORED, restored);
    }
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
    super::check_schema(&parts)?;
    let granted = guard.granted(&collection, Action::Read)?;
    if !["GET", "HEAD"].contains(&parts.method.as_str()) {
        return Err(problem::method("GET, HEAD"));
    }
    let asked = asked(parts.uri.query())?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, "PGRST116", "No such record", format!("there is no record \"{id}\" in {name}"));
    let id = RecordId::new(id.clone()).map_err(|_| missing())?;
    let timing = Timing::of(&gate, &parts);
    let found = timing.during(Stage::Db, history(&gate, &collection, &id)).await?.ok_or_else(missing)?;
    timing.enter(Stage::Response);
    let told = off_the_loop(move || tell(&collection, &id, &found, (&granted, &asked))).await?;
    let told = told.ok_or_else(missing)?;
    let next = told.get("next").and_then(|next| next.as_str()).and_then(|next| cursor::link(parts.uri.path(), parts.uri.query(), next));
    let mut response = axum::Json(told).into_response();
    response.headers_mut().extend(next.map(|next| (LINK, next)));
    Ok(response)
}

/// Which page of a history.
fn asked(raw: Option<&str>) -> Result<Asked, Problem> {
    for name in raw.unwrap_or_default().split('&').filter_map(|part| part.split('=').next()).filter(|name| !name.is_empty()) {
        if !["limit", "after"].contains(&name) {
            return Err(Problem::parse("a history takes limit and after").hint("take after as it is from next, or from the header link"));
        }
    }
    let limit = match query::word(raw, "limit")? {
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=limits::HISTORY_CHANGES_MAX).contains(limit))
            .ok_or_else(|| Problem::bad_value(format!("limit is a number from 1 to {}", limits::HISTORY_CHANGES_MAX)))?,
        None => limits::HISTORY_CHANGES_MAX,
    };
    Ok(Asked { limit, after: query::word(raw, "after")? })
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
        RecordState::Document(state) => {
            let point = match point {
                Point::Time(_) if !history.has_times => {
                    return Err(Problem::unsupported("times of what was on a device").hint("name a version, or ask the hub"));
                }
                Point::Time(time) => document::Point::Time(time),
                Point::Version(prefix) => document::Point::Version(prefix),
            };
            let found = document::at(&collection, state, &history.changes, &point).map_err(damaged)?;
            found.ok_or_else(|| no_version(&point))
        }
        RecordState::Table(state) => row_was(&collection, &history, (state, &point)),
    })
    .await
}

fn row_was(collection: &Collection, history: &History, (state, point): (&TableState, &Point)) -> Result<Option<Vec<Value>>, Problem> {
    let written = state.stamps().last().map(|stamp| stamp.eff);
    let is_now = match point {
        Point::Time(time) => {
            let is_later = |moment: Option<Eff>| moment.is_none_or(|moment| moment <= *time);
            is_later(written) && is_later(history.log.restored) && state.counters.is_empty()
        }
        Point::Version(version) => mobo_core::author::tag(&history.state).starts_with(version.as_str()),
    };
    if is_now {
        return Ok(history.state.project(collection));
    }
    let was = match point {
        Point::Time(time) => table::at(collection, state, &history.log, *time),
        Point::Version(version) => table::version(collection, state, &history.log, version),
    };
    match (was, point) {
        (Was::Row(row), _) => Ok(row),
        (Was::Unknown(Known::Since(since)), _) => Err(Problem::unsupported("what this row was then: not all that wrote to it is kept")
            .hint(format!("what it was is known from {} on", rfc3339::format(since.0)))),
        (Was::Unknown(Known::Now | Known::Whole), _) => {
            Err(Problem::unsupported("older states of this row on this node")
                .hint("ask the hub; its history here tells what this node wrote"))
        }
        (Was::NoVersion, Point::Version(version)) => Err(no_version(&document::Point::Version(version.clone()))),
        (Was::NoVersion, Point::Time(time)) => Err(no_version(&document::Point::Time(*time))),
    }
}

fn no_version(point: &document::Point) -> Problem {
    let word = if let document::Point::Version(version) = point { version.as_str() } else { "" };
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

/// The record as it is; `None` while it is not visible.
fn now(collection: &Collection, id: &RecordId, history: &History) -> Option<Columns> {
    history.state.project(collection).map(|values| columns(collection, id, values))
}

/// True if the caller may see a record as it is or was; one that is not there is for whoever may see all.
fn is_for(granted: &Granted, row: Option<&Columns>) -> bool {
    row.map_or(granted.rows.is_all(), |row| granted.rows.lets_through(row))
}
