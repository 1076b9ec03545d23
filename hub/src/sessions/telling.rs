//! What happens in sessions, for the bus of the node. In a simulator nobody listens.

use mobo_core::ids::{DeviceId, LaneKey};
use mobo_core::kernel::{Event, topics};
use mobo_core::merge::Outcome;
use mobo_core::session::CloseReason;
use mobo_core::session::hub::{Input, Refusal};
use mobo_runtime::bus::Bus;

/// Tells the bus, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Teller(Option<Bus>);

impl Teller {
    /// Tells this bus.
    pub(crate) fn to(bus: &Bus) -> Self {
        Self(Some(bus.clone()))
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(bus) = &self.0 {
            bus.publish(event());
        }
    }

    /// What a session was told that others may want to know.
    pub(super) fn heard(&self, (peer, device): (&str, Option<DeviceId>), input: &Input) {
        let name = || device.map_or_else(|| peer.to_owned(), |device| device.to_string());
        if let Input::Admitted(Err(Refusal::Error(error))) = input {
            self.tell(|| topics::turned_away(peer, &error.detail));
        }
        if let Input::Admitted(Err(Refusal::Refence(refence))) = input {
            self.tell(|| topics::refenced(&name(), &format!("{:?}", refence.reason).to_lowercase()));
        }
        if let Input::Enrolled(Err(error)) = input {
            self.tell(|| topics::turned_away(peer, &error.detail));
        }
        if let Input::Merged(lane, outcome) = input {
            self.merged(lane, outcome);
        }
    }

    fn merged(&self, lane: &LaneKey, outcome: &Outcome) {
        let Outcome::Merged(merged) = outcome else { return };
        for reject in &merged.rejects {
            let place = (lane.lane.number(), reject.seq.get());
            self.tell(|| topics::quarantined(&lane.device.to_string(), place, reject.code.name(), Some(reject.detail.clone())));
        }
    }

    pub(super) fn enrolled(&self, device: DeviceId, name: &str) {
        self.tell(|| topics::enrolled(&device.to_string(), name));
    }

    pub(super) fn live(&self, device: DeviceId) {
        self.tell(|| topics::session(&device.to_string(), true, None));
    }

    pub(super) fn lost(&self, device: DeviceId, reason: &CloseReason) {
        self.tell(|| topics::session(&device.to_string(), false, Some(describe(reason))));
    }
}

fn describe(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Stopped => "the hub stops, or the device has connected anew".to_owned(),
        CloseReason::PeerLeft => "the device has gone".to_owned(),
        CloseReason::Silent => "the device has been silent too long".to_owned(),
        CloseReason::Refenced => "the device starts a new log".to_owned(),
        CloseReason::Refused(error) => error.detail.clone(),
        CloseReason::Violation(what) => what.clone(),
        CloseReason::Store(why) => format!("the hub's store: {why}"),
    }
}
