//! `/rest/v1/{collection}`: records and samples, in PostgREST's conventions.

mod accept;
mod change;
pub(crate) mod cursor;
pub(crate) mod insert;
pub(crate) mod past;
mod put;
mod range;
mod read;
mod samples;
mod version;
mod written;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{HeaderName, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::query::{Column, ColumnType, Embedded, Filter, Page, Presence, Query, Select, SelectedColumn};
use mobo_core::rights::Action;
use mobo_core::schema::{Collection, Kind};
use tokio::time::Instant;

use crate::body::{Held, Rows, Spelling};
use crate::gate::Gate;
use crate::prefer::{Prefer, Return};
use crate::problem::{self, Problem};
use crate::query;
use crate::realtime::sse;
use crate::timing::{Stage, Timing};
use crate::{access, body, idempotent};
use accept::Accept;
use access::Guard;

const RANGE_UNIT: HeaderName = HeaderName::from_static("range-unit");
const ACCEPT_PROFILE: HeaderName = HeaderName::from_static("accept-profile");
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");
/// What clients of PostgREST call the one schema that there is.
const SCHEMA: &str = "public";

/// Answers a request for a collection.
pub(crate) async fn handle(State(gate): State<Gate>, name: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let answer = match name {
        Ok(Path(name)) => once(&gate, &name, &parts, &mut body).await,
        Err(_) => Err(Problem::no_route()),
    };
    match answer {
        Ok(response) => response,
        Err(problem) => {
            body::discard(&gate, &parts.headers, &mut body).await;
            problem.into_response()
        }
    }
}

/// Answers a request for a function of the database, which PostgREST would call.
pub(crate) async fn function(State(gate): State<Gate>, name: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let _place = match gate.admit() {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let (parts, mut body) = request.into_parts();
    let problem = match (name, Guard::of(&gate, &parts).await) {
        (_, Err(problem)) => problem,
        (Err(_), Ok(_)) => Problem::no_route(),
        (Ok(Path(name)), Ok(_)) => {
            let message = format!("Could not find the function {SCHEMA}.{name} in the schema");
            Problem::new(StatusCode::NOT_FOUND, "PGRST202", "No such function", message)
                .hint("this version of mobo has no functions to call: read and write the collections themselves, at /rest/v1/{collection}")
        }
    };
    body::discard(&gate, &parts.headers, &mut body).await;
    problem.into_response()
}

/// Nobody who asks for another schema is answered out of this one.
fn check_schema(parts: &Parts) -> Result<(), Problem> {
    let name = if [Method::GET, Method::HEAD].contains(&parts.method) { ACCEPT_PROFILE } else { CONTENT_PROFILE };
    let Some(other) = parts.headers.get_all(&name).iter().find(|given| *given != SCHEMA) else { return Ok(()) };
    let message = format!("Invalid schema: {}", String::from_utf8_lossy(other.as_bytes()).escape_default());
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST106", "No such schema", message)
        .hint(format!("Only the following schemas are exposed: {SCHEMA}")))
}

/// As [`answer`], but a write with an `Idempotency-Key` happens once however often it is sent.
async fn once(gate: &Gate, name: &str, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    let Some(key) = idempotent::key(parts)? else { return answer(gate, name, parts, body).await };
    // Nobody learns whether a key was used who may not use collections.
    let guard = Guard::of(gate, parts).await?;
    guard.collection(name)?;
    let key = idempotent::Name::of(guard.principal(), parts, key);
    let held = body::read(gate, &parts.headers, body).await?;
    let (gate, name, parts) = (gate.clone(), name.to_owned(), parts.clone());
    let written = idempotent::apart(async move {
        match gate.writes().begin(&parts, key, &held, Instant::now())? {
            Err(replayed) => Ok(replayed),
            Ok(begun) => {
                let mut again = Body::from(held.to_vec());
                drop(held);
                Ok(begun.end(answer(&gate, &name, &parts, &mut again).await?).await)
            }
        }
    });
    written.await
}

async fn answer(gate: &Gate, name: &str, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let guard = Guard::of(gate, parts).await?;
    let call = Call::of(gate, name, parts, guard)?;
    let is_stream = call.collection.kind == Kind::Stream;
    if parts.method == Method::GET && sse::is_asked(&parts.headers) {
        return events(&call).await;
    }
    let mut response = match &parts.method {
        &Method::GET | &Method::HEAD => match &call.at {
            Some(at) => past::read(&call, at).await?,
            None => read::read(&call).await?,
        },
        &Method::POST if !version::is_unconditional(&parts.headers) => return Err(version::of_an_insert()),
        &Method::POST if is_stream => samples::append(&call, body).await?,
        &Method::POST => insert::insert(&call, body).await?,
        &Method::PUT | &Method::PATCH | &Method::DELETE if is_stream => return Err(problem::append_only(name)),
        &Method::PATCH => change::patch(&call, body).await?,
        &Method::DELETE => change::delete(&call).await?,
        &Method::PUT => put::put(&call, body).await?,
        _ if is_stream => return Err(problem::method(problem::OF_STREAMS)),
        _ => return Err(problem::method("GET, HEAD, POST, PUT, PATCH, DELETE")),
    };
    let headers = response.headers_mut();
    headers.insert(RANGE_UNIT, HeaderValue::from_static("items"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Prefer, Range"));
    let level = headers.get(written::MOBO_ACK).and_then(|level| level.to_str().ok()?.parse().ok());
    headers.extend(call.prefer.applied(level));
    Ok(response)
}

/// Answers with the changes of the rows that the filters name.
async fn events(call: &Call<'_>) -> Result<Response, Problem> {
    let query = &call.query;
    if !query.embeds.is_empty() {
        return Err(Problem::unsupported("related collections in events"));
    }
    if call.at.is_some() || !query.order.is_empty() || query.limit.is_some() || query.offset.is_some() || query.after.is_some() {
        return Err(
            Problem::unsupported("order, limit and offset of events").hint("events come in the order of the commits; filters narrow them")
        );
    }
    let plain =
        |column: &SelectedColumn| column.cast.is_none() && column.operand.path.is_empty() && column.alias == column.operand.column.name;
    let select = match &query.select {
        Some(columns) if !columns.iter().all(plain) => return Err(Problem::unsupported("aliases, casts and paths in events")),
        Some(columns) => Some(columns.iter().map(|column| column.alias.clone()).collect()),
        None => None,
    };
    sse::answer(call.gate, call.parts, (Arc::clone(&call.collection), query.filter.clone(), select)).await
}

/// One request, read: everything that its head says, as types.
struct Call<'a> {
    gate: &'a Gate,
    /// Whoever asks, in front of the records.
    guard: Guard,
    /// What the request does.
    action: Action,
    parts: &'a Parts,
    collection: Arc<Collection>,
    columns: Vec<Column>,
    /// The moment that the caller asks about; `None` for now.
    at: Option<String>,
    query: Query,
    prefer: Prefer,
    accept: Accept,
    timing: Timing,
}

impl<'a> Call<'a> {
    fn of(gate: &'a Gate, name: &str, parts: &'a Parts, guard: Guard) -> Result<Self, Problem> {
        let collection = guard.collection(name)?;
        check_schema(parts)?;
        let action = access::action_of(&parts.method, collection.kind);
        let granted = guard.granted(&collection, action)?;
        let prefer = Prefer::of(&parts.headers)?;
        // What is read before, with or after a change is read by the rights to read.
        let reads = action != Action::Create || prefer.returns == Return::Representation;
        let columns = if reads { guard.granted(&collection, Action::Read)?.columns(&collection) } else { granted.columns(&collection) };
        let (at, words) = match collection.kind {
            Kind::Table | Kind::Document if columns.iter().all(|column| column.name != "at") => query::moment(parts.uri.query())?,
            Kind::Table | Kind::Document | Kind::Stream => (None, parts.uri.query().map(str::to_owned)),
        };
        if at.is_some() && action != Action::Read {
            return Err(Problem::parse("at is for reading: what was cannot be changed"));
        }
        let query = query::parse_related(words.as_deref(), &collection, &columns, &guard)?;
        let narrows = |embedded: &Embedded| embedded.presence != Presence::Any;
        if action != Action::Read && (query.embeds.iter().any(narrows) || query.order.iter().any(|order| order.through.is_some())) {
            return Err(Problem::unsupported("a write of the rows that a related collection names")
                .hint("read their ids first, and write with id=in.(…); related rows can be selected with what was written"));
        }
        let wants_events = parts.method == Method::GET && sse::is_asked(&parts.headers);
        let accept = if wants_events { Accept::default() } else { Accept::of(&parts.headers)? };
        let timing = Timing::of(gate, parts);
        timing.enter(Stage::Plan);
        Ok(Self { gate, guard, action, parts, collection, columns, at, query, prefer, accept, timing })
    }

    /// The rows of a body. What holds its place in memory is kept for as long as the rows are.
    async fn rows(&self, body: &mut Body) -> Result<(Held, Rows), Problem> {
        let read = async {
            let spelling = Spelling::of(&self.parts.headers)?;
            let held = body::read(self.gate, &self.parts.headers, body).await?;
            let rows = spelling.rows(&held, &self.columns)?;
            Ok::<_, Problem>((held, rows))
        };
        self.timing.during(Stage::Parse, read).await
    }

    /// The columns that the caller wants to see.
    fn wanted(&self) -> Vec<SelectedColumn> {
        self.query.select.clone().unwrap_or_else(|| self.columns.iter().cloned().map(SelectedColumn::from).collect())
    }

    /// Their names.
    fn names(&self) -> impl Iterator<Item = &str> {
        let selected = self.query.select.iter().flatten().map(|column| column.alias.as_str());
        let all = self.columns.iter().filter(|_| self.query.select.is_none()).map(|column| column.name.as_str());
        selected.chain(all).chain(self.query.embeds.iter().flat_map(Embedded::names))
    }

    /// The column that tells records apart.
    fn key(&self) -> Column {
        Column { name: "id".to_owned(), kind: ColumnType::Key }
    }

    fn query(&self, window: Window) -> Select {
        let Window { columns, filter, limit, offset, count } = window;
        let (project, collection, order) = (self.gate.backend().project(), Arc::clone(&self.collection), self.query.order.clone());
        let is_shown = self.action == Action::Read || self.prefer.returns == Return::Representation;
        let embeds = if is_shown { self.query.related(project) } else { Vec::new() };
        Select { project, collection, columns, filter, order, limit, offset, count, embeds }
    }

    /// Rows that the caller may read.
    async fn select(&self, window: Window) -> Result<Page, Problem> {
        self.guard.select(self.query(window)).await
    }

    /// Rows that the caller may read, and change as the request does.
    async fn targets(&self, window: Window) -> Result<Page, Problem> {
        self.guard.select_for(self.query(window), self.action).await
    }
}

/// Which part of a collection is read.
struct Window {
    columns: Vec<SelectedColumn>,
    filter: Filter,
    limit: u64,
    offset: u64,
    count: bool,
}
