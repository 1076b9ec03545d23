//! What a device does on a new timeline (rule R18): the order is [`Flow`]'s; here it meets the messages. And pulls that the hub starts over.

use super::{CloseReason, DeviceSession, Effect, State};
use crate::ids::{BucketId, Position, Seq};
use crate::link::Channel;
use crate::message::{Ack, Code, Message, Nack, Offer, OfferAck, PeerError, Push, SchemaUpdate};
use crate::recover::{Flow, Moved, Step};

impl DeviceSession {
    pub(super) fn moved(&mut self, moved: Moved) {
        if self.state == State::Admitting {
            self.state = State::Live;
            self.cursors.clear();
            let flow = Flow::new(moved);
            let step = flow.first();
            self.flow = Some(flow);
            self.step(step);
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

    /// Entries of a log that was left behind go up as they are, one push at a time.
    pub(super) fn former(&mut self, push: Option<Box<Push>>) {
        let Some(flow) = &mut self.flow else { return };
        let last = push.as_ref().and_then(|push| Seq::new(push.first.get() + push.entries.len() as u64 - 1));
        let step = flow.former_sent(last);
        if let Some(push) = push {
            self.send(Channel::Lane(push.lane), Message::Push(*push));
        }
        self.step(step);
    }

    pub(super) fn former_acked(&mut self, ack: Ack) {
        let step = self.flow.as_mut().map(|flow| flow.former_acked((ack.incarnation, ack.lane), ack.acked));
        self.effects.push_back(Effect::Acked(Box::new(ack)));
        self.step(step.unwrap_or(Step::Wait));
    }

    pub(super) fn former_refused(&mut self, nack: &Nack) {
        let Some(flow) = &mut self.flow else { return };
        let (step, given_up) = flow.former_refused(nack);
        if let Some(former) = given_up {
            self.effects.push_back(Effect::GaveUp(former, nack.code));
        }
        self.step(step);
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
            Step::Define => self.effects.push_back(Effect::ReadDefinitions),
            Step::ReadFormer(former) => {
                let bytes_max = self.lanes.push_bytes_max(former.lane);
                self.effects.push_back(Effect::ReadFormer(former, bytes_max));
            }
            Step::Name(bucket, timeline) => {
                self.send(Channel::Control, Message::Offer(Offer { bucket, timeline, rows: Vec::new(), more: true }));
            }
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
            self.drop_batches(bucket);
            self.effects.push_back(Effect::Resync(bucket));
            self.pull();
        } else if self.flow.is_some() {
            self.close(CloseReason::Violation("a resync of a bucket that was not offered".to_owned()));
        }
    }
}
