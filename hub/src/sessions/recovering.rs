//! What a device gives back to a hub that was restored.

use std::sync::Arc;

use mobo_core::ids::Timeline;
use mobo_core::message::{Offer, OfferAck, SchemaUpdate};
use mobo_core::session::hub::Input;
use mobo_runtime::outbox::Frames;

use super::conversation::{Conversation, Done};
use crate::admission::Turned;

impl<F: Frames> Conversation<F> {
    pub(super) fn join(&mut self, offer: Offer, timelines: Vec<Timeline>) {
        let (Some(device), sessions) = (self.device(), Arc::clone(&self.sessions)) else { return };
        let bucket = offer.bucket;
        self.start(async move {
            Done::input(match sessions.door.history.join(device, offer, &timelines).await {
                Ok(report) => {
                    sessions.merges.tell(report.hints);
                    Input::Joined(OfferAck { bucket, joined: report.joined, refused: report.refused.len() as u64 })
                }
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    pub(super) fn adopt(&mut self, update: SchemaUpdate, timelines: Vec<Timeline>) {
        let sessions = Arc::clone(&self.sessions);
        let identity = Arc::clone(&self.identity);
        self.start(async move {
            Done::input(match sessions.door.history.adopt(update, &timelines).await {
                Ok(refused) => Input::Adopted(sessions.definitions(&identity), refused),
                Err(error) => Input::StoreFailed(error.to_string()),
            })
        });
    }

    /// A log that this one continues and that is live is another instance of the device: its folder was copied.
    pub(super) fn look_for_the_other(&mut self) {
        let (Some(device), Some(parent)) = (self.device(), self.continues) else { return };
        let door = Arc::clone(&self.sessions.door);
        if self.sessions.is_live_log((device, parent)) {
            self.start(async move {
                match door.twice((device, parent), "continued").await {
                    Ok(()) => Done::input(Input::HintsLost),
                    Err(Turned::Away(refusal)) => Done::input(Input::Admitted(Err(refusal))),
                    Err(Turned::Store(error)) => Done::input(Input::StoreFailed(error.to_string())),
                }
            });
        }
    }

    pub(super) fn offered_all(&mut self) {
        let (Some(device), sessions) = (self.device(), Arc::clone(&self.sessions)) else { return };
        self.start(async move {
            match sessions.door.history.offered_all(device).await {
                Ok(hints) => sessions.merges.tell(hints),
                Err(error) => {
                    tracing::warn!(%device, %error, "it was not noted that a device has given back what it holds; its next session will say so again");
                }
            }
            Done::input(Input::HintsLost)
        });
    }
}
