//! A document at rest: what the stores hold and what nodes deliver.

use automerge::{Automerge, LoadOptions, TextEncoding};

use crate::engine::Refusal;
use crate::ids::{CollectionId, RecordKey, StateHash};
use crate::limits;
use crate::message::Code;
use crate::value::Value;

/// The merge state of a document: its saved bytes, and what was read from them when they were checked.
///
/// It holds no loaded automerge document, which takes 15 KB and more, but for the one that a merge has loaded to check what it saved, and that
/// of a long document which was just read: the next merge into this very state goes on with it. A copy has none.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The record; absent in the state of no particular record.
    pub(super) key: Option<RecordKey>,
    /// The generation; 0 until squashing exists (rule R30).
    pub epoch: u32,
    /// What automerge saved; empty for a document that nobody has written.
    pub saved: Vec<u8>,
    /// The hashes of the changes that no other change builds on, ascending.
    pub(super) heads: Vec<[u8; 32]>,
    /// The row, where a merge has just computed it.
    pub(super) shown: Option<Shown>,
    /// What `saved` loads as, where it was just loaded.
    pub(super) warm: Warm,
}

/// A loaded document that is not copied along.
#[derive(Debug, Default)]
pub(super) struct Warm(pub(super) Option<Box<Automerge>>);

impl Clone for Warm {
    fn clone(&self) -> Self {
        Self(None)
    }
}

/// A row, and the definition that it was projected by.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// The collection and its revision.
    pub(super) by: (CollectionId, u64),
    /// The row; `None` when the record is not visible.
    pub(super) row: Option<Vec<Value>>,
}

impl Document {
    /// The document of a record that nobody has written.
    #[must_use]
    pub fn empty(key: RecordKey) -> Self {
        Self { key: Some(key), ..Self::default() }
    }

    /// The document in bytes that a store or another node holds, once automerge has rebuilt every change of it and found its heads again.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with [`Code::CORRUPT_RECORD`] when they are damaged, [`Code::BAD_EPOCH`] for a generation that this version does not
    /// have, and [`Code::TOO_LARGE`] over the limit.
    pub fn load(key: RecordKey, epoch: u32, saved: Vec<u8>) -> Result<Self, Refusal> {
        if epoch != 0 {
            return Err(bad_epoch(epoch));
        }
        if saved.is_empty() {
            return Ok(Self::empty(key));
        }
        let (heads, doc) = contained(Code::CORRUPT_RECORD, || open(&saved).map(|doc| (heads_of(&doc), Box::new(doc))))?;
        let warm = Warm((saved.len() >= limits::DOCUMENT_WARM_BYTES_MIN).then_some(doc));
        Ok(Self { key: Some(key), epoch, saved, heads, shown: None, warm })
    }

    /// What the bytes load as.
    pub(super) fn opened(&self) -> Result<Automerge, Refusal> {
        match &self.warm.0 {
            Some(doc) => Ok(Automerge::clone(doc)),
            None => open(&self.saved),
        }
    }

    /// The hash of the document in bytes that a stranger sent, by what they say of themselves: nothing is unpacked, so that a MAC over it can
    /// be looked at first.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with [`Code::BAD_PAYLOAD`], [`Code::BAD_EPOCH`] or [`Code::TOO_LARGE`].
    pub fn claimed_hash(epoch: u32, saved: &[u8]) -> Result<StateHash, Refusal> {
        if epoch != 0 {
            return Err(bad_epoch(epoch));
        }
        if saved.len() > limits::DOCUMENT_BYTES_MAX {
            return Err(too_large("bytes", limits::DOCUMENT_BYTES_MAX as u64));
        }
        let heads = if saved.is_empty() { Ok(Vec::new()) } else { super::guard::heads(saved) };
        Ok(super::op::state_hash(epoch, &heads.map_err(foreign)?))
    }

    /// [`load`](Self::load) for bytes that a stranger sent, also under a good MAC: it is over the heads, and honest ones may stand before
    /// columns that are not. What those claim is checked before automerge sees it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`Code::BAD_PAYLOAD`] for what claims, or inflates to, more than a document may hold.
    pub fn load_foreign(key: RecordKey, epoch: u32, saved: Vec<u8>) -> Result<Self, Refusal> {
        if saved.len() <= limits::DOCUMENT_BYTES_MAX && !saved.is_empty() {
            super::guard::check_whole(&saved).map_err(foreign)?;
        }
        Self::load(key, epoch, saved)
    }

    /// The hashes of the changes that no other change builds on, ascending; none before the first write.
    #[must_use]
    pub fn heads(&self) -> &[[u8; 32]] {
        &self.heads
    }
}

fn foreign(why: &str) -> Refusal {
    Refusal::new(Code::BAD_PAYLOAD, format!("this is no document that a hub delivers: {why}"))
}

/// The refusal of another generation than 0.
pub(super) fn bad_epoch(epoch: u32) -> Refusal {
    Refusal::new(Code::BAD_EPOCH, format!("this version has no generation {epoch} of a document; update it"))
}

/// Loads what [`save`] made; nothing else: no single changes, no bundles, nothing behind it.
pub(super) fn open(saved: &[u8]) -> Result<Automerge, Refusal> {
    let damaged = |why: String| Refusal::new(Code::CORRUPT_RECORD, format!("the stored document is damaged: {why}"));
    if saved.len() > limits::DOCUMENT_BYTES_MAX {
        return Err(too_large("bytes", limits::DOCUMENT_BYTES_MAX as u64));
    }
    if saved.is_empty() {
        return Ok(blank());
    }
    if !super::guard::is_document(saved) {
        return Err(damaged("it is not one automerge document".to_owned()));
    }
    let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
    Automerge::load_with_options(saved, options).map_err(|error| damaged(error.to_string()))
}

/// An automerge document without content. Positions in text are counted in characters.
pub(super) fn blank() -> Automerge {
    Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint)
}

/// The heads, ascending.
pub(super) fn heads_of(doc: &Automerge) -> Vec<[u8; 32]> {
    doc.get_heads().iter().map(|hash| hash.0).collect()
}

/// The refusal of what would be over a limit.
pub(super) fn too_large(what: &str, max: u64) -> Refusal {
    Refusal::new(Code::TOO_LARGE, format!("the document would have more than {max} {what}; split it into several records"))
}

/// Runs `work` on automerge and turns its panics into a refusal. Whatever `work` touched is gone then: a document that has panicked is not
/// fit to be read again.
pub(super) fn contained<T>(code: Code, work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::new(code, "automerge gave up on it; the stored document is as it was")))
}
