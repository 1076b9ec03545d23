//! What a device does on a new timeline (rule R18): the order is [`Flow`]'s; here it meets the messages. And pulls that the hub starts over.

use super::{CloseReason, DeviceSession, Effect, State};
use crate::ids::{BucketId, Position};
use crate::link::Channel;
use crate::message::{Code, Message, Offer, OfferAck, PeerError, SchemaUpdate};
use crate::recover::{Flow, Moved, Step};

impl DeviceSession {
    pub(super) fn moved(&mut self, moved: Moved) {
        if self.state == State::Admitting {
            self.state = State::Live;
            self.cursors.clear();
            self.flow = Some(Flow::new(moved));
            self.effects.push_back(Effect::ReadDefinitions);
        }
    }

    /// Sent even when there are none: the hub's answer says that what is pushed next can be read.
    pub(super) fn offer_definitions(&mut self, update: SchemaUpdate) {
        if let Some(flow) = &mut self.flow {
            flow.definitions_offered(&update);
            self.send(Channel::Control, Message::SchemaOffer(update));
        }
    }

    /// Goes on once the lanes are acknowledged as far as they had got when the hub was met.
    pub(super) fn pushed(&mut self) {
        let lanes = &self.lanes;
        if let Some(flow) = &mut self.flow {
            let step = flow.pushed(|lane| lanes.acked_up_to(lane));
            self.step(step);
        }
    }

    pub(super) fn offer(&mut self, offer: Offer, more: Option<Position>) {
        let Some(flow) = &mut self.flow else { return };
        flow.sent(more);
        self.send(Channel::Control, Message::Offer(offer));
    }

    pub(super) fn offer_ack(&mut self, ack: &OfferAck) {
        let Some(flow) = &mut self.flow else { return };
        let (done, step) = flow.joined(ack.bucket);
        if let Some(bucket) = done {
            self.effects.push_back(Effect::Offered(bucket));
        }
        self.step(step);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Read(bucket, after) => self.effects.push_back(Effect::ReadOffer(bucket, after)),
            Step::Done => self.effects.push_back(Effect::Resume),
        }
    }

    /// An error that ends nothing by itself. A hub that takes no offers gets no pull of these buckets, or their records would be gone.
    pub(super) fn complaint(&mut self, error: PeerError) {
        match &mut self.flow {
            Some(flow) if flow.holds() && error.code == Code::UNSUPPORTED => self.close(CloseReason::Refused(error)),
            Some(flow) => flow.definitions_refused(),
            None => {}
        }
    }

    pub(super) fn resync(&mut self, bucket: BucketId) {
        if let Some(cursor) = self.cursors.get_mut(&bucket) {
            *cursor = Position(0);
            self.effects.push_back(Effect::Resync(bucket));
            self.pull();
        } else if self.flow.is_some() {
            self.close(CloseReason::Violation("a resync of a bucket that was not offered".to_owned()));
        }
    }
}
