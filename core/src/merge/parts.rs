//! An entry taken apart: what it does to each record, and what is the same for all of it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::retry::tally_log;
use super::time::{Decided, of_op};
use super::{Rights, SettledWrite};
use crate::document::DocumentOp;
use crate::engine::{Author, Refusal, Stamped};
use crate::entry::Header;
use crate::ids::{Eid, LaneKey, RecordKey, Seq, Timeline};
use crate::message::Code;
use crate::record::{RecordOps, RecordState};
use crate::schema::Collection;
use crate::stamp::Stamp;
use crate::table::again::{Again, is_there};
use crate::table::{Action, TableOp, TableState};
use crate::time::Eff;

/// What one entry does to one record.
pub(super) struct Part<'o> {
    pub(super) key: &'o RecordKey,
    pub(super) ops: RecordOps<'o>,
}

impl Part<'_> {
    /// The fields of a row that were written knowingly.
    pub(super) fn settled(&self) -> Vec<SettledWrite> {
        let RecordOps::Table(ops) = &self.ops else { return Vec::new() };
        let mut settled = Vec::new();
        for op in ops.iter().map(|stamped| stamped.op).filter(|op| op.base_ver.0 > 0) {
            let whole = (op.action != Action::Patch).then_some(None);
            let fields = op.fields.keys().copied().map(Some).chain(whole);
            settled.extend(fields.map(|field| SettledWrite { key: self.key.clone(), field, seen: op.base_ver }));
        }
        settled
    }
}

/// One author's writes to one collection travel on one lane: otherwise their order, which counters rely on, would not be known.
pub(super) fn wrong_kind(collection: &Collection) -> Refusal {
    let (kind, lane) = (collection.kind.name(), collection.lane.number());
    Refusal::new(Code::WRONG_KIND, format!("\"{}\" is a {kind}, and its entries travel on lane {lane}", collection.name))
}

/// What is the same for all parts of an entry.
pub(super) struct Doing<'o> {
    pub(super) lane: &'o LaneKey,
    pub(super) author: &'o Author,
    /// The same, but for the log that increments are counted under.
    pub(super) tallies: &'o Author,
    /// Where they are counted if it was authored again.
    pub(super) again: Option<Again>,
    /// Its identity, and the author as which it counts where a row has it already as one that was authored again: made when it is asked for.
    pub(super) apart: (Option<Eid>, OnceCell<Author>),
    pub(super) rights: &'o Rights,
    pub(super) seq: Seq,
    pub(super) decided: Decided,
    pub(super) lane_before: Eff,
    pub(super) is_shared: bool,
    pub(super) header: Option<&'o Header>,
    /// Merged before, under its provenance: its author only waits to see the records delivered.
    pub(super) known: bool,
}

impl Doing<'_> {
    /// True if the `base_ver`s of the entry count on this timeline.
    pub(super) fn is_of(&self, timeline: Timeline) -> bool {
        self.header.and_then(|header| header.timeline).is_none_or(|short| short == timeline.short())
    }

    /// The log, and the position in it, that a part of the entry is applied as.
    pub(super) fn counts(&self, state: &RecordState, ops: &RecordOps<'_>) -> (&Author, Seq) {
        match (state, ops) {
            (RecordState::Table(state), RecordOps::Table(ops)) => match self.apart(state, ops) {
                Some(apart) => (apart, self.seq),
                None => Again::counts(self.again.as_ref(), (self.tallies, self.seq), (state, ops)),
            },
            _ => (self.author, self.seq),
        }
    }

    /// The author as which an entry in its first log counts, where the row has it as one that a copy of its device has authored again.
    fn apart(&self, state: &TableState, ops: &[Stamped<'_, TableOp>]) -> Option<&Author> {
        let (Some(eid), apart) = &self.apart else { return None };
        let mut fields = ops.iter().flat_map(|stamped| stamped.op.deltas.keys());
        let has_others = fields.any(|field| {
            state.counters.get(field).is_some_and(|tallies| tallies.len() > 1 || !tallies.contains_key(&self.tallies.origin()))
        });
        if self.again.is_some() || !has_others {
            return None;
        }
        let apart = apart.get_or_init(|| Author { incarnation: tally_log(self.author.device, Some(*eid)), ..self.author.clone() });
        is_there((state, ops), &apart.origin()).then_some(apart)
    }

    fn stamp(&self, before_us: u64, op: usize) -> Stamp {
        Stamp {
            eff: of_op(self.lane_before, self.decided.eff, before_us),
            device: self.author.device,
            ordinal: self.author.ordinal,
            seq: self.seq,
            op: u32::try_from(op).unwrap_or(u32::MAX),
        }
    }
}

pub(super) fn table_parts<'o>(ops: &'o [TableOp], doing: &Doing<'_>) -> Vec<Part<'o>> {
    let stamped = |(index, op): (usize, &'o TableOp)| Stamped { op, stamp: doing.stamp(op.before_us, index) };
    let mut stamped: Vec<Stamped<'o, TableOp>> = ops.iter().enumerate().map(stamped).collect();
    // Stable: those on one record stay in the order in which they were made.
    stamped.sort_by(|a, b| a.op.key.cmp(&b.op.key));
    let part = |same: &[Stamped<'o, TableOp>]| -> Option<Part<'o>> {
        let TableOp { key, .. } = same.first()?.op;
        Some(Part { key, ops: RecordOps::Table(same.to_vec()) })
    };
    stamped.chunk_by(|a, b| a.op.key == b.op.key).filter_map(part).collect()
}

pub(super) fn document_parts<'o>(ops: &'o [DocumentOp], doing: &Doing<'_>) -> Vec<Part<'o>> {
    let mut by_key: BTreeMap<&RecordKey, Vec<Stamped<'o, DocumentOp>>> = BTreeMap::new();
    for (index, op) in ops.iter().enumerate() {
        by_key.entry(&op.key).or_default().push(Stamped { op, stamp: doing.stamp(op.before_us, index) });
    }
    by_key.into_iter().map(|(key, ops)| Part { key, ops: RecordOps::Document(ops) }).collect()
}
