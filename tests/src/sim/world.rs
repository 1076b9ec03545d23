//! The world: one queue of events, one thread, one source of randomness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobo_core::link::Channel;
use mobo_core::store::HubStore;
use mobo_core::trust::KeyPair;
use mobo_vfs::Disk;

use super::device::Device;
use super::hub::HubNode;
use super::machine::{SimMachine, WorldTime};
use super::model::{Model, What};
use super::net::{End, LinkState};
use super::plan::{Fault, Faults, Pipe, Plan};
use super::trace::{Trace, Try, Violation};
use crate::seed::Rng;

/// More events than this are a loop without an end, for a few devices and some minutes.
const EVENTS_MAX: u64 = 400_000;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    Write(usize),
    HubWrite,
    Dial(usize),
    Step(usize),
    Tick(usize, u64),
    Restart(usize),
    HubStep(u64),
    HubJob(u64, u64),
    HubTurn,
    HubMerge,
    HubTick(u64),
    Yard,
    HubRestart,
    Reserve,
    Frame(u64, End, Channel, Vec<u8>),
    Lost(u64, End),
    Fault(Fault),
    Leave,
    PartitionEnds(usize),
    DiskHeals(usize),
    HubDiskHeals,
    EndRecovery,
    LieEnds(usize),
    Audit,
    Heal,
    Look,
    /// So many bytes had got through by then.
    Progress(u64),
}

pub(super) const MINUTE_US: u64 = 60_000_000;

/// Until then a device that goes away has met its hub.
const AWAY_FROM_US: u64 = 10_000_000;

/// A simulated world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) time: WorldTime,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub(super) trace: Trace,
    pub(super) hub: HubNode,
    pub(super) devices: Vec<Device>,
    pub(super) links: BTreeMap<u64, LinkState>,
    pub(super) next_link: u64,
    pub(super) next_job: u64,
    pub(super) model: Model,
    pub(super) healed: bool,
    pub(super) merging: bool,
    pub(super) turning: bool,
    pub(super) acked: BTreeMap<mobo_core::ids::LaneKey, (mobo_core::ids::Seq, mobo_core::ids::Chain)>,
    /// Every ack that was sent, with how far the hub's disk was then.
    pub(super) acks: Vec<(u64, super::power::Acked)>,
    records: bool,
    pub(super) told: super::told::Told,
    pub(super) nacks: super::nacks::Nacks,
    pub(super) rights_lost: super::yards::Lost,
    /// True once the hub was put back: what it had is not what it has.
    pub(super) hub_restored: bool,
    /// What each device held when the hub was restored.
    pub(super) promised: Vec<(usize, mobo_core::ids::RecordKey, mobo_core::record::RecordState)>,
    pub(super) project: Option<mobo_core::ids::ProjectId>,
    deadline: u64,
    done: bool,
}

impl World {
    /// The world of a seed, before anything has happened.
    pub(super) fn new(seed: u64, faults: Faults, whole: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, faults);
        Self::with(rng, plan, whole)
    }

    /// The world of a plan, whose disks are recorded.
    pub(super) fn recorded(seed: u64, plan: Plan) -> Self {
        let mut world = Self::with(Rng::new(seed), plan, false);
        world.hub.disk = Disk::new();
        world.hub.disk.record();
        world.records = true;
        world
    }

    pub(super) fn with(mut rng: Rng, plan: Plan, whole: bool) -> Self {
        let time = WorldTime::default();
        let machine = Arc::new(SimMachine::new(Arc::clone(&time), rng.fork(), (false, 0)));
        let mut hub = HubNode::new(KeyPair::from_secret(&secret(&mut rng)), machine);
        (hub.writes_per_hour, hub.disk) = (plan.writes_per_hour, Disk::from_image(super::templates::hub()));
        let deadline = plan.safety_us + plan.liveness_us;
        Self {
            plan,
            rng,
            time,
            queue: BTreeMap::new(),
            next: 0,
            trace: Trace::new(whole),
            hub,
            devices: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            next_job: 1,
            model: Model::default(),
            healed: false,
            merging: false,
            turning: false,
            acked: BTreeMap::new(),
            acks: Vec::new(),
            records: false,
            told: super::told::Told::default(),
            nacks: super::nacks::Nacks::default(),
            rights_lost: super::yards::Lost::default(),
            hub_restored: false,
            promised: Vec::new(),
            project: None,
            deadline,
            done: false,
        }
    }

    /// Runs it to its end.
    pub(super) fn run(&mut self) -> Try {
        self.trace.say(0, format_args!("{:?}", self.plan));
        self.begin()?;
        let mut events = 0;
        let events_max = EVENTS_MAX * (1 + self.plan.devices as u64 / 100 + self.plan.safety_us / 86_400_000_000);
        while !self.done {
            let Some(((at, _), event)) = self.queue.pop_first() else {
                return Err(Violation::new("liveness", "nothing is left to happen"));
            };
            self.time.store(at, Ordering::Relaxed);
            events += 1;
            if events > events_max {
                return Err(Violation::new("liveness", "more events than a run may have: something runs in circles"));
            }
            self.happen(event)?;
        }
        self.trace.add("events", events);
        Ok(())
    }

    pub(super) fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.queue.insert((at.max(self.now()), self.next), event);
    }

    /// In `from` to `to` µs.
    pub(super) fn soon(&mut self, (from, to): (u64, u64), event: Event) {
        let pause = from + self.rng.below(to.saturating_sub(from) + 1);
        self.at(self.now() + pause, event);
    }

    /// The same, in less time where the world is short.
    pub(super) fn later(&mut self, pause: (u64, u64), event: Event) {
        self.soon(self.plan.pause(pause), event);
    }

    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.trace.say(now, what);
    }

    fn happen(&mut self, event: Event) -> Try {
        match event {
            Event::Write(device) => self.write(device),
            Event::HubWrite => self.hub_write(),
            Event::Dial(device) => self.dial(device),
            Event::Step(device) => self.step(device),
            Event::Tick(device, link) => self.tick(device, link),
            Event::Restart(device) => self.restart(device),
            Event::HubStep(link) => self.hub_step(link),
            Event::HubJob(link, job) => self.hub_job(link, job),
            Event::HubTurn => self.hub_turn(),
            Event::HubMerge => self.hub_merge(),
            Event::HubTick(link) => self.hub_tick(link),
            Event::Yard => self.yard(),
            Event::HubRestart => self.hub_restart(),
            Event::Reserve => self.reserve(),
            Event::Frame(link, to, channel, bytes) => self.arrive(link, to, (channel, bytes)),
            Event::Lost(link, end) => self.lost(link, end),
            Event::Fault(fault) => self.fault(fault),
            Event::Leave => self.leave(),
            Event::PartitionEnds(device) => self.partition_ends(device),
            Event::DiskHeals(device) => self.disk_heals(device),
            Event::LieEnds(device) => self.lie_ends(device),
            Event::HubDiskHeals => self.hub_disk_heals(),
            Event::EndRecovery => self.end_recovery(),
            Event::Audit => {
                let pause = if self.nobody_comes() { (86_400_000_000, 86_400_000_000) } else { (5_000_000, 20_000_000) };
                if !self.healed {
                    self.later(pause, Event::Audit);
                }
                self.audit()
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::Progress(before) => self.progress(before),
        }
    }

    fn begin(&mut self) -> Try {
        let setup = |error: mobo_core::store::StoreError| Violation::new("setup", error.to_string());
        self.hub.boot().map_err(setup)?;
        let life = self.hub.life.as_mut().expect("it has booted");
        let project = life.opened.project;
        self.project = Some(project);
        for what in What::ALL.into_iter().filter(|what| *what != What::Carts || self.plan.yards_every_us.is_some()) {
            let store = Arc::clone(&life.store);
            let mut collection = what.collection();
            if what == What::Jobs && self.plan.crews {
                collection.rules.push("crew:{site}".to_owned());
            }
            let schema = life.wait(store.create_collection(project, collection)).map_err(setup)?;
            life.opened.schema.send_replace(Arc::new(schema));
        }
        let mut first = None;
        for nth in 0..self.plan.devices {
            let site = ["a", "b"][if self.plan.one_seed { 0 } else { nth % 2 }];
            if self.plan.one_seed && nth == 0 {
                first = Some(self.rng.clone());
            }
            // The second of one seed draws what the first one drew.
            let own = first.take_if(|_| nth == 1).map(|first| std::mem::replace(&mut self.rng, first));
            let keys = KeyPair::from_secret(&secret(&mut self.rng));
            let machine = self.machine(nth);
            self.rng = own.unwrap_or_else(|| self.rng.clone());
            let disk = if self.records { Disk::new() } else { Disk::from_image(super::templates::edge()) };
            let mut device = self.device((format!("d{nth}"), site), keys, disk, machine);
            device.rolled_back = self.plan.one_seed;
            if self.records {
                device.disk.record();
            }
            device.boot().map_err(setup)?;
            self.join(&mut device).map_err(setup)?;
            self.devices.push(device);
            self.soon((0, 1_000_000), Event::Dial(nth));
            self.soon((1_000_000, 3_000_000), Event::Write(nth));
        }
        for (fault, pause) in self.plan.faults.clone() {
            self.soon((2_000_000, 2 * pause), Event::Fault(fault));
        }
        if let Some(pause) = self.plan.hub_write_every_us {
            self.soon((1_000_000, 2 * pause), Event::HubWrite);
        }
        if let Some(pause) = self.plan.yards_every_us {
            self.soon((3_000_000, 3_000_000 + pause), Event::Yard);
        }
        self.soon((3_000_000, 3_000_000), Event::Reserve);
        self.later((5_000_000, 20_000_000), Event::Audit);
        self.at(self.plan.safety_us, Event::Heal);
        if self.plan.away {
            self.at(AWAY_FROM_US, Event::Leave);
        }
        Ok(())
    }

    /// All is well from now on.
    fn heal(&mut self) -> Try {
        self.say(format_args!("--- all is well from now on"));
        self.healed = true;
        let datagrams = matches!(self.plan.pipe, Pipe::Datagrams { .. });
        if !matches!(self.plan.pipe, Pipe::Thin { .. }) {
            (self.plan.pipe, self.plan.latency_us) = (Pipe::Stream, (500, 5_000));
        }
        self.hub.disk.heal();
        for device in 0..self.devices.len() {
            self.lie_ends(device)?;
            self.devices[device].disk.heal();
            self.devices[device].sick = false;
            self.partition_ends(device)?;
        }
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links.into_iter().filter(|_| datagrams) {
            self.cut(link, true);
        }
        self.soon((1_000_000, 1_000_000), Event::Look);
        if self.plan.away {
            self.soon((0, 0), Event::Reserve);
            self.soon((MINUTE_US, MINUTE_US), Event::Progress(0));
        }
        if self.devices.iter().any(|device| device.destroyed) {
            self.soon((60_000_000, 60_000_000), Event::EndRecovery);
        }
        Ok(())
    }

    /// The operator knows that no other device will come.
    pub(super) fn end_recovery(&mut self) -> Try {
        if let Some(life) = self.hub.life.as_mut() {
            let history = Arc::clone(&life.opened.history);
            let _ = life.wait(async { history.finish().await });
        }
        self.after_hub()
    }

    /// Looks whether everything has converged.
    fn look(&mut self) -> Try {
        self.check_flood(self.now().saturating_sub(self.plan.safety_us))?;
        let found = self.converged();
        if found.is_ok() {
            self.audit()?;
            self.say(format_args!("--- converged"));
            self.done = true;
            return Ok(());
        }
        if self.now() >= self.deadline {
            return found;
        }
        self.soon((1_000_000, 1_000_000), Event::Look);
        Ok(())
    }
}

fn secret(rng: &mut Rng) -> [u8; 32] {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    secret
}
