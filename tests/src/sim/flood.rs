//! A device that signs everything as it should, and makes and deletes records without end (faults.md X-4): the hub lets it have its share, the
//! others notice nothing, and nothing is lost.

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{Lane, RecordId};
use mobo_core::message::{Code, Message, PeerError};
use serde_json::{Map, json};

use super::trace::{Try, Violation};
use super::world::{MINUTE_US, World};

/// The one that floods.
pub(super) const FLOODER: usize = 0;

/// Records that nobody asked for; half of them are deleted at once, and leave what a delete leaves.
pub(super) fn junk(write: u64, count: u64) -> Vec<Edit> {
    let edit = |nth: u64, intent, fields: Map<_, _>| {
        let id = RecordId::new(format!("junk{write}-{nth}")).expect("a record id");
        Edit { id, intent, fields }
    };
    let counted = json!({ "n": { "$inc": 1 } }).as_object().cloned().unwrap_or_default();
    let mut edits = Vec::new();
    for nth in 0..count {
        edits.push(edit(nth, Intent::Put, counted.clone()));
        if nth.is_multiple_of(2) {
            edits.push(edit(nth, Intent::Delete, Map::new()));
        }
    }
    edits
}

impl World {
    /// Who is told to wait is the one that floods.
    pub(super) fn told_to_wait(&mut self, device: usize, error: &PeerError) -> Try {
        if self.plan.flood == 0 || error.code != Code::BUSY {
            return Ok(());
        }
        self.trace.count("times that a device was told to wait");
        if device == FLOODER {
            return Ok(());
        }
        Err(Violation::new("X-4", format!("{} must wait for what another one does: {}", self.devices[device].name, error.detail)))
    }

    /// Whether so much of the flood is at the hub as one device may write, and the others have everything a minute after all is well.
    pub(super) fn check_flood(&mut self, since_heal_us: u64) -> Try {
        if self.plan.flood == 0 {
            return Ok(());
        }
        let flooder = self.devices[FLOODER].keys.device();
        let lanes = self.acked.iter().filter(|(lane, _)| lane.device == flooder && lane.lane == Lane::State);
        let entries: u64 = lanes.map(|(_, (acked, _))| acked.get()).sum();
        // A push is taken whole while anything is left.
        let per_entry = self.plan.flood * 3 / 2;
        let may = self.plan.writes_per_hour + self.now() * self.plan.writes_per_hour / (60 * MINUTE_US) + PUSHED_AT_ONCE * per_entry;
        if entries * per_entry > may {
            let what =
                format!("the hub has {entries} entries of the flood, of {per_entry} operations each, and {may} operations are the most");
            return Err(Violation::new("X-4", what));
        }
        let waits = |node: &&super::device::Device| !node.life.as_ref().is_some_and(|life| life.uplink.status.borrow().drained);
        match self.devices.iter().skip(FLOODER + 1).find(waits).filter(|_| since_heal_us > MINUTE_US) {
            Some(node) => Err(Violation::new("X-4", format!("{} does not get through beside the flood", node.name))),
            None => Ok(()),
        }
    }
}

/// Entries of the flood in the pushes that a device may have in flight.
const PUSHED_AT_ONCE: u64 = 40;

/// What a frame says of waiting.
pub(super) fn wait_of(message: &Message) -> Option<&PeerError> {
    if let Message::Error(error) = message { Some(error) } else { None }
}
