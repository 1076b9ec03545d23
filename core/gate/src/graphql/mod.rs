//! `/graphql/v1`: the collections that a caller may use as a GraphQL schema, in pg_graphql's names.
//!
//! A request becomes the same filters, orders and edits as one of the records API, and goes through the same guard. The schema holds what the
//! caller may use and nothing else; it is made once for all callers who may use the same. Subscriptions come as events (`POST` with
//! `Accept: text/event-stream`, one operation to a connection), or over a WebSocket ([`socket`]).

mod bounds;
mod live;
mod made;
mod names;
mod page;
mod schema;
mod socket;
mod values;
mod write;

use std::sync::Arc;

use async_graphql::dynamic::{ResolverContext, Schema};
use async_graphql::{Error, ErrorExtensions as _, Request as Asked, Response as Done, Value};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use mobo_core::limits;
use mobo_core::query::Column;
use mobo_core::rights::{Action, Granted};
use mobo_core::schema::Collection;
use serde_json::{Map, Value as Json, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::access::Guard;
use crate::backend::NodeKind;
use crate::gate::Gate;
use crate::problem::{self, Problem};
use crate::realtime::{Viewer, flow, sse};
use crate::timing::{Stage, Timing};
use crate::{body, idempotent, query, upgrade};
use made::By;

pub(crate) use made::Schemas;

/// Who asks.
struct Caller {
    gate: Gate,
    guard: Guard,
    viewer: Viewer,
    /// How often this operation went to the store. It goes there once at a time, as any other request.
    steps: tokio::sync::Mutex<usize>,
    /// Told once a subscription stands.
    standing: Arc<Notify>,
}

impl Caller {
    fn of(gate: &Gate, parts: &Parts, (guard, standing): (Guard, Arc<Notify>)) -> Self {
        Self { gate: gate.clone(), guard, viewer: Viewer::of(gate.clone(), parts), steps: tokio::sync::Mutex::new(0), standing }
    }

    /// The turn of a field that does this to a collection, for as long as it is held.
    ///
    /// # Errors
    ///
    /// 400 where an operation has too many of them, and 429 for who does it too often.
    async fn turn(&self, act: (&str, Action)) -> Result<tokio::sync::MutexGuard<'_, usize>, Problem> {
        self.gate.count_act(self.viewer.parts(), act)?;
        let mut steps = self.steps.lock().await;
        *steps += 1;
        if *steps > limits::GRAPHQL_STEPS_MAX {
            let message = format!("an operation reads and writes collections at most {} times", limits::GRAPHQL_STEPS_MAX);
            return Err(Problem::parse(message).hint("send the rest as another operation"));
        }
        Ok(steps)
    }
}

/// A collection as GraphQL has it.
#[derive(Debug)]
struct Table {
    collection: Arc<Collection>,
    /// The name of its type.
    base: String,
    /// What its fields begin with.
    field: String,
    /// All columns that the caller may use in any way, by their names here.
    columns: Vec<(String, Column)>,
    /// What may be done, and with which fields.
    granted: Vec<(Action, Granted)>,
}

impl Table {
    fn may(&self, action: Action) -> bool {
        self.granted.iter().any(|(granted, _)| *granted == action)
    }

    fn columns_for(&self, action: Action) -> Vec<(String, Column)> {
        let granted = self.granted.iter().find(|(known, _)| *known == action).map(|(_, granted)| granted);
        let is_there = |(_, column): &&(String, Column)| granted.is_some_and(|granted| granted.has(column));
        self.columns.iter().filter(is_there).cloned().collect()
    }
}

/// The problem as GraphQL tells it: with its stable code.
fn failed(problem: Problem) -> Error {
    let (code, status) = (problem.code(), problem.status().as_u16());
    Error::new(problem.message()).extend_with(|_, told| {
        told.set("code", code);
        told.set("status", status);
    })
}

/// The arguments of a field, as JSON.
fn arguments(ctx: &ResolverContext<'_>) -> Map<String, Json> {
    ctx.args.iter().filter_map(|(name, value)| Some((name.to_string(), value.as_value().clone().into_json().ok()?))).collect()
}

/// Answers a request.
pub(crate) async fn handle(State(gate): State<Gate>, request: Request) -> Response {
    if upgrade::is_asked(request.headers()) {
        return socket::answer(&gate, request).unwrap_or_else(|problem| problem.into_response());
    }
    let (parts, mut body) = request.into_parts();
    match answer(&gate, &parts, &mut body).await {
        Ok(response) => response,
        Err(problem) => {
            body::discard(&gate, &parts.headers, &mut body).await;
            problem.into_response()
        }
    }
}

/// Refuses it by name on a device.
fn is_here(gate: &Gate) -> Result<(), Problem> {
    match gate.backend().node() {
        NodeKind::Hub => Ok(()),
        NodeKind::Edge => Err(Problem::unsupported("GraphQL on a device").hint("ask the hub; /rest/v1 is the same on both")),
    }
}

/// The schema of what this caller may use.
fn schema_of(gate: &Gate, guard: &Guard) -> Result<Schema, Problem> {
    gate.schemas().of(By::of(guard), || tables(guard), gate.settings().graphql_introspection)
}

async fn answer(gate: &Gate, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    is_here(gate)?;
    let place = gate.admit()?;
    let guard = Guard::of(gate, parts).await?;
    let (mut asked, held) = match parts.method {
        Method::POST => {
            let held = body::read(gate, &parts.headers, body).await?;
            let asked = serde_json::from_slice::<Asked>(&held);
            let bad = |bad| Problem::bad_body(format!("send {{\"query\": …, \"variables\": …}} as JSON: {bad}"));
            (asked.map_err(bad)?, held)
        }
        Method::GET => (from_address(parts)?, body::Held::default()),
        _ => return Err(problem::method("GET, POST")),
    };
    let schema = schema_of(gate, &guard)?;
    let key = idempotent::key(parts)?.map(|key| idempotent::Name::of(guard.principal(), parts, key));
    let standing = Arc::new(Notify::new());
    bounds::check(&mut asked)?;
    live::is_asked(&mut asked)?;
    let asked = asked.data(Caller::of(gate, parts, (guard, Arc::clone(&standing))));
    if sse::is_asked(&parts.headers) {
        return Ok(events(gate, (&schema, asked, standing), place).await);
    }
    let timing = Timing::of(gate, parts);
    timing.enter(Stage::Plan);
    match key {
        Some(key) => once(gate, parts, (key, held), (schema, asked)).await,
        None => {
            let done = schema.execute(asked).await;
            timing.enter(Stage::Response);
            Ok(respond(&done))
        }
    }
}

/// An operation with an `Idempotency-Key` happens once, however often it is sent.
async fn once(
    gate: &Gate,
    parts: &Parts,
    (key, held): (idempotent::Name, body::Held),
    (schema, asked): (Schema, Asked),
) -> Result<Response, Problem> {
    let (gate, parts) = (gate.clone(), parts.clone());
    let done = idempotent::apart(async move {
        match gate.writes().begin(&parts, key, &held, Instant::now())? {
            Err(replayed) => Ok(replayed),
            Ok(begun) => {
                drop(held);
                let done = schema.execute(asked).await;
                // What failed as a whole, and may not fail the next time, is no answer to keep.
                if is_undecided(&done) { Ok(respond(&done)) } else { Ok(begun.end(respond(&done)).await) }
            }
        }
    });
    done.await
}

fn respond(done: &Done) -> Response {
    let mut response = axum::Json(done).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// True for an operation of which nothing came about, for a reason that may pass.
fn is_undecided(done: &Done) -> bool {
    let passes = |error: &async_graphql::ServerError| {
        let status = error.extensions.as_ref().and_then(|told| told.get("status"));
        matches!(status, Some(Value::Number(status)) if status.as_u64().is_some_and(|status| status >= 500))
    };
    let is_null = |value: &Value| *value == Value::Null;
    let is_empty = is_null(&done.data) || matches!(&done.data, Value::Object(fields) if fields.values().all(is_null));
    is_empty && done.errors.iter().any(passes)
}

/// What `?query=…&variables=…&operationName=…` asks; nothing is written that way.
fn from_address(parts: &Parts) -> Result<Asked, Problem> {
    let word = |name: &str| query::word(parts.uri.query(), name);
    let text = word("query")?.ok_or_else(|| Problem::parse("there is no query").hint("send ?query={…}, or a POST"))?;
    let is_query = async_graphql::parser::parse_query(&text).is_ok_and(|document| {
        document.operations.iter().all(|(_, operation)| operation.node.ty != async_graphql::parser::types::OperationType::Mutation)
    });
    if !is_query {
        return Err(Problem::parse("GET takes queries; send mutations with POST"));
    }
    let mut asked = Asked::new(text);
    if let Some(variables) = word("variables")? {
        let variables = serde_json::from_str(&variables).map_err(|_| Problem::parse("variables is no JSON"))?;
        asked = asked.variables(async_graphql::Variables::from_json(variables));
    }
    Ok(match word("operationName")? {
        Some(name) => asked.operation_name(name),
        None => asked,
    })
}

/// Answers with everything that an operation gives, as events. The head goes out when the subscription stands: whatever is committed from then
/// on is told. Whoever listens takes no place among those whose request is in work.
async fn events(gate: &Gate, (schema, asked, standing): (&Schema, Asked, Arc<Notify>), place: OwnedSemaphorePermit) -> Response {
    let (writer, body) = flow();
    let given = stands(schema.execute_stream(asked), &standing).await;
    drop(place);
    tokio::spawn(tell(gate.clone(), writer, given));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(sse::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// What an operation gives, once its subscription stands or something has come of it.
async fn stands(given: BoxStream<'static, Done>, standing: &Notify) -> BoxStream<'static, Done> {
    let mut given = given.fuse();
    tokio::select! {
        first = given.next() => stream::iter(first).chain(given).boxed(),
        () = standing.notified() => given.boxed(),
    }
}

async fn tell(gate: Gate, writer: mpsc::Sender<Bytes>, mut given: BoxStream<'static, Done>) {
    loop {
        let beat = Instant::now() + limits::SSE_HEARTBEAT;
        let text = tokio::select! {
            () = gate.closed() => return,
            () = writer.closed() => return,
            next = timeout_at(beat, given.next()) => match next {
                Err(_) => ":\n\n".to_owned(),
                Ok(Some(done)) => format!("event: next\ndata: {}\n\n", json!(done)),
                Ok(None) => {
                    // Whoever has gone needs no end.
                    drop(writer.send(Bytes::from_static(b"event: complete\ndata:\n\n")).await);
                    return;
                }
            },
        };
        if writer.send(Bytes::from(text)).await.is_err() {
            return;
        }
    }
}

fn tables(guard: &Guard) -> Vec<Arc<Table>> {
    let mut names = names::Names::default();
    let table = |narrowed: Collection| {
        let collection = guard.collection(&narrowed.name).ok()?;
        let granted = |action| Some((action, guard.granted(&collection, action).ok()?));
        let granted: Vec<_> = Action::ALL
            .into_iter()
            .filter_map(granted)
            .map(|(action, granted)| (action, Granted { rows: mobo_core::query::Filter::all(), ..granted }))
            .collect();
        let base = names.of_type(&narrowed.name);
        let field = names::uncapital(&base);
        Some(Arc::new(Table { columns: names::of_columns(&narrowed), collection, base, field, granted }))
    };
    guard.usable().into_iter().filter_map(table).collect()
}
