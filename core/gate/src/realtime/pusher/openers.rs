//! Who had channels signed here, at `/pusher/auth`: what a key or a token has opened ends with it. A channel that the app's own server has
//! signed for is that server's business.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mobo_core::limits;

use super::super::viewer::Viewer;

/// What stands before a user's name in the place of a channel, for a connection that the user has signed in. No channel has such a name.
pub(super) const USER: &str = "#user:";

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

    /// A channel is to be signed for a connection. One that is not on this node is not remembered, and finds no channel here either. False when
    /// so many were signed that no more can be remembered: what is signed once can be used again for as long as the connection lives.
    #[must_use]
    pub(super) fn signed(&self, socket: &str, channel: &str, viewer: Viewer) -> bool {
        let mut all = self.all();
        let Some(opened) = all.get_mut(socket) else { return true };
        let has_room = opened.contains_key(channel) || opened.len() < limits::CHANNELS_SIGNED_PER_SOCKET_MAX;
        if has_room {
            opened.insert(channel.to_owned(), viewer);
        }
        has_room
    }

    /// What was signed for a connection.
    pub(super) fn of(&self, socket: &str) -> Vec<(String, Viewer)> {
        self.all().get(socket).into_iter().flatten().map(|(channel, viewer)| (channel.clone(), viewer.clone())).collect()
    }

    /// A connection has ended.
    pub(super) fn end(&self, socket: &str) {
        self.all().remove(socket);
    }
}
