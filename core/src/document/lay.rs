//! Own entries laid over a document, one after another: loaded once and saved once, however many there are.

use super::actor::Actor;
use super::guard::{self, Verdict};
use super::op::DocumentOp;
use super::open::Open;
use super::state::{Document, contained};
use crate::engine::Refusal;
use crate::limits;
use crate::message::Code;
use crate::schema::Collection;
use crate::stamp::Origin;

/// A document over which entries are laid. What it refuses of one changes nothing.
#[derive(Debug)]
pub struct Laying<'a> {
    /// `None` after automerge has given up.
    open: Option<Open<'a>>,
    /// What the saved document had, and the changes since.
    bytes: usize,
    /// True once something was laid.
    is_changed: bool,
}

impl<'a> Laying<'a> {
    /// Over this document.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the document is damaged, or of no particular record.
    pub fn over(collection: &'a Collection, document: &'a Document) -> Result<Self, Refusal> {
        let nameless = || Refusal::new(Code::CORRUPT_RECORD, "the document is of no record");
        let key = document.key.as_ref().ok_or_else(nameless)?;
        let open = contained(Code::CORRUPT_RECORD, || Open::of(collection, key, document))?;
        Ok(Self { open: Some(open), bytes: document.saved.len(), is_changed: false })
    }

    /// Lays one entry's operations over it.
    ///
    /// # Errors
    ///
    /// What a merge of the entry would be refused for.
    pub fn lay(&mut self, ops: &[&DocumentOp], author: Origin) -> Result<(), Refusal> {
        self.take(ops, Actor::of(author), true)
    }

    /// Says whether an entry could be laid over it, and does not.
    ///
    /// # Errors
    ///
    /// As [`lay`](Self::lay).
    pub fn fits(&mut self, ops: &[&DocumentOp], author: Origin) -> Result<(), Refusal> {
        self.take(ops, Actor::of(author), false)
    }

    /// True if the document, or what was laid over it, holds every change of an entry: it is merged, whatever was said of it.
    #[must_use]
    pub fn holds(&self, ops: &[&DocumentOp]) -> bool {
        let Some(open) = &self.open else { return false };
        ops.iter().flat_map(|op| &op.changes).all(|change| guard::is_held(open, change))
    }

    /// The document with all that was laid over it, found to load again; `None` when nothing was.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]: then the entries are to be laid one by one.
    pub fn finish(self) -> Result<Option<Document>, Refusal> {
        let open = self.open.ok_or_else(given_up)?;
        if !self.is_changed {
            return Ok(None);
        }
        contained(Code::BAD_CHANGE, || open.close()).map(Some)
    }

    fn take(&mut self, ops: &[&DocumentOp], author: Actor, keeps: bool) -> Result<(), Refusal> {
        let open = self.open.take().ok_or_else(given_up)?;
        if ops.iter().any(|op| op.key != *open.key || op.epoch != 0) {
            self.open = Some(open);
            return Err(Refusal::new(Code::BAD_PAYLOAD, "an operation is of another record or generation"));
        }
        let changes: Vec<&[u8]> = ops.iter().flat_map(|op| &op.changes).map(Vec::as_slice).collect();
        let bytes = self.bytes + changes.iter().map(|change| change.len()).sum::<usize>();
        let tried = contained(Code::BAD_CHANGE, || Ok(tried(open, (&changes, bytes), author, keeps)))?;
        self.open = Some(tried.open);
        if tried.is_kept {
            (self.bytes, self.is_changed) = (bytes, true);
        }
        tried.laid
    }
}

fn given_up() -> Refusal {
    Refusal::new(Code::CORRUPT_RECORD, "automerge gave up on an entry that was to be laid over the document")
}

struct Tried<'a> {
    open: Open<'a>,
    laid: Result<(), Refusal>,
    is_kept: bool,
}

fn tried<'a>(open: Open<'a>, (changes, bytes): (&[&[u8]], usize), author: Actor, keeps: bool) -> Tried<'a> {
    if let ([change], false) = (changes, keeps) {
        let laid = guard::check(&open, change, Some(author)).map(drop);
        return Tried { open, laid, is_kept: false };
    }
    // A copy shares what does not change.
    let mut trial = open.clone();
    match all(&mut trial, changes, author).and_then(|fresh| within_limits(&trial, bytes).map(|()| fresh)) {
        Ok(true) if keeps => Tried { open: trial, laid: Ok(()), is_kept: true },
        Ok(_) => Tried { open, laid: Ok(()), is_kept: false },
        Err(refusal) => Tried { open, laid: Err(refusal), is_kept: false },
    }
}

/// Takes the changes in; true if any is new.
fn all(open: &mut Open<'_>, changes: &[&[u8]], author: Actor) -> Result<bool, Refusal> {
    let mut is_fresh = false;
    for change in changes {
        if let Verdict::Fresh(fresh) = guard::check(open, change, Some(author))? {
            open.absorb(&fresh)?;
            is_fresh = true;
        }
    }
    Ok(is_fresh)
}

/// What a merge would refuse when it saves the document. Most are so small that they need not be saved to know.
fn within_limits(open: &Open<'_>, bytes: usize) -> Result<(), Refusal> {
    let elements = open.history.ops();
    let is_small = bytes < limits::DOCUMENT_BYTES_MAX / 2
        && elements < limits::LIST_LEN_MAX as u64
        && elements * (char::MAX.len_utf8() as u64) < limits::VALUE_BYTES_MAX as u64;
    if is_small { Ok(()) } else { open.check_size() }
}
