//! What goes wrong in the world, and how nodes come back.

use mobo_vfs::{Disk, Failure};

use super::plan::Fault;
use super::trace::{Try, Violation};
use super::world::{Event, World};

/// Devices at most, copies included.
const DEVICES_MAX: usize = 7;
const TEN_YEARS_US: u64 = 10 * 365 * 86_400 * 1_000_000;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Try {
        if self.healed {
            return Ok(());
        }
        let pause = self.plan.faults.iter().find(|(of, _)| *of == fault).map_or(60_000_000, |(_, pause)| *pause);
        self.soon((pause / 2, pause * 3 / 2), Event::Fault(fault));
        let device = self.rng.below(self.devices.len() as u64) as usize;
        if self.devices[device].destroyed {
            return Ok(());
        }
        let name = self.devices[device].name.clone();
        self.say(format_args!("--- {fault:?} (device: {name})"));
        match fault {
            Fault::CutLink | Fault::HalfOpen | Fault::Truncate => self.link_fault(fault),
            Fault::Partition => {
                let ways = *self.rng.pick(&[(true, true), (true, false), (false, true)]);
                if self.devices[device].partition.is_none() {
                    self.devices[device].partition = Some(ways);
                    self.trace.count("partitions");
                    self.later((500_000, 40_000_000), Event::PartitionEnds(device));
                }
                Ok(())
            }
            Fault::KillDevice => self.kill_device(device, "kills of a device"),
            Fault::PowerDevice => {
                let ops = self.rng.below(25);
                self.devices[device].disk.fail_after(ops, Failure::PowerCut);
                Ok(())
            }
            Fault::KillHub => self.kill_hub("kills of the hub"),
            Fault::PowerHub => {
                let ops = self.rng.below(40);
                self.hub.disk.fail_after(ops, Failure::PowerCut);
                Ok(())
            }
            Fault::EioDevice => {
                self.devices[device].sick = true;
                let ops = self.rng.below(25);
                self.devices[device].disk.fail_after(ops, Failure::Io);
                Ok(())
            }
            Fault::EioHub => {
                let ops = self.rng.below(40);
                self.hub.disk.fail_after(ops, Failure::Io);
                Ok(())
            }
            Fault::FullDevice => {
                self.devices[device].sick = true;
                let free = self.rng.below(20_000);
                self.devices[device].disk.fill(free);
                self.later((1_000_000, 20_000_000), Event::DiskHeals(device));
                Ok(())
            }
            Fault::FullHub => {
                let free = self.rng.below(20_000);
                self.hub.disk.fill(free);
                self.later((1_000_000, 20_000_000), Event::HubDiskHeals);
                Ok(())
            }
            Fault::ClockJump | Fault::HubClock => self.jump(device, fault),
            Fault::RestoreDevice => self.restore_device(device),
            Fault::CloneDevice => self.clone_device(device),
            Fault::LieDevice => self.lie(device),
            Fault::RestoreHub => self.restore_hub(),
            Fault::EndRecovery => self.end_recovery(),
        }
    }

    fn jump(&mut self, device: usize, fault: Fault) -> Try {
        let is_hubs = fault == Fault::HubClock || self.rng.chance(15);
        self.trace.count(if is_hubs { "jumps of the hub's clock" } else { "clock jumps" });
        let by = self.rng.below(2 * TEN_YEARS_US).cast_signed() - TEN_YEARS_US.cast_signed();
        let machine = if is_hubs { &self.hub.machine } else { &self.devices[device].machine };
        machine.jump(by);
        Ok(())
    }

    fn link_fault(&mut self, fault: Fault) -> Try {
        let open: Vec<u64> = self.links.iter().filter(|(_, link)| !link.cut && link.device_open).map(|(number, _)| *number).collect();
        if open.is_empty() {
            return Ok(());
        }
        let link = *self.rng.pick(&open);
        match fault {
            Fault::Truncate => {
                self.trace.count("truncated frames");
                self.truncate(link)
            }
            _ => {
                self.trace.count(if fault == Fault::HalfOpen { "half-open links" } else { "cut links" });
                self.cut(link, fault == Fault::CutLink);
                Ok(())
            }
        }
    }

    /// The process of a device ends here and now; the machine goes on.
    pub(super) fn kill_device(&mut self, device: usize, count: &'static str) -> Try {
        if self.devices[device].life.is_none() {
            return Ok(());
        }
        self.trace.count(count);
        self.devices[device].disk.kill();
        self.end_life(device)
    }

    fn end_life(&mut self, device: usize) -> Try {
        let Some(life) = self.devices[device].life.take() else { return Ok(()) };
        if let Some(talk) = &life.talk {
            self.hang_up(talk.link, super::net::End::Device);
        }
        drop(life);
        let node = &mut self.devices[device];
        node.dialing = false;
        let again = !std::mem::replace(&mut node.restarting, true);
        let name = node.name.clone();
        self.say(format_args!("{name} is down"));
        if again {
            self.later((10_000, 8_000_000), Event::Restart(device));
        }
        Ok(())
    }

    /// The power of a device goes: what was not synced is there or not.
    pub(super) fn power_off(&mut self, device: usize) -> Try {
        let mut kept = self.plan.sectors_kept;
        // Whatever cuts the power while the disk lies ends the lie, and all of its time.
        if let Some(first) = self.devices[device].lies.take() {
            kept = 0;
            self.devices[device].disk.heal();
            self.put_back(device, first);
        }
        self.trace.count("power cuts of a device");
        let node = &mut self.devices[device];
        // The connections that are left must not see the disk come back.
        node.disk.kill();
        let life = node.life.take();
        if let Some(talk) = life.as_ref().and_then(|life| life.talk.as_ref()) {
            let link = talk.link;
            if let Some(state) = self.links.get_mut(&link) {
                state.cut = true;
            }
            self.soon((15_000_000, 15_000_000), Event::Lost(link, super::net::End::Hub));
        }
        drop(life);
        let rng = &mut self.rng;
        let node = &mut self.devices[device];
        node.disk.cut(&mut || rng.chance(kept));
        node.machine.reboot();
        node.dialing = false;
        let again = !std::mem::replace(&mut node.restarting, true);
        let name = node.name.clone();
        self.say(format_args!("{name} has lost power"));
        if again {
            self.later((100_000, 10_000_000), Event::Restart(device));
        }
        Ok(())
    }

    /// What a device's disk or store has to say after each step.
    pub(super) fn after(&mut self, device: usize) -> Try {
        let node = &self.devices[device];
        if node.disk.is_down() {
            return self.power_off(device);
        }
        if node.life.as_ref().is_some_and(|life| life.writer.poison().is_some()) {
            return self.kill_device(device, "restarts after a failed write");
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, device: usize) -> Try {
        let node = &mut self.devices[device];
        node.restarting = false;
        if node.life.is_some() || node.destroyed {
            return Ok(());
        }
        let name = node.name.clone();
        match node.boot() {
            Ok(()) => {
                self.say(format_args!("{name} is up"));
                self.dial_later(device, None);
                self.check_kept(device)?;
                self.after(device)
            }
            Err(error) => {
                self.say(format_args!("{name} does not come up: {error}"));
                let down = self.devices[device].disk.is_down();
                if !self.devices[device].sick && !down {
                    return Err(Violation::new("S-1", format!("{name} does not come up: {error}")));
                }
                self.devices[device].restarting = true;
                if down {
                    self.power_off(device)?;
                }
                self.soon((500_000, 3_000_000), Event::Restart(device));
                Ok(())
            }
        }
    }

    pub(super) fn disk_heals(&mut self, device: usize) -> Try {
        let node = &mut self.devices[device];
        node.disk.heal();
        node.sick = false;
        // Room makes no disk honest: what is synced from now on would last, and what it goes on from, of which that was only said, would not.
        if node.lies.is_some() {
            node.disk.lie();
        }
        Ok(())
    }

    pub(super) fn hub_disk_heals(&mut self) -> Try {
        self.hub.disk.heal();
        Ok(())
    }

    fn restore_device(&mut self, device: usize) -> Try {
        if self.devices[device].lies.is_some() {
            return Ok(());
        }
        let first = self.model.writes.len();
        let image = (self.devices[device].disk.image(), first);
        let images = &mut self.devices[device].images;
        if images.is_empty() || self.rng.chance(40) {
            images.push(image);
            self.say(format_args!("a copy of its folder is made"));
            return Ok(());
        }
        let (image, first) = self.rng.pick(images).clone();
        self.trace.count("restored folders");
        self.kill_device(device, "kills of a device")?;
        self.devices[device].disk.restore(&image);
        self.put_back(device, first);
        Ok(())
    }

    /// The device does not know what it wrote since then; the hub may.
    fn put_back(&mut self, device: usize, first: usize) {
        let node = &mut self.devices[device];
        node.rolled_back = true;
        node.broker.forget();
        node.lineage.push(node.history);
        for history in node.lineage.clone() {
            self.model.doubt(history, first);
        }
        let fresh = self.model.history();
        self.devices[device].history = fresh;
        self.promised.retain(|(whose, _, _)| *whose != device);
    }

    fn clone_device(&mut self, device: usize) -> Try {
        if self.devices.len() >= DEVICES_MAX
            || self.devices[device].destroyed
            || self.devices[device].lies.is_some()
            || self.devices[device].disk.is_down()
        {
            return Ok(());
        }
        self.trace.count("cloned folders");
        let nth = self.devices.len();
        let machine = self.machine(nth);
        let node = &mut self.devices[device];
        node.lineage.push(node.history);
        node.rolled_back = true;
        node.broker.forget();
        let (keys, site, lineage) = (node.keys.clone(), node.site, node.lineage.clone());
        let disk = Disk::from_image(&node.disk.image());
        let name = format!("{}c{nth}", node.name);
        let fresh = self.model.history();
        self.devices[device].history = fresh;
        let mut twin = self.device((name, site), keys, disk, machine);
        (twin.lineage, twin.rolled_back, twin.dialing, twin.restarting) = (lineage, true, false, true);
        self.devices.push(twin);
        self.soon((10_000, 20_000_000), Event::Restart(nth));
        self.soon((1_000_000, 3_000_000), Event::Write(nth));
        Ok(())
    }

    /// The disk says that it has synced and has not, for a while; then the power goes, and with it all of that while.
    fn lie(&mut self, device: usize) -> Try {
        if self.devices[device].lies.is_some() || self.devices[device].disk.is_down() {
            return Ok(());
        }
        self.trace.count("lying disks");
        let first = self.model.writes.len();
        self.devices[device].disk.lie();
        self.devices[device].lies = Some(first);
        self.put_back(device, first);
        self.later((500_000, 15_000_000), Event::LieEnds(device));
        Ok(())
    }

    pub(super) fn lie_ends(&mut self, device: usize) -> Try {
        let Some(first) = self.devices[device].lies else { return Ok(()) };
        self.put_back(device, first);
        self.power_off(device)?;
        self.devices[device].disk.heal();
        Ok(())
    }

    pub(super) fn kill_hub(&mut self, count: &'static str) -> Try {
        if self.hub.life.is_none() {
            return Ok(());
        }
        self.trace.count(count);
        self.hub.disk.kill();
        self.end_hub_life(true);
        Ok(())
    }

    fn end_hub_life(&mut self, told: bool) {
        let Some(life) = self.hub.life.take() else { return };
        for link in life.talks.keys() {
            if let Some(state) = self.links.get_mut(link) {
                state.cut = true;
                state.hub_open = false;
            }
            let patience = if told { (1_000, 200_000) } else { (15_000_000, 15_000_000) };
            self.soon(patience, Event::Lost(*link, super::net::End::Device));
        }
        drop(life);
        (self.merging, self.turning) = (false, false);
        self.say(format_args!("the hub is down"));
        self.later((10_000, 6_000_000), Event::HubRestart);
    }

    pub(super) fn after_hub(&mut self) -> Try {
        if self.hub.disk.is_down() {
            self.trace.count("power cuts of the hub");
            self.hub.disk.kill();
            self.end_hub_life(false);
            let (rng, kept) = (&mut self.rng, self.plan.sectors_kept);
            self.hub.disk.cut(&mut || rng.chance(kept));
            self.hub.machine.reboot();
            return Ok(());
        }
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        if life.writer.poison().is_some() {
            return self.kill_hub("restarts after a failed write");
        }
        let timeline = life.opened.history.era().timeline.timeline;
        if std::mem::replace(&mut life.timeline, timeline) != timeline {
            let links: Vec<u64> = life.talks.keys().copied().collect();
            life.talks.values_mut().for_each(|talk| talk.conversation.era_changed());
            links.into_iter().for_each(|link| self.wake_hub(link));
        }
        if self.hub.life.as_mut().is_some_and(|life| std::mem::take(&mut life.turned)) {
            self.look_at_jobs();
        }
        let Some(life) = self.hub.life.as_ref() else { return Ok(()) };
        // What one session has made of an offer is news to all others.
        let told: Vec<u64> = life.talks.iter().filter(|(_, talk)| !talk.news.is_empty()).map(|(link, _)| *link).collect();
        if life.desk.waits() && !std::mem::replace(&mut self.merging, true) {
            self.soon((100, 10_000), Event::HubMerge);
        }
        told.into_iter().for_each(|link| self.wake_hub(link));
        Ok(())
    }

    pub(super) fn hub_restart(&mut self) -> Try {
        if self.hub.life.is_some() {
            return Ok(());
        }
        match self.hub.boot() {
            Ok(()) => {
                self.told.started();
                self.say(format_args!("the hub is up"));
                self.check_acked()
            }
            Err(error) => {
                self.say(format_args!("the hub does not come up: {error}"));
                if self.hub.disk.is_down() {
                    self.trace.count("power cuts of the hub");
                    let (rng, kept) = (&mut self.rng, self.plan.sectors_kept);
                    self.hub.disk.cut(&mut || rng.chance(kept));
                } else if !self.plan.hub_disk_fails() {
                    return Err(Violation::new("S-1", format!("the hub does not come up: {error}")));
                }
                self.soon((500_000, 3_000_000), Event::HubRestart);
                Ok(())
            }
        }
    }
}
