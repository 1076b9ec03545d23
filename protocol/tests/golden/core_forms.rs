//! Canonical bytes of entries, payloads and everything that is signed or MACed.

use std::collections::BTreeMap;

use mobo_core::cbor::{Reader, Writer};
use mobo_core::document::{self, DocumentOp};
use mobo_core::entry::{Entry, Header, Payload, Provenance, chain_next, chain_start};
use mobo_core::ids::{Chain, FieldId, Lane, PublicKey, Signature, StateHash, Timeline, Ver};
use mobo_core::schema::Collection;
use mobo_core::stream::{Column, Loss, LossReason, Segment, peek_collection};
use mobo_core::table::{Action, TableOp, op};
use mobo_core::time::{Moment, Wall, WallQuality};
use mobo_core::trust::{Certificate, LaneHead, Statement, checkpoint_bytes, decode_checkpoint};
use mobo_core::value::Value;
use mobo_protocol::JoinToken;

use crate::frames_data::{patch, put};
use crate::vectors::Form;
use crate::world::{
    BINDING, BUCKET, COST, DUE, EXTRA, HOURS, NOTES, OPEN, ORDERS, OTHER_BUCKET, PARENT, PHOTO, PROJECT, SECRET, TIMELINE, TITLE, UNKNOWN,
    VITALS, certificate, chain, definition_bytes, device, eid, header, hub, key, lane_key, life, moment, offer_key, orders, row, seq,
    vitals,
};

pub(crate) fn cases() -> Vec<Form> {
    let mut cases = headers();
    cases.extend(payloads());
    cases.extend(stream_payloads());
    cases.extend(identities());
    cases.extend(statements());
    cases
}

pub(crate) fn form(name: &'static str, about: &'static str, bytes: Vec<u8>, check: impl Fn(&[u8]) + 'static) -> Form {
    Form { name, about, bytes, check: Box::new(check) }
}

fn headers() -> Vec<Form> {
    let provenance = Provenance { incarnation: PARENT, lane: Lane::State, seq: seq(18), eid: eid(), sole: false, life: None };
    let no_clock = Moment { wall: Wall(0), quality: WallQuality::None, ..moment() };
    let set = Moment { wall: Wall(-5), quality: WallQuality::Set, ..moment() };
    vec![
        header_form("header", "Sealed header of a table entry: synchronised clock, timeline of its base_vers.", header(2)),
        header_form(
            "header-no-clock",
            "Sealed header of a stream entry on a device without a clock: no key 3, quality 0, no timeline.",
            Header { moment: no_clock, timeline: None, ..header(3) },
        ),
        header_form(
            "header-set-clock",
            "Sealed header of a document entry with a clock that somebody set to before 1970.",
            Header { moment: set, ..header(1) },
        ),
        header_form(
            "header-provenance",
            "Sealed header of an entry that was sealed first under another incarnation.",
            Header { provenance: Some(provenance), ..header(2) },
        ),
        header_form(
            "header-provenance-sole",
            "Sealed header of an entry whose first log ended because a restored hub had lost what was before it: key 8.",
            Header { provenance: Some(Provenance { sole: true, ..provenance }), ..header(2) },
        ),
        header_form(
            "header-life",
            "Sealed header of a table entry that was written in the third life of its log: key 9, number 2 and the mark c0ffee >> 1.",
            Header { life: Some(life(2)), ..header(2) },
        ),
        header_form(
            "header-provenance-life",
            "Sealed header of an entry that was authored again: keys 8 and 9 are of its first sealing.",
            Header { provenance: Some(Provenance { sole: true, life: Some(life(2)), ..provenance }), ..header(2) },
        ),
        form(
            "header-life-of-number-0",
            "A header whose key 9 has number 0, as no author writes it: refused, and its entry quarantined with `bad_payload`.",
            {
                let mut golden = header(2).encode();
                golden[0] += 1;
                golden.extend([0x09, 0x19, 0x12, 0x34]);
                golden
            },
            |golden| assert!(Header::decode(golden).is_err()),
        ),
        form(
            "header-clock-of-no-quality",
            "A header with key 3 though its quality is 0, as no author writes it: read as one without a clock.",
            odd_header(Some(1_770_000_000_000_000), 0),
            |golden| {
                let no_clock = Moment { wall: Wall(0), quality: WallQuality::None, ..moment() };
                assert_eq!(Header::decode(golden).unwrap(), Header { moment: no_clock, timeline: None, ..header(2) });
            },
        ),
        form(
            "header-quality-of-no-clock",
            "A header of quality 1 without key 3: refused, and its entry quarantined with `bad_payload`.",
            odd_header(None, 1),
            |golden| assert!(Header::decode(golden).is_err()),
        ),
    ]
}

/// The bytes of a header in which clock and quality need not fit each other.
fn odd_header(wall: Option<i64>, quality: u64) -> Vec<u8> {
    let header = header(2);
    let mut w = Writer::new();
    w.map(5 + usize::from(wall.is_some())).u64(0).u64(2).u64(1).bytes(header.moment.boot.as_bytes()).u64(2).u64(header.moment.mono.0);
    if let Some(wall) = wall {
        w.u64(3).i64(wall);
    }
    w.u64(4).u64(quality).u64(5).bytes(header.nonce.as_bytes());
    w.into_bytes()
}

fn header_form(name: &'static str, about: &'static str, header: Header) -> Form {
    form(name, about, header.encode(), move |golden| {
        let decoded = Header::decode(golden).unwrap();
        assert_eq!(decoded, header, "{name}");
        assert_eq!(decoded.encode(), golden, "{name}");
    })
}

fn table_op(id: &str, action: Action) -> TableOp {
    TableOp { key: key(ORDERS, id), action, before_us: 0, base_ver: Ver(0), fields: BTreeMap::new(), deltas: BTreeMap::new() }
}

fn table_ops() -> Vec<TableOp> {
    let registers = [
        (TITLE, Value::Text("Pumpe prüfen".into())),
        (DUE, Value::Timestamp(1_760_000_000_000_000)),
        (COST, Value::Float(12.5)),
        (OPEN, Value::Bool(true)),
        (EXTRA, Value::Json("{\"a\":[1,null]}".into())),
        (PHOTO, Value::Null),
        (UNKNOWN, Value::Unknown(vec![0xfa, 0x3f, 0x80, 0x00, 0x00])),
    ];
    let fields = registers.iter().map(|(field, value)| (*field, value.to_cbor())).collect();
    let delta = |number| BTreeMap::from([(HOURS, number)]);
    vec![
        TableOp { fields, deltas: delta(2), ..table_op("w-1", Action::Put) },
        TableOp { before_us: 250_000, base_ver: Ver(7), deltas: delta(-(1 << 70)), ..table_op("w-1", Action::Patch) },
        TableOp { base_ver: Ver(1 << 40), deltas: delta(-9), ..table_op("w-2", Action::Delete) },
        TableOp { key: key(NOTES, "another collection"), ..table_op("x", Action::Delete) },
        TableOp { before_us: 1, ..table_op("w-3", Action::Patch) },
    ]
}

fn table_op_with_later_keys() -> Vec<u8> {
    let mut w = Writer::new();
    w.map(3).u64(0).array(1).array(2).u64(ORDERS.get()).array(1);
    w.map(4).u64(0).text("w-1").u64(1).u64(1).u64(5).map(1).u64(HOURS.get()).u64(3).u64(6).text("why");
    w.u64(1).text("ann").u64(7).map(0);
    w.into_bytes()
}

fn document_ops(epoch: u32) -> Vec<DocumentOp> {
    let op = |id, action, changes: &[&[u8]]| DocumentOp {
        key: key(NOTES, id),
        action,
        before_us: 40,
        base_ver: Ver(3),
        changes: changes.iter().map(|change| change.to_vec()).collect(),
        epoch,
    };
    vec![op("n-1", Action::Put, &[b"first change", b"second change"]), op("n-2", Action::Delete, &[b"deleted := true"])]
}

fn segment() -> Segment {
    let typed = |values: &[Value]| Column::Typed(values.to_vec());
    let floats = |numbers: &[f64]| Column::Typed(numbers.iter().map(|number| Value::Float(*number)).collect());
    let columns: [(FieldId, Column); 7] = [
        (TITLE, floats(&[21.5, 21.57, -0.25, 21.6])),
        (HOURS, typed(&[Value::Int(311), Value::Null, Value::Int(i64::MIN), Value::Int(i64::MAX)])),
        (DUE, Column::Typed(vec![Value::Null; 4])),
        (OPEN, typed(&[Value::Bool(true), Value::Bool(false), Value::Bool(true), Value::Bool(true)])),
        (EXTRA, typed(&[Value::Text("pi-4".into()), Value::Text(String::new()), Value::Null, Value::Text("ä".into())])),
        (PHOTO, floats(&[1.0 / 3.0, 1.0e300, 0.0, -2.0])),
        (UNKNOWN, Column::Unknown(vec![0, 1, 2, 3])),
    ];
    Segment {
        collection: VITALS,
        before_us: vec![3_000_000, 2_000_000, 1_000_017, 0],
        columns: columns.into(),
        author: Some("probe".into()),
    }
}

/// A payload of encoding 1 in encoding 2, its columns in a stored block.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let (mut head, mut body) = (Writer::new(), Writer::new());
    head.map(5).u64(0).u64(VITALS.get()).u64(1).u64(2).u64(2).u64(4).u64(5).text("probe").u64(6);
    body.map(2);
    let take = |key, reader: &mut Reader<'_>| {
        let item = reader.raw()?;
        if matches!(key, 3 | 4) {
            body.u64(key).raw(item);
        }
        Ok(())
    };
    Reader::new(payload).each_key(take).unwrap();
    let body = body.into_bytes();
    let len = u16::try_from(body.len()).unwrap();
    head.bytes(&[&[1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), &body].concat());
    head.into_bytes()
}

fn stream_payloads() -> Vec<Form> {
    vec![
        form(
            "payload-stream",
            "Stream payload: 4 samples; decimal floats, integers over the whole range with a gap, no timestamp at all, bools,\ntexts, raw floats, and a column of an unknown field.",
            segment().encode(&vitals()).unwrap(),
            |golden| {
                let decoded = Segment::decode(golden, &vitals()).unwrap();
                assert_eq!(decoded, segment());
                assert_eq!(decoded.encode(&vitals()).unwrap(), golden);
                assert_eq!(peek_collection(golden).unwrap(), VITALS);
            },
        ),
        form(
            "payload-stream-loss",
            "Stream payload that says what was dropped: 12,000 samples of 20 entries, from 90 s to 30 s before the entry, oldest first.",
            loss().encode(),
            |golden| {
                assert_eq!(Loss::decode(golden), Ok(Some(loss())));
                assert_eq!(peek_collection(golden).unwrap(), VITALS);
                assert!(Segment::decode(golden, &vitals()).is_err(), "who does not know it keeps it, unread");
            },
        ),
        form(
            "payload-stream-deflated",
            "The same in encoding 2: times and columns as one deflate stream, here a stored block, which every reader of deflate takes.",
            deflated(&segment().encode(&vitals()).unwrap()),
            |golden| {
                assert_eq!(Segment::decode(golden, &vitals()).unwrap(), segment());
                assert_eq!(peek_collection(golden).unwrap(), VITALS);
            },
        ),
    ]
}

fn loss() -> Loss {
    let (from_before_us, to_before_us) = (90_000_000, 30_000_000);
    Loss { collection: VITALS, samples: 12_000, entries: 20, from_before_us, to_before_us, reason: LossReason::DropOldest }
}

fn payloads() -> Vec<Form> {
    vec![
        form(
            "payload-table",
            "Table payload: a put of every type (the last field is unknown to the schema and keeps its bits), a patch and a\ndelete with counters, another collection and back.",
            op::encode_payload(&table_ops(), Some("ann")),
            |golden| {
                assert_eq!(op::decode_payload(golden).unwrap(), table_ops());
            },
        ),
        form(
            "payload-table-later",
            "Table payload with keys of a later version in the operation and in the payload: passed over, the bytes are kept.",
            table_op_with_later_keys(),
            |golden| {
                let deltas = BTreeMap::from([(HOURS, 3)]);
                assert_eq!(op::decode_payload(golden).unwrap(), [TableOp { deltas, ..table_op("w-1", Action::Patch) }]);
            },
        ),
        form(
            "payload-document",
            "Document payload: two changes of one note, one of another. The changes are opaque here.",
            document::op::encode_payload(&document_ops(0), None),
            |golden| {
                assert_eq!(document::op::decode_payload(golden).unwrap(), document_ops(0));
            },
        ),
        form(
            "payload-document-epoch",
            "The same of epoch 1: readable, and quarantined until squashing exists.",
            document::op::encode_payload(&document_ops(1), Some("ann")),
            |golden| {
                assert_eq!(document::op::decode_payload(golden).unwrap(), document_ops(1));
            },
        ),
        form(
            "definition",
            "Definition of a table: id, name, kind, revision, fields (the last retired), bucket rule, lane, store.",
            definition_bytes(&orders()),
            |golden| {
                let mut reader = mobo_core::cbor::Reader::new(golden);
                assert_eq!(Collection::decode(&mut reader).unwrap(), orders());
                reader.end().unwrap();
            },
        ),
        form(
            "definition-references",
            "Definition of a table whose field `title` names records of another collection: key 8 behind the keys of every definition.",
            definition_bytes(&referring()),
            |golden| {
                let mut reader = mobo_core::cbor::Reader::new(golden);
                assert_eq!(Collection::decode(&mut reader).unwrap(), referring());
                reader.end().unwrap();
                // Whoever does not know key 8 passes over it, and reads the same definition without its references.
                let (head, tail) = golden.split_at(golden.len() - referring_tail().len());
                assert_eq!((head[0], tail), (0xa9, referring_tail().as_slice()), "a map of nine keys, the last of which is 8");
            },
        ),
        form("certificate-claims", "Certificate of a device with claims: names and values.", claiming().encode(), |golden| {
            assert_eq!(Certificate::decode(golden).unwrap(), claiming());
        }),
        form("certificate", "Certificate of the device, without the signature.", certificate().encode(), |golden| {
            assert_eq!(Certificate::decode(golden).unwrap(), certificate());
        }),
        form("join-token", "Join token: the bytes of its text in ASCII.", token().to_text().into_bytes(), |golden| {
            assert_eq!(JoinToken::parse(std::str::from_utf8(golden).unwrap()), Ok(token()));
        }),
    ]
}

/// The orders with a reference from their title to the notes.
fn referring() -> Collection {
    let mut orders = orders();
    orders.fields[0].references = Some(NOTES);
    orders
}

fn referring_tail() -> Vec<u8> {
    let mut w = Writer::new();
    w.u64(8).array(1).array(2).u64(TITLE.get()).u64(NOTES.get());
    w.into_bytes()
}

pub(crate) fn token() -> JoinToken {
    JoinToken {
        project: PROJECT,
        hub: hub().public(),
        secret: SECRET.to_vec(),
        addresses: vec!["192.0.2.1:8443".into(), "hub.example:8443".into()],
        expires_us: 1_760_086_400_000_000,
        name: "pump-house".into(),
        masks: false,
    }
}

/// Several hashes after each other, as one file.
fn joined<const N: usize>(parts: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    parts.into_iter().flatten().collect()
}

fn identities() -> Vec<Form> {
    let start = chain_start(PROJECT, &lane_key(Lane::State));
    let (first, second) = (chain_next(start, &put()), chain(Lane::State, &[put(), patch()]));
    let lost = Entry { header: put().header, payload: Payload::Lost(put().payload.hash()) };
    let other_lane = chain_start(PROJECT, &lane_key(Lane::Telemetry));
    vec![
        form(
            "chain",
            "Chain of lane 0: at its start, after the first and after the second entry of frames/push-table; then the start of lane 2.\n32 bytes each.",
            joined([start.0, first.0, second.0, other_lane.0]),
            move |golden| {
                assert_eq!(chain_next(Chain(golden[..32].try_into().unwrap()), &lost).0, golden[32..64], "a lost payload keeps the chain");
            },
        ),
        form("eid", "Identity of the first entry of frames/push-table.", put().eid().unwrap().0.to_vec(), |golden| {
            let Payload::Present(payload) = put().payload else { panic!("sealed with a payload") };
            let bytes = [put().header, payload].concat();
            assert_eq!(golden, &blake3::hash(&bytes).as_bytes()[..16]);
        }),
        form(
            "device-ids",
            "The hub's and the device's public keys (32 bytes each), then their ids (16 bytes each).",
            [hub().public().0.as_slice(), &device().public().0, &hub().device().0, &device().device().0].concat(),
            |golden| {
                assert_eq!(mobo_core::ids::DeviceId::of(&PublicKey(golden[32..64].try_into().unwrap())).0, golden[80..]);
            },
        ),
        form(
            "row-mac",
            "MAC of the row of core/state-row as version 2 on the current timeline.",
            offer_key().row(PROJECT, &key(ORDERS, "w-1"), (TIMELINE, Ver(2)), row().hash()).0.to_vec(),
            |golden| {
                let others =
                    [(TIMELINE, Ver(3), row().hash()), (Timeline([0; 16]), Ver(2), row().hash()), (TIMELINE, Ver(2), StateHash([0; 32]))];
                for (timeline, ver, hash) in others {
                    assert_ne!(offer_key().row(PROJECT, &key(ORDERS, "w-1"), (timeline, ver), hash).0, golden);
                }
            },
        ),
        form(
            "schema-mac",
            "MAC of core/definition on the current timeline.",
            offer_key().schema(PROJECT, ORDERS, TIMELINE, &definition_bytes(&orders())).0.to_vec(),
            |golden| {
                assert_ne!(offer_key().schema(PROJECT, ORDERS, TIMELINE, b"another").0, golden);
            },
        ),
    ]
}

/// The bytes that are signed, then the signature, which must hold for these bytes and this key only.
pub(crate) fn statement(name: &'static str, about: &'static str, statement: &Statement<'_>, by_hub: bool) -> Form {
    let keys = if by_hub { hub() } else { device() };
    let signed = statement.bytes();
    let bytes = [signed.as_slice(), statement.sign(&keys).as_bytes()].concat();
    let holds = |key: &PublicKey, golden: &[u8]| {
        let signature = Signature(*golden.last_chunk().unwrap());
        statement.is_signed_by(key, &signature)
    };
    assert!(holds(&keys.public(), &bytes), "{name}");
    assert!(!holds(&if by_hub { device() } else { hub() }.public(), &bytes), "{name}");
    form(name, about, bytes, move |golden| assert_eq!(golden[..golden.len() - 64], signed, "{name}"))
}

fn statements() -> Vec<Form> {
    let head = LaneHead { project: PROJECT, lane: lane_key(Lane::State), last: seq(2), chain: chain(Lane::State, &[put(), patch()]) };
    let heads = [
        (BUCKET, mobo_core::ids::Position(65_540), mobo_core::digest::Digest([0xd5; 32])),
        (OTHER_BUCKET, mobo_core::ids::Position(0), mobo_core::digest::Digest::default()),
    ];
    let checkpoint = checkpoint_bytes(TIMELINE, &heads);
    assert_eq!(decode_checkpoint(&checkpoint).unwrap(), (TIMELINE, heads.to_vec()));
    let certificate = certificate().encode();
    vec![
        statement("statement-drill", "What a hub signs for the report of a drill, then its signature.", &Statement::Drill(b"{}"), true),
        statement("statement-bundle", "What the sender of a bundle signs, then its signature.", &Statement::Bundle(&BINDING), false),
        statement("statement-push", "What a device signs for a push, then its signature (64 bytes).", &Statement::Push(&head), false),
        statement("statement-ack", "What a hub signs for an ack, then its signature.", &Statement::Ack(&head, TIMELINE), true),
        statement(
            "statement-hello",
            "What a device signs for a hello of the bytes \"hello\", on a channel with the binding 32 x b1, then its signature.",
            &Statement::Hello { binding: &BINDING, hello: b"hello" },
            false,
        ),
        statement(
            "statement-enrol",
            "What a device signs to enrol, then its signature.",
            &Statement::Enrol { binding: &BINDING, secret: &SECRET },
            false,
        ),
        statement(
            "statement-certificate",
            "What a hub signs for core/certificate, then its signature.",
            &Statement::Certificate(&certificate),
            true,
        ),
        statement(
            "statement-checkpoint",
            "What a hub signs for a checkpoint of two buckets, then its signature.",
            &Statement::Checkpoint(&checkpoint),
            true,
        ),
    ]
}

fn claiming() -> Certificate {
    Certificate { claims: vec![("site".to_owned(), "plant-4".to_owned()), ("line".to_owned(), "7".to_owned())], ..certificate() }
}
