//! GraphQL over a WebSocket: the protocol `graphql-transport-ws`, as the client library `graphql-ws` speaks it.
//!
//! ```text
//! client: connection_init ▸ subscribe … subscribe ▸ complete      server: connection_ack ▸ next … next ▸ complete
//! ```
//! Many operations share a connection: each is judged by what its caller may when it begins, and a subscription for as long as it stands. What is
//! said after a `subscribe` is answered when that subscription stands: whoever has the answer to a later message misses nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use async_graphql::{Pos, Request as Asked, Response as Done, Value};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use mobo_core::limits;
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Caller, bounds, failed, is_here, live, schema_of, stands};
use crate::gate::Gate;
use crate::problem::Problem;
use crate::realtime::{Close, Heard, Mailbox, Note, Pace, Place, Recheck, Speaker, Viewer, converse, mailbox, query_word};
use crate::{key, rates, upgrade};

const PROTOCOL: &str = "graphql-transport-ws";

/// Answers a request for a socket. Who asks may say so here, or in the first message.
pub(super) fn answer(gate: &Gate, request: Request) -> Result<Response, Problem> {
    is_here(gate)?;
    if !upgrade::speaks(request.headers(), PROTOCOL) {
        return Err(Problem::unsupported("GraphQL over a WebSocket in any protocol but graphql-transport-ws")
            .hint("offer Sec-WebSocket-Protocol: graphql-transport-ws, as graphql-ws does; or send POST with Accept: text/event-stream"));
    }
    let (parts, body) = request.into_parts();
    let mut viewer = Viewer::of(gate.clone(), &parts);
    if let Some(key) = query_word(&parts, "apikey").filter(|key| !key.is_empty()) {
        viewer = viewer.with_key(&key);
    }
    let place = gate.place_for_subscriber(&parts)?;
    let gate = gate.clone();
    let mut response = upgrade::switch(Request::from_parts(parts, body), async move |stream| {
        let (mailbox, mail) = mailbox();
        let now = Instant::now();
        let standing = Standing::Unknown { until: now + limits::GRAPHQL_INIT_TIMEOUT };
        let recheck = Recheck::begin(&gate);
        let begun = Pace::begin(now);
        let speaker = Connection { viewer, standing, recheck, mailbox, operations: VecDeque::new(), begun, _place: place };
        converse(&gate, stream, speaker, mail).await;
    })?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// Whether the client has said who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// Not yet; it may until then.
    Unknown { until: Instant },
    /// It may ask.
    Known,
}

struct Connection {
    viewer: Viewer,
    standing: Standing,
    recheck: Recheck,
    mailbox: Mailbox,
    /// In the order of their turns: whichever has given something goes to the end.
    operations: VecDeque<Operation>,
    /// Operations that began in this second.
    begun: Pace,
    _place: Place,
}

struct Operation {
    /// The client's name for it.
    id: String,
    given: BoxStream<'static, Done>,
}

/// Runs what is done at once to its end, whoever is slow to hear of it: it holds a connection to the store, and a place among the requests in
/// work. It ends with its operation.
fn apart(mut given: BoxStream<'static, Done>, turn: OwnedSemaphorePermit) -> BoxStream<'static, Done> {
    let mut work = JoinSet::new();
    work.spawn(async move {
        let done = given.next().await;
        drop(turn);
        done
    });
    let done = async move { work.join_next().await.and_then(|done| done.ok().flatten()) };
    stream::once(done).filter_map(ready).boxed()
}

fn malformed(why: &str) -> Close {
    Close(4400, format!("Invalid message: {why}"))
}

/// Why a caller is not heard (any more). A client comes back by itself where nobody could tell.
fn refusal(problem: &Problem) -> Close {
    match problem.status().is_server_error() {
        true => Close(1013, "try again in a moment".to_owned()),
        false => Close(4403, format!("Forbidden: {}", problem.message())),
    }
}

impl Connection {
    async fn message(&mut self, text: &str) -> Result<(), Close> {
        let message: Json = serde_json::from_str(text).map_err(|_| malformed("it is no JSON"))?;
        let payload = message.get("payload").filter(|payload| !payload.is_null());
        let kind = message.get("type").and_then(Json::as_str).ok_or_else(|| malformed("it has no type"))?;
        match kind {
            "connection_init" => self.begin(payload).await,
            "ping" => {
                let mut pong = json!({ "type": "pong" });
                if let (Some(payload), Some(members)) = (payload, pong.as_object_mut()) {
                    members.insert("payload".to_owned(), payload.clone());
                }
                self.mailbox.put(Note::text(pong.to_string()));
                Ok(())
            }
            "pong" => Ok(()),
            "subscribe" => {
                if self.standing != Standing::Known {
                    return Err(Close(4401, "Unauthorized: send connection_init first, and wait for connection_ack".to_owned()));
                }
                let id = name_of(&message)?;
                if self.operations.iter().any(|operation| operation.id == id) {
                    return Err(Close(4409, format!("Subscriber for {id} already exists")));
                }
                let asked = payload.and_then(|payload| serde_json::from_value::<Asked>(payload.clone()).ok());
                let asked = asked.ok_or_else(|| malformed("payload is {\"query\": …, \"variables\": …}"))?;
                match self.operation(&id, asked).await {
                    Ok(operation) => self.operations.push_back(operation),
                    Err(problem) => self.mailbox.put(told("error", &id, Some(json!([failed(problem).into_server_error(Pos::default())])))),
                }
                Ok(())
            }
            "complete" => {
                let id = name_of(&message)?;
                self.operations.retain(|operation| operation.id != id);
                Ok(())
            }
            _ => Err(malformed("this type is not known")),
        }
    }

    /// Takes what the client says of itself: `{"apikey": …, "authorization": "Bearer …"}`, each of them where it is not in the request's head.
    async fn begin(&mut self, payload: Option<&Json>) -> Result<(), Close> {
        if self.standing == Standing::Known {
            return Err(Close(4429, "Too many initialisation requests".to_owned()));
        }
        let word =
            |names: [&str; 2]| names.iter().find_map(|name| payload?.get(*name)?.as_str()).map(str::trim).filter(|word| !word.is_empty());
        let (apikey, bearer) = (word(["apikey", "apiKey"]), word(["authorization", "Authorization"]));
        if let Some(apikey) = apikey {
            self.viewer = self.viewer.with_key(apikey);
        }
        if let Some(bearer) = bearer {
            let token =
                bearer.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or(bearer, |(_, token)| token);
            self.viewer = match key::kind_of(token) {
                // An app without a user sends its key here, too.
                Some(_) if apikey.is_some() => self.viewer.clone(),
                Some(_) => self.viewer.with_key(token),
                None => self.viewer.with_token(token.trim()),
            };
        }
        // What changes from here on is asked about again.
        self.recheck.take();
        let counts = self.viewer.gate().counts();
        if counts.suspected(self.viewer.parts(), Instant::now()).is_some() && !self.viewer.gate().is_good(self.viewer.parts()).await {
            return Err(Close(4403, "Forbidden: too many keys and tokens from this address were not good".to_owned()));
        }
        if let Err(problem) = self.viewer.talker().await {
            if let Some(address) = rates::suspect(self.viewer.parts()).filter(|_| problem.is_unproven()) {
                self.viewer.gate().counts().refused(address, Instant::now());
            }
            return Err(refusal(&problem));
        }
        self.standing = Standing::Known;
        self.mailbox.put(Note::text(json!({ "type": "connection_ack" }).to_string()));
        Ok(())
    }

    /// Begins an operation, judged by what its caller may now.
    async fn operation(&mut self, id: &str, mut asked: Asked) -> Result<Operation, Problem> {
        let (gate, now) = (self.viewer.gate().clone(), Instant::now());
        if self.operations.len() >= limits::GRAPHQL_OPERATIONS_MAX {
            let most = limits::GRAPHQL_OPERATIONS_MAX;
            return Err(Problem::crowd("operations", most, &format!("one connection has at most {most} operations at a time")));
        }
        if !self.begun.admits(limits::JOINS_PER_SECOND_MAX, now) {
            let most = limits::JOINS_PER_SECOND_MAX;
            let why = format!("one connection begins at most {most} operations in a second");
            return Err(Problem::crowd("operations-in-a-second", most as usize, &why).hint("wait a second"));
        }
        // Each counts as a request of its own.
        gate.counts().admit(self.viewer.parts(), now).map_err(|over| gate.limited(&over))?;
        let turn = gate.admit()?;
        let guard = self.viewer.guard().await?;
        let schema = schema_of(&gate, &guard)?;
        bounds::check(&mut asked)?;
        let is_subscription = live::is_asked(&mut asked)?;
        let standing = Arc::new(Notify::new());
        let given = schema.execute_stream(asked.data(Caller::of(&gate, self.viewer.parts(), (guard, Arc::clone(&standing)))));
        let given = if is_subscription { stands(given, &standing).await } else { apart(given, turn) };
        Ok(Operation { id: id.to_owned(), given })
    }

    /// What an operation has given, if anything; its turn is over.
    fn given(&mut self, at: usize, done: Option<Done>) -> Vec<Note> {
        let Some(operation) = self.operations.remove(at) else { return Vec::new() };
        let Some(done) = done else { return vec![told("complete", &operation.id, None)] };
        // Nothing came of it, or its subscription has ended: nothing follows an `error`.
        if done.data == Value::Null && !done.errors.is_empty() {
            return vec![told("error", &operation.id, Some(json!(done.errors)))];
        }
        let note = told("next", &operation.id, Some(json!(done)));
        self.operations.push_back(operation);
        vec![note]
    }
}

/// The client's name for an operation.
fn name_of(message: &Json) -> Result<String, Close> {
    let name = message.get("id").and_then(Json::as_str).filter(|id| !id.is_empty() && id.len() <= limits::GRAPHQL_OPERATION_ID_BYTES_MAX);
    name.map(str::to_owned).ok_or_else(|| malformed("it has no id, or a long one"))
}

fn told(kind: &str, id: &str, payload: Option<Json>) -> Note {
    let mut message = json!({ "id": id, "type": kind });
    if let (Some(payload), Some(members)) = (payload, message.as_object_mut()) {
        members.insert("payload".to_owned(), payload);
    }
    Note::text(message.to_string())
}

impl Speaker for Connection {
    const STOPPING: u16 = 1001;
    const SLOW: u16 = 1013;

    async fn heard(&mut self, heard: Heard<'_>) -> Result<(), Close> {
        match heard {
            Heard::Text(text) => self.message(text).await,
            Heard::Binary(_) => Err(malformed("messages are text")),
        }
    }

    async fn tend(&mut self) -> Vec<Note> {
        if self.standing != Standing::Known || !self.recheck.take() {
            return Vec::new();
        }
        // What a policy says of a collection, each subscription asks for itself. Where nobody can tell, all stays as it was for a moment.
        match self.viewer.talker().await {
            Err(problem) if !problem.status().is_server_error() => {
                let Close(code, why) = refusal(&problem);
                vec![Note::Close(code, why.into())]
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    async fn work(&mut self) -> Result<Vec<Note>, Close> {
        let operations = &mut self.operations;
        let next = std::future::poll_fn(|context| {
            let ready = operations.iter_mut().enumerate().find_map(|(at, operation)| match operation.given.poll_next_unpin(context) {
                Poll::Ready(done) => Some((at, done)),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        match self.standing {
            Standing::Unknown { until } => {
                sleep_until(until).await;
                Err(Close(4408, "Connection initialisation timeout".to_owned()))
            }
            Standing::Known => {
                let (at, done) = tokio::select! {
                    biased;
                    // By `tend`, at once.
                    () = self.recheck.due() => return Ok(Vec::new()),
                    next = next => next,
                };
                Ok(self.given(at, done))
            }
        }
    }

    fn silence(&mut self) -> Option<Note> {
        Some(Note::text(json!({ "type": "ping" }).to_string()))
    }

    fn leave(&mut self) {
        self.operations.clear();
    }
}
