//! Random schedules of writes, merges, restores and offers: whatever comes in whatever order, nothing is lost that anybody holds, and
//! everything counts once (rules R10, R11, R18).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod memory;

use std::collections::{BTreeMap, BTreeSet};

use memory::*;
use mobo_core::digest::Digest;
use mobo_core::entry::{Entry, Header, chain_next, chain_start};
use mobo_core::ids::*;
use mobo_core::merge::{BucketState, Context, Joining, Offered, Outcome, Rights, Rivals, prepare_push};
use mobo_core::message::{Item, ItemBody, Offer, Push, PushedEntry};
use mobo_core::record::RecordState;
use mobo_core::stamp::Stamp;
use mobo_core::table::{Action, TableOp, TableState, op::encode_payload};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, OfferKey, Statement};
use mobo_core::value::Value;

const KEY: OfferKey = OfferKey([3; 32]);
const RECORDS: u64 = 4;
const SCHEDULES: u64 = 150;
const STEPS: usize = 60;

/// The numbers of one schedule.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A record as the hub delivered it.
#[derive(Clone)]
struct Held {
    item: Item,
    timeline: Timeline,
}

struct Device {
    keys: KeyPair,
    entries: Vec<Entry>,
    chains: Vec<Chain>,
    /// What the hub decided, as far as it was heard.
    effs: Vec<Option<Eff>>,
    held: BTreeMap<RecordKey, Held>,
    timeline: Timeline,
}

impl Device {
    fn new(n: u8) -> Self {
        let keys = KeyPair::from_secret(&[n; 32]);
        let mut device = Self { keys, entries: vec![], chains: vec![], effs: vec![], held: BTreeMap::new(), timeline: Timeline([0; 16]) };
        device.chains.push(chain_start(PROJECT, &device.lane()));
        device
    }

    fn lane(&self) -> LaneKey {
        LaneKey { device: self.keys.device(), incarnation: Incarnation::new(1).unwrap(), lane: Lane::State }
    }

    /// Writes a title, adds to a counter, or deletes; a delete takes away what it saw (rule R9).
    fn write(&mut self, dice: &mut Dice) {
        let key = RecordKey { collection: ORDERS, id: RecordId::new(format!("r{}", dice.below(RECORDS))).unwrap() };
        let n = self.entries.len() as u64 + 1;
        let (action, texts) = match dice.below(4) {
            0 => (Action::Patch, vec![]),
            1 => (Action::Patch, vec![(TITLE, format!("{n}"))]),
            _ => (Action::Put, vec![(TITLE, format!("{n}")), (SITE, "a".to_owned())]),
        };
        let fields = texts.into_iter().map(|(field, text)| (field, Value::Text(text).to_cbor())).collect();
        let deltas = [(HOURS, i128::from(dice.below(9)) - 3)].into();
        let op = TableOp { key, action, before_us: 0, base_ver: Ver(0), fields, deltas };
        let moment = Moment { boot: BootId([1; 8]), mono: Mono(n), wall: Wall(0), quality: WallQuality::None };
        let header = Header { engine: 2, moment, nonce: Nonce(n.to_le_bytes()), timeline: None, provenance: None, life: None };
        let entry = Entry::seal(&header, encode_payload(&[op], None));
        self.chains.push(chain_next(*self.chains.last().unwrap(), &entry));
        self.entries.push(entry);
        self.effs.push(None);
    }

    /// Pushes up to `count` entries from where the hub is, with what is known of their times; `hears` the answer or not.
    fn push(&mut self, hub: &mut MemoryHub, count: usize, hears: bool) {
        let first = hub.lanes[&self.lane()].last.map_or(0, Seq::get) as usize + 1;
        let last = self.entries.len().min(first + count - 1);
        if first > last {
            return;
        }
        let head = LaneHead { project: PROJECT, lane: self.lane(), last: Seq::new(last as u64).unwrap(), chain: self.chains[last] };
        let pushed = |n: usize| PushedEntry { entry: self.entries[n - 1].clone(), eff: self.effs[n - 1] };
        let push = Push {
            lane: Lane::State,
            incarnation: self.lane().incarnation,
            first: Seq::new(first as u64).unwrap(),
            prev_chain: self.chains[first - 1],
            entries: (first..=last).map(pushed).collect(),
            head_chain: self.chains[last],
            signature: Statement::Push(&head).sign(&self.keys),
            on_behalf: None,
        };
        let prepared = prepare_push(PROJECT, self.lane(), &self.keys.public(), push, Rights::All).unwrap();
        let outcomes = hub.merge(vec![prepared]);
        let Outcome::Merged(merged) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(merged.rejects, []);
        if hears {
            for (n, eff) in (first..).zip(&merged.effs) {
                self.effs[n - 1] = Some(*eff);
            }
        }
    }

    fn pull(&mut self, hub: &MemoryHub, timeline: Timeline) {
        assert_eq!(self.timeline, timeline, "nothing is pulled before it was offered");
        for (key, stored) in &hub.records {
            let state = stored.state.as_ref().unwrap();
            let mac = KEY.row(PROJECT, key, (timeline, stored.ver), state.state_hash());
            let (epoch, bytes) = state.encode();
            let body = ItemBody::State { epoch, bytes };
            let item = Item { collection: key.collection, id: key.id.clone(), ver: stored.ver, body, mac };
            self.held.insert(key.clone(), Held { item, timeline });
        }
    }

    /// What comes first on a new timeline: all that is kept, then all that is held.
    fn come_back(&mut self, hub: &mut MemoryHub, timeline: Timeline) {
        if self.timeline == timeline {
            return;
        }
        self.push(hub, usize::MAX / 2, true);
        let timelines: BTreeSet<Timeline> = self.held.values().map(|held| held.timeline).collect();
        for of in timelines {
            let rows = self.held.values().filter(|held| held.timeline == of).map(|held| held.item.clone()).collect();
            offer(hub, &Offer { bucket: BucketId::new(1).unwrap(), timeline: of, rows, more: false });
        }
        self.timeline = timeline;
        self.pull(hub, timeline);
    }
}

/// Joins an offer as a store does.
fn offer(hub: &mut MemoryHub, offer: &Offer) {
    let schema = schema();
    hub.clock += 1_000;
    let (timeline, now, entropy) = (Timeline([7; 16]), Eff(hub.clock), [hub.clock as u8; 32]);
    let context = Context { project: PROJECT, schema: &schema, timeline, now, entropy, recovering: true };
    let heads = hub.buckets.values().map(|bucket| (bucket.id, bucket.head)).collect();
    let bucket = hub.buckets.values().find(|bucket| bucket.id == offer.bucket).map(|bucket| bucket.key.clone());
    let joining = Joining::new(context, &Offered { offer, key: &KEY, timelines: &[], heads: &heads, bucket: bucket.as_deref() });
    let stored = joining.wants().into_iter().filter_map(|key| Some((key.clone(), hub.records.get(&key)?.clone()))).collect();
    let (applied, joined) = joining.join(stored);
    assert_eq!((joined.joined, joined.refused.len()), (offer.rows.len() as u64, 0));
    let wants = applied.wants();
    let mut buckets = Vec::new();
    for (key, id) in &wants.keys {
        let fresh = BucketState { id: *id, key: key.clone(), head: Position(0), digest: Digest::default() };
        buckets.push(hub.buckets.entry(key.clone()).or_insert(fresh).clone());
    }
    buckets.extend(hub.buckets.values().filter(|bucket| wants.ids.contains(&bucket.id) && !wants.keys.contains_key(&bucket.key)).cloned());
    let placed = applied.place(buckets, Rivals::new());
    hub.write(placed.writes);
    hub.check();
}

fn state(stored: &mobo_core::merge::Stored) -> &RecordState {
    stored.state.as_ref().unwrap()
}

/// Nothing that a device holds is newer than what the hub has.
fn holds_everything(hub: &MemoryHub, devices: &[Device]) {
    let schema = schema();
    let collection = schema.get(ORDERS).unwrap();
    for (key, held) in devices.iter().flat_map(|device| &device.held) {
        let ItemBody::State { epoch, bytes } = &held.item.body else { panic!("a leave") };
        let theirs = RecordState::decode(collection, key, *epoch, bytes).unwrap();
        let ours = state(&hub.records[key]);
        assert_eq!(ours.join(collection, &theirs).unwrap().state_hash(), ours.state_hash(), "{key:?}");
    }
}

/// A hub that merges everything for the first time, at the times that were decided.
fn reference(devices: &mut [Device], hub: &MemoryHub) -> MemoryHub {
    let mut fresh = MemoryHub { clock: hub.clock + 1_000_000, ..admitted(devices) };
    for device in devices {
        for n in 0..device.entries.len() {
            device.effs[n] = Some(hub.entries[&(device.lane(), Seq::new(n as u64 + 1).unwrap())].1);
        }
        device.push(&mut fresh, usize::MAX / 2, false);
    }
    fresh
}

fn admitted(devices: &[Device]) -> MemoryHub {
    let mut hub = MemoryHub::default();
    for (n, device) in (1..).zip(devices) {
        hub.admit(device.keys.device(), device.lane().incarnation, n);
        hub.boots.insert(device.keys.device(), [(BootId([1; 8]), 0)].into());
    }
    hub
}

/// Runs a schedule; the devices that are left at its end have come back. Gives how often the hub went back in time.
fn run(seed: u64, dies: bool) -> u32 {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut devices: Vec<Device> = (1..=3).map(Device::new).collect();
    let mut hub = admitted(&devices);
    let (mut copy, mut timeline, mut restores) = (hub.clone(), Timeline([0; 16]), 0);
    for _ in 0..STEPS {
        let n = dice.below(devices.len() as u64) as usize;
        let device = &mut devices[n];
        match dice.below(16) {
            0..=5 => device.write(&mut dice),
            6..=9 => {
                device.come_back(&mut hub, timeline);
                let (count, hears) = (1 + dice.below(5) as usize, dice.below(4) > 0);
                device.push(&mut hub, count, hears);
            }
            10..=12 => {
                device.come_back(&mut hub, timeline);
                device.pull(&hub, timeline);
            }
            13 => copy = hub.clone(),
            14 if dice.below(3) == 0 => {
                // The hub's time is not that of the copy (rule R6).
                hub = MemoryHub { clock: hub.clock, ..copy.clone() };
                restores += 1;
                timeline = Timeline([restores as u8; 16]);
            }
            15 if dies && devices.len() > 1 && dice.below(8) == 0 => drop(devices.remove(n)),
            _ => {}
        }
        hub.check();
    }
    let last = Timeline([255; 16]);
    for device in &mut devices {
        device.come_back(&mut hub, last);
        device.push(&mut hub, usize::MAX / 2, true);
    }
    hub.check();
    holds_everything(&hub, &devices);
    if !dies {
        let fresh = reference(&mut devices, &hub);
        assert_eq!(hub.rows(), fresh.rows(), "seed {seed}");
        let hashes =
            |hub: &MemoryHub| hub.records.iter().map(|(key, stored)| (key.clone(), state(stored).state_hash())).collect::<Vec<_>>();
        assert_eq!(hashes(&hub), hashes(&fresh), "seed {seed}");
    }
    restores
}

/// With all devices alive, their kept tails give back everything: the hub ends as if it had never gone back, counters included, whatever
/// the offers brought beside them and in whatever order.
#[test]
fn i17_a_restored_hub_ends_as_if_nothing_had_happened() {
    let restores: u32 = (1..=SCHEDULES).map(|seed| run(seed, false)).sum();
    assert!(restores > 100, "only {restores} restores in all schedules");
}

/// What broke: what says that a record was deleted was in no bucket of a hub that knew nothing of the record, for it has no fields to say in
/// which. So whoever had offered it was told nothing of it, and dropped it; where the hub went back once more, the deletion was gone for good.
#[test]
fn r22_a_deletion_comes_back_into_the_bucket_that_it_is_offered_in() {
    let (timeline, bucket) = (Timeline([1; 16]), BucketId::new(1).unwrap());
    let key = RecordKey { collection: ORDERS, id: RecordId::new("r1").unwrap() };
    let device = KeyPair::from_secret(&[1; 32]).device();
    let stamp = Stamp { eff: Eff(1_000), device, ordinal: Ordinal(1), seq: Seq::new(2).unwrap(), op: 0 };
    let deleted = RecordState::Table(TableState { delete: Some(stamp), ..TableState::default() });
    let (epoch, bytes) = deleted.encode();
    let mac = KEY.row(PROJECT, &key, (timeline, Ver(4)), deleted.state_hash());
    let item = Item { collection: ORDERS, id: key.id.clone(), ver: Ver(4), body: ItemBody::State { epoch, bytes }, mac };
    let mut hub = MemoryHub::default();
    let site = BucketState { id: bucket, key: "site:a".to_owned(), head: Position(0), digest: Digest::default() };
    hub.buckets.insert(site.key.clone(), site);
    for _ in 0..2 {
        offer(&mut hub, &Offer { bucket, timeline, rows: vec![item.clone()], more: false });
        let members: Vec<BucketId> = hub.records[&key].memberships.iter().map(|member| member.bucket).collect();
        assert_eq!(members, [bucket]);
        assert!(!state(&hub.records[&key]).is_visible(schema().get(ORDERS).unwrap()));
    }
}

/// With devices destroyed for good, nothing is lost that another one holds.
#[test]
fn r22_what_any_device_holds_comes_back() {
    (1..=SCHEDULES).for_each(|seed| {
        run(seed, true);
    });
}
