//! A hub that is put back to an earlier copy of itself, and what may be lost by it (rules R17 to R23).

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::store::HubStore;

use super::hub::HubImage;
use super::kept::{self, At};
use super::machine::wait;
use super::model::{HUB, What};
use super::trace::Try;
use super::world::World;

impl World {
    /// Makes a copy of the hub's folder, or puts an earlier one back; sometimes half of the devices are destroyed with what it held.
    pub(super) fn restore_hub(&mut self) -> Try {
        if self.hub.images.is_empty() || self.rng.chance(40) {
            let seen = self.hub.life.as_mut().and_then(|life| life.look(None).ok());
            let has = self.held_by_hub();
            let image = HubImage { files: self.hub.disk.image(), seen, writes: self.model.writes.len(), acked: self.acked.clone(), has };
            self.hub.images.push(image);
            return Ok(());
        }
        self.trace.count("restored hubs");
        let image = self.rng.pick(&self.hub.images).clone();
        self.kill_hub("kills of the hub")?;
        self.hub.disk.restore(&image.files);
        let told = self.rng.chance(40);
        // The file alone, in its place: only what the folder remembers beside it, or a device, can tell.
        let is_told_apart = image.seen.zip(self.hub.seen).is_some_and(|(image, seen)| seen.is_beyond(&image));
        let in_place = !told && is_told_apart && self.rng.clone().chance(60);
        self.hub.restored = told;
        if !in_place {
            (self.hub.seen, self.hub.place) = (image.seen, self.hub.place + u64::from(!told));
        }
        self.trace.count(match (told, in_place) {
            (true, _) => "hubs restored by the command",
            (false, false) => "hub folders brought back",
            (false, true) => "hub files put back in their place",
        });
        self.hub_restored = true;
        self.told.forget();
        if self.rng.chance(40) {
            self.destroy_devices()?;
        }
        let lost = self.histories_lost();
        let kept = self.kept();
        // The age of an entry is told by the hub's times: years are over when its clock is set forward.
        let is_set = self.trace.counts.contains_key("jumps of the hub's clock");
        let (trims, rolls_back) = (self.plan.keep_bytes < 1 << 20 || is_set, self.plan.rolls_back());
        for (nth, write) in self.model.writes.iter_mut().enumerate() {
            let is_in = image.has.contains(&write.id);
            // What is not kept any more comes back by its rows alone. Samples have none; a change of a document that its author had not seen
            // delivered comes back twice, in another device's copy and authored again; and of a log that two devices go on with, nobody can tell
            // which of the two a row has.
            let by_rows = matches!(write.what, What::Things | What::Jobs) && !rolls_back;
            // The tail that its device keeps comes back as it is (rule R21).
            let is_kept = !rolls_back
                && write.what != What::Notes
                && write.sealed.is_some_and(|at| kept.contains(&(at.incarnation, at.lane, at.seq)));
            let was_lost = (write.history == HUB && nth >= image.writes)
                || (lost.contains(&write.history) && !is_in)
                || (trims && !is_in && !write.forbidden && !by_rows && !is_kept);
            write.vague |= was_lost;
        }
        self.acked = image.acked;
        self.promise()
    }

    /// The writes of devices that the hub has, each under the name that it got first: of a log that two copies go on with, only what it has in
    /// an entry's place tells which of the two that is.
    fn held_by_hub(&mut self) -> BTreeSet<u64> {
        let mut held = BTreeSet::new();
        let Some(project) = self.project else { return held };
        // Where no process of it can be asked, its disk is: the last ack tells how far a lane is, and not whose entries those are.
        let mut copy = if self.hub.life.is_none() { self.hub.copy().ok() } else { None };
        for write in &self.model.writes {
            let Some(at) = write.sealed else { continue };
            let mut lanes = self.acked.keys().filter(|lane| (lane.incarnation, lane.lane) == (at.incarnation, at.lane));
            let Some(lane) = lanes.next() else { continue };
            let chain = match (self.hub.life.as_mut(), copy.as_mut()) {
                (Some(life), _) => {
                    let store = Arc::clone(&life.store);
                    life.wait(store.chain_at(project, *lane, at.seq))
                }
                (None, Some(copy)) => wait(copy.store.chain_at(project, *lane, at.seq), || copy.writer.turn()),
                (None, None) => break,
            };
            if chain.is_ok_and(|chain| chain == Some(at.chain)) {
                held.insert(write.id);
            }
        }
        held
    }

    /// What the devices keep of their logs.
    fn kept(&mut self) -> BTreeSet<At> {
        let mut kept = BTreeSet::new();
        for life in self.devices.iter_mut().filter(|node| !node.destroyed).filter_map(|node| node.life.as_mut()) {
            kept.extend(kept::entries(life).into_iter().flatten().map(|(at, _)| at));
        }
        kept
    }

    /// Half of the devices are gone for good, with all that they had.
    fn destroy_devices(&mut self) -> Try {
        let count = self.devices.len() / 2;
        for device in 0..count {
            if self.devices[device].destroyed {
                continue;
            }
            self.trace.count("devices destroyed");
            self.kill_device(device, "kills of a device")?;
            self.devices[device].destroyed = true;
        }
        let Self { promised, devices, .. } = self;
        promised.retain(|(whose, _, _)| !devices[*whose].destroyed);
        Ok(())
    }

    /// The histories of devices that are gone for good, now or since an earlier restore: nobody gives those back.
    fn histories_lost(&self) -> BTreeSet<usize> {
        let (gone, there): (Vec<_>, Vec<_>) = self.devices.iter().partition(|node| node.destroyed);
        let lost = gone.iter().flat_map(|node| node.lineage.iter().copied().chain([node.history]));
        // What a copy or an earlier image of it goes on with is not lost.
        let kept: BTreeSet<usize> = there.iter().flat_map(|node| node.lineage.iter().copied()).collect();
        lost.filter(|history| !kept.contains(history)).collect()
    }

    /// Notes what the devices hold of what the hub has delivered: it comes back.
    fn promise(&mut self) -> Try {
        let records = self.model.writes.iter().filter(|write| write.what != What::Samples && !write.forbidden);
        let keys: BTreeSet<_> = records.flat_map(|write| [write.witness(), write.what.key(&write.hot)]).collect();
        for (whose, node) in self.devices.iter_mut().enumerate().filter(|(_, node)| !node.destroyed) {
            let Some(life) = node.life.as_mut() else { continue };
            let store = Arc::clone(&life.store);
            for key in &keys {
                if let Ok(Some(record)) = life.wait(store.record(key.clone()))
                    && !record.pending
                {
                    self.promised.push((whose, key.clone(), record.state));
                }
            }
        }
        Ok(())
    }
}
