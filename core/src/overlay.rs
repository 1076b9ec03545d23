//! What a device shows while its writes are on their way: the delivered base with its own pending operations laid over it (rule R14).
//!
//! Pending operations are later than anything delivered, whatever the clocks say: a person sees at once what they have just done. What the
//! hub decides replaces it when the record is delivered.

use crate::author::RecordOp;
use crate::document::lay::Laying;
use crate::document::{Document, DocumentOp};
use crate::engine::{Applying, Author, Refusal, Stamped};
use crate::ids::{Seq, Ver};
use crate::record::{RecordOps, RecordState};
use crate::schema::Collection;
use crate::stamp::Stamp;
use crate::table::TableOp;
use crate::time::Eff;

/// One pending entry's operations on one record.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The entry.
    pub seq: Seq,
    /// Its operations, with their index in the entry.
    pub ops: Vec<(u32, RecordOp)>,
}

/// The base with the pending entries laid over it, oldest first. An entry that cannot be laid over the new base is passed over: the hub will
/// say what became of it.
#[must_use]
pub fn lay(collection: &Collection, base: &RecordState, pending: &[Pending], author: &Author) -> RecordState {
    if let RecordState::Document(document) = base
        && let Ok(laid) = lay_over_document(collection, document, pending, author)
    {
        return laid.map_or_else(|| base.clone(), RecordState::Document);
    }
    let mut state = base.clone();
    for entry in pending {
        let _ = lay_one(collection, &mut state, entry, author);
    }
    state
}

/// All of them with one load and one save; `None` when nothing was laid.
fn lay_over_document(
    collection: &Collection,
    document: &Document,
    pending: &[Pending],
    author: &Author,
) -> Result<Option<Document>, Refusal> {
    let mut laying = Laying::over(collection, document)?;
    for entry in pending {
        let _ = laying.lay(&document_ops(&entry.ops), author.origin());
    }
    laying.finish()
}

/// Those of an entry's operations that are on a document.
#[must_use]
pub fn document_ops(ops: &[(u32, RecordOp)]) -> Vec<&DocumentOp> {
    ops.iter()
        .filter_map(|(_, op)| match op {
            RecordOp::Document(op) => Some(op),
            RecordOp::Table(_) => None,
        })
        .collect()
}

/// The state after one more operation of this node's own: its `nth` since the state was read.
///
/// # Errors
///
/// A [`Refusal`]: the operation does not fit the state.
pub fn provisional(
    collection: &Collection,
    state: &RecordState,
    op: &RecordOp,
    (author, nth): (&Author, u64),
) -> Result<RecordState, Refusal> {
    let mut after = state.clone();
    let pending = Pending { seq: Seq::new((1 << 62) + nth).unwrap_or(Seq::FIRST), ops: vec![(0, op.clone())] };
    lay_one(collection, &mut after, &pending, author)?;
    Ok(after)
}

/// Lays one more entry over a state that has the earlier ones: what a node shows right after a write of its own.
///
/// # Errors
///
/// A [`Refusal`]: the operations do not fit the state, which is then as it was.
pub fn lay_one(collection: &Collection, state: &mut RecordState, entry: &Pending, author: &Author) -> Result<(), Refusal> {
    let applying = Applying { author, seq: entry.seq, ver: Ver(0), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = |op: u32| Stamp { eff: Eff(i64::MAX), device: author.device, ordinal: author.ordinal, seq: entry.seq, op };
    let rows: Vec<Stamped<'_, TableOp>> = entry
        .ops
        .iter()
        .filter_map(|(index, op)| match op {
            RecordOp::Table(op) => Some(Stamped { op, stamp: stamp(*index) }),
            RecordOp::Document(_) => None,
        })
        .collect();
    let documents: Vec<Stamped<'_, DocumentOp>> = entry
        .ops
        .iter()
        .filter_map(|(index, op)| match op {
            RecordOp::Document(op) => Some(Stamped { op, stamp: stamp(*index) }),
            RecordOp::Table(_) => None,
        })
        .collect();
    let ops = if documents.is_empty() { RecordOps::Table(rows) } else { RecordOps::Document(documents) };
    state.apply(collection, &ops, &applying).map(|_| ())
}
