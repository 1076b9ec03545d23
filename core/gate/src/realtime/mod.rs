//! Realtime: what was committed, told to whoever may see it, as it happens; and rooms in which clients talk to each other.
//!
//! One [`Feed`] reads the store's log of changes for all subscribers; each of them keeps only a place in it. A subscriber that is cut
//! off comes back with its place and gets what it has missed, or is told that it must read again. The ways to subscribe differ only in how
//! they spell it: event streams ([`sse`]), Phoenix channels ([`phoenix`]), Pusher's protocol ([`pusher`]).

mod body;
#[cfg(feature = "graphql")]
pub(crate) mod changes;
mod feed;
mod pace;
pub(crate) mod phoenix;
mod places;
pub(crate) mod pusher;
mod recheck;
mod rooms;
mod socket;
pub(crate) mod sse;
mod viewer;
mod wanted;

use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

#[cfg(feature = "graphql")]
pub(crate) use body::flow;
pub(crate) use feed::Feed;
#[cfg(feature = "graphql")]
pub(crate) use pace::Pace;
pub(crate) use places::{Place, Places};
pub(crate) use recheck::Recheck;
pub(crate) use rooms::Rooms;
#[cfg(feature = "graphql")]
pub(crate) use rooms::{Mailbox, Note, mailbox};
#[cfg(feature = "graphql")]
pub(crate) use socket::{Close, Heard, Speaker, converse};
#[cfg(feature = "graphql")]
pub(crate) use viewer::Viewer;

/// Adds a member to an object.
fn add(object: &mut Json, name: &str, value: impl Into<Json>) {
    if let Json::Object(members) = object {
        members.insert(name.to_owned(), value.into());
    }
}

/// A word after `?`, decoded; `None` where it is not there or cannot be read.
pub(crate) fn query_word(parts: &Parts, name: &str) -> Option<String> {
    let words = parts.uri.query().unwrap_or_default().split('&').filter_map(|word| word.split_once('='));
    let (_, value) = words.into_iter().find(|(key, _)| *key == name)?;
    percent_decode_str(&value.replace('+', " ")).decode_utf8().ok().map(|word| word.into_owned())
}
