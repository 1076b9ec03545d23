//! Supabase's realtime: Phoenix channels, version 2, at `/realtime/v1/websocket?apikey=…&vsn=2.0.0`.
//!
//! `postgres_changes`, broadcasts and presence, as an unmodified `supabase-js` wants them. A client that knows the extension sends
//! `config.mobo: {stream_id, serial}` when it joins and finds the same in every change; others begin at the end of the log.

mod channel;
mod frames;
mod join;

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use mobo_core::limits;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::pace::Pace;
use super::rooms::{Mailbox, Note, SocketNumber, mailbox};
use super::socket::{Close, Heard, Speaker, converse};
use super::viewer::Viewer;
use super::{Place, Recheck, query_word};
use crate::gate::Gate;
use crate::problem::Problem;
use crate::upgrade;
use channel::Channel;
use frames::{Message, Payload, push, reply};

const TOO_FAST: &str = "MessagePerSecondRateLimitReached: too many messages in one second";

/// Answers a request for a socket.
pub(crate) async fn handle(State(gate): State<Gate>, request: Request) -> Response {
    match accept(&gate, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn accept(gate: &Gate, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    match query_word(&parts, "vsn").as_deref() {
        Some("2.0.0") => {}
        other => {
            let message = format!("messages of version {} are not spoken here", other.unwrap_or("1.0.0"));
            return Err(Problem::parse(message).hint("connect with vsn=2.0.0, as supabase-js does"));
        }
    }
    let mut viewer = Viewer::of(gate.clone(), &parts);
    if let Some(key) = query_word(&parts, "apikey").filter(|key| !key.is_empty()) {
        viewer = viewer.with_key(&key);
    }
    let recheck = Recheck::begin(gate);
    viewer.talker().await?;
    let place = gate.place_for_subscriber(&parts)?;
    let gate = gate.clone();
    upgrade::switch(Request::from_parts(parts, body), async move |stream| {
        let (mailbox, mail) = mailbox();
        let number = gate.rooms().number();
        let channels = BTreeMap::new();
        let pace = Pace::begin(Instant::now());
        let speaker = Phoenix { viewer, recheck, number, mailbox, channels, bindings: 0, said: pace, joined: pace, _place: place };
        converse(&gate, stream, speaker, mail).await;
    })
}

struct Phoenix {
    viewer: Viewer,
    recheck: Recheck,
    number: SocketNumber,
    mailbox: Mailbox,
    /// By topic.
    channels: BTreeMap<String, Channel>,
    /// Numbers given to bindings.
    bindings: u64,
    /// What it said in rooms, in this second.
    said: Pace,
    /// Channels that it has joined, in this second.
    joined: Pace,
    _place: Place,
}

impl Phoenix {
    async fn message(&mut self, message: Message) -> Result<(), Close> {
        let json = match &message.payload {
            Payload::Json(json) => json.clone(),
            Payload::Bytes(..) => Json::Null,
        };
        match (message.topic.as_str(), message.event.as_str()) {
            ("phoenix", "heartbeat") => self.mailbox.put(reply(&message, "ok", &json!({}))),
            (_, "phx_join") => self.join(&message, &json).await,
            (_, "phx_leave") => {
                self.mailbox.put(reply(&message, "ok", &json!({})));
                if let Some(channel) = self.channels.remove(&message.topic) {
                    channel.leave();
                    self.mailbox.put(push(message.join_ref.as_deref(), &message.topic, "phx_close", &json!({})));
                }
            }
            (_, "broadcast" | "presence") if !self.said.admits(limits::CLIENT_EVENTS_PER_SECOND_MAX, Instant::now()) => {
                self.mailbox.put(reply(&message, "error", &json!({ "reason": TOO_FAST })));
            }
            (topic, event) => match self.channels.get_mut(topic) {
                Some(channel) => channel.told(&message, event, &json).await,
                None => self.mailbox.put(reply(&message, "error", &json!({ "reason": "unmatched topic" }))),
            },
        }
        Ok(())
    }

    async fn join(&mut self, message: &Message, payload: &Json) {
        if let Some(old) = self.channels.remove(&message.topic) {
            old.leave();
        }
        let joined = if self.channels.len() >= limits::CHANNELS_PER_SOCKET_MAX {
            Err(("ChannelRateLimitReached", format!("one connection has at most {} channels", limits::CHANNELS_PER_SOCKET_MAX)))
        } else if !self.joined.admits(limits::JOINS_PER_SECOND_MAX, Instant::now()) {
            Err(("ClientJoinRateLimitReached", "too many channels were joined in one second".to_owned()))
        } else if !frames::is_topic(&message.topic) {
            Err(("InvalidTopic", "a topic is a text of at most 173 letters".to_owned()))
        } else {
            let viewer = match payload.get("access_token").and_then(Json::as_str) {
                // An app without a user sends its key here.
                Some(token) if crate::key::kind_of(token).is_none() => self.viewer.with_token(token),
                Some(_) | None => self.viewer.clone(),
            };
            let seat = (self.number, self.mailbox.clone());
            let views_left = limits::VIEWS_PER_SOCKET_MAX.saturating_sub(self.channels.values().map(Channel::views).sum());
            Channel::join(viewer, seat, message, (payload, &mut self.bindings, views_left)).await
        };
        match joined {
            Ok((channel, notes)) => {
                self.channels.insert(message.topic.clone(), channel);
                notes.into_iter().for_each(|note| self.mailbox.put(note));
            }
            Err((code, why)) => self.mailbox.put(reply(message, "error", &json!({ "reason": format!("{code}: {why}") }))),
        }
    }

    /// Asks again what every channel may see; those that may not any more are closed.
    async fn ask_again(&mut self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut gone = Vec::new();
        for (topic, channel) in &mut self.channels {
            if let Err(problem) = channel.ask_again().await {
                notes.extend(channel.refused(&problem));
                gone.push(topic.clone());
            }
        }
        for topic in gone {
            self.channels.remove(&topic).into_iter().for_each(|channel| channel.leave());
        }
        notes
    }
}

impl Speaker for Phoenix {
    const STOPPING: u16 = 1001;
    const SLOW: u16 = 1013;

    async fn heard(&mut self, heard: Heard<'_>) -> Result<(), Close> {
        let message = match heard {
            Heard::Text(text) => frames::read_text(text)?,
            Heard::Binary(bytes) => frames::read_binary(bytes)?,
        };
        self.message(message).await
    }

    async fn tend(&mut self) -> Vec<Note> {
        // What has changed while others talked is seen here.
        if self.recheck.take() { self.ask_again().await } else { Vec::new() }
    }

    async fn work(&mut self) -> Result<Vec<Note>, Close> {
        let mut nexts: Vec<_> = self.channels.values_mut().map(|channel| Box::pin(channel.next())).collect();
        let first = std::future::poll_fn(|context| {
            let ready = nexts.iter_mut().find_map(|next| match next.as_mut().poll(context) {
                std::task::Poll::Ready(notes) => Some(notes),
                std::task::Poll::Pending => None,
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        tokio::select! {
            biased;
            // By `tend`, at once.
            () = self.recheck.due() => Ok(Vec::new()),
            notes = first => Ok(notes),
        }
    }

    fn silence(&mut self) -> Option<Note> {
        None
    }

    fn leave(&mut self) {
        std::mem::take(&mut self.channels).into_values().for_each(Channel::leave);
    }
}

/// Answers `POST /realtime/v1/api/broadcast`: messages to rooms, from a server.
pub(crate) async fn broadcast(State(gate): State<Gate>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let told = async {
        let _place = gate.admit()?;
        let talker = Viewer::of(gate.clone(), &parts).talker().await?;
        talker.may_call_in()?;
        let held = crate::body::read(&gate, &parts.headers, &mut body).await?;
        let given: Json = serde_json::from_slice(&held).map_err(|_| Problem::bad_body("this is no JSON"))?;
        let messages = given.get("messages").and_then(Json::as_array);
        let messages = messages.ok_or_else(|| Problem::bad_body("send {\"messages\": [{\"topic\", \"event\", \"payload\"}]}"))?;
        if messages.len() > limits::BROADCASTS_PER_REQUEST_MAX {
            return Err(Problem::too_large(format!("one request holds at most {} messages", limits::BROADCASTS_PER_REQUEST_MAX)));
        }
        if !talker.is_trusted() {
            gate.counts().talk(talker.name(), messages.len(), Instant::now()).map_err(|over| gate.limited(&over))?;
        }
        for message in messages {
            let word = |name: &str| message.get(name).and_then(Json::as_str).filter(|word| !word.is_empty());
            let (Some(topic), Some(event)) = (word("topic"), word("event")) else {
                return Err(Problem::bad_body("every message has a topic and an event"));
            };
            let payload = json!({ "type": "broadcast", "event": event, "payload": message.get("payload") });
            let topic = format!("realtime:{}", topic.trim_start_matches("realtime:"));
            let private = message.get("private").and_then(Json::as_bool).unwrap_or(false);
            if private {
                talker.may_enter(&topic)?;
            }
            gate.rooms().tell(&channel::room(&topic, private), None, &push(None, &topic, "broadcast", &payload));
        }
        Ok(axum::http::StatusCode::ACCEPTED.into_response())
    };
    told.await.unwrap_or_else(|problem: Problem| problem.into_response())
}
