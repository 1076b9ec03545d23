//! Documents from the outside: several people edit one record through [`edit::author`](super::edit::author), and their operations are
//! merged by the engine in every order.

mod edit;
mod golden;
mod guard;
mod lay;
mod merge;
mod mutation;
mod whole;

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::{Document, DocumentEngine, DocumentOp};
use crate::author::{self, Edit, EditError, Intent, RecordOp, Writer};
use crate::engine::{Applying, Author, Conflict, MergeEngine, Refusal, Stamped};
use crate::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Ordinal, RecordId, RecordKey, Seq, Ver};
use crate::json::value_to_json;
use crate::record::RecordState;
use crate::schema::{Collection, Field, FieldType, Kind};
use crate::stamp::{Origin, Stamp};
use crate::time::Eff;

/// A field of each type, numbered from 1 in the order of their codes; `body` is text, `tags` a list, `hours` a counter.
const FIELDS: [(&str, FieldType); 9] = [
    ("body", FieldType::Text),
    ("count", FieldType::Int),
    ("ratio", FieldType::Float),
    ("done", FieldType::Bool),
    ("due", FieldType::Timestamp),
    ("extra", FieldType::Json),
    ("blob", FieldType::Bytes),
    ("hours", FieldType::Counter),
    ("tags", FieldType::List),
];

fn field(name: &str) -> FieldId {
    let index = FIELDS.iter().position(|(known, _)| *known == name).unwrap();
    FieldId::new(index as u64 + 1).unwrap()
}

/// A collection with these of [`FIELDS`].
fn collection_of(names: &[&str]) -> Collection {
    let fields = FIELDS.iter().filter(|(name, _)| names.contains(name));
    let fields = fields.map(|(name, kind)| Field { id: field(name), name: (*name).into(), kind: *kind, retired: false, references: None });
    Collection {
        id: CollectionId::new(7).unwrap(),
        name: "notes".into(),
        kind: Kind::Document,
        rev: names.len() as u64,
        fields: fields.collect(),
        rules: vec![],
        lane: Lane::State,
        store: "default".into(),
    }
}

fn collection() -> Collection {
    collection_of(&FIELDS.map(|(name, _)| name))
}

fn key() -> RecordKey {
    RecordKey { collection: CollectionId::new(7).unwrap(), id: RecordId::new("n-1").unwrap() }
}

fn origin(device: u8) -> Origin {
    Origin { device: DeviceId([device; 16]), incarnation: Incarnation::new(u64::from(device)).unwrap() }
}

/// An operation and who made it.
#[derive(Clone, Debug)]
struct Sent {
    device: u8,
    seq: u64,
    op: DocumentOp,
}

/// One person's copy of the record.
#[derive(Clone, Debug)]
struct Person {
    device: u8,
    collection: Collection,
    document: Document,
    sent: Vec<Sent>,
}

impl Person {
    fn new(device: u8) -> Self {
        Self { device, collection: collection(), document: Document::empty(key()), sent: Vec::new() }
    }

    /// Another one who has what this one has.
    fn fork(&self, device: u8) -> Self {
        Self { device, sent: Vec::new(), ..self.clone() }
    }

    fn try_edit(&mut self, intent: Intent, fields: &Json) -> Result<Option<DocumentOp>, EditError> {
        let writer = Writer {
            collection: &self.collection,
            device: origin(self.device).device,
            incarnation: origin(self.device).incarnation,
            base_ver: Ver(0),
        };
        let fields: Map<String, Json> = fields.as_object().cloned().unwrap_or_default();
        let edit = Edit { id: key().id, intent, fields };
        let op = author::author(&writer, &RecordState::Document(self.document.clone()), &edit)?;
        let Some(RecordOp::Document(op)) = op else { return Ok(None) };
        let sent = Sent { device: self.device, seq: self.sent.len() as u64 + 1, op: op.clone() };
        self.take(&sent).unwrap();
        self.sent.push(sent);
        Ok(Some(op))
    }

    /// Edits, keeps the result, and remembers what is to be sent.
    #[track_caller]
    fn edit(&mut self, intent: Intent, fields: Json) -> &mut Self {
        self.try_edit(intent, &fields).unwrap().expect("the edit changes something");
        self
    }

    fn take(&mut self, sent: &Sent) -> Result<Vec<Conflict>, Refusal> {
        apply(&self.collection, &mut self.document, sent)
    }

    #[track_caller]
    fn take_all(&mut self, sent: &[Sent]) -> Vec<Conflict> {
        sent.iter().flat_map(|sent| self.take(sent).unwrap()).collect()
    }

    /// The row as JSON, nulls and empty containers left out; `null` when it is not visible.
    fn row(&self) -> Json {
        row(&self.collection, &self.document)
    }
}

fn row(collection: &Collection, document: &Document) -> Json {
    let Some(values) = DocumentEngine.project(collection, document) else { return Json::Null };
    let members = collection.fields.iter().zip(values).map(|(field, value)| (field.name.clone(), value_to_json(&value, field.kind)));
    let is_empty = |value: &Json| [json!(null), json!(""), json!([]), json!(0)].contains(value);
    Json::Object(members.filter(|(_, value)| !is_empty(value)).collect())
}

fn apply(collection: &Collection, document: &mut Document, sent: &Sent) -> Result<Vec<Conflict>, Refusal> {
    let origin = origin(sent.device);
    let ordinal = Ordinal(1);
    let author = Author { device: origin.device, incarnation: origin.incarnation, ordinal, ancestors: BTreeSet::new() };
    let seq = Seq::new(sent.seq).unwrap();
    let applying = Applying { author: &author, seq, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = Stamp { eff: Eff(i64::try_from(sent.seq).unwrap()), device: origin.device, ordinal, seq, op: 0 };
    DocumentEngine.apply(collection, document, &[Stamped { op: &sent.op, stamp }], &applying).map(|merged| merged.conflicts)
}

/// The document that all of `sent` makes, in that order.
fn merged(sent: &[Sent]) -> Document {
    let mut document = Document::empty(key());
    for sent in sent {
        apply(&collection(), &mut document, sent).unwrap();
    }
    document
}

/// Numbers that follow from a seed and look random (splitmix64).
#[derive(Clone, Debug)]
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
