//! Changes of documents, with the checksum that fits: the guard in front of automerge.

use std::sync::LazyLock;

use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::document::{Actor, Document, DocumentEngine, DocumentOp};
use mobo_core::engine::{Applying, Author, MergeEngine, Refusal, Stamped};
use mobo_core::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Ordinal, RecordId, RecordKey, Seq, Ver};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::stamp::{Origin, Stamp};
use mobo_core::table::Action;
use mobo_core::time::Eff;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::{Answer, answer, outcome};
use crate::mutate::leb128;

/// What stands in front of a change's body: the magic bytes, and behind the checksum its type.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;

/// Documents in several states, and the bodies of honest changes that fit one of them.
struct Notes {
    collection: Collection,
    key: RecordKey,
    documents: Vec<Document>,
    bodies: Vec<Vec<u8>>,
}

static NOTES: LazyLock<Notes> = LazyLock::new(|| Notes::new().expect("honest people write honest changes"));

/// The body of a change, sealed, by the author whom it names, on each of the documents. It is merged or refused; either way the document
/// loads, says what it said, and can be written.
pub(super) fn change(body: &[u8]) -> Answer {
    let notes = &*NOTES;
    let named = |device: &u8| body.windows(16).take(256).any(|bytes| bytes == Actor::of(origin(*device)).0);
    let device = (1..=AUTHORS).find(named).unwrap_or(1);
    let op = notes.op(sealed(body));
    let tell = |document: &Document| {
        let mut after = document.clone();
        let merged = notes.apply(&mut after, &op, device);
        match &merged {
            Err(_) => assert!(after.saved == document.saved && after.heads() == document.heads(), "what is refused changes nothing"),
            Ok(()) => notes.check(&after),
        }
        outcome(&merged)
    };
    answer(&notes.documents.iter().map(tell).collect::<Vec<_>>())
}

/// Bodies of honest changes.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    NOTES.bodies.clone()
}

const AUTHORS: u8 = 6;

fn origin(device: u8) -> Origin {
    Origin { device: DeviceId([device; 16]), incarnation: Incarnation::from_entropy([device; 8]) }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let rest = [&[CHANGE][..], &leb128(body.len() as u64), body].concat();
    let checksum = Sha256::digest(&rest);
    [&MAGIC[..], checksum.get(..4).unwrap_or_default(), &rest].concat()
}

/// What stands behind the length of a change.
fn body(change: &[u8]) -> Option<&[u8]> {
    let behind = change.get(MAGIC.len() + 4 + 1..)?;
    let length = behind.iter().position(|byte| byte & 0x80 == 0)?;
    behind.get(length + 1..)
}

impl Notes {
    fn new() -> Option<Self> {
        let kinds = FieldType::ALL.iter().enumerate();
        let field = |(index, kind): (usize, &FieldType)| {
            Some(Field { id: FieldId::new(index as u64 + 1)?, name: kind.name().to_owned(), kind: *kind, retired: false, references: None })
        };
        let collection = Collection {
            id: CollectionId::new(7)?,
            name: "notes".to_owned(),
            kind: Kind::Document,
            rev: 1,
            fields: kinds.map(field).collect::<Option<_>>()?,
            rules: Vec::new(),
            lane: Lane::State,
            store: "default".to_owned(),
        };
        let key = RecordKey { collection: collection.id, id: RecordId::new("n-1").ok()? };
        let mut notes = Self { documents: vec![Document::empty(key.clone())], key, collection, bodies: Vec::new() };
        let begun = json!({"text": "some text", "int": 1, "float": 0.5, "list": [1, "two", {"three": 3}], "counter": 4});
        let first = notes.edited(0, 1, &begun)?;
        notes.documents.push(first);
        let edits = [
            json!({"int": 2, "bool": true, "json": {"a": [1]}, "timestamp": "2026-02-03T04:05:06Z", "bytes": "AAEC"}),
            json!({"text": {"$splice": [5, 4, "words, and more"]}, "counter": {"$inc": -2}}),
            json!({"list": {"$push": ["x", 2.5, null]}, "int": null}),
            json!({"list": {"$splice": [0, 2, [true]]}, "text": "", "float": 7}),
        ];
        // Apart from each other, on the same document; two of them are merged into the next.
        let mut merged = notes.documents.get(1)?.clone();
        for (device, fields) in (2..).zip(&edits) {
            notes.edited(1, device, fields)?;
            let change = sealed(notes.bodies.last()?);
            if device % 2 == 0 {
                notes.apply(&mut merged, &notes.op(change), device).ok()?;
            }
        }
        notes.documents.push(merged);
        notes.edited(2, AUTHORS, &json!({"text": "all new", "list": [], "counter": 0, "int": 9}))?;
        Some(notes)
    }

    /// The document of that number as a device edits it; the body of the change is kept.
    fn edited(&mut self, number: usize, device: u8, fields: &Json) -> Option<Document> {
        let mut document = self.documents.get(number)?.clone();
        let op = self.author(&document, device, fields)?;
        self.apply(&mut document, &op, device).ok()?;
        self.bodies.push(body(op.changes.first()?)?.to_vec());
        Some(document)
    }

    fn author(&self, document: &Document, device: u8, fields: &Json) -> Option<DocumentOp> {
        let Origin { device, incarnation } = origin(device);
        let writer = Writer { collection: &self.collection, device, incarnation, base_ver: Ver(0) };
        let edit = Edit { id: self.key.id.clone(), intent: Intent::Put, fields: fields.as_object()?.clone() };
        match author::author(&writer, &RecordState::Document(document.clone()), &edit).ok()?? {
            RecordOp::Document(op) => Some(op),
            RecordOp::Table(_) => None,
        }
    }

    fn op(&self, change: Vec<u8>) -> DocumentOp {
        let key = self.key.clone();
        DocumentOp { key, action: Action::Patch, before_us: 0, base_ver: Ver(0), changes: vec![change], epoch: 0 }
    }

    fn apply(&self, document: &mut Document, op: &DocumentOp, device: u8) -> Result<(), Refusal> {
        let Origin { device, incarnation } = origin(device);
        let author = Author { device, incarnation, ordinal: Ordinal(1), ancestors: Default::default() };
        let stamp = Stamp { eff: Eff(1), device, ordinal: Ordinal(1), seq: Seq::FIRST, op: 0 };
        let applying = Applying { author: &author, seq: Seq::FIRST, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
        DocumentEngine.apply(&self.collection, document, &[Stamped { op, stamp }], &applying).map(|_| ())
    }

    /// It loads, says the same as before it was stored, and can be written.
    fn check(&self, after: &Document) {
        let loaded = Document::load(self.key.clone(), 0, after.saved.clone()).expect("what was merged loads again");
        assert_eq!(loaded.heads(), after.heads(), "with the same heads");
        let row = |document: &Document| DocumentEngine.project(&self.collection, document);
        assert_eq!(row(&loaded), row(after), "and the same row");
        let later = json!({"text": "later", "int": 1_000, "list": ["later"], "counter": 0});
        assert!(self.author(&loaded, 99, &later).is_some(), "and is no end of the document");
    }
}
