//! A record of either kind, and the one place that chooses its engine.

use crate::cbor::Malformed;
use crate::document::{Document, DocumentEngine, DocumentOp};
use crate::engine::{Applying, MergeEngine, Merged, Refusal, Stamped};
use crate::ids::{RecordKey, StateHash};
use crate::message::Code;
use crate::schema::{Collection, Kind};
use crate::table::{TableEngine, TableOp, TableState};
use crate::value::Value;

/// The merge state of a record.
#[derive(Clone, Debug)]
pub enum RecordState {
    /// A row.
    Table(TableState),
    /// A document.
    Document(Document),
}

/// The operations that one entry makes on one record.
#[derive(Clone, Debug)]
pub enum RecordOps<'a> {
    /// On a row.
    Table(Vec<Stamped<'a, TableOp>>),
    /// On a document.
    Document(Vec<Stamped<'a, DocumentOp>>),
}

impl RecordState {
    /// The state of a record that nobody has written; `None` for a stream, which has no records.
    #[must_use]
    pub fn empty(collection: &Collection, key: &RecordKey) -> Option<Self> {
        match collection.kind {
            Kind::Table => Some(Self::Table(TableState::default())),
            Kind::Document => Some(Self::Document(Document::empty(key.clone()))),
            Kind::Stream => None,
        }
    }

    /// The state in a delivered item: a row's canonical bytes or a saved document.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the bytes are damaged or of a generation that this version does not have.
    pub fn decode(collection: &Collection, key: &RecordKey, epoch: u32, bytes: &[u8]) -> Result<Self, Malformed> {
        match collection.kind {
            Kind::Table => TableState::decode(bytes, collection).map(Self::Table),
            Kind::Document => {
                Document::load(key.clone(), epoch, bytes.to_vec()).map(Self::Document).map_err(|refusal| Malformed(refusal.to_string()))
            }
            Kind::Stream => Err(Malformed::what("a stream has no records")),
        }
    }

    /// [`Self::decode`] for bytes that a stranger sent: nothing is believed of them.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`], and for a document that claims more than one may hold.
    pub fn decode_foreign(collection: &Collection, key: &RecordKey, epoch: u32, bytes: &[u8]) -> Result<Self, Malformed> {
        match collection.kind {
            Kind::Document => Document::load_foreign(key.clone(), epoch, bytes.to_vec())
                .map(Self::Document)
                .map_err(|refusal| Malformed(refusal.to_string())),
            Kind::Table | Kind::Stream => Self::decode(collection, key, epoch, bytes),
        }
    }

    /// Epoch and bytes of the state as an item delivers it.
    #[must_use]
    pub fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Table(state) => (0, state.encode()),
            Self::Document(document) => (document.epoch, document.saved.clone()),
        }
    }

    /// About how many bytes the state takes: what limits count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Table(state) => state.bytes(),
            Self::Document(document) => document.saved.len(),
        }
    }

    /// Applies what one entry does to this record, all or nothing.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]; the state is then as it was.
    pub fn apply(&mut self, collection: &Collection, ops: &RecordOps<'_>, applying: &Applying<'_>) -> Result<Merged, Refusal> {
        match (self, ops) {
            (Self::Table(state), RecordOps::Table(ops)) => TableEngine.apply(collection, state, ops, applying),
            (Self::Document(state), RecordOps::Document(ops)) => DocumentEngine.apply(collection, state, ops, applying),
            _ => Err(Refusal::new(Code::WRONG_KIND, format!("\"{}\" is a {}", collection.name, collection.kind.name()))),
        }
    }

    /// The state that holds everything that either holds (rule R11).
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when one of them is damaged, or when they are of different kinds.
    pub fn join(&self, collection: &Collection, other: &Self) -> Result<Self, Refusal> {
        match (self, other) {
            (Self::Table(left), Self::Table(right)) => TableEngine.join(collection, left, right).map(Self::Table),
            (Self::Document(left), Self::Document(right)) => DocumentEngine.join(collection, left, right).map(Self::Document),
            _ => Err(Refusal::new(Code::WRONG_KIND, format!("\"{}\" is a {}", collection.name, collection.kind.name()))),
        }
    }

    /// The columns of the record's row; `None` when it is not visible.
    #[must_use]
    pub fn project(&self, collection: &Collection) -> Option<Vec<Value>> {
        match self {
            Self::Table(state) => TableEngine.project(collection, state),
            Self::Document(state) => DocumentEngine.project(collection, state),
        }
    }

    /// True if the record has a row, which [`Self::project`] gives.
    #[must_use]
    pub fn is_visible(&self, collection: &Collection) -> bool {
        match self {
            Self::Table(state) => state.is_visible(),
            Self::Document(_) => self.project(collection).is_some(),
        }
    }

    /// [`Self::state_hash`] of a state that was decoded from these very bytes.
    #[must_use]
    pub fn hash_of(&self, bytes: &[u8]) -> StateHash {
        match self {
            // They are canonical, or would not have been taken.
            Self::Table(_) => StateHash::of(bytes),
            Self::Document(_) => self.state_hash(),
        }
    }

    /// The hash by which two nodes compare the record.
    #[must_use]
    pub fn state_hash(&self) -> StateHash {
        match self {
            Self::Table(state) => TableEngine.state_hash(state),
            Self::Document(state) => DocumentEngine.state_hash(state),
        }
    }
}
