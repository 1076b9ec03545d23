//! What devices give back to a hub that was restored (rule R18). Any hub takes it at any time: what it has already changes nothing.

use std::sync::Arc;

use super::{Effect, HubSession};
use crate::link::Channel;
use crate::message::{Code, Message, PeerError, Pull, SchemaUpdate};

impl HubSession {
    /// A device that offers its definitions waits for the hub's before it pushes. A refusal goes first, so that it waits for no more.
    pub(super) fn adopted(&mut self, update: &Arc<SchemaUpdate>, refused: Option<String>) {
        if let Some(detail) = refused {
            let error = PeerError { code: Code::WRONG_KIND, detail, fatal: false, retry_after_ms: 0 };
            self.send(Channel::Control, Message::Error(error));
        }
        self.schema_rev = self.schema_rev.max(update.rev);
        self.send(Channel::Control, Message::Schema(SchemaUpdate::clone(update)));
    }

    /// A device pulls a bucket only after it has offered it, so one that pulls everything owes nothing more.
    pub(super) fn pulls_again(&mut self, pull: &Pull) {
        let is_whole = self.granted.keys().all(|bucket| pull.wants.iter().any(|want| want.0 == *bucket));
        if self.owes_offers && is_whole {
            self.owes_offers = false;
            self.effects.push_back(Effect::OfferedAll);
        }
    }
}
