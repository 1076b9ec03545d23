//! Pusher's protocol, version 7, at `/app/{key}`: public, private and presence channels, events of clients and of servers.
//!
//! Events that were published are numbered in each channel. A client that subscribes with `"mobo": {"resume": true}` finds `stream_id` and
//! `serial` in them, and after it was cut off sends `mobo:resume` with what it has seen last: it gets what it has missed, or is told that
//! this cannot be proven. Channels are in the memory of one node.

mod app;
mod counting;
mod hooks;
mod http;
mod names;
mod openers;
mod speaker;
mod told;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use mobo_core::limits;
use serde_json::{Value as Json, json};

pub use app::PusherApp;
pub(crate) use counting::Counting;
pub use hooks::{HookBatch, HookKind, HookQueue, Hooks};
pub(crate) use http::{authorize, authorize_user, handle as api};
pub(crate) use openers::Openers;

use super::rooms::{Note, mailbox};
use super::socket::converse;
use super::{add, query_word};
use crate::gate::Gate;
use crate::problem::Problem;
use crate::upgrade;
use speaker::Pusher;

/// Seconds after which a client asks whether the node is there.
const ACTIVITY_TIMEOUT_S: u64 = limits::WS_SILENCE.as_secs() / 2;

/// Answers a request for a socket.
pub(crate) async fn connect(State(gate): State<Gate>, Path(key): Path<String>, request: Request) -> Response {
    accept(&gate, &key, request).unwrap_or_else(|problem| problem.into_response())
}

fn accept(gate: &Gate, key: &str, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let app = gate.settings().pusher.iter().find(|app| app.key == key).cloned();
    let refused = match (&app, query_word(&parts, "protocol").as_deref()) {
        (None, _) => Some((4001, "there is no app of this key here")),
        (_, Some("5" | "6" | "7")) => None,
        (_, None) => Some((4008, "say which protocol, as in ?protocol=7")),
        (_, Some(_)) => Some((4007, "protocol 7 is spoken here")),
    };
    // Who is told no does not stay.
    let place = if refused.is_none() { Some(gate.place_for_subscriber(&parts)?) } else { None };
    let gate = gate.clone();
    upgrade::switch(Request::from_parts(parts, body), async move |stream| {
        let (mailbox, mail) = mailbox();
        let speaker = Pusher::new(gate.clone(), app.map(Arc::new), mailbox.clone(), place);
        match refused {
            Some((code, why)) => {
                mailbox.put(event("pusher:error", None, &json!({ "code": code, "message": why })));
                mailbox.put(Note::Close(code, why.into()));
            }
            None => mailbox.put(speaker.greeting()),
        }
        converse(&gate, stream, speaker, mail).await;
    })
}

/// An event of the protocol itself.
fn event(name: &str, channel: Option<&str>, data: &Json) -> Note {
    let mut event = json!({ "event": name, "data": data });
    if let Some(channel) = channel {
        add(&mut event, "channel", channel);
    }
    Note::text(event.to_string())
}

/// An event of the protocol whose data is JSON within a text.
fn internal(name: &str, channel: Option<&str>, data: &Json) -> Note {
    event(name, channel, &Json::String(data.to_string()))
}

/// An event that somebody publishes: as everybody gets it, or with its stream and number.
fn published(channel: &str, (name, data): (&str, &Json), user: Option<&str>, number: Option<(u64, u64)>) -> Note {
    let mut event = json!({ "event": name, "channel": channel, "data": data });
    if let Some(user) = user {
        add(&mut event, "user_id", user);
    }
    if let Some((stream, serial)) = number {
        add(&mut event, "stream_id", format!("{stream:x}"));
        add(&mut event, "serial", serial);
    }
    Note::text(event.to_string())
}
