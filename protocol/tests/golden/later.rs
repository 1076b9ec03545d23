//! What a later version may send, and what this one must make of it.

use mobo_core::cbor::Writer;
use mobo_core::ids::{Mac, Position};
use mobo_core::message::{Definition, Item, ItemBody, Message, Pull, SchemaUpdate};
use mobo_protocol::DecodeError;

use crate::vectors::Later;
use crate::world::{BUCKET, NOTES, ORDERS, TIMELINE, id_of};

pub(crate) fn cases() -> Vec<Later> {
    vec![
        later(
            "pull-extended",
            "Pull with unknown keys 9 and 200, and an unknown fourth part in its want: passed over.",
            pull(),
            Ok(Message::Pull(Pull { pull: 7, wants: vec![(BUCKET, Position(3))], credit_bytes: 9, live: false, takes_own: false })),
        ),
        later(
            "batch-extended",
            "Batch whose item has a seventh part, and whose map has keys 8 and 1000: passed over.",
            batch(),
            Ok(batch_meaning()),
        ),
        later(
            "schema-kind",
            "Schema with a definition of kind 9: kept verbatim, not understood; the session goes on.",
            schema(),
            Ok(schema_meaning()),
        ),
        later(
            "ignorable",
            "A frame of type 99 with the flag `ignorable`: passed over.",
            framed(99, 1, &[0xa0]),
            Ok(Message::Ignored { kind: 99 }),
        ),
        later(
            "ignorable-body",
            "The same with a body that is not CBOR: nothing looks inside.",
            framed(99, 1, &[0xff, 0xff]),
            Ok(Message::Ignored { kind: 99 }),
        ),
        later(
            "not-ignorable",
            "A frame of type 99 without the flag: answered with `unsupported`.",
            framed(99, 0, &[0xa0]),
            Err(DecodeError::Unsupported { kind: 99, flags: 0 }),
        ),
        later(
            "flag-ignorable",
            "A ping with the unknown flag 0x02, ignorable: passed over, for its body may mean something else.",
            framed(26, 3, &[0xa0]),
            Ok(Message::Ignored { kind: 26 }),
        ),
        later(
            "flag-not-ignorable",
            "A ping with the unknown flag 0x80, not ignorable: answered with `unsupported`.",
            framed(26, 0x80, &[0xa0]),
            Err(DecodeError::Unsupported { kind: 26, flags: 0x80 }),
        ),
    ]
}

fn later(name: &'static str, about: &'static str, bytes: Vec<u8>, meaning: Result<Message, DecodeError>) -> Later {
    Later { name, about, bytes, meaning }
}

/// A frame with a body of at most 16 KiB.
fn framed(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap();
    let [low, high] = [(len & 0x7f) as u8, (len >> 7) as u8];
    let mut frame = vec![kind, flags];
    frame.extend(if high == 0 { vec![low] } else { vec![low | 0x80, high] });
    frame.extend_from_slice(body);
    frame
}

fn pull() -> Vec<u8> {
    let mut w = Writer::new();
    w.map(6).u64(0).u64(7).u64(1).array(1).array(3).u64(BUCKET.get()).u64(3).text("why");
    w.u64(2).u64(9).u64(3).bool(false).u64(9).array(2).u64(1).map(1).text("a").null().u64(200).f64(1.5);
    framed(8, 0, &w.into_bytes())
}

fn batch() -> Vec<u8> {
    let mut w = Writer::new();
    w.map(10).u64(0).u64(1).u64(1).bytes(TIMELINE.as_bytes()).u64(2).u64(BUCKET.get()).u64(3).u64(4).u64(4).u64(5).u64(5).array(1);
    w.array(7).u64(NOTES.get()).text("n-1").u64(1).bytes(&[0x3a; 16]).u64(0).bytes(b"saved").text("of a later version");
    w.u64(6).array(0).u64(7).bool(false).u64(8).null().u64(1000).u64(1);
    framed(9, 0, &w.into_bytes())
}

fn batch_meaning() -> Message {
    let body = ItemBody::State { epoch: 0, bytes: b"saved".to_vec() };
    Message::Batch(mobo_core::message::Batch {
        pull: 1,
        timeline: TIMELINE,
        bucket: BUCKET,
        from: Position(4),
        to: Position(5),
        items: vec![Item { collection: NOTES, id: id_of("n-1"), ver: mobo_core::ids::Ver(1), body, mac: Mac([0x3a; 16]) }],
        own_merged: vec![],
        more: false,
        decisions: vec![],
        own: None,
    })
}

fn definition() -> Vec<u8> {
    let mut w = Writer::new();
    w.map(8).u64(0).u64(ORDERS.get()).u64(1).text("photos").u64(2).u64(9).u64(3).u64(1).u64(4).array(0).u64(5).array(0);
    w.u64(6).u64(3).u64(7).text("default");
    w.into_bytes()
}

fn schema() -> Vec<u8> {
    let mut w = Writer::new();
    w.map(4).u64(0).bytes(TIMELINE.as_bytes()).u64(1).u64(8).u64(2).array(1);
    w.array(2).bytes(&definition()).bytes(&[0x3b; 16]).u64(3).bool(false);
    framed(20, 0, &w.into_bytes())
}

fn schema_meaning() -> Message {
    let definition = Definition { bytes: definition(), collection: None, mac: Mac([0x3b; 16]) };
    Message::Schema(SchemaUpdate { timeline: TIMELINE, rev: 8, definitions: vec![definition], more: false })
}
