//! What the device pushes: entries as they are read, and pushes that the hub did not take.

use super::{DeviceSession, Effect, State};
use crate::ids::Lane;
use crate::link::Channel;
use crate::message::{Code, Message, Nack, Push};
use crate::session::CloseReason;
use crate::time::Instant;

impl DeviceSession {
    /// Reads what may be sent, and says when nothing is left to do.
    pub(super) fn advance(&mut self) {
        if self.state != State::Live || self.flow.as_ref().is_some_and(|flow| !flow.may_push()) {
            return;
        }
        self.pushed();
        while let Some(next) = self.lanes.next_read(self.pushes_max) {
            self.effects.push_back(Effect::Read(next.lane, next.after, next.bytes_max));
        }
        let knows_all = self.schema_rev.0 >= self.schema_rev.1;
        if self.equal && knows_all && !self.drained && self.lanes.are_idle() {
            self.drained = true;
            self.effects.push_back(Effect::Drained);
        }
    }

    /// What contradicts the hub's lane is sent once, and nothing else: the order that answers it holds the hub's chains (rule R15).
    pub(super) fn parted(&mut self, push: Push) {
        if self.state == State::Admitting {
            self.state = State::Parting;
            // What came behind the welcome is about the hub's log of that name: a refusal would hit another entry.
            self.early.clear();
            let own = self.incarnation;
            self.effects.retain(|effect| matches!(effect, Effect::Rejected(reject) if reject.incarnation != own));
            self.send(Channel::Lane(push.lane), Message::Push(push));
        }
    }

    /// Of what comes before that order, only what was refused of the log before this one is to be heard: the next one will not be told of it.
    pub(super) fn parting(&mut self, message: Message) {
        if let Message::Reject(reject) = message
            && reject.incarnation != self.incarnation
        {
            self.effects.push_back(Effect::Rejected(Box::new(reject)));
        }
    }

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
