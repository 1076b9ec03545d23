//! The fixed world that the vectors talk about: one project, one hub, one device, three collections.

use mobo_core::entry::{Entry, Header, chain_next, chain_start};
use mobo_core::ids::{
    BootId, BucketId, Chain, CollectionId, DeviceId, Eid, FieldId, Incarnation, Lane, LaneKey, Nonce, Ordinal, ProjectId, RecordId,
    RecordKey, Seq, Timeline,
};
use mobo_core::life::Life;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::stamp::Stamp;
use mobo_core::table::{Cell, TableState};
use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
use mobo_core::trust::{Certificate, KeyPair, OfferKey, Statement};
use mobo_core::value::Value;

pub(crate) const PROJECT: ProjectId = ProjectId::new(0x1f3a_9c27_5be0_1d46).unwrap();
pub(crate) const ORDERS: CollectionId = CollectionId::new(0x2b71_04e9_88ac_5f02).unwrap();
pub(crate) const NOTES: CollectionId = CollectionId::new(0x3c90_7d15_e2b4_6a11).unwrap();
pub(crate) const VITALS: CollectionId = CollectionId::new(0x4d18_aa63_0f9e_7721).unwrap();
pub(crate) const BUCKET: BucketId = BucketId::new(0x5e02_b6d4_713f_9c35).unwrap();
pub(crate) const OTHER_BUCKET: BucketId = BucketId::new(0x6f47_13c8_a95d_0e4b).unwrap();

pub(crate) const TITLE: FieldId = field(1);
pub(crate) const HOURS: FieldId = field(2);
pub(crate) const DUE: FieldId = field(3);
pub(crate) const COST: FieldId = field(4);
pub(crate) const OPEN: FieldId = field(5);
pub(crate) const EXTRA: FieldId = field(6);
pub(crate) const PHOTO: FieldId = field(7);
/// A field that no schema of this world has.
pub(crate) const UNKNOWN: FieldId = field(9);

pub(crate) const INCARNATION: Incarnation = Incarnation::new(0x0a11_ce00_dead_0001).unwrap();
pub(crate) const PARENT: Incarnation = Incarnation::new(0x0a11_ce00_dead_0000).unwrap();
pub(crate) const TIMELINE: Timeline = Timeline(*b"timeline-two-016");
pub(crate) const OLD_TIMELINE: Timeline = Timeline(*b"timeline-one-016");
pub(crate) const BOOT: BootId = BootId(*b"boot-007");
/// What QUIC would give; here 32 bytes that can be seen.
pub(crate) const BINDING: [u8; 32] = [0xb1; 32];
pub(crate) const SECRET: [u8; 16] = *b"a-secret-16bytes";

const fn field(number: u64) -> FieldId {
    FieldId::new(0x7000_0000_0000_0000 + number).unwrap()
}

/// The hub's key: its secret is 32 times 0x11.
pub(crate) fn hub() -> KeyPair {
    KeyPair::from_secret(&[0x11; 32])
}

/// The device's key: its secret is 32 times 0x22.
pub(crate) fn device() -> KeyPair {
    KeyPair::from_secret(&[0x22; 32])
}

/// Another device's key: its secret is 32 times 0x33.
pub(crate) fn stranger() -> DeviceId {
    KeyPair::from_secret(&[0x33; 32]).device()
}

/// The hub's offer key: 32 times 0x44.
pub(crate) fn offer_key() -> OfferKey {
    OfferKey([0x44; 32])
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

pub(crate) fn key(collection: CollectionId, id: &str) -> RecordKey {
    RecordKey { collection, id: id_of(id) }
}

pub(crate) fn id_of(id: &str) -> RecordId {
    RecordId::new(id).unwrap()
}

pub(crate) fn lane_key(lane: Lane) -> LaneKey {
    LaneKey { device: device().device(), incarnation: INCARNATION, lane }
}

pub(crate) fn moment() -> Moment {
    Moment { boot: BOOT, mono: Mono(86_400_000_000), wall: Wall(1_760_000_000_000_000), quality: WallQuality::Synchronised }
}

pub(crate) fn header(engine: u8) -> Header {
    Header { engine, moment: moment(), nonce: Nonce(*b"nonce-01"), timeline: Some(TIMELINE.short()), provenance: None, life: None }
}

/// A life of that number, of a run that drew c0ffee….
pub(crate) fn life(number: u32) -> Life {
    Life::of(number, Nonce([0xc0, 0xff, 0xee, 0, 1, 2, 3, 4])).unwrap()
}

pub(crate) fn orders() -> Collection {
    let fields = [
        (TITLE, "title", FieldType::Text),
        (HOURS, "hours", FieldType::Counter),
        (DUE, "due", FieldType::Timestamp),
        (COST, "cost", FieldType::Float),
        (OPEN, "open", FieldType::Bool),
        (EXTRA, "extra", FieldType::Json),
        (PHOTO, "photo", FieldType::Bytes),
    ];
    let mut orders = collection(ORDERS, "work_orders", Kind::Table, &fields);
    orders.rev = 3;
    orders.rules = vec!["title:{title}".into()];
    orders.fields[6].retired = true;
    orders
}

pub(crate) fn notes() -> Collection {
    collection(NOTES, "notes", Kind::Document, &[(TITLE, "body", FieldType::Text), (HOURS, "tags", FieldType::List)])
}

pub(crate) fn vitals() -> Collection {
    let fields = [
        (TITLE, "cpu", FieldType::Float),
        (HOURS, "procs", FieldType::Int),
        (DUE, "at", FieldType::Timestamp),
        (OPEN, "up", FieldType::Bool),
        (EXTRA, "host", FieldType::Text),
        (PHOTO, "load", FieldType::Float),
    ];
    Collection { lane: Lane::Telemetry, ..collection(VITALS, "vitals", Kind::Stream, &fields) }
}

fn collection(id: CollectionId, name: &str, kind: Kind, fields: &[(FieldId, &str, FieldType)]) -> Collection {
    let field = |(id, name, kind): &(FieldId, &str, FieldType)| Field {
        id: *id,
        name: (*name).into(),
        kind: *kind,
        retired: false,
        references: None,
    };
    let fields = fields.iter().map(field).collect();
    Collection { id, name: name.into(), kind, rev: 1, fields, rules: vec![], lane: Lane::State, store: "default".into() }
}

pub(crate) fn definition_bytes(collection: &Collection) -> Vec<u8> {
    let mut writer = mobo_core::cbor::Writer::new();
    collection.encode(&mut writer);
    writer.into_bytes()
}

pub(crate) fn stamp(eff: i64, device: DeviceId, seq_: u64, op: u32) -> Stamp {
    Stamp { eff: Eff(eff), device, ordinal: Ordinal(2), seq: seq(seq_), op }
}

/// A row that one put wrote.
pub(crate) fn row() -> TableState {
    let put = stamp(1_760_000_000_000_001, device().device(), 1, 0);
    let cell = |value| Cell { stamp: put, value };
    let cells = [(TITLE, cell(Value::Text("Fix the pump".into()))), (OPEN, cell(Value::Bool(true)))];
    TableState { put: Some(put), cells: cells.into(), ..TableState::default() }
}

/// The same row after a delete.
pub(crate) fn tombstone() -> TableState {
    TableState { delete: Some(stamp(1_760_000_000_500_000, hub().device(), 9, 0)), ..row() }
}

pub(crate) fn certificate() -> Certificate {
    Certificate {
        project: PROJECT,
        key: device().public(),
        name: "pump-house".into(),
        buckets: vec!["all".into(), "site:plant-4".into()],
        issued_us: 1_759_000_000_000_000,
        claims: Vec::new(),
    }
}

pub(crate) fn signed_certificate() -> (Vec<u8>, mobo_core::ids::Signature) {
    let bytes = certificate().encode();
    let signature = Statement::Certificate(&bytes).sign(&hub());
    (bytes, signature)
}

/// The chain after these entries at the start of a lane of the device.
pub(crate) fn chain(lane: Lane, entries: &[Entry]) -> Chain {
    entries.iter().fold(chain_start(PROJECT, &lane_key(lane)), chain_next)
}

pub(crate) fn eid() -> Eid {
    Eid(*b"first-sealing-16")
}
