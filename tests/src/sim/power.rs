//! The power goes at every write and sync of a run, and again while the node comes back, and once more: nothing is damaged, and nothing that
//! somebody was told is kept is lost.
//!
//! The run is one of the simulated world without any fault: a device that writes, and its hub. Both disks are recorded; then each recording is
//! played up to every operation, and a node is started on what is there when the power goes just then.

use std::process::ExitCode;
use std::sync::Arc;

use mobo_adapters::sqlite::edge::Sealed;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{Chain, LaneKey, RecordId, RecordKey, Seq};
use mobo_core::store::HubStore;
use mobo_vfs::{Disk, Image, Tape};
use serde_json::{Map, json};

use super::device::Device;
use super::hub::HubNode;
use super::model::What;
use super::plan::Plan;
use super::world::World;
use crate::seed::Rng;

/// Power cuts within a power cut.
const DEPTH: usize = 2;
/// Failures that are told.
const TOLD_MAX: usize = 10;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// Local writes of the run.
    pub transactions: u64,
    /// Writes and syncs of the device's and the hub's disk in the run.
    pub ops: u64,
    /// Cuts in the run.
    pub cuts: u64,
    /// Cuts while a node came back from one.
    pub nested: u64,
    /// What was damaged or lost.
    pub failures: Vec<String>,
}

/// Cuts the power at every `stride`-th write and sync.
///
/// # Panics
///
/// When the run itself breaks something.
#[must_use]
pub fn run(seed: u64, stride: u64) -> Cuts {
    let mut world = World::recorded(seed, Plan::calm());
    world.run().unwrap_or_else(|violation| panic!("without any fault: {violation:?}"));
    let (mut rng, mut sum) = (Rng::new(seed), Cuts { transactions: world.model.writes.len() as u64, ..Cuts::default() });
    let hub = world.hub.disk.recorded();
    let acks = std::mem::take(&mut world.acks);
    let device = world.devices.first().map(|device| device.disk.recorded()).unwrap_or_default();
    let kept: Vec<(u64, Kept)> =
        world.model.writes.iter().filter_map(|write| Some((write.kept_at, Kept(write.key()?, write.sealed?)))).collect();
    sum.ops = hub.ops() + device.ops();
    let mut work = Work { rng: &mut rng, sum: &mut sum };
    let first = world.devices.remove(0);
    work.cut(&mut DevicePatient { device: first, next: 0 }, (&Image::default(), &device, &kept), &[], (stride, 0));
    work.cut(&mut HubPatient { world: &mut world }, (&Image::default(), &hub, &acks), &[], (stride, 0));
    sum
}

/// Runs `sim --power-cuts`.
#[must_use]
pub fn main(seed: u64, stride: u64) -> ExitCode {
    let sum = run(seed, stride);
    println!(
        "{} transactions, {} writes and syncs of both disks: {} power cuts and {} within those; {} failures",
        sum.transactions,
        sum.ops,
        sum.cuts,
        sum.nested,
        sum.failures.len()
    );
    sum.failures.iter().take(TOLD_MAX).for_each(|failure| println!("{failure}"));
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A node that is started again and again.
trait Patient {
    /// What it has told somebody to be kept.
    type Word: Clone;

    /// Starts it on an image, checks that everything is there that was told, and lets it do a little; its recording, and what it told.
    fn live(&mut self, image: &Image, told: &[Self::Word]) -> Result<Life<Self::Word>, String>;
}

/// What was recorded, and what was told after which operation.
type Life<W> = (Tape, Vec<(u64, W)>);

struct Work<'w> {
    rng: &'w mut Rng,
    sum: &'w mut Cuts,
}

impl Work<'_> {
    fn cut<P: Patient>(
        &mut self,
        patient: &mut P,
        (from, tape, words): (&Image, &Tape, &[(u64, P::Word)]),
        known: &[P::Word],
        (stride, depth): (u64, usize),
    ) {
        let (mut player, mut at) = (tape.play(from), 0);
        // Within a cut, a few of the ways back are enough: another cut tries others.
        let picked = if depth == 0 { None } else { Some(self.rng.below(tape.ops()) + 1) };
        let offset = self.rng.below(stride);
        while player.step() {
            at += 1;
            if picked.map_or(!(at + offset).is_multiple_of(stride), |picked| picked != at) {
                continue;
            }
            let (kept, rng) = (*self.rng.pick(&[0, 50, 100]), &mut *self.rng);
            let image = player.cut(&mut || rng.chance(kept));
            let mut told = known.to_vec();
            told.extend(words.iter().filter(|(told_at, _)| *told_at <= at).map(|(_, word)| word.clone()));
            if depth == 0 {
                self.sum.cuts += 1
            } else {
                self.sum.nested += 1
            }
            match patient.live(&image, &told) {
                Err(why) => self.sum.failures.push(format!("cut {at} of {} ({kept} % kept), level {depth}: {why}", tape.ops())),
                Ok((tape, words)) if depth < DEPTH => self.cut(patient, (&image, &tape, &words), &told, (1, depth + 1)),
                Ok(_) => {}
            }
        }
    }
}

/// A local write that was told to be kept.
#[derive(Clone, Debug)]
struct Kept(RecordKey, Sealed);

struct DevicePatient {
    device: Device,
    next: u64,
}

impl Patient for DevicePatient {
    type Word = Kept;

    fn live(&mut self, image: &Image, told: &[Kept]) -> Result<(Tape, Vec<(u64, Kept)>), String> {
        self.device.life = None;
        self.device.disk = Disk::from_image(image);
        self.device.disk.record();
        self.device.boot().map_err(|error| format!("the device does not come up: {error}"))?;
        let life = self.device.life.as_mut().ok_or("it is up")?;
        let store = Arc::clone(&life.store);
        // A stream's samples are what their entries say, which are looked at below.
        for Kept(key, sealed) in told.iter().filter(|kept| kept.0.collection != What::Samples.collection().id) {
            let record = life.wait(store.record(key.clone())).map_err(|error| format!("cannot read {key:?}: {error}"))?;
            if record.is_none() {
                return Err(format!("{key:?} was told to be kept as {sealed:?}, and is not there"));
            }
        }
        let audit = life.wait(store.audit()).map_err(|error| format!("cannot be audited: {error}"))?;
        if !audit.is_clean() {
            return Err(format!("the device is damaged: {audit:?}"));
        }
        let lanes = life.wait(store.report()).map_err(|error| format!("cannot report: {error}"))?.lanes;
        for Kept(_, sealed) in told {
            if lanes.iter().find(|lane| lane.lane == sealed.lane).is_none_or(|lane| lane.last < sealed.seq) {
                return Err(format!("entry {sealed:?} was told to be kept, and its lane is shorter: {lanes:?}"));
            }
        }
        self.next += 1;
        let id = RecordId::new(format!("p{}", self.next)).map_err(|error| error.to_string())?;
        let fields = json!({ "a": "after a cut", "n": 1 }).as_object().cloned().unwrap_or_else(Map::new);
        let key = RecordKey { collection: What::Things.collection().id, id: id.clone() };
        let written = life.wait(store.write(key.collection, vec![Edit { id, intent: Intent::Put, fields }], None));
        // Before it has joined, or has heard of the collection, it takes no writes.
        let sealed = written.ok().and_then(|written| written.entry);
        let words = sealed.map(|sealed| (self.device.disk.ops(), Kept(key, sealed))).into_iter().collect();
        self.device.life = None;
        Ok((self.device.disk.recorded(), words))
    }
}

/// An entry that was acknowledged.
pub(super) type Acked = (LaneKey, Seq, Chain);

struct HubPatient<'w> {
    world: &'w mut World,
}

impl Patient for HubPatient<'_> {
    type Word = Acked;

    fn live(&mut self, image: &Image, told: &[Acked]) -> Result<(Tape, Vec<(u64, Acked)>), String> {
        let mut hub = HubNode::new(self.world.hub.keys.clone(), Arc::clone(&self.world.hub.machine));
        hub.disk = Disk::from_image(image);
        hub.disk.record();
        hub.boot().map_err(|error| format!("the hub does not come up: {error}"))?;
        let life = hub.life.as_mut().ok_or("it is up")?;
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for (lane, seq, chain) in told {
            let found = life.wait(store.chain_at(project, *lane, *seq)).map_err(|error| format!("cannot read a lane: {error}"))?;
            if found != Some(*chain) {
                return Err(format!("entry {} of {lane:?} was acknowledged, and is {found:?}", seq.get()));
            }
        }
        for bucket in life.wait(store.audit_buckets(project)).map_err(|error| format!("cannot be audited: {error}"))? {
            if bucket.stored != bucket.computed || !bucket.damaged.is_empty() || bucket.head < bucket.position_max {
                return Err(format!("a bucket is not the sum of its rows: {bucket:?}"));
            }
        }
        for lane in life.wait(store.audit_lanes(project)).map_err(|error| format!("cannot be audited: {error}"))? {
            if lane.entries != lane.last.get() || lane.broken_at.is_some() {
                return Err(format!("a lane is not what its entries make: {lane:?}"));
            }
        }
        hub.life = None;
        Ok((hub.disk.recorded(), Vec::new()))
    }
}
