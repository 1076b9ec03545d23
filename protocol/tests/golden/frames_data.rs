//! Frames that carry writes up and records down.

use std::collections::BTreeMap;

use mobo_core::digest::Digest;
use mobo_core::document;
use mobo_core::entry::{Entry, Payload, Provenance};
use mobo_core::ids::{CollectionId, Lane, Mac, Ordinal, Position, StateHash, Ver};
use mobo_core::message::{
    Ack, Audit, Batch, Checkpoint, Code, Decision, Item, ItemBody, Message, Nack, Offer, OfferAck, OwnRows, OwnRun, Pull, Push,
    PushedEntry, Reject,
};
use mobo_core::stamp::Stamp;
use mobo_core::table::{Action, TableOp, TableState, op::encode_payload};
use mobo_core::time::Eff;
use mobo_core::trust::{LaneHead, Statement, checkpoint_bytes};
use mobo_core::value::Value;

use crate::vectors::Frame;
use crate::world::{
    BUCKET, HOURS, INCARNATION, NOTES, OLD_TIMELINE, ORDERS, OTHER_BUCKET, PARENT, PROJECT, TIMELINE, TITLE, chain, device, eid, header,
    hub, id_of, key, lane_key, offer_key, row, seq, stranger, tombstone,
};

pub(crate) fn cases() -> Vec<Frame> {
    let mut cases = upwards();
    let own = Pull { pull: 8, wants: vec![(BUCKET, Position(3))], credit_bytes: 1 << 20, live: true, takes_own: true };
    let about = "Pull of a bucket, in answer to which rows that the device has made itself may be named.";
    cases.push(frame("pull-own", about, Message::Pull(own)));
    cases.extend(downwards());
    cases
}

fn frame(name: &'static str, about: &'static str, message: Message) -> Frame {
    Frame { name, about, message }
}

fn upwards() -> Vec<Frame> {
    let reject = Reject {
        lane: Lane::State,
        incarnation: INCARNATION,
        seq: seq(2),
        code: Code::UNKNOWN_ENGINE,
        detail: "engine 9 is of a later version".into(),
        record: None,
        hub_ver: Ver(0),
    };
    let blamed = Reject { code: Code::BAD_VALUE, record: Some((ORDERS, id_of("w-1"))), hub_ver: Ver(3), ..reject.clone() };
    let nack = Nack { lane: Lane::State, incarnation: INCARNATION, expect: seq(3), code: Code::GAP };
    vec![
        frame(
            "push-table",
            "Push of two table entries from the start of lane 0: a put and a patch with a counter.\nChain and signature are real.",
            push(&[put(), patch()], &[None, None]),
        ),
        frame(
            "push-again",
            "The same push again, with the effective times that a hub decided earlier.",
            push(&[put(), patch()], &[Some(1_760_000_000_000_001), Some(1_760_000_000_250_000)]),
        ),
        frame(
            "push-lost",
            "Push whose first entry lost its payload under the device's quota: its hash keeps the chain.\nThe third has lost its payload after a hub had decided its time.",
            push(&[lost(put()), patch(), lost(put())], &[None, None, Some(7)]),
        ),
        frame(
            "push-reauthored",
            "Push of an entry that was sealed first under the parent incarnation: its header has the provenance.",
            push(&[reauthored()], &[None]),
        ),
        frame("push-on-behalf", "Push of somebody else's entries by a relay.", on_behalf()),
        frame("ack", "Ack of two entries with their effective times (the second as a difference), nothing safe yet.", ack(None)),
        frame("ack-safe", "The same, with the first in a verified backup.", ack(Some(1))),
        frame("nack", "Nack: the push left a gap.", Message::Nack(nack)),
        frame("reject", "Reject of an entry that names no record.", Message::Reject(reject)),
        frame("reject-record", "Reject with the record to blame and its version at the hub.", Message::Reject(blamed)),
        frame(
            "pull",
            "Pull of two buckets, live.",
            Message::Pull(Pull {
                pull: 7,
                wants: vec![(BUCKET, Position(65_535)), (OTHER_BUCKET, Position(0))],
                credit_bytes: 1 << 20,
                live: true,
                takes_own: false,
            }),
        ),
        frame(
            "cursor-ack",
            "CursorAck: the one frame of version 1 that carries the flag `ignorable`.",
            Message::CursorAck(vec![(BUCKET, Position(70_001))]),
        ),
        frame(
            "fetch",
            "Fetch of two records.",
            Message::Fetch { pull: 8, records: vec![(ORDERS, id_of("w-1")), (NOTES, id_of("Grüße 1"))] },
        ),
        frame(
            "offer",
            "Offer of a row, a document and a tombstone, with the MACs of the timeline that delivered them.",
            Message::Offer(Offer { bucket: BUCKET, timeline: OLD_TIMELINE, rows: items(OLD_TIMELINE), more: false }),
        ),
    ]
}

fn downwards() -> Vec<Frame> {
    let batch = Batch {
        pull: 7,
        timeline: TIMELINE,
        bucket: BUCKET,
        from: Position(65_535),
        to: Position(65_539),
        items: items(TIMELINE),
        own_merged: vec![(Lane::State, INCARNATION, seq(2))],
        more: true,
        decisions: vec![],
        own: None,
    };
    let mac = offer_key().row(PROJECT, &key(ORDERS, "w-3"), (TIMELINE, Ver(9)), StateHash([0; 32]));
    let leave = Item { collection: ORDERS, id: id_of("w-3"), ver: Ver(9), body: ItemBody::Leave, mac };
    let empty =
        Batch { from: Position(65_539), to: Position(65_540), items: vec![leave], own_merged: vec![], more: false, ..batch.clone() };
    let run = |place, seq_of, op, mac: &[u8]| OwnRun {
        place,
        seq: seq(seq_of),
        op,
        ver: Ver(1),
        macs: mac.iter().map(|byte| Mac([*byte; 16])).collect(),
    };
    let runs = vec![run(0, 2, 0, &[0x51, 0x52, 0x53]), run(4, 3, 7, &[0x54])];
    let own = OwnRows { incarnation: INCARNATION, sameness: [0x5a; 16], runs };
    let named = Batch { items: vec![items(TIMELINE).remove(0)], more: false, own: Some(Box::new(own)), ..batch.clone() };
    let decided = Batch { items: vec![items(TIMELINE).remove(0)], more: false, decisions: decisions(), ..batch.clone() };
    vec![
        frame(
            "batch",
            "Batch of a row, a document and a tombstone, each with its MAC; own_merged of lane 0; more follows.",
            Message::Batch(batch),
        ),
        frame(
            "batch-leave",
            "Batch of a record that left the bucket: four parts in place of six, and a MAC over a state hash of zeros.",
            Message::Batch(empty),
        ),
        frame(
            "batch-decided",
            "Batch of a row with two open decisions about it: of a field, and of the record as a whole, whose values are not told.",
            Message::Batch(decided),
        ),
        frame(
            "batch-own",
            "Batch of three rows that operations 0 to 2 of entry 2 of the receiver's own made, a row spelled out, and one that operation 7 of entry 3 made.",
            Message::Batch(named),
        ),
        frame("checkpoint", "Checkpoint of two buckets, not signed.", checkpoint(false)),
        frame("checkpoint-signed", "The same, signed by the hub.", checkpoint(true)),
        frame("resync", "Resync: positions below the floor are forgotten.", Message::Resync { bucket: BUCKET, floor: Position(1_000) }),
        frame("sweep", "Sweep: the resync ended here.", Message::Sweep { bucket: BUCKET, to: Position(70_002) }),
        frame("audit", "Audit of the part of a bucket whose keys hash to a prefix of three half-bytes.", audit()),
        frame("offer-ack", "OfferAck: two joined, one refused.", Message::OfferAck(OfferAck { bucket: BUCKET, joined: 2, refused: 1 })),
    ]
}

fn decisions() -> Vec<Decision> {
    let stamp = |eff, device, of| Stamp { eff: Eff(eff), device, ordinal: Ordinal(1), seq: seq(of), op: 0 };
    let field = Decision {
        collection: ORDERS,
        id: id_of("w-1"),
        field: TITLE.get(),
        kind: 1,
        loser_stamp: stamp(1_760_000_000_000_001, stranger(), 7),
        loser: Some("\"Oil the pump\"".into()),
        winner_stamp: stamp(1_760_000_000_250_000, device().device(), 1),
        winner: Some("\"Fix the pump\"".into()),
        at: Eff(1_760_000_000_300_000),
    };
    let whole = Decision { field: 0, kind: 2, loser: None, winner: None, at: Eff(1_760_000_000_200_000), ..field.clone() };
    vec![field, whole]
}

pub(crate) fn put() -> Entry {
    let op = TableOp {
        key: key(ORDERS, "w-1"),
        action: Action::Put,
        before_us: 0,
        base_ver: Ver(0),
        fields: [(TITLE, Value::Text("Fix the pump".into()).to_cbor())].into(),
        deltas: BTreeMap::new(),
    };
    Entry::seal(&header(2), encode_payload(&[op], None))
}

pub(crate) fn patch() -> Entry {
    let op = TableOp {
        key: key(ORDERS, "w-1"),
        action: Action::Patch,
        before_us: 1_500,
        base_ver: Ver(1),
        fields: BTreeMap::new(),
        deltas: [(HOURS, 2)].into(),
    };
    Entry::seal(&header(2), encode_payload(&[op], Some("ann")))
}

fn lost(entry: Entry) -> Entry {
    Entry { payload: Payload::Lost(entry.payload.hash()), header: entry.header }
}

fn reauthored() -> Entry {
    let provenance = Provenance { incarnation: PARENT, lane: Lane::State, seq: seq(18), eid: eid(), sole: false, life: None };
    let Payload::Present(payload) = put().payload else { panic!("sealed with a payload") };
    Entry::seal(&mobo_core::entry::Header { provenance: Some(provenance), ..header(2) }, payload)
}

fn push(entries: &[Entry], effs: &[Option<i64>]) -> Message {
    let head = chain(Lane::State, entries);
    let statement = LaneHead { project: PROJECT, lane: lane_key(Lane::State), last: seq(entries.len() as u64), chain: head };
    Message::Push(Push {
        lane: Lane::State,
        incarnation: INCARNATION,
        first: seq(1),
        prev_chain: chain(Lane::State, &[]),
        entries: entries.iter().zip(effs).map(|(entry, eff)| PushedEntry { entry: entry.clone(), eff: eff.map(Eff) }).collect(),
        head_chain: head,
        signature: Statement::Push(&statement).sign(&device()),
        on_behalf: None,
    })
}

fn on_behalf() -> Message {
    let Message::Push(push) = push(&[put()], &[None]) else { panic!("a push is a push") };
    Message::Push(Push { on_behalf: Some(stranger()), ..push })
}

fn ack(safe: Option<u64>) -> Message {
    let head = chain(Lane::State, &[put(), patch()]);
    let statement = LaneHead { project: PROJECT, lane: lane_key(Lane::State), last: seq(2), chain: head };
    Message::Ack(Ack {
        lane: Lane::State,
        incarnation: INCARNATION,
        acked: seq(2),
        chain: head,
        safe: safe.map(seq),
        credit_bytes: 1 << 20,
        eff_first: seq(1),
        effs: vec![Eff(1_760_000_000_000_001), Eff(1_760_000_000_250_000)],
        signature: Statement::Ack(&statement, TIMELINE).sign(&hub()),
    })
}

fn items(timeline: mobo_core::ids::Timeline) -> Vec<Item> {
    let item = |collection: CollectionId, id: &str, ver, bytes: Vec<u8>, hash| Item {
        collection,
        id: id_of(id),
        ver: Ver(ver),
        body: ItemBody::State { epoch: 0, bytes },
        mac: offer_key().row(PROJECT, &key(collection, id), (timeline, Ver(ver)), hash),
    };
    let state = |id, ver, state: TableState| item(ORDERS, id, ver, state.encode(), state.hash());
    let saved = b"the bytes of a saved automerge document".to_vec();
    vec![
        state("w-1", 2, row()),
        item(NOTES, "n-1", 4, saved, document::op::state_hash(0, &[[0xa5; 32]])),
        state("w-2", 1 << 33, tombstone()),
    ]
}

fn checkpoint(signed: bool) -> Message {
    let heads = vec![(BUCKET, Position(65_540), Digest([0xd5; 32])), (OTHER_BUCKET, Position(0), Digest::default())];
    let signature = signed.then(|| Statement::Checkpoint(&checkpoint_bytes(TIMELINE, &heads)).sign(&hub()));
    let own_merged = vec![(Lane::State, INCARNATION, seq(2)), (Lane::Telemetry, INCARNATION, seq(400))];
    Message::Checkpoint(Checkpoint { pull: 7, timeline: TIMELINE, heads, own_merged, signature })
}

fn audit() -> Message {
    let parts = (0..16).map(|part| Digest([part; 32])).collect();
    Message::Audit(Audit { bucket: BUCKET, at: Position(65_540), prefix: vec![0x0, 0xf, 0x3], parts })
}
