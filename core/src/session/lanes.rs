//! What a device has in flight on each lane.

use std::collections::VecDeque;

use super::URGENCY;
use crate::ids::{Lane, Seq};
use crate::limits;

/// One lane's pushes.
#[derive(Clone, Debug, Default)]
struct Flow {
    /// The last position that was sent; reading goes on behind it.
    sent: Option<Seq>,
    /// The hub has everything up to here.
    acked: Option<Seq>,
    /// The last position of each push that waits for its ack.
    in_flight: VecDeque<Seq>,
    /// True while the store is asked for entries.
    reading: bool,
    /// True if there may be entries behind `sent`.
    more: bool,
}

/// All lanes of a device in one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes([Flow; 4]);

impl Lanes {
    /// Starts a lane behind what the hub has.
    pub(super) fn start(&mut self, lane: Lane, hub_last: Option<Seq>) {
        *self.flow(lane) = Flow { sent: hub_last, acked: hub_last, more: true, ..Flow::default() };
    }

    /// Entries were appended.
    pub(super) fn appended(&mut self, lane: Lane) {
        self.flow(lane).more |= crate::protect!("push.appended", true);
    }

    /// The next lane to read and the position to read behind. Marks it as being read.
    pub(super) fn next_read(&mut self, pushes_max: usize) -> Option<(Lane, Option<Seq>)> {
        for lane in URGENCY {
            let window = if lane <= Lane::Events { limits::PUSHES_IN_FLIGHT_MAX } else { limits::PUSHES_IN_FLIGHT_MAX / 2 };
            let window = window.min(pushes_max);
            let flow = self.flow(lane);
            if flow.reading {
                return None;
            }
            if flow.more && flow.in_flight.len() < window {
                flow.reading = true;
                return Some((lane, flow.sent));
            }
        }
        None
    }

    /// The store answered: entries up to `last`, or none behind `sent`.
    pub(super) fn read(&mut self, lane: Lane, last: Option<Seq>) {
        let flow = self.flow(lane);
        flow.reading = false;
        match last {
            Some(last) => {
                flow.sent = Some(last);
                flow.in_flight.push_back(last);
            }
            None => flow.more = false,
        }
    }

    /// The hub committed up to `acked`.
    pub(super) fn acked(&mut self, lane: Lane, acked: Seq) {
        let flow = self.flow(lane);
        while flow.in_flight.front().is_some_and(|last| *last <= acked) {
            flow.in_flight.pop_front();
        }
        flow.sent = if crate::protect!("push.sent-forward", flow.sent > Some(acked)) { flow.sent } else { Some(acked) };
        flow.acked = flow.acked.max(Some(acked));
    }

    /// How far the hub has a lane.
    pub(super) fn acked_up_to(&self, lane: Lane) -> Option<Seq> {
        let [state, events, telemetry, blobs] = &self.0;
        match lane {
            Lane::State => state.acked,
            Lane::Events => events.acked,
            Lane::Telemetry => telemetry.acked,
            Lane::Blobs => blobs.acked,
        }
    }

    /// The hub expects `expect` next: everything behind it is sent again.
    pub(super) fn rewind(&mut self, lane: Lane, expect: Seq) {
        let flow = self.flow(lane);
        flow.in_flight.clear();
        flow.sent = if crate::protect!("push.rewind", true) { Seq::new(expect.get() - 1) } else { flow.sent };
        flow.more = true;
    }

    /// True if nothing waits to be read or acknowledged.
    pub(super) fn are_idle(&self) -> bool {
        self.0.iter().all(|flow| !flow.more && !flow.reading && flow.in_flight.is_empty())
    }

    fn flow(&mut self, lane: Lane) -> &mut Flow {
        let [state, events, telemetry, blobs] = &mut self.0;
        match lane {
            Lane::State => state,
            Lane::Events => events,
            Lane::Telemetry => telemetry,
            Lane::Blobs => blobs,
        }
    }
}
