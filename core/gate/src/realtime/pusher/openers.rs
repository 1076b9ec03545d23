//! Who had channels signed here, at `/pusher/auth`: what a key or a token has opened ends with it. A channel that the app's own server has
//! signed for is that server's business.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mobo_core::limits;

use super::super::viewer::Viewer;

/// What stands in the place of a channel for a connection that a user has signed in. No channel has that name.
pub(super) const USER: &str = "#user";

/// By the id of the connection, and the channel.
#[derive(Debug, Default)]
pub(crate) struct Openers(Mutex<BTreeMap<String, BTreeMap<String, Viewer>>>);

impl Openers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Viewer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has begun.
    pub(super) fn begin(&self, socket: &str) {
        self.all().insert(socket.to_owned(), BTreeMap::new());
    }

    /// A channel was signed for a connection. One that is not on this node is not remembered, and finds no channel here either.
    pub(super) fn signed(&self, socket: &str, channel: &str, viewer: Viewer) {
        if let Some(opened) = self.all().get_mut(socket)
            && (opened.contains_key(channel) || opened.len() < limits::CHANNELS_PER_SOCKET_MAX)
        {
            opened.insert(channel.to_owned(), viewer);
        }
    }

    /// What was signed for a connection.
    pub(super) fn of(&self, socket: &str) -> Vec<(String, Viewer)> {
        self.all().get(socket).into_iter().flatten().map(|(channel, viewer)| (channel.clone(), viewer.clone())).collect()
    }

    /// A channel of a connection was left.
    pub(super) fn left(&self, socket: &str, channel: &str) {
        if let Some(opened) = self.all().get_mut(socket) {
            opened.remove(channel);
        }
    }

    /// A connection has ended.
    pub(super) fn end(&self, socket: &str) {
        self.all().remove(socket);
    }
}
