//! What the device pushes: entries as they are read, and pushes that the hub did not take.

use super::DeviceSession;
use crate::ids::Lane;
use crate::link::Channel;
use crate::message::{Code, Message, Nack, Push};
use crate::session::CloseReason;
use crate::time::Instant;

impl DeviceSession {
    pub(super) fn nack(&mut self, nack: &Nack) {
        if nack.code == Code::GAP {
            self.lanes.nacked(nack.lane, nack.expect);
        } else {
            let what = format!("the hub refused a push: {}", nack.code.name());
            self.close(CloseReason::Violation(what));
        }
    }

    pub(super) fn entries(&mut self, now: Instant, lane: Lane, push: Option<Box<Push>>) {
        self.lanes.read(now, lane, push.as_deref());
        if let Some(push) = push {
            self.drained = false;
            self.send(Channel::Lane(lane), Message::Push(*push));
        }
    }
}
