//! What a device sends up: pushes, and what becomes of them.

use std::collections::BTreeMap;

use super::{CloseReason, Effect, HubSession, State};
use crate::ids::{Chain, Lane, LaneKey, Ordinal, Seq};
use crate::limits;
use crate::link::Channel;
use crate::merge::{Merged, Outcome};
use crate::message::{Ack, Code, FORMER_LOGS, Message, Nack, PeerError, Push, Welcome};

/// How far each lane has come in this session.
#[derive(Debug, Default)]
pub(super) struct Up {
    /// What the device was told of, by welcome or ack: its refusals went before.
    told: BTreeMap<Lane, Seq>,
    /// What is safe and was not said yet.
    safe: BTreeMap<Lane, (Seq, Chain)>,
    /// Pushes of all lanes without a verdict.
    in_flight: usize,
    /// True if the device knows that it may push the tails of logs that it has left behind (rule R22).
    takes_former: bool,
    /// The number of the device's log, once it is welcome.
    pub(super) ordinal: Option<Ordinal>,
}

impl Up {
    pub(super) fn from_welcome(welcome: &Welcome) -> Self {
        let told = welcome.lanes.iter().filter_map(|status| Some((status.lane, status.last?)));
        Self {
            told: told.collect(),
            safe: BTreeMap::new(),
            in_flight: 0,
            takes_former: welcome.features & FORMER_LOGS != 0,
            ordinal: Some(welcome.ordinal),
        }
    }
}

impl HubSession {
    pub(super) fn push(&mut self, push: Push) {
        let Some((device, incarnation)) = self.device else { return };
        let is_other = push.incarnation != incarnation && !self.up.takes_former;
        if is_other || push.on_behalf.is_some() {
            let detail = "entries of another log are not taken here yet".to_owned();
            self.refuse(PeerError { code: Code::UNSUPPORTED, detail, fatal: true, retry_after_ms: 0 });
            return;
        }
        // Of each of the four lanes so many; which of them makes no difference to what waits.
        if self.up.in_flight >= Lane::ALL.len() * limits::PUSHES_IN_FLIGHT_MAX {
            return self.close(CloseReason::Violation("more pushes than may wait for their acks".to_owned()));
        }
        self.up.in_flight += 1;
        let lane = LaneKey { device, incarnation: push.incarnation, lane: push.lane };
        self.effects.push_back(Effect::Merge(lane, Box::new(push)));
    }

    pub(super) fn merged(&mut self, lane: &LaneKey, outcome: Outcome) {
        self.up.in_flight = self.up.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Merged(merged) => {
                for reject in &merged.rejects {
                    self.send(Channel::Control, Message::Reject(reject.clone()));
                }
                let acked = merged.acked;
                let ack = self.identity.ack(lane, merged);
                self.send(Channel::Control, Message::Ack(ack));
                if self.is_own(lane) {
                    self.up.told.insert(lane.lane, acked);
                    self.tell_safe(lane.lane);
                }
            }
            Outcome::Nack { expect, code } => {
                self.send(Channel::Control, Message::Nack(Nack { lane: lane.lane, incarnation: lane.incarnation, expect, code }));
            }
            // A log that its device has left behind: there is nobody to begin another.
            Outcome::Refence { hub_last, .. } if !self.is_own(lane) => {
                let (expect, code) = (Seq::after(hub_last), Code::BROKEN_CHAIN);
                self.send(Channel::Control, Message::Nack(Nack { lane: lane.lane, incarnation: lane.incarnation, expect, code }));
            }
            Outcome::Refence { hub_last, reason } => self.effects.push_back(Effect::Refence(*lane, hub_last, reason)),
            Outcome::Refused(error) => self.push_refused_with(error.to_string()),
        }
    }

    fn is_own(&self, lane: &LaneKey) -> bool {
        self.device == Some((lane.device, lane.incarnation))
    }

    /// Tells what is safe with an ack that says nothing else which is new: what was merged and is not told yet has its own ack first.
    pub(super) fn safe(&mut self, lane: Lane, last: Seq, chain: Chain) {
        self.up.safe.insert(lane, (last, chain));
        self.tell_safe(lane);
    }

    fn tell_safe(&mut self, lane: Lane) {
        let Some((device, incarnation)) = self.device.filter(|_| self.state == State::Live) else { return };
        let Some((last, chain)) = self.up.safe.get(&lane).copied() else { return };
        if self.up.told.get(&lane).is_none_or(|told| *told < last) {
            return;
        }
        self.up.safe.remove(&lane);
        let merged = Merged { acked: last, chain, eff_first: last, effs: Vec::new(), rejects: Vec::new(), changed: Vec::new() };
        let ack = self.identity.ack(&LaneKey { device, incarnation, lane }, merged);
        self.send(Channel::Control, Message::Ack(Ack { safe: Some(last), ..ack }));
    }

    pub(super) fn push_refused(&mut self, lane: &LaneKey, code: Code) {
        let detail = format!("a push on lane {} was refused: {}", lane.lane.number(), code.name());
        self.refuse(PeerError { code, detail, fatal: true, retry_after_ms: 0 });
    }

    pub(super) fn push_refused_with(&mut self, detail: String) {
        self.refuse(PeerError { code: Code::INTERNAL, detail, fatal: true, retry_after_ms: 1_000 });
    }
}
