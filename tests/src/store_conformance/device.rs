//! A device as a store sees it: entries, pushes, and a view of its own.

use std::collections::BTreeMap;

use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::document;
use mobo_core::engine::Author;
use mobo_core::entry::{Entry, Header, Payload, Provenance, chain_next, chain_start};
use mobo_core::ids::{BootId, Chain, DeviceId, Eid, Incarnation, Lane, LaneKey, Nonce, Ordinal, RecordId, RecordKey, Seq, Ver};
use mobo_core::merge::{Prepared, Rights, prepare_push};
use mobo_core::message::{Parent, Push, PushedEntry};
use mobo_core::overlay;
use mobo_core::record::RecordState;
use mobo_core::schema::Kind;
use mobo_core::store::{Admission, Arrival, DeviceRow, Invite};
use mobo_core::stream::{Column, Segment};
use mobo_core::table::{self, TableOp};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{KeyPair, LaneHead, Statement};
use mobo_core::value::Value;
use serde_json::Value as Json;

use super::world::{START, World};

/// Samples of `vitals`: the cpu load, one a second.
#[must_use]
pub fn samples(world: &World, cpu: &[f64]) -> Segment {
    let collection = world.collection("vitals");
    let column = Column::Typed(cpu.iter().map(|load| Value::Float(*load)).collect());
    let before_us = (0..cpu.len() as u64).rev().map(|second| second * 1_000_000).collect();
    Segment { collection: collection.id, before_us, columns: BTreeMap::from([(collection.fields[0].id, column)]), author: None }
}

/// A device with its log.
#[derive(Debug)]
pub struct Device {
    keys: KeyPair,
    /// Its log.
    pub incarnation: Incarnation,
    ordinal: Ordinal,
    boot: BootId,
    mono: u64,
    /// What it has sealed, by lane; the first is at position 1.
    pub lanes: BTreeMap<Lane, Vec<Entry>>,
    /// What it sees: its own writes only.
    view: BTreeMap<RecordKey, RecordState>,
    /// What it may write.
    pub rights: Rights,
}

impl Device {
    /// A device that was invited, enrolled and has said hello; it may write in the buckets.
    pub async fn enrolled(world: &World, name: &str, buckets: &[&str]) -> Self {
        let keys = KeyPair::from_secret(&world.draw());
        let buckets: Vec<String> = buckets.iter().map(|bucket| (*bucket).to_owned()).collect();
        let secret_hash = world.draw();
        let invite = Invite { secret_hash, name: name.to_owned(), buckets: buckets.clone(), claims: vec![], expires: Eff(i64::MAX) };
        world.store.invite(world.project, invite).await.expect("an invitation");
        let row = Self::row(&keys, name, &buckets);
        world.store.enrol(world.project, secret_hash, row).await.expect("an enrolment");
        let mut device = Self {
            keys,
            incarnation: Incarnation::from_entropy(world.draw()),
            ordinal: Ordinal(1),
            boot: BootId(world.draw()),
            mono: 1_000,
            lanes: BTreeMap::new(),
            view: BTreeMap::new(),
            rights: Rights::Buckets(buckets.into_iter().collect()),
        };
        device.ordinal = device.arrive(world, None, 0).await.ordinal;
        device
    }

    /// The row of a device.
    #[must_use]
    pub fn row(keys: &KeyPair, name: &str, buckets: &[String]) -> DeviceRow {
        DeviceRow {
            id: keys.device(),
            key: keys.public(),
            name: name.to_owned(),
            certificate: name.as_bytes().to_vec(),
            enrolled: Eff(START),
            revoked: None,
            seen: None,
            grants: buckets.iter().map(|bucket| (bucket.clone(), true)).collect(),
            claims: vec![],
            ended: vec![],
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.keys.device()
    }

    /// Says hello.
    pub async fn arrive(&self, world: &World, parent: Option<Parent>, session: u64) -> Admission {
        let arrival = Arrival {
            device: self.id(),
            incarnation: self.incarnation,
            parent,
            ordinal: None,
            boot: Some((self.boot, START)),
            now: world.now(),
            session,
        };
        world.store.arrive(world.project, arrival).await.expect("an admission")
    }

    /// Starts a new log that continues this one up to `seq`.
    pub async fn refence(&mut self, world: &World, seq: Option<Seq>) -> Admission {
        let parent = Parent { incarnation: self.incarnation, seq };
        self.incarnation = Incarnation::from_entropy(world.draw());
        self.lanes.clear();
        let admission = self.arrive(world, Some(parent), 0).await;
        self.ordinal = admission.ordinal;
        admission
    }

    /// A lane of its.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> LaneKey {
        LaneKey { device: self.id(), incarnation: self.incarnation, lane }
    }

    /// Its next moment, a millisecond later.
    pub fn tick(&mut self) -> Moment {
        self.mono += 1_000;
        Moment { boot: self.boot, mono: Mono(self.mono), wall: Wall(START), quality: WallQuality::Set }
    }

    /// Seals a payload of that kind.
    pub fn seal(&mut self, world: &World, kind: Kind, payload: Vec<u8>) -> Entry {
        self.seal_again(world, kind, payload, None)
    }

    /// Seals a payload that may have been sealed before.
    pub fn seal_again(&mut self, world: &World, kind: Kind, payload: Vec<u8>, provenance: Option<Provenance>) -> Entry {
        let (moment, nonce) = (self.tick(), Nonce(world.draw()));
        let header = Header { engine: kind.code(), moment, nonce, timeline: Some(world.timeline.short()), provenance, life: None };
        let entry = Entry::seal(&header, payload);
        let lane = if kind == Kind::Stream { Lane::Telemetry } else { Lane::State };
        self.lanes.entry(lane).or_default().push(entry.clone());
        entry
    }

    /// Where an entry was sealed.
    #[must_use]
    pub fn provenance(&self, lane: Lane, seq: u64) -> Provenance {
        let eid: Eid = self.lanes[&lane][seq as usize - 1].eid().expect("a payload");
        Provenance { incarnation: self.incarnation, lane, seq: Seq::new(seq).expect("not 0"), eid, sole: false, life: None }
    }

    /// Edits a record as this device sees it, and seals that; nothing when it changes nothing.
    pub fn write(&mut self, world: &World, collection: &str, intent: Intent, (id, fields): (&str, Json)) -> Option<Entry> {
        let op = self.op(world, collection, intent, (id, fields))?;
        let (kind, payload) = match op {
            RecordOp::Table(op) => (Kind::Table, table::op::encode_payload(&[op], None)),
            RecordOp::Document(op) => (Kind::Document, document::op::encode_payload(&[op], None)),
        };
        Some(self.seal(world, kind, payload))
    }

    /// The operation of an edit as this device sees its record, which it then sees changed.
    pub fn op(&mut self, world: &World, collection: &str, intent: Intent, (id, fields): (&str, Json)) -> Option<RecordOp> {
        let collection = world.collection(collection);
        let key = RecordKey { collection: collection.id, id: RecordId::new(id).expect("an id") };
        let edit = Edit { id: key.id.clone(), intent, fields: fields.as_object().cloned().unwrap_or_default() };
        let author = Author { device: self.id(), incarnation: self.incarnation, ordinal: self.ordinal, ancestors: Default::default() };
        let state = self.view.entry(key.clone()).or_insert_with(|| RecordState::empty(collection, &key).expect("records"));
        let writer = Writer { collection, device: author.device, incarnation: author.incarnation, base_ver: Ver(0) };
        let op = author::author(&writer, state, &edit).expect("an edit that can be done")?;
        *state = overlay::provisional(collection, state, &op, (&author, self.mono)).expect("it fits");
        Some(op)
    }

    /// Seals operations on rows, as they are.
    pub fn rows(&mut self, world: &World, ops: &[TableOp]) -> Entry {
        self.seal(world, Kind::Table, table::op::encode_payload(ops, None))
    }

    /// Seals samples.
    pub fn append(&mut self, world: &World, segment: &Segment) -> Entry {
        let payload = segment.encode(world.collection("vitals")).expect("samples");
        self.seal(world, Kind::Stream, payload)
    }

    /// A push of everything on a lane from a position on.
    #[must_use]
    pub fn push_from(&self, world: &World, lane: Lane, first: u64) -> Prepared {
        let entries = self.lanes.get(&lane).map(Vec::as_slice).unwrap_or_default();
        self.push(world, lane, (first, &entries[first as usize - 1..]))
    }

    /// A push of everything on the state lane.
    #[must_use]
    pub fn push_all(&self, world: &World) -> Prepared {
        self.push_from(world, Lane::State, 1)
    }

    /// A push of its last entry on the state lane.
    #[must_use]
    pub fn push_last(&self, world: &World) -> Prepared {
        self.push_from(world, Lane::State, self.lanes[&Lane::State].len() as u64)
    }

    /// A push of these entries, as if they came from a position on.
    #[must_use]
    pub fn push(&self, world: &World, lane: Lane, (first, entries): (u64, &[Entry])) -> Prepared {
        let pushed = entries.iter().map(|entry| PushedEntry { entry: entry.clone(), eff: None }).collect();
        self.push_entries(world, lane, (first, pushed))
    }

    /// The same, with effective times that a hub has given before.
    #[must_use]
    pub fn push_entries(&self, world: &World, lane: Lane, (first, entries): (u64, Vec<PushedEntry>)) -> Prepared {
        let key = self.lane(lane);
        let prev_chain = self.chain(world, lane, first - 1);
        let head_chain = entries.iter().fold(prev_chain, |chain, pushed| chain_next(chain, &pushed.entry));
        let last = Seq::new(first + entries.len() as u64 - 1).expect("not 0");
        let head = LaneHead { project: world.project, lane: key, last, chain: head_chain };
        let push = Push {
            lane,
            incarnation: self.incarnation,
            first: Seq::new(first).expect("not 0"),
            prev_chain,
            entries,
            head_chain,
            signature: Statement::Push(&head).sign(&self.keys),
            on_behalf: None,
        };
        prepare_push(world.project, key, &self.keys.public(), push, self.rights.clone()).expect("a good push")
    }

    /// The chain after a position of a lane.
    #[must_use]
    pub fn chain(&self, world: &World, lane: Lane, seq: u64) -> Chain {
        let entries = self.lanes.get(&lane).map(Vec::as_slice).unwrap_or_default();
        entries.iter().take(seq as usize).fold(chain_start(world.project, &self.lane(lane)), chain_next)
    }

    /// An entry whose payload it has dropped.
    #[must_use]
    pub fn lost(entry: &Entry) -> Entry {
        Entry { header: entry.header.clone(), payload: Payload::Lost(entry.payload.hash()) }
    }
}
