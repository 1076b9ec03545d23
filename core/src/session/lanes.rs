//! What a device has in flight on each lane.

use std::collections::VecDeque;

use super::URGENCY;
use crate::ids::{Lane, Seq};
use crate::limits;
use crate::message::Push;
use crate::time::Instant;

/// A push that waits for its ack.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    last: Seq,
    bytes: u64,
    sent: Instant,
}

/// What may be read next: entries of a lane behind a position, and so many bytes of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NextRead {
    pub(super) lane: Lane,
    pub(super) after: Option<Seq>,
    pub(super) bytes_max: usize,
}

/// One lane's pushes.
#[derive(Clone, Debug, Default)]
struct Flow {
    /// The last position that was sent; reading goes on behind it.
    sent: Option<Seq>,
    /// The hub has everything up to here.
    acked: Option<Seq>,
    in_flight: VecDeque<InFlight>,
    /// Bytes that the hub lets be in flight.
    credit_bytes: u64,
    /// True while the store is asked for entries.
    reading: bool,
    /// True if there may be entries behind `sent`.
    more: bool,
}

impl Flow {
    /// True if one more push may be sent. One may always be; and a credit of 0 is that of a hub that says nothing of it.
    fn has_room(&self, pushes_max: usize) -> bool {
        let bytes: u64 = self.in_flight.iter().map(|push| push.bytes).sum();
        self.in_flight.is_empty() || (self.in_flight.len() < pushes_max && (self.credit_bytes == 0 || bytes < self.credit_bytes))
    }
}

/// All lanes of a device in one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    flows: [Flow; 4],
    /// Bytes that the link has lately carried in a second, both ways included; `None` before the first ack.
    pace_bytes: Option<u64>,
    acked_at: Option<Instant>,
}

impl Lanes {
    /// Starts a lane behind what the hub has.
    pub(super) fn start(&mut self, lane: Lane, hub_last: Option<Seq>, credit_bytes: u32) {
        let credit_bytes = u64::from(credit_bytes);
        *self.flow(lane) = Flow { sent: hub_last, acked: hub_last, more: true, credit_bytes, ..Flow::default() };
    }

    /// Entries were appended.
    pub(super) fn appended(&mut self, lane: Lane) {
        self.flow(lane).more |= crate::protect!("push.appended", true);
    }

    /// The next lane to read and the position to read behind. Marks it as being read.
    pub(super) fn next_read(&mut self, pushes_max: usize) -> Option<NextRead> {
        for lane in URGENCY {
            let window = if lane <= Lane::Events { limits::PUSHES_IN_FLIGHT_MAX } else { limits::PUSHES_IN_FLIGHT_MAX / 2 };
            let window = window.min(pushes_max);
            let bytes_max = self.push_bytes_max(lane);
            let flow = self.flow(lane);
            if flow.reading {
                return None;
            }
            if flow.more && flow.has_room(window) {
                flow.reading = true;
                return Some(NextRead { lane, after: flow.sent, bytes_max });
            }
        }
        None
    }

    /// What a push of a lane may take: telemetry at most what the link carries in a second, so that a change of state behind it does not wait
    /// for longer (invariant I15); state what it carries in some seconds, because a push is merged whole or not at all.
    pub(super) fn push_bytes_max(&self, lane: Lane) -> usize {
        let (seconds, unpaced) = if lane <= Lane::Events {
            (limits::PUSH_STATE_SECONDS, limits::PUSH_STATE_BYTES_UNPACED)
        } else {
            (1, limits::PUSH_BYTES_UNPACED)
        };
        let pace = self.pace_bytes.map(|pace| usize::try_from(pace).unwrap_or(usize::MAX).saturating_mul(seconds));
        pace.map_or(unpaced, |bytes| bytes.clamp(limits::PUSH_BYTES_MIN, limits::BATCH_BYTES_MAX))
    }

    /// The store answered: entries that were sent now, or none behind `sent`.
    pub(super) fn read(&mut self, now: Instant, lane: Lane, push: Option<&Push>) {
        let flow = self.flow(lane);
        flow.reading = false;
        let last = push.and_then(|push| Seq::new(push.first.get() + push.entries.len() as u64 - 1));
        match (last, push) {
            (Some(last), Some(push)) => {
                let bytes = push.entries.iter().map(|pushed| pushed.entry.bytes() as u64).sum();
                flow.sent = Some(last);
                flow.in_flight.push_back(InFlight { last, bytes, sent: now });
            }
            _ => flow.more = false,
        }
    }

    /// The hub committed up to `acked`, and lets so many bytes be in flight from now on.
    pub(super) fn acked(&mut self, now: Instant, (lane, acked): (Lane, Seq), credit_bytes: u32) {
        let since = self.acked_at;
        let flow = self.flow(lane);
        flow.credit_bytes = u64::from(credit_bytes);
        let (mut bytes, mut sent) = (0, None);
        while let Some(push) = flow.in_flight.front().copied().filter(|push| push.last <= acked) {
            bytes += push.bytes;
            sent = sent.or(Some(push.sent));
            flow.in_flight.pop_front();
        }
        flow.sent = flow.sent.max(Some(acked));
        flow.acked = flow.acked.max(Some(acked));
        if let Some(sent) = sent {
            self.acked_at = Some(now);
            self.learn_pace(bytes, now.since(since.map_or(sent, |since| since.max(sent))).as_millis());
        }
    }

    /// Half of what is known and half of what was just seen; small pushes tell the distance, not the pace, and count only upwards.
    fn learn_pace(&mut self, bytes: u64, ms: u128) {
        let seen = u64::try_from(u128::from(bytes) * 1_000 / ms.max(1)).unwrap_or(u64::MAX);
        let known = self.pace_bytes;
        if bytes >= limits::PUSH_BYTES_MIN as u64 / 2 || known.is_some_and(|known| seen > known) {
            self.pace_bytes = Some(known.map_or(seen, |known| known / 2 + seen / 2));
        }
    }

    /// How far the hub has a lane.
    pub(super) fn acked_up_to(&self, lane: Lane) -> Option<Seq> {
        self.flow_of(lane).acked
    }

    /// True if the hub's word on entries of a lane up to there is on its way, or will be asked for: no ack of these has come, and some of them
    /// were sent, or are sent next.
    pub(super) fn is_in_flight(&self, lane: Lane, seq: Seq) -> bool {
        let flow = self.flow_of(lane);
        flow.acked < Some(seq) && (flow.sent > flow.acked || flow.more)
    }

    /// The hub says that it expects `expect` next. A word that comes late, after an ack of that entry, says nothing: what it asks for may not
    /// even be kept any more.
    pub(super) fn nacked(&mut self, lane: Lane, expect: Seq) {
        if self.acked_up_to(lane) < Some(expect) {
            self.rewind(lane, expect);
        }
    }

    /// The hub expects `expect` next, or its word on that was not heard: everything behind it is sent again, and waits for its ack.
    pub(super) fn rewind(&mut self, lane: Lane, expect: Seq) {
        let flow = self.flow(lane);
        flow.in_flight.clear();
        let before = Seq::new(expect.get() - 1);
        flow.sent = if crate::protect!("push.rewind", true) { before } else { flow.sent };
        flow.acked = flow.acked.min(before);
        flow.more = true;
    }

    /// True if nothing waits to be read or acknowledged.
    pub(super) fn are_idle(&self) -> bool {
        self.flows.iter().all(|flow| !flow.more && !flow.reading && flow.in_flight.is_empty())
    }

    fn flow_of(&self, lane: Lane) -> &Flow {
        let [state, events, telemetry, blobs] = &self.flows;
        match lane {
            Lane::State => state,
            Lane::Events => events,
            Lane::Telemetry => telemetry,
            Lane::Blobs => blobs,
        }
    }

    fn flow(&mut self, lane: Lane) -> &mut Flow {
        let [state, events, telemetry, blobs] = &mut self.flows;
        match lane {
            Lane::State => state,
            Lane::Events => events,
            Lane::Telemetry => telemetry,
            Lane::Blobs => blobs,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entry::{Entry, Payload};
    use crate::ids::{Chain, Incarnation, Signature};
    use crate::message::PushedEntry;

    fn push(first: u64, bytes: usize) -> Push {
        let entry = Entry { header: vec![], payload: Payload::Present(vec![0; bytes]) };
        Push {
            lane: Lane::Telemetry,
            incarnation: Incarnation::new(4).unwrap(),
            first: Seq::new(first).unwrap(),
            prev_chain: Chain([0; 32]),
            entries: vec![PushedEntry { entry, eff: None }],
            head_chain: Chain([0; 32]),
            signature: Signature([0; 64]),
            on_behalf: None,
        }
    }

    /// Lanes of which only `lane` has anything to send.
    fn only(lane: Lane, credit_bytes: u32) -> Lanes {
        let mut lanes = Lanes::default();
        for other in Lane::ALL {
            lanes.start(other, None, credit_bytes);
            if other != lane {
                lanes.read(Instant(0), other, None);
            }
        }
        lanes
    }

    #[test]
    fn credit_bounds_what_is_in_flight_but_never_stops_a_lane() {
        for (credit_bytes, want) in
            [(0, limits::PUSHES_IN_FLIGHT_MAX), (1, 1), (1_000, 1), (1_001, 2), (1 << 20, limits::PUSHES_IN_FLIGHT_MAX)]
        {
            let mut lanes = only(Lane::State, credit_bytes);
            let mut sent = 0;
            while lanes.next_read(limits::PUSHES_IN_FLIGHT_MAX).is_some() {
                sent += 1;
                lanes.read(Instant(0), Lane::State, Some(&push(sent, 1_000)));
            }
            assert_eq!(sent, want as u64, "credit {credit_bytes}");
            lanes.acked(Instant(0), (Lane::State, Seq::new(sent).unwrap()), credit_bytes);
            assert!(lanes.next_read(limits::PUSHES_IN_FLIGHT_MAX).is_some(), "and what is acknowledged makes room");
        }
    }

    /// I15: whatever waits on the telemetry lane, a change of state waits behind a second of it at the most. N-6: a push of state, which is
    /// merged whole or not at all, is through in some seconds. It took a whole batch before: on a line of 20 kbit/s that comes and goes by the
    /// minute, nothing got through.
    #[test]
    fn i15_pushes_take_what_the_link_carries() {
        let unpaced = [(Lane::Telemetry, 1, limits::PUSH_BYTES_UNPACED), (Lane::State, 10, limits::PUSH_STATE_BYTES_UNPACED)];
        for (lane, seconds, first) in unpaced {
            for bytes_per_s in [800, 2_500, 20_000, 250_000, 10_000_000] {
                let want = usize::try_from(bytes_per_s).unwrap() * seconds;
                let want = want.clamp(limits::PUSH_BYTES_MIN, limits::BATCH_BYTES_MAX);
                let mut lanes = only(lane, 0);
                let (mut now, mut seq) = (Instant(0), 0);
                let mut next = lanes.next_read(4).unwrap().bytes_max;
                assert_eq!(next, first);
                for _ in 0..20 {
                    seq += 1;
                    lanes.read(now, lane, Some(&push(seq, next)));
                    now = now.after(Duration::from_millis(next as u64 * 1_000 / bytes_per_s));
                    lanes.acked(now, (lane, Seq::new(seq).unwrap()), 0);
                    next = lanes.next_read(4).unwrap().bytes_max;
                }
                assert!(next.abs_diff(want) <= want / 20, "{bytes_per_s} bytes/s: {next}, not {want}");
            }
        }
    }
}
