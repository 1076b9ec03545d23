//! What a project's collections are: kinds, fields, bucket rules.
//!
//! Field ids are never reused and types never change in place: a rename is a label, a removal is `retired`, a change of type is a new field.

mod alter;
mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use alter::{FieldChanges, altered};
pub use check::{SchemaError, check_collection};

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{CollectionId, FieldId, Lane};
use crate::limits;

/// The kind of a collection: which engine merges it, and on which lane it travels.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Typed rows, merged per field by effective time.
    Table,
    /// Nested things that people edit together, merged by automerge.
    Document,
    /// Samples and events, append-only.
    Stream,
}

impl Kind {
    /// The number on the wire and in SQL. It is the engine number of the entries of that kind, too.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Document => 1,
            Self::Table => 2,
            Self::Stream => 3,
        }
    }

    /// The kind for a number; `None` for one that this version does not know.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Document),
            2 => Some(Self::Table),
            3 => Some(Self::Stream),
            _ => None,
        }
    }

    /// The word that people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Table => "table",
            Self::Stream => "stream",
        }
    }

    /// The kind for a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Table, Self::Document, Self::Stream].into_iter().find(|kind| kind.name() == name)
    }
}

/// The type of a field.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FieldType {
    /// Text; in a document, text that people edit together.
    Text,
    /// A 64-bit integer.
    Int,
    /// A finite float.
    Float,
    /// True or false.
    Bool,
    /// Microseconds since 1970 UTC.
    Timestamp,
    /// JSON, replaced as a whole.
    Json,
    /// Bytes.
    Bytes,
    /// A number that only adds up.
    Counter,
    /// A list; in documents only.
    List,
}

impl FieldType {
    /// Every type, in the order of its number.
    pub const ALL: [Self; 9] =
        [Self::Text, Self::Int, Self::Float, Self::Bool, Self::Timestamp, Self::Json, Self::Bytes, Self::Counter, Self::List];

    /// The number on the wire and in SQL.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Int => 2,
            Self::Float => 3,
            Self::Bool => 4,
            Self::Timestamp => 5,
            Self::Json => 6,
            Self::Bytes => 7,
            Self::Counter => 8,
            Self::List => 9,
        }
    }

    /// The type for a number; `None` for one that this version does not know.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The word in `collection create NAME FIELD:TYPE…`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
            Self::Bytes => "bytes",
            Self::Counter => "counter",
            Self::List => "list",
        }
    }

    /// The type for a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A field of a collection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    /// For ever.
    pub id: FieldId,
    /// A label.
    pub name: String,
    /// For ever.
    pub kind: FieldType,
    /// No longer shown or written; its values stay where they are.
    pub retired: bool,
    /// The collection whose records it names by their id; `None` where it names none. Nothing enforces that the record is there.
    pub references: Option<CollectionId>,
}

/// A collection of a project.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Collection {
    /// For ever.
    pub id: CollectionId,
    /// A label, and the name of its SQL table.
    pub name: String,
    /// For ever.
    pub kind: Kind,
    /// Counts the changes of this collection's definition, from 1.
    pub rev: u64,
    /// In the order of declaration.
    pub fields: Vec<Field>,
    /// Which buckets a record is in, as templates over its own fields (`site:{site}`); none means bucket `all` (rule R3).
    pub rules: Vec<String>,
    /// The lane of its entries.
    pub lane: Lane,
    /// The database that holds it: version 1 knows only `default` (rule R1).
    pub store: String,
}

impl Collection {
    /// The field of that name, unless retired.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name && !field.retired)
    }

    /// The field of that id, retired or not.
    #[must_use]
    pub fn field_by_id(&self, id: FieldId) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// The fields that are shown and written.
    pub fn live_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.retired)
    }

    /// The canonical CBOR, by itself.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.into_bytes()
    }

    /// The canonical CBOR: what a MAC covers and what travels.
    pub fn encode(&self, writer: &mut Writer) {
        let references: Vec<(FieldId, CollectionId)> =
            self.fields.iter().filter_map(|field| field.references.map(|collection| (field.id, collection))).collect();
        writer.map(8 + usize::from(!references.is_empty()));
        writer.u64(0).u64(self.id.get());
        writer.u64(1).text(&self.name);
        writer.u64(2).u64(u64::from(self.kind.code()));
        writer.u64(3).u64(self.rev);
        writer.u64(4).array(self.fields.len());
        for field in &self.fields {
            writer.array(4).u64(field.id.get()).text(&field.name).u64(u64::from(field.kind.code())).bool(field.retired);
        }
        writer.u64(5).array(self.rules.len());
        for rule in &self.rules {
            writer.text(rule);
        }
        writer.u64(6).u64(u64::from(self.lane.number()));
        writer.u64(7).text(&self.store);
        if !references.is_empty() {
            writer.u64(8).array(references.len());
            for (field, collection) in references {
                writer.array(2).u64(field.get()).u64(collection.get());
            }
        }
    }

    /// Reads what [`Self::encode`] wrote. Keys of later versions, and fields of types of later versions, are passed over: whoever forwards or
    /// offers a definition keeps its bytes.
    ///
    /// # Errors
    ///
    /// When a part is missing, of a kind that this version does not know, or over its limit.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut id, mut name, mut kind, mut lane) = (None, None, None, None);
        let (mut rev, mut fields, mut rules, mut store, mut references) = (0, Vec::new(), Vec::new(), None, Vec::new());
        reader.each_key(|key, reader| {
            match key {
                0 => id = CollectionId::new(reader.u64()?),
                1 => name = Some(label(reader, limits::NAME_BYTES_MAX)?),
                2 => kind = Kind::from_code(reader.u8()?),
                3 => rev = reader.u63()?,
                4 => fields = decode_fields(reader)?,
                5 => rules = decode_rules(reader)?,
                6 => lane = Lane::from_number(reader.u8()?),
                7 => store = Some(label(reader, limits::NAME_BYTES_MAX)?),
                8 => references = decode_references(reader)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        for field in &mut fields {
            field.references = references.iter().find(|(id, _)| *id == field.id).map(|(_, collection)| *collection);
        }
        match (id, name, kind, lane, store) {
            (Some(id), Some(name), Some(kind), Some(lane), Some(store)) => Ok(Self { id, name, kind, rev, fields, rules, lane, store }),
            _ => Err(Malformed::what("collection")),
        }
    }
}

fn decode_fields(reader: &mut Reader<'_>) -> Result<Vec<Field>, Malformed> {
    let len = reader.array()?;
    if len > limits::FIELDS_PER_COLLECTION_MAX {
        return Err(Malformed::what("too many fields"));
    }
    let mut fields = Vec::new();
    for _ in 0..len {
        let (id, name, kind, retired) = reader.tuple(4, |reader| {
            let id = FieldId::new(reader.u64()?).ok_or_else(|| Malformed::what("field id"))?;
            Ok((id, label(reader, limits::NAME_BYTES_MAX)?, FieldType::from_code(reader.u8()?), reader.bool()?))
        })?;
        if fields.iter().any(|field: &Field| field.id == id) {
            return Err(Malformed::what("a field twice"));
        }
        fields.extend(kind.map(|kind| Field { id, name, kind, retired, references: None }));
    }
    Ok(fields)
}

fn decode_references(reader: &mut Reader<'_>) -> Result<Vec<(FieldId, CollectionId)>, Malformed> {
    let len = reader.array()?;
    if len > limits::FIELDS_PER_COLLECTION_MAX {
        return Err(Malformed::what("too many references"));
    }
    let reference = |reader: &mut Reader<'_>| {
        let field = FieldId::new(reader.u64()?).ok_or_else(|| Malformed::what("field id"))?;
        Ok((field, CollectionId::new(reader.u64()?).ok_or_else(|| Malformed::what("collection id"))?))
    };
    (0..len).map(|_| reader.tuple(2, reference)).collect()
}

fn decode_rules(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let len = reader.array()?;
    if len > limits::BUCKET_RULES_MAX {
        return Err(Malformed::what("too many bucket rules"));
    }
    (0..len).map(|_| label(reader, limits::BUCKET_KEY_BYTES_MAX)).collect()
}

fn label(reader: &mut Reader<'_>, bytes_max: usize) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.len() <= bytes_max { Ok(text.to_owned()) } else { Err(Malformed::what("label too long")) }
}

/// All collections of a project at one revision.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Schema {
    /// Counts the changes of any collection, from 1; 0 is "none yet".
    pub rev: u64,
    collections: BTreeMap<CollectionId, Arc<Collection>>,
}

impl Schema {
    /// A schema of these collections.
    #[must_use]
    pub fn new(rev: u64, collections: impl IntoIterator<Item = Collection>) -> Self {
        Self { rev, collections: collections.into_iter().map(|collection| (collection.id, Arc::new(collection))).collect() }
    }

    /// The collection of that id.
    #[must_use]
    pub fn get(&self, id: CollectionId) -> Option<&Collection> {
        self.collections.get(&id).map(|collection| &**collection)
    }

    /// The collection of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Collection> {
        self.shared(name).map(|collection| &**collection)
    }

    /// The same, for whoever keeps it: every request does, and a copy of all its fields would cost each of them.
    #[must_use]
    pub fn shared(&self, name: &str) -> Option<&Arc<Collection>> {
        self.collections.values().find(|collection| collection.name == name)
    }

    /// All collections, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Collection> {
        self.collections.values().map(|collection| &**collection)
    }

    /// Puts a collection in, or a newer definition in place of an older one.
    pub fn insert(&mut self, collection: Collection) {
        self.collections.insert(collection.id, Arc::new(collection));
    }
}
