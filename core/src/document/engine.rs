//! How documents merge: automerge's union of changes, behind a guard.

use automerge::{Change, ReadDoc};

use super::actor::{Actor, ChangeId};
use super::conflict;
use super::content;
use super::genesis;
use super::guard::{self, Verdict};
use super::op::{self, DocumentOp};
use super::open::Open;
use super::state::{self, Document, Warm, bad_epoch, contained};
use crate::engine::{Applying, MergeEngine, Merged, Refusal, Stamped};
use crate::ids::{RecordKey, StateHash};
use crate::message::Code;
use crate::schema::Collection;
use crate::value::Value;

/// The document engine. It keeps nothing itself, and no document loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentEngine;

impl MergeEngine for DocumentEngine {
    type State = Document;
    type Op = DocumentOp;

    fn empty(&self) -> Document {
        Document::default()
    }

    fn apply(
        &self,
        collection: &Collection,
        state: &mut Document,
        ops: &[Stamped<'_, DocumentOp>],
        applying: &Applying<'_>,
    ) -> Result<Merged, Refusal> {
        let Some(first) = ops.first() else {
            return Ok(Merged::default());
        };
        let key = &first.op.key;
        if ops.iter().any(|stamped| stamped.op.key != *key) || state.key.as_ref().is_some_and(|own| own != key) {
            return Err(Refusal::new(Code::BAD_PAYLOAD, "the operations are not all on one record"));
        }
        check_epochs(ops.iter().map(|stamped| stamped.op.epoch).chain([state.epoch]))?;
        let author = Actor::of(applying.author.origin());
        let warm = std::mem::take(&mut state.warm);
        let (document, merged) = contained(Code::BAD_CHANGE, || merge(collection, key, (state, warm), (ops, author)))?;
        if let Some(document) = document {
            *state = document;
        }
        Ok(merged)
    }

    fn project(&self, collection: &Collection, state: &Document) -> Option<Vec<Value>> {
        let by = (collection.id, collection.rev);
        if let Some(shown) = state.shown.as_ref().filter(|shown| shown.by == by) {
            return shown.row.clone();
        }
        let key = state.key.as_ref().filter(|_| !state.saved.is_empty())?;
        // What cannot be loaded cannot be shown. Whoever reads it from a store has been told so by `Document::load`.
        let row = || match &state.warm.0 {
            Some(doc) => Ok(content::row(doc, collection, key)),
            None => Ok(content::row(&state::open(&state.saved)?, collection, key)),
        };
        contained(Code::CORRUPT_RECORD, row).ok().flatten()
    }

    fn state_hash(&self, state: &Document) -> StateHash {
        op::state_hash(state.epoch, &state.heads)
    }

    fn join(&self, collection: &Collection, left: &Document, right: &Document) -> Result<Document, Refusal> {
        let key = match (&left.key, &right.key) {
            (Some(left), Some(right)) if left != right => {
                return Err(Refusal::new(Code::BAD_PAYLOAD, "these are documents of two records"));
            }
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) => return Ok(left.clone()),
        };
        match left.epoch.cmp(&right.epoch) {
            std::cmp::Ordering::Less => return Ok(right.clone()),
            std::cmp::Ordering::Greater => return Ok(left.clone()),
            std::cmp::Ordering::Equal if left.heads == right.heads || right.saved.is_empty() => return Ok(left.clone()),
            std::cmp::Ordering::Equal if left.saved.is_empty() => return Ok(right.clone()),
            std::cmp::Ordering::Equal => {}
        }
        check_epochs([left.epoch])?;
        contained(Code::BAD_CHANGE, || union(collection, key, left, right))
    }

    fn squash(&self, _: &Document) -> Result<Document, Refusal> {
        Err(Refusal::new(Code::UNSUPPORTED, "this version keeps the whole history of a document"))
    }

    fn rebase(&self, _: &Document, epoch: u32, _: &[DocumentOp]) -> Result<Vec<DocumentOp>, Refusal> {
        Err(bad_epoch(epoch))
    }
}

fn check_epochs(epochs: impl IntoIterator<Item = u32>) -> Result<(), Refusal> {
    epochs.into_iter().find(|epoch| *epoch != 0).map_or(Ok(()), |epoch| Err(bad_epoch(epoch)))
}

/// The document with the changes of the operations; `None` when it holds them all already.
fn merge(
    collection: &Collection,
    key: &RecordKey,
    (state, warm): (&Document, Warm),
    (ops, author): (&[Stamped<'_, DocumentOp>], Actor),
) -> Result<(Option<Document>, Merged), Refusal> {
    let mut open = Open::warm(collection, key, state, warm)?;
    let hidden_before = content::is_deleted(&open.doc);
    let (mut fresh_ones, mut changes) = (Vec::new(), Vec::new());
    for stamped in ops {
        for change in &stamped.op.changes {
            if let Verdict::Fresh(fresh) = guard::check(&open, change, Some(author))? {
                let index = open.absorb(&fresh)?;
                changes.push((ChangeId { actor: fresh.actor, seq: fresh.change.seq() }, stamped.stamp));
                fresh_ones.push(conflict::Fresh { index, actor: fresh.actor, touched: fresh.touched, stamp: stamped.stamp });
            }
        }
    }
    if fresh_ones.is_empty() {
        return Ok((None, Merged::default()));
    }
    let conflicts = conflict::found(&open, &fresh_ones, hidden_before);
    Ok((Some(open.close()?), Merged { conflicts, changes }))
}

/// The document with the changes of both. What `right` holds goes through the guard like what a device sends.
fn union(collection: &Collection, key: &RecordKey, left: &Document, right: &Document) -> Result<Document, Refusal> {
    let mut open = Open::bare(collection, key, left)?;
    let other = Open::bare(collection, key, right)?;
    let missing = |change: &Change| open.history.position(&change.hash().0).is_none();
    let added: Vec<Change> = other.doc.get_changes(&[]).into_iter().filter(missing).collect();
    for change in added {
        match genesis::field_of(key, &change) {
            Some((field, kind)) => open.begin(field, kind)?,
            None => {
                if let Verdict::Fresh(fresh) = guard::check(&open, change.raw_bytes(), None)? {
                    open.absorb(&fresh)?;
                }
            }
        }
    }
    if !open.doc.get_missing_deps(&[]).is_empty() {
        return Err(Refusal::new(Code::CORRUPT_RECORD, "one of the documents lacks what its changes build on"));
    }
    open.close()
}
