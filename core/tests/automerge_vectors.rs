//! Golden bytes of documents (rules R11, R13, R25): what each node must make by itself, and what an author's change looks like.
//!
//! The bytes follow from `protocol/SPEC.md` and automerge alone; the document engine is then held to them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

#[path = "../../protocol/tests/golden/hex_files.rs"]
mod hex_files;

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use mobo_core::document::op::state_hash;
use mobo_core::document::{Actor, Document, DocumentEngine, DocumentOp, genesis as own_genesis};
use mobo_core::engine::{Applying, Author, MergeEngine, Stamped};
use mobo_core::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Ordinal, RecordId, RecordKey, Seq, Ver};
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::stamp::{Origin, Stamp};
use mobo_core::table::Action;
use mobo_core::time::Eff;
use mobo_core::value::Value;

const COLLECTION: u64 = 0x3c90_7d15_e2b4_6a11;
const RECORD: &str = "n-1";
const BODY: u64 = 0x7000_0000_0000_0001;
const TAGS: u64 = 0x7000_0000_0000_0002;
const LIKES: u64 = 0x7000_0000_0000_0003;
const DEVICE: [u8; 16] = [0x22; 16];
const INCARNATION: u64 = 0x0a11_ce00_dead_0001;

fn actor(parts: &[&[u8]]) -> ActorId {
    let bytes: [u8; 16] = blake3::hash(&parts.concat()).as_bytes()[..16].try_into().unwrap();
    ActorId::from(bytes)
}

fn genesis_actor(field: u64) -> ActorId {
    actor(&[b"mobo genesis 1", &COLLECTION.to_be_bytes(), RECORD.as_bytes(), &[0], &field.to_be_bytes()])
}

fn author() -> ActorId {
    actor(&[b"mobo actor 1", &DEVICE, &INCARNATION.to_be_bytes()])
}

fn commit(doc: &mut Automerge, write: impl FnOnce(&mut Transaction<'_>)) -> Change {
    let mut transaction = doc.transaction();
    write(&mut transaction);
    transaction.commit_with(CommitOptions::default().with_time(0));
    doc.get_last_local_change().unwrap()
}

fn genesis(field: u64) -> Change {
    let name = field.to_string();
    let mut doc = Automerge::new().with_actor(genesis_actor(field));
    commit(&mut doc, |transaction| match field {
        BODY => drop(transaction.put_object(ROOT, name, ObjType::Text).unwrap()),
        TAGS => drop(transaction.put_object(ROOT, name, ObjType::List).unwrap()),
        _ => transaction.put(ROOT, name, ScalarValue::counter(0)).unwrap(),
    })
}

/// The document of a fresh record whose collection has all three containers.
fn fresh() -> Automerge {
    let mut doc = Automerge::new().with_actor(author());
    doc.apply_changes([genesis(BODY), genesis(TAGS), genesis(LIKES)]).unwrap();
    doc
}

fn container(doc: &Automerge, field: u64) -> ObjId {
    doc.get(ROOT, field.to_string()).unwrap().unwrap().1
}

/// The first change of an author: every register, the text, the list and the counter.
fn first_change(doc: &mut Automerge) -> Change {
    let (body, tags) = (container(doc, BODY), container(doc, TAGS));
    let registers = [
        ScalarValue::Null,
        ScalarValue::Boolean(true),
        ScalarValue::Int(-7),
        ScalarValue::F64(0.5),
        ScalarValue::Int(1_760_000_000_000_000),
        ScalarValue::Bytes(b"{\"a\":[1,2]}".to_vec()),
        ScalarValue::Bytes(vec![0, 255]),
    ];
    let elements = [ScalarValue::Str("red".into()), ScalarValue::Bytes(b"[1]".to_vec()), ScalarValue::Null];
    commit(doc, |transaction| {
        transaction.put(ROOT, "0", false).unwrap();
        for (field, value) in (LIKES + 1..).zip(registers) {
            transaction.put(ROOT, field.to_string(), value).unwrap();
        }
        transaction.increment(ROOT, LIKES.to_string(), 3).unwrap();
        transaction.splice_text(&body, 0, 0, "Grüße").unwrap();
        for (index, value) in elements.into_iter().enumerate() {
            transaction.insert(&tags, index, value).unwrap();
        }
    })
}

fn heads(doc: &Automerge) -> Vec<[u8; 32]> {
    doc.get_heads().iter().map(|head| head.0).collect()
}

fn cases() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut doc = fresh();
    let before = heads(&doc);
    let first = first_change(&mut doc);
    assert_eq!(heads(&doc), [first.hash().0], "the author's change depends on every genesis that the author knows");
    vec![
        ("genesis-text", "Genesis change of a text field.", genesis(BODY).raw_bytes().to_vec()),
        ("genesis-list", "Genesis change of a list field.", genesis(TAGS).raw_bytes().to_vec()),
        ("genesis-counter", "Genesis change of a counter field.", genesis(LIKES).raw_bytes().to_vec()),
        ("state-hash-fresh", "state_hash of a document with these three changes and no other.", state_hash(0, &before).0.to_vec()),
        (
            "first-change",
            "First change of an author: the flag of deletion, one register of each type (null, bool, int, float, timestamp, json,\n\
             bytes), 3 for the counter, a text, and a list of a string, an array and a null.",
            first.raw_bytes().to_vec(),
        ),
        ("state-hash-first", "state_hash of the document after it.", state_hash(0, &heads(&doc)).0.to_vec()),
    ]
}

#[test]
fn every_document_form_is_as_it_was() {
    for (name, about, bytes) in cases() {
        let golden = hex_files::golden("automerge", name, about, &bytes);
        if !name.starts_with("state-hash") {
            let change = Change::from_bytes(golden.clone()).unwrap();
            assert_eq!(change.raw_bytes(), golden, "{name}");
            let again = Change::from(ExpandedChange { hash: None, ..change.decode() });
            assert_eq!(again.raw_bytes(), golden, "{name} is canonical");
        }
    }
}

#[test]
fn a_genesis_says_nothing_but_its_container() {
    for field in [BODY, TAGS, LIKES] {
        let change = genesis(field);
        assert_eq!((change.seq(), change.start_op().get(), change.timestamp(), change.len()), (1, 1, 0, 1));
        assert_eq!((change.deps(), change.message(), change.extra_bytes()), (&[] as &[ChangeHash], None, &[] as &[u8]));
        assert_eq!(change.actor_id(), &genesis_actor(field));
    }
}

fn key() -> RecordKey {
    RecordKey { collection: CollectionId::new(COLLECTION).unwrap(), id: RecordId::new(RECORD).unwrap() }
}

/// The fields of [`first_change`], in their order.
const FIELDS: [FieldType; 10] = [
    FieldType::Text,
    FieldType::List,
    FieldType::Counter,
    FieldType::Text,
    FieldType::Bool,
    FieldType::Int,
    FieldType::Float,
    FieldType::Timestamp,
    FieldType::Json,
    FieldType::Bytes,
];

fn collection() -> Collection {
    let field = |(id, kind): (u64, FieldType)| Field {
        id: FieldId::new(id).unwrap(),
        name: format!("f{id:x}"),
        kind,
        retired: false,
        references: None,
    };
    Collection {
        id: key().collection,
        name: "notes".into(),
        kind: Kind::Document,
        rev: 1,
        // The null stands in a register of no type that matters.
        fields: (BODY..).zip(FIELDS).filter(|(id, _)| *id != LIKES + 1).map(field).collect(),
        rules: vec![],
        lane: Lane::State,
        store: "default".into(),
    }
}

/// The document after the first change came in an entry.
fn applied(origin: Origin) -> Document {
    let changes = vec![first_change(&mut fresh()).raw_bytes().to_vec()];
    let op = DocumentOp { key: key(), action: Action::Put, before_us: 0, base_ver: Ver(0), changes, epoch: 0 };
    let ordinal = Ordinal(1);
    let author = Author { device: origin.device, incarnation: origin.incarnation, ordinal, ancestors: BTreeSet::new() };
    let applying = Applying { author: &author, seq: Seq::FIRST, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = Stamp { eff: Eff(1), device: origin.device, ordinal, seq: Seq::FIRST, op: 0 };
    let mut document = Document::empty(key());
    DocumentEngine.apply(&collection(), &mut document, &[Stamped { op: &op, stamp }], &applying).unwrap();
    document
}

#[test]
fn the_engine_begins_and_reads_documents_as_the_contract_says() {
    for (field, kind) in [(BODY, FieldType::Text), (TAGS, FieldType::List), (LIKES, FieldType::Counter)] {
        let own = own_genesis::change(&key(), FieldId::new(field).unwrap(), kind).unwrap();
        assert_eq!(own.raw_bytes(), genesis(field).raw_bytes());
    }
    let origin = Origin { device: DeviceId(DEVICE), incarnation: Incarnation::new(INCARNATION).unwrap() };
    assert_eq!(Actor::of(origin).to_automerge(), author());
    let mut doc = fresh();
    first_change(&mut doc);
    let document = Document::load(key(), 0, doc.save()).unwrap();
    assert_eq!(DocumentEngine.state_hash(&document), state_hash(0, &heads(&doc)));
    assert_eq!(DocumentEngine.state_hash(&applied(origin)), DocumentEngine.state_hash(&document), "the guard lets the change pass");
    let want = [
        Value::Text("Grüße".into()),
        Value::Json("[\"red\",[1],null]".into()),
        Value::Int(3),
        Value::Bool(true),
        Value::Int(-7),
        Value::Float(0.5),
        Value::Timestamp(1_760_000_000_000_000),
        Value::Json("{\"a\":[1,2]}".into()),
        Value::Bytes(vec![0, 255]),
    ];
    assert_eq!(DocumentEngine.project(&collection(), &document).unwrap(), want);
}

#[test]
fn every_vector_is_read() {
    let read = cases().iter().map(|(name, ..)| format!("automerge/{name}.hex")).collect();
    assert_eq!(hex_files::files(&["automerge"]), read);
}
