//! Each way in which a change can lie, and what it is refused for. Nothing panics, and the document stays as it was.
//!
//! Most lies are told by changing an honest change and encoding it again, as a hostile device would: its checksum always fits.
//!
//! faults: X-3

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use sha2::{Digest, Sha256};

use super::*;
use crate::document::{Actor, genesis};
use crate::limits;
use crate::message::Code;

/// A record with something in every container, and the honest change that device 2 makes on it.
pub(super) fn honest() -> (Document, Sent) {
    let mut first = Person::new(1);
    first.edit(Intent::Put, json!({"body": "abcd", "count": 1, "hours": 2, "tags": [1, 2, 3]}));
    first.edit(Intent::Patch, json!({"body": "abd"}));
    let mut second = first.fork(2);
    let fields = json!({"body": {"$splice": [1, 1, "xy"]}, "count": 2, "hours": {"$inc": 3}, "tags": {"$splice": [1, 1, [7]]}});
    second.edit(Intent::Patch, fields);
    (first.document, second.sent[0].clone())
}

pub(super) fn with_change(sent: &Sent, change: Vec<u8>) -> Sent {
    Sent { op: DocumentOp { changes: vec![change], ..sent.op.clone() }, ..sent.clone() }
}

/// A chunk around a body, with the checksum that fits.
pub(super) fn sealed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut content = vec![kind];
    leb(&mut content, body.len() as u64);
    content.extend_from_slice(body);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&Sha256::digest(&content)[..4]);
    chunk.extend_from_slice(&content);
    chunk
}

pub(super) fn leb(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The body of a chunk.
pub(super) fn body(chunk: &[u8]) -> &[u8] {
    let length = chunk[9..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &chunk[9 + length..]
}

#[track_caller]
fn refused(document: &Document, sent: &Sent, code: Code, what: &str) {
    let mut after = document.clone();
    let refusal = apply(&collection(), &mut after, sent).map(|_| ()).expect_err(what);
    assert_eq!(refusal.code, code, "{what}: {refusal}");
    assert_eq!((&after.saved, after.heads()), (&document.saved, document.heads()), "{what}");
}

/// Tells a lie in the honest change; it must be refused.
#[track_caller]
fn lie(code: Code, what: &str, tell: impl FnOnce(&mut ExpandedChange)) {
    let (document, sent) = honest();
    let mut expanded = Change::try_from(sent.op.changes[0].as_slice()).unwrap().decode();
    tell(&mut expanded);
    let bytes = Change::from(expanded).raw_bytes().to_vec();
    refused(&document, &with_change(&sent, bytes), code, what);
}

/// Finds the operation at a root key, or the nth on a container.
fn op<'c>(change: &'c mut ExpandedChange, name: &str, nth: usize) -> &'c mut Op {
    let number = field(name).get().to_string();
    let object = ObjectId::Id(OpId(1, Actor::of_genesis(&key(), field(name)).to_automerge()));
    let is_it = |op: &&mut Op| op.obj == object || (op.obj == ObjectId::Root && op.key == Key::Map(number.as_str().into()));
    change.operations.iter_mut().filter(is_it).nth(nth).unwrap()
}

/// A root operation without predecessors.
fn root(key: &str, action: OpType) -> Op {
    Op { action, obj: ObjectId::Root, key: Key::Map(key.into()), pred: SortedVec::new(), insert: false }
}

fn nobody(counter: u64) -> OpId {
    OpId(counter, Actor([9; 16]).to_automerge())
}

#[test]
fn the_honest_change_passes() {
    let (mut document, sent) = honest();
    apply(&collection(), &mut document, &sent).unwrap();
    assert_eq!(row(&collection(), &document), json!({"body": "axyd", "count": 2, "hours": 5, "tags": [1, 7, 3]}));
}

#[test]
fn chunks_that_are_not_one_plain_change() {
    let (document, sent) = honest();
    let chunk = sent.op.changes[0].clone();
    let bundle = sealed(3, body(&chunk));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("half of one", chunk[..chunk.len() / 2].to_vec()),
        ("another magic", [&[0x85, 0x6f, 0x4a, 0x84], &chunk[4..]].concat()),
        ("another checksum", [&chunk[..4], &[!chunk[4]], &chunk[5..]].concat()),
        ("a document", document.saved.clone()),
        ("a document's type", sealed(0, body(&chunk))),
        ("a compressed change", sealed(2, body(&chunk))),
        ("a bundle", bundle),
        ("an unknown type", sealed(9, body(&chunk))),
        ("two changes", [chunk.as_slice(), chunk.as_slice()].concat()),
        ("something behind it", [chunk.as_slice(), &[0]].concat()),
        ("extra bytes", sealed(1, &[body(&chunk), &[0]].concat())),
        ("no body", sealed(1, &[])),
    ];
    for (what, bytes) in cases {
        refused(&document, &with_change(&sent, bytes), Code::BAD_CHANGE, what);
    }
    let long = sealed(1, &vec![0; limits::CHANGE_BYTES_MAX]);
    refused(&document, &with_change(&sent, long), Code::TOO_LARGE, "too long");
}

/// What a column holds, and its bytes.
type Column = (u8, Vec<u8>);

/// A change of device 2 on the honest document, with these columns.
fn with_columns(columns: &[Column]) -> (Document, Sent) {
    let (document, sent) = honest();
    let honest = Change::try_from(sent.op.changes[0].as_slice()).unwrap();
    let mut body = vec![1];
    body.extend_from_slice(&honest.deps()[0].0);
    body.push(16);
    body.extend_from_slice(honest.actor_id().to_bytes());
    for number in [1, honest.start_op().get(), 0, 0, 0, columns.len() as u64] {
        leb(&mut body, number);
    }
    for (spec, bytes) in columns {
        body.extend_from_slice(&[*spec, u8::try_from(bytes.len()).unwrap()]);
    }
    for (_, bytes) in columns {
        body.extend_from_slice(bytes);
    }
    (document, with_change(&sent, sealed(1, &body)))
}

#[test]
fn claims_of_2_to_the_40_rows_are_refused_before_they_are_unpacked() {
    let run = |value: &[u8]| [&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20], value].concat();
    let nulls = vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let count = nulls[1..].to_vec();
    let cases: Vec<Column> = vec![
        (0x01, run(&[0])),
        (0x02, run(&[0])),
        (0x11, run(&[0])),
        (0x13, run(&[0])),
        (0x15, run(&[1, b'2'])),
        (0x34, count),
        (0x42, run(&[1])),
        (0x42, nulls.clone()),
        (0x56, run(&[0x16])),
        (0x70, run(&[0])),
        (0x70, [&[0x7f], &nulls[1..]].concat()),
        (0x71, run(&[0])),
        (0x73, nulls),
    ];
    for (spec, bytes) in cases {
        let (document, sent) = with_columns(&[(spec, bytes.clone())]);
        refused(&document, &sent, Code::TOO_LARGE, &format!("{spec:x} {bytes:x?}"));
    }
    // Two groups of 40,000 predecessors, and a literal run of 2^62.
    let (document, sent) = with_columns(&[(0x70, vec![2, 0xc0, 0xb8, 2])]);
    refused(&document, &sent, Code::TOO_LARGE, "predecessors");
    let (document, sent) = with_columns(&[(0x42, vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40])]);
    refused(&document, &sent, Code::TOO_LARGE, "a literal run");
}

#[test]
fn columns_that_no_author_writes() {
    let actions = (0x42, vec![1, 1]);
    let cases: Vec<(&str, Vec<Column>)> = vec![
        ("no operations", vec![]),
        ("a mark's name", vec![actions.clone(), (0x95, vec![1, 1, b'a'])]),
        ("a mark's expansion", vec![actions.clone(), (0x94, vec![1])]),
        ("a compressed column", vec![(0x4a, vec![1, 1])]),
        ("an unknown column", vec![actions.clone(), (0x61, vec![1, 1])]),
        ("out of order", vec![(0x56, vec![1, 0]), actions.clone()]),
        ("twice the same", vec![actions.clone(), actions.clone()]),
        ("values shorter than they say", vec![actions.clone(), (0x56, vec![1, 0x26]), (0x57, vec![b'a'])]),
        ("values without lengths", vec![actions.clone(), (0x57, vec![b'a'])]),
        ("a key too long", vec![(0x15, [&[1, 21], &[b'1'; 21][..]].concat()), actions.clone()]),
        ("a run without a value", vec![(0x42, vec![1])]),
        ("a number without an end", vec![(0x42, vec![0x80])]),
        ("a number of 80 bits", vec![(0x42, vec![0x80; 12])]),
        ("an unknown action", vec![(0x42, vec![1, 99])]),
    ];
    for (what, columns) in cases {
        let (document, sent) = with_columns(&columns);
        refused(&document, &sent, Code::BAD_CHANGE, what);
    }
}

#[test]
fn only_the_author_writes_in_its_name() {
    lie(Code::FORGED_ACTOR, "somebody else", |change| change.actor_id = Actor::of(origin(3)).to_automerge());
    lie(Code::FORGED_ACTOR, "the genesis", |change| change.actor_id = Actor::of_genesis(&key(), field("body")).to_automerge());
    lie(Code::BAD_CHANGE, "an actor of 8 bytes", |change| change.actor_id = vec![1; 8].into());
    lie(Code::BAD_CHANGE, "an author's footer", |change| change.extra_bytes = vec![1, 1, 7]);
    lie(Code::BAD_CHANGE, "a message", |change| change.message = Some("hello".into()));
    lie(Code::BAD_CHANGE, "a time", |change| change.time = 1);
}

#[test]
fn a_change_has_one_place() {
    lie(Code::MISSING_DEPENDENCY, "an unknown dependency", |change| change.deps.push(ChangeHash([7; 32])));
    lie(Code::BAD_CHANGE, "a gap", |change| change.seq = 2);
    lie(Code::BAD_CHANGE, "position 0", |change| change.seq = 0);
    lie(Code::BAD_CHANGE, "a covered dependency", |change| {
        change.deps.push(genesis::change(&key(), field("body"), FieldType::Text).unwrap().hash());
    });
    lie(Code::BAD_CHANGE, "counters that begin again", |change| change.start_op = std::num::NonZeroU64::MIN);
    lie(Code::BAD_CHANGE, "counters with a gap", |change| change.start_op = change.start_op.saturating_add(1));
    lie(Code::BAD_CHANGE, "the last counter", |change| change.start_op = u64::from(u32::MAX).try_into().unwrap());
    lie(Code::BAD_CHANGE, "no dependencies at all", |change| change.deps.clear());
    lie(Code::BAD_CHANGE, "no operations", |change| change.operations.clear());
    let (mut document, sent) = honest();
    apply(&collection(), &mut document, &sent).unwrap();
    let mut twin = Change::try_from(sent.op.changes[0].as_slice()).unwrap().decode();
    op(&mut twin, "count", 0).action = OpType::Put(ScalarValue::Int(77));
    let bytes = Change::from(twin.clone()).raw_bytes().to_vec();
    refused(&document, &with_change(&sent, bytes), Code::BAD_CHANGE, "the same position with other content: a cloned log");
    twin.seq = 2;
    let bytes = Change::from(twin).raw_bytes().to_vec();
    refused(&document, &with_change(&sent, bytes), Code::BAD_CHANGE, "an author that has not seen its own last change");
}

#[test]
fn registers_hold_plain_values_on_field_keys() {
    for key in ["", "00", "02", "+2", "-1", "x", "9223372036854775808", "18446744073709551616"] {
        lie(Code::BAD_CHANGE, key, |change| change.operations.push(root(key, OpType::Put(ScalarValue::Int(1)))));
    }
    lie(Code::BAD_CHANGE, "a flag that is a number", |change| change.operations.push(root("0", OpType::Put(ScalarValue::Int(1)))));
    let unknown = ScalarValue::Unknown { type_code: 12, bytes: vec![1] };
    let values = [
        ScalarValue::F64(f64::NAN),
        ScalarValue::F64(f64::INFINITY),
        ScalarValue::F64(-0.0),
        ScalarValue::Str("a\0".into()),
        ScalarValue::Uint(1),
        ScalarValue::counter(1),
        ScalarValue::Timestamp(i64::MAX),
        unknown,
    ];
    for value in values {
        for key in ["2", "99"] {
            let told = value.clone();
            lie(Code::BAD_CHANGE, &format!("{value:?} at {key}"), |change| {
                change.operations.retain(|op| op.key != Key::Map(key.into()));
                change.operations.push(root(key, OpType::Put(told)));
            });
        }
    }
    lie(Code::BAD_CHANGE, "a removal", |change| op(change, "count", 0).action = OpType::Delete);
    lie(Code::BAD_CHANGE, "an object", |change| op(change, "count", 0).action = OpType::Make(ObjType::Map));
    lie(Code::BAD_CHANGE, "an increment of a register", |change| op(change, "count", 0).action = OpType::Increment(1));
    lie(Code::BAD_CHANGE, "an insertion into the record", |change| op(change, "count", 0).insert = true);
    lie(Code::BAD_CHANGE, "a field twice", |change| {
        let again = op(change, "count", 0).clone();
        change.operations.push(again);
    });
    lie(Code::BAD_CHANGE, "nothing overwritten", |change| op(change, "count", 0).pred = SortedVec::new());
    lie(Code::BAD_CHANGE, "an unknown operation overwritten", |change| op(change, "count", 0).pred = vec![nobody(3)].into());
    lie(Code::BAD_CHANGE, "one too many overwritten", |change| {
        let op = op(change, "count", 0);
        op.pred = op.pred.iter().cloned().chain([nobody(3)]).collect();
    });
    lie(Code::BAD_CHANGE, "an element as a key", |change| op(change, "count", 0).key = Key::head());
}

#[test]
fn containers_stay_what_they_began_as() {
    for name in ["body", "tags", "hours"] {
        let number = field(name).get().to_string();
        let own = OpId(1, Actor::of_genesis(&key(), field(name)).to_automerge());
        for action in [
            OpType::Put(ScalarValue::Int(1)),
            OpType::Put(ScalarValue::counter(0)),
            OpType::Make(ObjType::Text),
            OpType::Make(ObjType::List),
            OpType::Delete,
        ] {
            for pred in [vec![], vec![own.clone()]] {
                let op = Op { pred: pred.into(), ..root(&number, action.clone()) };
                lie(Code::BAD_CHANGE, &format!("{name} {action:?}"), |change| change.operations = vec![op]);
            }
        }
    }
    lie(Code::BAD_CHANGE, "an increment of nothing", |change| op(change, "hours", 0).pred = SortedVec::new());
    lie(Code::BAD_CHANGE, "an increment of another operation", |change| op(change, "hours", 0).pred = vec![nobody(1)].into());
    lie(Code::BAD_CHANGE, "too big a step", |change| op(change, "hours", 0).action = OpType::Increment(i64::MAX));
    lie(Code::BAD_CHANGE, "the other way", |change| op(change, "hours", 0).action = OpType::Increment(i64::MIN));
    lie(Code::BAD_CHANGE, "an increment of a text", |change| op(change, "body", 0).action = OpType::Increment(1));
}

#[test]
fn elements_are_inserted_after_and_deleted_as_what_was_seen() {
    // On "body": two insertions ("x" after "a", "y" after "x") and the deletion of "b". "c" was deleted before; it is the author's third
    // operation, and the genesis had the counter 1.
    let a_deleted_one = || OpId(4, Actor::of(origin(1)).to_automerge());
    for (what, at) in
        [("a stranger's", nobody(5)), ("a later one", OpId(99, Actor::of(origin(2)).to_automerge())), ("a deleted one", a_deleted_one())]
    {
        let at = Key::Seq(ElementId::Id(at));
        lie(Code::BAD_CHANGE, what, |change| op(change, "body", 0).key = at.clone());
        lie(Code::BAD_CHANGE, what, |change| op(change, "body", 2).key = at);
    }
    lie(Code::BAD_CHANGE, "its own place", |change| {
        let own = OpId(change.start_op.get(), change.actor_id.clone());
        change.operations[0].key = Key::Seq(ElementId::Id(own));
    });
    lie(Code::BAD_CHANGE, "a key in a list", |change| op(change, "tags", 0).key = Key::Map("0".into()));
    lie(Code::BAD_CHANGE, "a deletion of the head", |change| op(change, "body", 2).key = Key::head());
    lie(Code::BAD_CHANGE, "a deletion of something else", |change| {
        let before = op(change, "body", 0).key.clone();
        op(change, "body", 2).key = before;
    });
    lie(Code::BAD_CHANGE, "a deletion of nothing", |change| op(change, "body", 2).pred = SortedVec::new());
    lie(Code::BAD_CHANGE, "a deletion twice", |change| {
        let again = op(change, "body", 2).clone();
        change.operations.push(again);
    });
    lie(Code::BAD_CHANGE, "an insertion after one that it deletes", |change| {
        let deleted = op(change, "body", 2).key.clone();
        let insertion = Op { key: deleted, ..op(change, "body", 0).clone() };
        change.operations.push(insertion);
    });
    lie(Code::BAD_CHANGE, "an insertion over something", |change| op(change, "body", 0).pred = op(change, "body", 2).pred.clone());
    lie(Code::BAD_CHANGE, "an overwritten element", |change| {
        op(change, "body", 2).action = OpType::Put(ScalarValue::Str("z".into()));
    });
    lie(Code::BAD_CHANGE, "an inserted deletion", |change| op(change, "body", 2).insert = true);
    lie(Code::BAD_CHANGE, "a mark", |change| {
        let mark = MarkData { name: "bold".into(), value: ScalarValue::Boolean(true), expand: false };
        op(change, "body", 0).action = OpType::MarkBegin(mark);
    });
    for kind in [ObjType::Map, ObjType::List, ObjType::Text] {
        lie(Code::BAD_CHANGE, "an object in a list", |change| op(change, "tags", 0).action = OpType::Make(kind));
    }
    for text in ["", "ab", "\0"] {
        lie(Code::BAD_CHANGE, text, |change| op(change, "body", 0).action = OpType::Put(ScalarValue::Str(text.into())));
    }
    lie(Code::BAD_CHANGE, "a number in a text", |change| op(change, "body", 0).action = OpType::Put(ScalarValue::Int(1)));
    for value in [ScalarValue::Bytes(b"{\"b\":1, \"a\":2}".to_vec()), ScalarValue::Bytes(b"1".to_vec()), ScalarValue::Str("\0".into())] {
        lie(Code::BAD_CHANGE, &format!("{value:?}"), |change| op(change, "tags", 0).action = OpType::Put(value.clone()));
    }
}

#[test]
fn objects_are_the_containers_of_this_record() {
    let other = RecordKey { id: RecordId::new("n-2").unwrap(), ..key() };
    let cases = [
        ("nobody's", nobody(1)),
        ("of another record", OpId(1, Actor::of_genesis(&other, field("body")).to_automerge())),
        ("a register", OpId(6, Actor::of(origin(1)).to_automerge())),
        ("a counter", OpId(1, Actor::of_genesis(&key(), field("hours")).to_automerge())),
        ("a later operation of the genesis", OpId(2, Actor::of_genesis(&key(), field("body")).to_automerge())),
        ("a list for a text", OpId(1, Actor::of_genesis(&key(), field("tags")).to_automerge())),
    ];
    for (what, object) in cases {
        lie(Code::BAD_CHANGE, what, |change| op(change, "body", 0).obj = ObjectId::Id(object));
    }
}

#[test]
fn a_change_has_one_encoding() {
    let (document, sent) = honest();
    let body = body(&sent.op.changes[0]);
    // The position, 1, in two bytes.
    let at = 1 + 32 * usize::from(body[0]) + 1 + 16;
    assert_eq!(body[at], 1);
    let longer = [&body[..at], &[0x81, 0x00], &body[at + 1..]].concat();
    refused(&document, &with_change(&sent, sealed(1, &longer)), Code::BAD_CHANGE, "a longer number");
    // An actor that nothing refers to.
    let mut unused = with_unused_actor(body);
    refused(&document, &with_change(&sent, sealed(1, &unused)), Code::BAD_CHANGE, "an unused actor");
    unused.truncate(at);
    refused(&document, &with_change(&sent, sealed(1, &unused)), Code::BAD_CHANGE, "cut off");
}

fn with_unused_actor(body: &[u8]) -> Vec<u8> {
    let actors = 1 + 32 * usize::from(body[0]) + 1 + 16 + 4;
    let end = actors + 1 + 17 * usize::from(body[actors]);
    [&body[..actors], &[body[actors] + 1], &body[actors + 1..end], &[16], &[0xff; 16], &body[end..]].concat()
}

#[test]
fn limits_hold_for_what_several_people_add_up_to() {
    let mut first = Person::new(1);
    first.edit(Intent::Put, json!({"body": "x".repeat(40_000), "tags": vec![1; 6_000]}));
    let mut second = first.fork(2);
    let more = json!({"body": {"$splice": [0, 0, "y".repeat(20_000)]}});
    first.edit(Intent::Patch, more.clone());
    second.edit(Intent::Patch, more);
    refused(&first.document, &second.sent[0], Code::TOO_LARGE, "a text");
    let mut third = first.fork(3);
    let more = json!({"tags": {"$push": vec![2; 3_000]}});
    first.edit(Intent::Patch, more.clone());
    third.edit(Intent::Patch, more);
    refused(&first.document, &third.sent[0], Code::TOO_LARGE, "a list");
}

#[test]
fn a_record_has_so_many_fields_at_most() {
    let many = |change: &mut ExpandedChange, count: usize| {
        let unknown = (100..).take(count).map(|id: u64| root(&id.to_string(), OpType::Put(ScalarValue::Int(1))));
        change.operations.extend(unknown);
    };
    // Four are there.
    lie(Code::TOO_LARGE, "too many", |change| many(change, limits::DOCUMENT_KEYS_MAX - 3));
    let (mut document, sent) = honest();
    let mut change = Change::try_from(sent.op.changes[0].as_slice()).unwrap().decode();
    many(&mut change, limits::DOCUMENT_KEYS_MAX - 4);
    let bytes = Change::from(change).raw_bytes().to_vec();
    apply(&collection(), &mut document, &with_change(&sent, bytes)).unwrap();
}

#[test]
fn entries_are_refused_whole() {
    let (document, sent) = honest();
    let good = sent.op.changes[0].clone();
    let mut second = good.clone();
    second[20] ^= 1;
    let both = Sent { op: DocumentOp { changes: vec![good, second], ..sent.op.clone() }, ..sent };
    refused(&document, &both, Code::BAD_CHANGE, "a good one before a bad one");
    let mut stranger = both.clone();
    stranger.op.key.id = RecordId::new("n-2").unwrap();
    refused(&document, &stranger, Code::BAD_PAYLOAD, "an operation on another record");
}
