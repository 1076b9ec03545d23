//! What is told of the channels besides what is said in them: to the app's own servers, and to those in a channel how many they are.

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::super::add;
use super::super::rooms::{Entered, Left};
use super::app::PusherApp;
use super::hooks::HookKind;
use super::internal;
use super::names::{Kind, room};
use crate::gate::Gate;

/// Tells the app's servers that somebody came in.
pub(super) fn entered(app: &PusherApp, channel: &str, (entered, user): (&Entered, Option<&str>)) {
    let Some(hooks) = app.hooks() else { return };
    if entered.is_first {
        hooks.tell_of(HookKind::ChannelOccupied, channel);
    }
    if let Some(gone) = &entered.gone {
        hooks.tell_member(HookKind::MemberRemoved, channel, &gone.key);
    }
    if let Some(user) = user.filter(|_| entered.is_new) {
        hooks.tell_member(HookKind::MemberAdded, channel, user);
    }
}

/// Tells them that somebody went out.
pub(super) fn left(app: &PusherApp, channel: &str, left: &Left) {
    let Some(hooks) = app.hooks() else { return };
    if let Some(gone) = &left.gone {
        hooks.tell_member(HookKind::MemberRemoved, channel, &gone.key);
    }
    if left.is_last {
        hooks.tell_of(HookKind::ChannelVacated, channel);
    }
}

/// Tells them what a client said. Its data is a text there, as at Pusher.
pub(super) fn said(app: &PusherApp, channel: &str, (event, data): (&str, &Json), (socket, user): (&str, Option<&str>)) {
    let Some(hooks) = app.hooks() else { return };
    hooks.tell(HookKind::ClientEvent, channel, || {
        let data = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
        let mut more = json!({ "event": event, "data": data, "socket_id": socket });
        if let Some(user) = user {
            add(&mut more, "user_id", user);
        }
        more
    });
}

/// Tells those in a channel how many they are, where that is switched on. Those of a presence channel know.
pub(super) fn count(gate: &Gate, app: &PusherApp, channel: &str) {
    if !app.counts() || Kind::of(channel) == Kind::Presence {
        return;
    }
    let name = room(&app.id, channel);
    if gate.counting().changed(&name, gate.rooms().count(&name), Instant::now()) {
        tell_count(gate, &name, channel);
    }
}

/// The same for channels of very many, whose number has changed a while ago.
pub(super) fn counts_that_are_due(gate: &Gate, app: &PusherApp) {
    let base = room(&app.id, "");
    for name in gate.counting().due(&base, Instant::now()) {
        if let Some(channel) = name.strip_prefix(&base) {
            tell_count(gate, &name, channel);
        }
    }
}

fn tell_count(gate: &Gate, name: &str, channel: &str) {
    gate.rooms()
        .tell_count(name, |count| internal("pusher_internal:subscription_count", Some(channel), &json!({ "subscription_count": count })));
}
