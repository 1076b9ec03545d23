//! How frames travel in the world, and what happens to links.

use std::sync::Arc;

use mobo_core::link::Channel;
use mobo_core::message::Message;
use mobo_core::store::HubStore;
use mobo_runtime::machine::Machine;

use super::flood::wait_of;
use super::net::{End, LinkState};
use super::plan::Pipe;
use super::told::Clock;
use super::trace::{Try, Violation};
use super::world::{Event, World};

/// What a packet carries on a thin line.
const PACKET_BYTES: u64 = 1_200;
/// A silent peer is noticed after so long.
const SILENCE_US: u64 = 15_000_000;

impl World {
    pub(super) fn connect(&mut self, device: usize) -> u64 {
        let link = self.next_link;
        self.next_link += 1;
        self.links.insert(link, LinkState::new(device));
        self.trace.count("links");
        link
    }

    /// Puts what a session has sent on its link.
    pub(super) fn ship(&mut self, link: u64, from: End, frames: Vec<(Channel, Vec<u8>)>) -> Try {
        for (channel, bytes) in frames {
            self.look_at(link, from, &bytes)?;
            self.send(link, from.other(), (channel, bytes));
        }
        Ok(())
    }

    fn send(&mut self, link: u64, to: End, (channel, bytes): (Channel, Vec<u8>)) {
        let Some(state) = self.links.get(&link).filter(|state| !state.cut) else { return };
        let device = state.device;
        self.trace.count("frames");
        if self.is_blocked(device, to) {
            let state = self.links.get_mut(&link).expect("it is there");
            if state.held.is_empty() {
                self.soon((SILENCE_US, SILENCE_US), Event::Lost(link, End::Device));
                self.soon((SILENCE_US, SILENCE_US), Event::Lost(link, End::Hub));
            }
            let state = self.links.get_mut(&link).expect("it is there");
            state.held.push((to, channel, bytes));
            return;
        }
        let (from, until) = self.plan.latency_us;
        let arrives = self.now() + from + self.rng.below(until - from + 1);
        match self.plan.pipe {
            Pipe::Thin { bits_per_second, lost } => {
                let packets = 1 + bytes.len() as u64 / PACKET_BYTES;
                let again = (0..packets).filter(|_| self.rng.chance(lost)).count() as u64;
                let takes = (bytes.len() as u64 + 40 * packets) * 8_000_000 / bits_per_second + again * 2 * until;
                let now = self.now();
                let state = self.links.get_mut(&link).expect("it is there");
                // One line for all channels.
                let last = state.busy_until.entry(to).or_default();
                *last = now.max(*last) + takes;
                let at = *last + from;
                state.last.insert((to, channel), at);
                self.trace.add("packets lost on a thin line", again);
                self.at(at, Event::Frame(link, to, channel, bytes));
            }
            Pipe::Stream => {
                let state = self.links.get_mut(&link).expect("it is there");
                let last = state.last.entry((to, channel)).or_default();
                *last = arrives.max(*last + 1);
                let at = *last;
                self.at(at, Event::Frame(link, to, channel, bytes));
            }
            Pipe::Datagrams { lost, doubled } => {
                self.trace.count("frames in no order");
                if self.rng.chance(lost) {
                    self.trace.count("frames lost");
                    return;
                }
                if self.rng.chance(doubled) {
                    self.trace.count("frames doubled");
                    let again = arrives + self.rng.below(3_000_000);
                    self.at(again, Event::Frame(link, to, channel, bytes.clone()));
                }
                self.at(arrives, Event::Frame(link, to, channel, bytes));
            }
        }
    }

    fn is_blocked(&self, device: usize, to: End) -> bool {
        self.devices[device].partition.is_some_and(|(up, down)| if to == End::Hub { up } else { down })
    }

    pub(super) fn arrive(&mut self, link: u64, to: End, (channel, bytes): (Channel, Vec<u8>)) -> Try {
        let Some(state) = self.links.get(&link).filter(|state| !state.cut && state.is_open(to)) else { return Ok(()) };
        let device = state.device;
        if self.is_blocked(device, to) {
            self.send(link, to, (channel, bytes));
            return Ok(());
        }
        let kind = bytes.first().copied().unwrap_or_default();
        let name = self.devices[device].name.clone();
        self.say(format_args!("{name} {} hub link {link}: frame {kind}, {} bytes", to.arrow(), bytes.len()));
        match to {
            End::Device => self.device_frame(device, link, &bytes),
            End::Hub => self.hub_frame(link, &bytes),
        }
    }

    /// One end notices that the link is gone, if it is.
    pub(super) fn lost(&mut self, link: u64, end: End) -> Try {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let blocked = state.held.is_empty() && !state.cut && state.is_open(end.other());
        if blocked || !state.is_open(end) {
            return Ok(());
        }
        state.close(end);
        let device = state.device;
        match end {
            End::Device => self.end_device_session(device, "the link is lost", None),
            End::Hub => self.end_hub_session(link, "the link is lost"),
        }
    }

    /// Breaks a link: both ends notice, or only one of them before its patience is over.
    pub(super) fn cut(&mut self, link: u64, both: bool) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.cut = true;
        let first = if self.rng.chance(50) { End::Device } else { End::Hub };
        self.soon((0, 100_000), Event::Lost(link, first));
        let patience = if both { (0, 100_000) } else { (SILENCE_US, SILENCE_US) };
        self.soon(patience, Event::Lost(link, first.other()));
        self.say(format_args!("link {link} is cut"));
    }

    /// Delivers part of a frame to one end, then breaks the link.
    pub(super) fn truncate(&mut self, link: u64) -> Try {
        let frame = Message::Bye;
        let mut bytes = mobo_protocol::encode(&frame);
        let len = self.rng.below(bytes.len() as u64) as usize;
        bytes.truncate(len);
        let to = if self.rng.chance(50) { End::Device } else { End::Hub };
        self.arrive(link, to, (Channel::Control, bytes))?;
        self.cut(link, true);
        Ok(())
    }

    /// One end has ended its session: the other end hears of it, or does not.
    pub(super) fn hang_up(&mut self, link: u64, end: End) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.close(end);
        let last = state.last.iter().filter(|((to, _), _)| *to == end.other()).map(|(_, at)| *at).max().unwrap_or(0);
        let at = last.max(self.now()) + 1_000;
        self.at(at, Event::Lost(link, end.other()));
    }

    /// All devices go where there is no network.
    pub(super) fn leave(&mut self) -> Try {
        self.devices.iter_mut().for_each(|device| device.partition = Some((true, true)));
        Ok(())
    }

    pub(super) fn partition_ends(&mut self, device: usize) -> Try {
        if self.devices[device].partition.take().is_none() {
            return Ok(());
        }
        self.say(format_args!("partition of {} ends", self.devices[device].name.clone()));
        let links: Vec<u64> = self.links.iter().filter(|(_, link)| link.device == device).map(|(number, _)| *number).collect();
        for link in links {
            let held = std::mem::take(&mut self.links.get_mut(&link).expect("it is there").held);
            for (to, channel, bytes) in held {
                self.send(link, to, (channel, bytes));
            }
        }
        Ok(())
    }

    fn look_at_time(&mut self) -> Try {
        let Some(life) = &self.hub.life else { return Ok(()) };
        let clock = Clock {
            now: life.opened.time.now().0,
            wall: self.hub.machine.wall().0,
            timeline: life.opened.history.era().timeline.timeline,
            at_us: self.now(),
            is_set: self.trace.counts.contains_key("jumps of the hub's clock"),
            may_stand: self.plan.hub_disk_fails() || self.plan.away,
        };
        self.told.time(clock)
    }

    /// The hub has closed the log of a session.
    fn closes(&mut self, link: u64) {
        let Some(life) = self.hub.life.as_mut() else { return };
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        if let Ok(lanes) = life.wait(store.audit_lanes(project)) {
            self.told.close(link, &lanes);
        }
    }

    /// Checks what a frame says against what was said before.
    fn look_at(&mut self, link: u64, from: End, bytes: &[u8]) -> Try {
        let Ok(message) = mobo_protocol::decode(bytes) else {
            return Err(Violation::new("frame", "a session sent a frame that the protocol cannot read"));
        };
        if from == End::Hub {
            self.look_at_time()?;
        }
        if let (End::Hub, Message::Refence(order)) = (from, &message)
            && order.closed.is_some()
        {
            self.closes(link);
        }
        let now = self.hub.life.as_ref().map_or(i64::MAX, |life| life.opened.time.now().0);
        self.told.frame(link, from, &message, now)?;
        let at_us = self.now();
        self.nacks.frame(link, (from, &message), at_us)?;
        if let (End::Device, Message::Push(push)) = (from, &message)
            && push.entries.iter().any(|pushed| pushed.eff.is_some_and(|eff| eff.0 > now))
        {
            self.trace.count("pushes of what was made later than it is");
        }
        if let (End::Device, Message::Push(push)) = (from, &message)
            && self.told.is_former(link, push.incarnation)
        {
            self.trace.count("pushes of logs that were left behind");
        }
        match (from, &message) {
            (End::Hub, Message::Batch(batch)) => self.trace.add("rows by name", batch.own.as_ref().map_or(0, |own| own.rows() as u64)),
            (End::Device, Message::Pull(pull)) if !pull.takes_own => self.trace.count("pulls with all rows spelled out"),
            _ => {}
        }
        if let (End::Hub, Some(state)) = (from, self.links.get(&link)) {
            self.check_delivery(state.device, &message)?;
        }
        if let (End::Hub, Some(error), Some(state)) = (from, wait_of(&message), self.links.get(&link)) {
            self.told_to_wait(state.device, error)?;
        }
        if let (End::Hub, Message::Ack(ack)) = (from, &message) {
            let Some(state) = self.links.get(&link) else { return Ok(()) };
            let device = self.devices[state.device].keys.device();
            let lane = mobo_core::ids::LaneKey { device, incarnation: ack.incarnation, lane: ack.lane };
            self.acks.push((self.hub.disk.ops(), (lane, ack.acked, ack.chain)));
            let known = self.acked.entry(lane).or_insert((ack.acked, ack.chain));
            if known.0 == ack.acked && known.1 != ack.chain {
                return Err(Violation::new("I11", format!("two acks of entry {} of {lane:?} have two chains", ack.acked.get())));
            }
            if known.0 < ack.acked {
                *known = (ack.acked, ack.chain);
            }
        }
        Ok(())
    }
}
