//! The HTTP API of Pusher's protocol, for servers: `/apps/{id}/…`, signed with the app's secret; and `/pusher/auth`
//! and `/pusher/user-auth`, for clients of ours.

use std::str;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mobo_core::limits;
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};

use super::super::add;
use super::super::rooms::Note;
use super::super::viewer::{Talker, Viewer};
use super::app::PusherApp;
use super::names::{Kind, has_memory, is_channel, room, user_room};
use super::openers::USER;
use super::published;
use crate::gate::Gate;
use crate::problem::Problem;
use crate::{body, problem};

/// Answers a request of a server.
pub(crate) async fn handle(State(gate): State<Gate>, Path((id, rest)): Path<(String, String)>, request: Request) -> Response {
    answer(&gate, (&id, &rest), request).await.unwrap_or_else(|problem| problem.into_response())
}

async fn answer(gate: &Gate, (id, rest): (&str, &str), request: Request) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let (parts, mut body) = request.into_parts();
    let query = words(parts.uri.query().unwrap_or_default());
    let app = gate.settings().pusher.iter().find(|app| app.id == id);
    let app = app.ok_or_else(|| Problem::unauthorized("there is no app of this id and signature here"))?;
    let now_s = gate.backend().now().0.div_euclid(1_000_000);
    // The signature is over the body's hash: nobody's body is read who has not signed.
    app.check_head((parts.method.as_str(), parts.uri.path()), &query, now_s).map_err(Problem::unauthorized)?;
    let held = body::read(gate, &parts.headers, &mut body).await?;
    PusherApp::check_body(&query, &held).map_err(Problem::unauthorized)?;
    let desk = Desk { gate, app };
    let segments: Vec<&str> = rest.split('/').collect();
    let done = match (parts.method.as_str(), segments.as_slice()) {
        ("POST", ["events"]) => desk.publish(&json_of(&held)?)?,
        ("POST", ["batch_events"]) => desk.publish_batch(&json_of(&held)?)?,
        ("GET", ["channels"]) => desk.channels(query.iter().find(|(name, _)| name == "filter_by_prefix").map_or("", |(_, prefix)| prefix)),
        ("GET", ["channels", channel]) => desk.channel(channel),
        ("GET", ["channels", channel, "users"]) => desk.users(channel)?,
        ("POST", ["users", user, "terminate_connections"]) => {
            let note = Note::Close(4009, "this user was signed out".into());
            gate.rooms().tell(&user_room(&app.id, user), None, &note);
            json!({})
        }
        (_, ["events" | "batch_events"] | ["users", _, "terminate_connections"]) => return Err(problem::method("POST")),
        (_, ["channels", ..]) => return Err(problem::method("GET")),
        _ => return Err(Problem::no_route()),
    };
    Ok(axum::Json(done).into_response())
}

fn json_of(body: &[u8]) -> Result<Json, Problem> {
    serde_json::from_slice(body).map_err(|_| Problem::bad_body("the body is no JSON"))
}

/// The words of a query or a form, decoded.
fn words(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// What a server does for its app.
struct Desk<'a> {
    gate: &'a Gate,
    app: &'a PusherApp,
}

impl Desk<'_> {
    fn publish(&self, event: &Json) -> Result<Json, Problem> {
        let many = event.get("channels").and_then(Json::as_array);
        let channels: Vec<&str> = match many {
            Some(channels) => channels.iter().filter_map(Json::as_str).collect(),
            None => event.get("channel").and_then(Json::as_str).into_iter().collect(),
        };
        if channels.is_empty() || channels.len() > limits::CHANNELS_PER_SOCKET_MAX {
            return Err(Problem::bad_body("an event is published in 1 to 100 channels"));
        }
        let (name, data) = (event.get("name").and_then(Json::as_str).unwrap_or_default(), event.get("data").unwrap_or(&Json::Null));
        if name.is_empty() || name.chars().count() > limits::EVENT_NAME_MAX {
            return Err(Problem::bad_body("the name of an event has 1 to 200 letters"));
        }
        if data.as_str().map_or_else(|| data.to_string().len(), str::len) > limits::EVENT_BYTES_MAX {
            return Err(Problem::too_large(format!("the data of an event has at most {} bytes", limits::EVENT_BYTES_MAX)));
        }
        if let Some(bad) = channels.iter().find(|channel| !is_channel(channel)) {
            return Err(Problem::bad_body(format!("\"{}\" is no name of a channel", bad.escape_default())));
        }
        // The number behind the dot says which connection that is.
        let except = event.get("socket_id").and_then(Json::as_str).and_then(|id| id.split_once('.')?.1.parse().ok());
        for channel in channels {
            let make = |number| published(channel, (name, data), None, number);
            self.gate.rooms().publish(&room(&self.app.id, channel), except, has_memory(channel), make);
        }
        Ok(json!({}))
    }

    fn publish_batch(&self, body: &Json) -> Result<Json, Problem> {
        let events = body.get("batch").and_then(Json::as_array).filter(|events| events.len() <= limits::EVENT_BATCH_MAX);
        let events = events.ok_or_else(|| Problem::bad_body("send {\"batch\": […]} with at most 10 events"))?;
        events.iter().try_for_each(|event| self.publish(event).map(drop))?;
        Ok(json!({}))
    }

    fn channels(&self, prefix: &str) -> Json {
        let base = room(&self.app.id, "");
        let shown = self.gate.rooms().occupied(&format!("{base}{prefix}")).into_iter().map(|(name, _)| {
            let channel = name.strip_prefix(&base).unwrap_or_default().to_owned();
            let users = self.user_ids(&channel).len();
            let said = if Kind::of(&channel) == Kind::Presence { json!({ "user_count": users }) } else { json!({}) };
            (channel, said)
        });
        json!({ "channels": shown.collect::<serde_json::Map<_, _>>() })
    }

    fn channel(&self, channel: &str) -> Json {
        let name = room(&self.app.id, channel);
        let count = self.gate.rooms().count(&name);
        let mut shown = json!({ "occupied": count > 0, "subscription_count": count });
        if Kind::of(channel) == Kind::Presence {
            add(&mut shown, "user_count", self.user_ids(channel).len());
        }
        shown
    }

    fn users(&self, channel: &str) -> Result<Json, Problem> {
        if Kind::of(channel) != Kind::Presence {
            return Err(Problem::bad_body("only presence channels know their users"));
        }
        let users: Vec<Json> = self.user_ids(channel).into_iter().map(|id| json!({ "id": id })).collect();
        Ok(json!({ "users": users }))
    }

    fn user_ids(&self, channel: &str) -> std::collections::BTreeSet<String> {
        self.gate.rooms().members(&room(&self.app.id, channel)).into_iter().map(|(_, member)| member.key).collect()
    }
}

/// Answers `POST /pusher/auth`: a signature for a channel, for who is signed in here.
pub(crate) async fn authorize(State(gate): State<Gate>, request: Request) -> Response {
    signed(&gate, request, sign).await
}

/// Answers `POST /pusher/user-auth`: a signature for the connection of a user who is signed in here.
pub(crate) async fn authorize_user(State(gate): State<Gate>, request: Request) -> Response {
    signed(&gate, request, sign_user).await
}

/// How a form is signed for somebody.
type Sign = fn(&Gate, (&Viewer, &Talker), &Form) -> Result<Json, Problem>;

async fn signed(gate: &Gate, request: Request, sign: Sign) -> Response {
    let (parts, mut body) = request.into_parts();
    let answer = async {
        let _place = gate.admit()?;
        let viewer = Viewer::of(gate.clone(), &parts);
        let talker = viewer.talker().await?;
        talker.may_call_in()?;
        let held = body::read_small(gate, &parts.headers, &mut body).await?;
        sign(gate, (&viewer, &talker), &Form(words(str::from_utf8(&held).unwrap_or_default())))
    };
    match answer.await {
        Ok(signed) => axum::Json(signed).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What a client sends to have something signed.
struct Form(Vec<(String, String)>);

impl Form {
    fn word(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    /// The connection, where the form names one.
    fn socket(&self) -> Option<&str> {
        let socket = self.word("socket_id");
        let is_socket = socket.split_once('.').is_some_and(|(a, b)| [a, b].iter().all(|part| part.parse::<u64>().is_ok()));
        is_socket.then_some(socket)
    }
}

fn app_of(gate: &Gate) -> Result<&PusherApp, Problem> {
    gate.settings().pusher.first().ok_or_else(|| {
        let message = "this node has no app of the Pusher protocol";
        Problem::new(StatusCode::NOT_FOUND, "MB404", "No app", message).hint("set pusher.id, pusher.key and pusher.secret")
    })
}

fn sign(gate: &Gate, (viewer, talker): (&Viewer, &Talker), form: &Form) -> Result<Json, Problem> {
    let channel = form.word("channel_name");
    let Some(socket) = form.socket().filter(|_| is_channel(channel) && Kind::of(channel) != Kind::Public) else {
        return Err(Problem::bad_body("send socket_id and channel_name of a private or presence channel, as a form"));
    };
    let app = app_of(gate)?;
    talker.may_enter(channel)?;
    remember(gate, socket, channel, viewer)?;
    if Kind::of(channel) == Kind::Private {
        return Ok(json!({ "auth": app.sign(&format!("{socket}:{channel}")) }));
    }
    let data = json!({ "user_id": talker.name(), "user_info": {} }).to_string();
    Ok(json!({ "auth": app.sign(&format!("{socket}:{channel}:{data}")), "channel_data": data }))
}

fn remember(gate: &Gate, socket: &str, channel: &str, viewer: &Viewer) -> Result<(), Problem> {
    if gate.openers().signed(socket, channel, viewer.clone()) {
        return Ok(());
    }
    let (most, message) =
        (limits::CHANNELS_SIGNED_PER_SOCKET_MAX, "this connection has had as many channels signed as can be watched over");
    Err(Problem::crowd("channels-of-connection", most, message).hint("open another connection"))
}

fn sign_user(gate: &Gate, (viewer, talker): (&Viewer, &Talker), form: &Form) -> Result<Json, Problem> {
    let Some(socket) = form.socket() else { return Err(Problem::bad_body("send socket_id, as a form")) };
    let app = app_of(gate)?;
    remember(gate, socket, &format!("{USER}{}", talker.name()), viewer)?;
    let data = json!({ "id": talker.name(), "user_info": {} }).to_string();
    Ok(json!({ "auth": app.sign(&format!("{socket}::user::{data}")), "user_data": data }))
}
