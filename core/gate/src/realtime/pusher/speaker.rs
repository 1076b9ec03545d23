//! One client of Pusher's protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::limits;
use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::pace::Pace;
use super::super::rooms::{Entered, Mailbox, Member, Note, SocketNumber, Visitor};
use super::super::socket::{Close, Heard, Speaker};
use super::super::{Place, Recheck, add};
use super::app::PusherApp;
use super::names::{Kind, has_memory, is_channel, room, user_room};
use super::openers::USER;
use super::{ACTIVITY_TIMEOUT_S, HookKind, event, internal, published, told};
use crate::gate::Gate;

/// A client and its channels.
pub(super) struct Pusher {
    gate: Gate,
    app: Option<Arc<PusherApp>>,
    number: SocketNumber,
    socket_id: String,
    mailbox: Mailbox,
    channels: BTreeMap<String, Joined>,
    user: Option<String>,
    /// Events of this client in this second.
    spoken: Pace,
    /// When those who had channels signed are asked again.
    recheck: Recheck,
    _place: Option<Place>,
}

/// A channel that the client is in.
#[derive(Clone, Debug)]
struct Joined {
    user: Option<String>,
    stream: u64,
    /// What was published up to here was before it came in.
    serial: u64,
}

/// Why the client is told no, in the channel.
struct Refused(&'static str, u16);

impl Pusher {
    pub(super) fn new(gate: Gate, app: Option<Arc<PusherApp>>, mailbox: Mailbox, place: Option<Place>) -> Self {
        let number = gate.rooms().number();
        let socket_id = format!("{}.{number}", random() & 0x7fff_ffff);
        let spoken = Pace::begin(Instant::now());
        gate.openers().begin(&socket_id);
        let recheck = Recheck::begin(&gate);
        Self { gate, app, number, socket_id, mailbox, channels: BTreeMap::new(), user: None, spoken, recheck, _place: place }
    }

    /// The first event.
    pub(super) fn greeting(&self) -> Note {
        let data = json!({ "socket_id": self.socket_id, "activity_timeout": ACTIVITY_TIMEOUT_S });
        internal("pusher:connection_established", None, &data)
    }

    fn app(&self) -> Result<Arc<PusherApp>, Close> {
        self.app.clone().ok_or_else(|| Close(4001, "there is no app of this key here".to_owned()))
    }

    fn message(&mut self, text: &str) -> Result<(), Close> {
        let app = self.app()?;
        let malformed = || Close(4200, "this is no event".to_owned());
        let message: Json = serde_json::from_str(text).map_err(|_| malformed())?;
        let name = message.get("event").and_then(Json::as_str).ok_or_else(malformed)?;
        let data = message.get("data").cloned().unwrap_or(Json::Null);
        // Some clients put the data of the protocol's own events into a text, too.
        let own = match data.as_str().map(serde_json::from_str) {
            Some(Ok(inner)) => inner,
            Some(Err(_)) | None => data.clone(),
        };
        let channel = || own.get("channel").and_then(Json::as_str).unwrap_or_default().to_owned();
        match name {
            "pusher:ping" => self.mailbox.put(event("pusher:pong", None, &json!({}))),
            "pusher:pong" => {}
            "pusher:subscribe" => {
                if let Err(Refused(why, status)) = self.subscribe(&app, &channel(), &own) {
                    let data = json!({ "type": "AuthError", "error": why, "status": status });
                    self.mailbox.put(event("pusher:subscription_error", Some(&channel()), &data));
                }
            }
            "pusher:unsubscribe" => self.unsubscribe(&app, &channel()),
            "pusher:signin" => self.sign_in(&app, &own)?,
            "mobo:resume" => self.resume(&app, &channel(), &own),
            name if name.starts_with("client-") => {
                let channel = message.get("channel").and_then(Json::as_str).unwrap_or_default();
                if let Err(why) = self.client_event(&app, (channel, name), &data) {
                    self.mailbox.put(event("pusher:error", None, &json!({ "code": 4301, "message": why })));
                }
            }
            _ => self.mailbox.put(event("pusher:error", None, &json!({ "code": null, "message": "this event is not known here" }))),
        }
        Ok(())
    }

    fn subscribe(&mut self, app: &PusherApp, channel: &str, data: &Json) -> Result<(), Refused> {
        if !is_channel(channel) {
            return Err(Refused("a channel is 1 to 164 letters of A-Za-z0-9_-=@,.;", 400));
        }
        if !self.channels.contains_key(channel) && self.channels.len() >= limits::CHANNELS_PER_SOCKET_MAX {
            return Err(Refused("one connection has at most 100 channels", 429));
        }
        let (kind, word) = (Kind::of(channel), |name: &str| data.get(name).and_then(Json::as_str).unwrap_or_default());
        let shown = word("channel_data");
        let signed = match kind {
            Kind::Public => None,
            Kind::Private if shown.is_empty() => Some(format!("{}:{channel}", self.socket_id)),
            Kind::Private | Kind::Presence => Some(format!("{}:{channel}:{shown}", self.socket_id)),
        };
        if signed.is_some_and(|text| !app.has_signed(&text, word("auth"))) {
            return Err(Refused("the signature does not fit", 401));
        }
        let member = if kind == Kind::Presence { Some(member(shown)?) } else { None };
        let numbered = data.pointer("/mobo/resume").and_then(Json::as_bool).unwrap_or(false);
        let user = member.as_ref().map(|member| member.key.clone());
        let visitor = Visitor { socket: self.number, mailbox: self.mailbox.clone(), member: member.clone(), numbered };
        let name = room(&app.id, channel);
        let entered =
            self.gate.rooms().enter_telling(&name, (visitor, random()), |entered| told::entered(app, channel, (entered, user.as_deref())));
        let entered = entered.map_err(|_| Refused("this channel is full", 429))?;
        let joined = Joined { user, stream: entered.stream, serial: entered.serial };
        self.channels.insert(channel.to_owned(), joined);
        self.greet(channel, (kind, numbered), &entered);
        if has_memory(channel) && entered.last.is_none() {
            app.hooks().inspect(|hooks| hooks.tell_of(HookKind::CacheMiss, channel));
        }
        // This connection was somebody else here.
        if let Some(gone) = entered.gone {
            self.member_removed(&name, channel, &gone);
        }
        if let Some(member) = member.filter(|_| entered.is_new) {
            let data = json!({ "user_id": member.key, "user_info": member.info });
            let note = internal("pusher_internal:member_added", Some(channel), &data);
            self.gate.rooms().tell(&name, Some(self.number), &note);
        }
        told::count(&self.gate, app, channel);
        Ok(())
    }

    fn greet(&self, channel: &str, (kind, numbered): (Kind, bool), entered: &Entered) {
        let mut data = json!({});
        if kind == Kind::Presence {
            let hash: Map<String, Json> = entered.members.iter().map(|(_, member)| (member.key.clone(), member.info.clone())).collect();
            let ids: Vec<&String> = hash.keys().collect();
            add(&mut data, "presence", json!({ "ids": ids, "hash": hash, "count": hash.len() }));
        }
        if numbered {
            add(&mut data, "stream_id", format!("{:x}", entered.stream));
            add(&mut data, "serial", entered.serial);
        }
        self.mailbox.put(internal("pusher_internal:subscription_succeeded", Some(channel), &data));
        if has_memory(channel) {
            self.mailbox.put(entered.last.clone().unwrap_or_else(|| event("pusher:cache_miss", Some(channel), &json!({}))));
        }
    }

    fn unsubscribe(&mut self, app: &PusherApp, channel: &str) {
        if self.channels.remove(channel).is_none() {
            return;
        }
        let name = room(&app.id, channel);
        if let Some(member) = self.gate.rooms().leave_telling(&name, self.number, |left| told::left(app, channel, left)) {
            self.member_removed(&name, channel, &member);
        }
        told::count(&self.gate, app, channel);
    }

    fn member_removed(&self, room: &str, channel: &str, member: &Member) {
        let note = internal("pusher_internal:member_removed", Some(channel), &json!({ "user_id": member.key }));
        self.gate.rooms().tell(room, Some(self.number), &note);
    }

    /// Asks again who had channels signed here; those of whom is nobody any more are left. Whoever enters such a one again, by what was signed
    /// once, is asked again, too.
    async fn ask_again(&mut self) -> Vec<Note> {
        let Some(app) = self.app.clone() else { return Vec::new() };
        let mut notes = Vec::new();
        for (channel, viewer) in self.gate.openers().of(&self.socket_id) {
            // Whoever signed in here without being signed for is its own server's business.
            let user = channel.strip_prefix(USER);
            let is_in = user.map_or_else(|| self.channels.contains_key(&channel), |user| self.user.as_deref() == Some(user));
            if !is_in {
                continue;
            }
            let asked = viewer.talker().await;
            let asked = asked.and_then(|talker| if user.is_some() { Ok(()) } else { talker.may_enter(&channel) });
            // What cannot be looked up now is looked up next time.
            let Some(problem) = asked.err().filter(|problem| !problem.status().is_server_error()) else { continue };
            if user.is_some() {
                notes.push(Note::Close(4009, "this user is not signed in any more".into()));
                continue;
            }
            self.unsubscribe(&app, &channel);
            let error = "who had this channel opened may not enter it any more";
            let data = json!({ "type": "AuthError", "error": error, "status": problem.status().as_u16() });
            notes.push(event("pusher:subscription_error", Some(&channel), &data));
        }
        notes
    }

    fn sign_in(&mut self, app: &PusherApp, data: &Json) -> Result<(), Close> {
        let word = |name: &str| data.get(name).and_then(Json::as_str).unwrap_or_default();
        let shown = word("user_data");
        let user = serde_json::from_str::<Json>(shown).ok().and_then(|user| user.get("id")?.as_str().map(str::to_owned));
        let signed = app.has_signed(&format!("{}::user::{shown}", self.socket_id), word("auth"));
        let Some(user) = user.filter(|user| signed && !user.is_empty()) else {
            return Err(Close(4009, "the signature of the user does not fit".to_owned()));
        };
        if let Some(before) = self.user.take() {
            self.gate.rooms().leave(&user_room(&app.id, &before), self.number);
        }
        let visitor = Visitor { socket: self.number, mailbox: self.mailbox.clone(), member: None, numbered: false };
        let entered = self.gate.rooms().enter(&user_room(&app.id, &user), visitor, 0);
        if entered.is_err() {
            return Err(Close(4100, "this node has no place for another user".to_owned()));
        }
        self.user = Some(user);
        self.mailbox.put(internal("pusher:signin_success", None, &json!({ "user_data": shown })));
        Ok(())
    }

    fn resume(&self, app: &PusherApp, channel: &str, data: &Json) {
        let stream = data.get("stream_id").and_then(Json::as_str).and_then(|text| u64::from_str_radix(text, 16).ok());
        let at = stream.zip(data.get("serial").and_then(Json::as_u64));
        let joined = self.channels.get(channel);
        // What came since it is in the channel, it has got.
        let missed = at.zip(joined).filter(|((stream, _), joined)| *stream == joined.stream).and_then(|((stream, serial), joined)| {
            let missed = self.gate.rooms().since(&room(&app.id, channel), stream, (serial, joined.serial))?;
            Some((missed, json!({ "stream_id": format!("{stream:x}"), "serial": joined.serial })))
        });
        match missed {
            Some((missed, data)) => {
                missed.into_iter().for_each(|note| self.mailbox.put(note));
                self.mailbox.put(internal("mobo:resume_success", Some(channel), &data));
            }
            None => self.mailbox.put(internal("mobo:resume_failed", Some(channel), &json!({ "code": "position_expired" }))),
        }
    }

    fn client_event(&mut self, app: &PusherApp, (channel, name): (&str, &str), data: &Json) -> Result<(), &'static str> {
        let Some(joined) = self.channels.get(channel) else { return Err("clients speak only in channels that they are in") };
        if Kind::of(channel) == Kind::Public {
            return Err("clients speak only in private and presence channels");
        }
        if name.len() > limits::EVENT_NAME_MAX {
            return Err("the name of an event has at most 200 letters");
        }
        if !self.spoken.admits(limits::CLIENT_EVENTS_PER_SECOND_MAX, Instant::now()) {
            return Err("too many events in one second");
        }
        let user = joined.user.as_deref();
        let make = |number| published(channel, (name, data), user, number);
        self.gate.rooms().publish(&room(&app.id, channel), Some(self.number), has_memory(channel), make);
        told::said(app, channel, (name, data), (&self.socket_id, user));
        Ok(())
    }
}

/// Who somebody says to be, as `channel_data` spells it.
fn member(shown: &str) -> Result<Member, Refused> {
    let said: Json = serde_json::from_str(shown).map_err(|_| Refused("channel_data is no JSON", 400))?;
    let key = match said.get("user_id") {
        Some(Json::String(id)) if !id.is_empty() => id.clone(),
        Some(Json::Number(id)) => id.to_string(),
        _ => return Err(Refused("channel_data has no user_id", 400)),
    };
    if shown.len() > limits::PRESENCE_BYTES_MAX {
        return Err(Refused("channel_data has at most 2 KiB", 400));
    }
    Ok(Member { key, info: said.get("user_info").cloned().unwrap_or_else(|| json!({})) })
}

/// A number that nobody else has.
fn random() -> u64 {
    let (low, high) = Uuid::now_v7().as_u64_pair();
    low.rotate_left(32) ^ high
}

impl Speaker for Pusher {
    const STOPPING: u16 = 4200;
    const SLOW: u16 = 4100;

    async fn heard(&mut self, heard: Heard<'_>) -> Result<(), Close> {
        match heard {
            Heard::Text(text) => self.message(text),
            Heard::Binary(_) => Err(Close(4200, "messages are text".to_owned())),
        }
    }

    async fn tend(&mut self) -> Vec<Note> {
        // What has changed while others talked is seen here.
        if !self.recheck.take() {
            return Vec::new();
        }
        if let Some(app) = self.app.as_deref().filter(|app| app.counts()) {
            told::counts_that_are_due(&self.gate, app);
        }
        self.ask_again().await
    }

    async fn work(&mut self) -> Result<Vec<Note>, Close> {
        // What is due is done in front of the next message.
        self.recheck.due().await;
        Ok(Vec::new())
    }

    fn silence(&mut self) -> Option<Note> {
        Some(event("pusher:ping", None, &json!({})))
    }

    fn leave(&mut self) {
        let Some(app) = self.app.clone() else { return };
        let channels: Vec<String> = self.channels.keys().cloned().collect();
        channels.iter().for_each(|channel| self.unsubscribe(&app, channel));
        if let Some(user) = self.user.take() {
            self.gate.rooms().leave(&user_room(&app.id, &user), self.number);
        }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.gate.openers().end(&self.socket_id);
    }
}
