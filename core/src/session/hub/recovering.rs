//! What devices give back to a hub that was restored (rule R18). Any hub takes it at any time: what it has already changes nothing.

use std::sync::Arc;

use super::{CloseReason, Effect, HubSession};
use crate::ids::Timeline;
use crate::limits;
use crate::link::Channel;
use crate::message::{Code, Message, Offer, PeerError, Pull, SchemaUpdate};

/// What a device gives back. No credit bounds what has no answer yet, so its number does.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    pub(super) unanswered_offers: u32,
    unanswered_schemas: u32,
    /// The timelines of its offers: definitions, and rows of all of them, may have been delivered on any. One that the hub has forgotten is named
    /// by an offer of nothing.
    timelines: Vec<Timeline>,
}

impl HubSession {
    pub(super) fn offered(&mut self, offer: Offer) {
        self.given_back.unanswered_offers += 1;
        if self.given_back.unanswered_offers > 1 {
            return self.close(CloseReason::Violation("an offer before the one before it was answered".to_owned()));
        }
        let timelines = &mut self.given_back.timelines;
        if !timelines.contains(&offer.timeline) && timelines.len() < limits::TIMELINE_PARENTS_MAX {
            timelines.push(offer.timeline);
        }
        let timelines = timelines.clone();
        self.effects.push_back(Effect::Join(Box::new(offer), timelines));
    }

    /// Definitions may come in several messages, of which the last one is answered.
    pub(super) fn schema_offered(&mut self, update: SchemaUpdate) {
        self.given_back.unanswered_schemas += 1;
        if self.given_back.unanswered_schemas > limits::SCHEMA_OFFERS_MAX {
            return self.close(CloseReason::Violation("definitions before those before them were answered".to_owned()));
        }
        self.effects.push_back(Effect::Adopt(Box::new(update), self.given_back.timelines.clone()));
    }

    /// A device that offers its definitions waits for the hub's before it pushes. A refusal goes first, so that it waits for no more.
    pub(super) fn adopted(&mut self, update: &Arc<SchemaUpdate>, refused: Option<String>) {
        if let Some(detail) = refused {
            let error = PeerError { code: Code::WRONG_KIND, detail, fatal: false, retry_after_ms: 0 };
            self.send(Channel::Control, Message::Error(error));
        }
        self.given_back.unanswered_schemas = self.given_back.unanswered_schemas.saturating_sub(1);
        self.schema_rev = self.schema_rev.max(update.rev);
        self.send(Channel::Control, Message::Schema(SchemaUpdate::clone(update)));
    }

    /// True until the device has given back all that it holds. Whoever else has come back, and whether recovery has ended: a copy of the device
    /// may have, or an operator may have said so.
    #[must_use]
    pub const fn owes_offers(&self) -> bool {
        self.owes_offers
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
