//! One channel of one client.

use std::sync::Arc;

use mobo_core::limits;
use mobo_core::live::LiveChange;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::super::add;
use super::super::feed::{Lost, Subscription};
use super::super::rooms::{Mailbox, Member, Note, SocketNumber, Visitor};
use super::super::viewer::Viewer;
use super::frames::{Message, Payload, broadcast_bytes, push, reply};
use super::join::{Binding, Config, Reading};
use crate::access::Guard;
use crate::problem::Problem;

/// A channel that was joined.
#[derive(Debug)]
pub(super) struct Channel {
    viewer: Viewer,
    topic: String,
    room: String,
    join_ref: Option<String>,
    seat: (SocketNumber, Mailbox),
    config: Config,
    bindings: Vec<Binding>,
    subscription: Subscription,
    /// What was said of this client last.
    shown: Option<Member>,
    lost: Option<Lost>,
}

/// Why a channel is not joined: a code and a sentence.
type Refused = (&'static str, String);

/// The room of a topic: names of the other protocol are others, and whoever says that it is private is in another one than who does not.
pub(super) fn room(topic: &str, private: bool) -> String {
    if private { format!("phoenix-private:{topic}") } else { format!("phoenix:{topic}") }
}

fn refused(problem: &Problem) -> Refused {
    let code = match problem.status().as_u16() {
        401 | 403 => "Unauthorized",
        503 => "ServiceUnavailable",
        _ => "InvalidRequest",
    };
    (code, problem.message().to_owned())
}

fn may_join(viewer: &Viewer, guard: &Guard, (topic, private): (&str, bool)) -> Result<(), Problem> {
    let talker = viewer.talker_of(guard)?;
    if private { talker.may_enter(topic) } else { Ok(()) }
}

/// Reads what a client wants to be told of.
async fn bound(viewer: &Viewer, asked: &[Json], (numbers, views_left): (&mut u64, usize)) -> Result<Vec<Binding>, Refused> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    if asked.len() > limits::BINDINGS_PER_CHANNEL_MAX {
        return Err(("InvalidRequest", format!("one channel has at most {} postgres_changes", limits::BINDINGS_PER_CHANNEL_MAX)));
    }
    let mut reading = Reading::of(viewer, views_left).await.map_err(|problem| refused(&problem))?;
    let read = asked.iter().map(|given| {
        *numbers += 1;
        reading.binding(*numbers, given)
    });
    read.collect::<Result<_, _>>().map_err(|problem| refused(&problem))
}

impl Channel {
    /// Joins; gives what is to be sent first.
    pub(super) async fn join(
        viewer: Viewer,
        seat: (SocketNumber, Mailbox),
        message: &Message,
        (payload, bindings, views_left): (&Json, &mut u64, usize),
    ) -> Result<(Self, Vec<Note>), Refused> {
        let given = payload.get("config").unwrap_or(&Json::Null);
        let config = Config::read(given).map_err(|problem| refused(&problem))?;
        let topic = message.topic.clone();
        may_join(&viewer, &viewer.guard().await.map_err(|problem| refused(&problem))?, (&topic, config.private))
            .map_err(|problem| refused(&problem))?;
        let asked = given.get("postgres_changes").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let wanted = bound(&viewer, asked, (bindings, views_left)).await?;
        let from = config.resume.flatten();
        let ids: Vec<_> = wanted.iter().flat_map(|binding| binding.wanted.iter().map(|wanted| wanted.id())).collect();
        let subscribed = viewer.gate().feed().subscribe(&ids, from).await;
        let (subscription, resumed) = subscribed.map_err(|error| refused(&error.into()))?;
        let resumed = from.is_some() && resumed;
        let channel = Self {
            subscription,
            join_ref: message.join_ref.clone(),
            viewer,
            room: room(&topic, config.private),
            topic,
            seat,
            config,
            bindings: wanted,
            shown: None,
            lost: None,
        };
        let entered = channel.viewer.gate().rooms().enter(&channel.room, channel.visitor(None), 0);
        let entered = entered.map_err(|_| ("ConnectionRateLimitReached", "this node has no place for another channel".to_owned()))?;
        let confirmed: Vec<Json> = channel.bindings.iter().map(Binding::confirmed).collect();
        let mut response = json!({ "postgres_changes": confirmed });
        if channel.config.resume.is_some() {
            let at = channel.subscription.at();
            add(&mut response, "mobo", json!({ "stream_id": format!("{:x}", at.log), "serial": at.n, "resumed": resumed }));
        }
        let state = state_of(entered.members);
        let mut notes = vec![reply(message, "ok", &response), channel.push("presence_state", &state)];
        if !channel.bindings.is_empty() {
            notes.push(channel.system("ok", "Subscribed to PostgreSQL"));
        }
        if channel.config.resume.flatten().is_some() && !resumed {
            notes.push(channel.system("error", "resync: expired"));
        }
        Ok((channel, notes))
    }

    /// How many collections it looks at, each counted with every binding.
    pub(super) fn views(&self) -> usize {
        self.bindings.iter().map(|binding| binding.wanted.len()).sum()
    }

    fn visitor(&self, member: Option<Member>) -> Visitor {
        Visitor { socket: self.seat.0, mailbox: self.seat.1.clone(), member, numbered: false }
    }

    fn push(&self, event: &str, payload: &Json) -> Note {
        push(None, &self.topic, event, payload)
    }

    fn system(&self, status: &str, message: &str) -> Note {
        let channel = self.topic.strip_prefix("realtime:").unwrap_or(&self.topic);
        self.push("system", &json!({ "status": status, "message": message, "extension": "postgres_changes", "channel": channel }))
    }

    /// Takes what the client says in this channel.
    pub(super) async fn told(&mut self, message: &Message, event: &str, payload: &Json) {
        let mailbox = self.seat.1.clone();
        match event {
            "broadcast" => self.broadcast(message),
            "presence" => {
                let done = self.presence(payload);
                let (status, response) = match done {
                    Ok(()) => ("ok", json!({})),
                    Err(why) => ("error", json!({ "reason": why })),
                };
                mailbox.put(reply(message, status, &response));
            }
            "access_token" => {
                if let Some(token) = payload.get("access_token").and_then(Json::as_str).filter(|token| crate::key::kind_of(token).is_none())
                {
                    self.viewer = self.viewer.with_token(token);
                }
            }
            _ => mailbox.put(reply(message, "error", &json!({ "reason": "unmatched event" }))),
        }
    }

    fn broadcast(&self, message: &Message) {
        let note = match &message.payload {
            Payload::Json(payload) => Some(self.push("broadcast", payload)),
            Payload::Bytes(event, bytes) => broadcast_bytes(&self.topic, event, bytes),
        };
        let Some(note) = note else { return };
        let except = (!self.config.broadcast_self).then_some(self.seat.0);
        self.viewer.gate().rooms().tell(&self.room, except, &note);
        if self.config.broadcast_ack {
            self.seat.1.put(reply(message, "ok", &json!({})));
        }
    }

    fn presence(&mut self, payload: &Json) -> Result<(), String> {
        let rooms = self.viewer.gate().rooms();
        let key = if self.config.presence_key.is_empty() { format!("socket-{}", self.seat.0) } else { self.config.presence_key.clone() };
        let member = match payload.get("event").and_then(Json::as_str) {
            Some("track") => {
                let said = payload.get("payload").cloned().unwrap_or_else(|| json!({}));
                if said.to_string().len() > limits::PRESENCE_BYTES_MAX {
                    return Err(format!("what is tracked has at most {} bytes", limits::PRESENCE_BYTES_MAX));
                }
                let mut meta = said.as_object().cloned().unwrap_or_default();
                meta.insert("phx_ref".to_owned(), Uuid::now_v7().simple().to_string().into());
                Some(Member { key, info: Json::Object(meta) })
            }
            Some("untrack") => None,
            _ => return Err("a presence event is track or untrack".to_owned()),
        };
        rooms.enter(&self.room, self.visitor(member.clone()), 0).map_err(|_| "this channel is full".to_owned())?;
        let left = std::mem::replace(&mut self.shown, member.clone());
        rooms.tell(&self.room, None, &self.diff(member, left));
        Ok(())
    }

    fn diff(&self, joined: Option<Member>, left: Option<Member>) -> Note {
        let of = |member: Option<Member>| state_of(member.into_iter().map(|member| (0, member)).collect());
        self.push("presence_diff", &json!({ "joins": of(joined), "leaves": of(left) }))
    }

    /// The next changes, as they are sent. It may be dropped while it waits.
    pub(super) async fn next(&mut self) -> Vec<Note> {
        if let Some(lost) = self.lost.take() {
            self.subscription.restart();
            return vec![self.system("error", &format!("resync: {}", lost.word()))];
        }
        match self.subscription.next().await {
            Ok(changes) => changes.iter().flat_map(|change| self.tell(change)).collect(),
            Err(lost) => {
                self.lost = Some(lost);
                Vec::new()
            }
        }
    }

    fn tell(&self, change: &Arc<LiveChange>) -> Vec<Note> {
        let mut told: Vec<(Vec<u64>, Json)> = Vec::new();
        for binding in &self.bindings {
            let Some(data) = binding.tell(change) else { continue };
            match told.iter_mut().find(|(_, other)| *other == data) {
                Some((ids, _)) => ids.push(binding.id),
                None => told.push((vec![binding.id], data)),
            }
        }
        // Bindings that see different parts of one change are told it one after the other.
        let notes = told.into_iter().map(|(ids, data)| {
            let mut payload = json!({ "ids": ids, "data": data });
            if self.config.resume.is_some() {
                add(&mut payload, "stream_id", format!("{:x}", self.subscription.at().log));
                add(&mut payload, "serial", change.n);
            }
            self.push("postgres_changes", &payload)
        });
        notes.collect()
    }

    /// Asks again what this client may see.
    pub(super) async fn ask_again(&mut self) -> Result<(), Problem> {
        let asked = async {
            let guard = self.viewer.guard().await?;
            may_join(&self.viewer, &guard, (&self.topic, self.config.private))?;
            self.bindings.iter_mut().flat_map(|binding| &mut binding.wanted).try_for_each(|wanted| wanted.ask_again(&guard))
        };
        // Nobody could tell: it stays as it was, for a moment.
        asked.await.or_else(|problem: Problem| if problem.status().is_server_error() { Ok(()) } else { Err(problem) })
    }

    /// What is sent to a client that may not see this any more.
    pub(super) fn refused(&self, problem: &Problem) -> [Note; 2] {
        let (code, why) = refused(problem);
        [self.system("error", &format!("{code}: {why}")), push(self.join_ref.as_deref(), &self.topic, "phx_close", &json!({}))]
    }

    /// Goes out.
    pub(super) fn leave(self) {
        let rooms = self.viewer.gate().rooms();
        rooms.leave(&self.room, self.seat.0);
        if let Some(left) = self.shown.clone() {
            rooms.tell(&self.room, None, &self.diff(None, Some(left)));
        }
    }
}

/// Members by name, each with what its connections say of themselves.
fn state_of(members: Vec<(SocketNumber, Member)>) -> Json {
    let mut state = Map::new();
    for (_, Member { key, info }) in members {
        let metas = state.entry(key).or_insert_with(|| json!({ "metas": [] }));
        if let Some(Json::Array(metas)) = metas.get_mut("metas") {
            metas.push(info);
        }
    }
    Json::Object(state)
}
