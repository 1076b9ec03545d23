//! How rows merge: latest effective time wins per field, counters add, a delete hides (rules R9, R10, R12).

use std::collections::{BTreeMap, BTreeSet};

use super::lives;
use super::op::{Action, TableOp};
use super::state::{Cell, TableState, Tally, drop_doubles, of_device};
use crate::engine::{Applying, Conflict, ConflictKind, MergeEngine, Merged, Refusal, Stamped};
use crate::ids::{FieldId, StateHash, Ver};
use crate::limits;
use crate::message::Code;
use crate::schema::{Collection, FieldType};
use crate::stamp::{Origin, Stamp};
use crate::value::Value;

/// The field engine. It keeps nothing itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableEngine;

impl MergeEngine for TableEngine {
    type State = TableState;
    type Op = TableOp;

    fn empty(&self) -> TableState {
        TableState::default()
    }

    fn apply(
        &self,
        collection: &Collection,
        state: &mut TableState,
        ops: &[Stamped<'_, TableOp>],
        applying: &Applying<'_>,
    ) -> Result<Merged, Refusal> {
        // Everything is checked before anything is touched: all or nothing without a copy of the state.
        let checked = ops.iter().map(|stamped| check(collection, stamped.op)).collect::<Result<Vec<_>, _>>()?;
        check_tallies(state, ops, applying.author.origin())?;
        let mut conflicts = Vec::new();
        for (stamped, values) in ops.iter().zip(checked) {
            let write = Write { stamp: stamped.stamp, base_ver: stamped.op.base_ver, applying };
            match stamped.op.action {
                Action::Put => state.put = state.put.max(Some(write.stamp)),
                Action::Patch => {}
                Action::Delete => conflicts.extend(write.delete(state)),
            }
            if stamped.op.action != Action::Delete {
                conflicts.extend(write.hidden(state));
            }
            for (field, value) in values {
                conflicts.extend(write.register(state, field, value));
            }
        }
        add_deltas(state, ops, applying);
        note_versions(state, ops, applying.ver);
        Ok(Merged { conflicts, changes: Vec::new() })
    }

    fn project(&self, collection: &Collection, state: &TableState) -> Option<Vec<Value>> {
        state.is_visible().then(|| {
            let value = |field: &crate::schema::Field| {
                if field.kind == FieldType::Counter { Value::Int(state.counter(field.id)) } else { state.value(field.id).clone() }
            };
            collection.fields.iter().map(value).collect()
        })
    }

    fn state_hash(&self, state: &TableState) -> StateHash {
        state.hash()
    }

    fn join(&self, _: &Collection, left: &TableState, right: &TableState) -> Result<TableState, Refusal> {
        let mut joined = left.clone();
        joined.put = joined.put.max(right.put);
        joined.delete = joined.delete.max(right.delete);
        for (field, cell) in &right.cells {
            if joined.cells.get(field).is_none_or(|mine| is_below(mine, cell)) {
                joined.cells.insert(*field, cell.clone());
            }
        }
        for (field, tallies) in &right.counters {
            let mine = joined.counters.entry(*field).or_default();
            let is_news =
                |origin: &Origin, tally: &Tally| mine.get(origin).is_none_or(|known| (known.last, known.sum) < (tally.last, tally.sum));
            let fresh: Vec<Origin> = tallies.iter().filter(|(origin, tally)| is_news(origin, tally)).map(|(origin, _)| *origin).collect();
            mine.extend(fresh.iter().filter_map(|origin| Some((*origin, *tallies.get(origin)?))));
            drop_doubles(mine, &fresh, |origin, tally| tallies.get(origin) != Some(tally));
            if let Some(known) = left.counters.get(field) {
                lives::drop_folded(mine, known, tallies);
            }
        }
        for (stamp, ver) in &right.vers {
            joined.vers.entry(*stamp).or_insert(*ver);
        }
        Ok(joined)
    }

    fn squash(&self, _: &TableState) -> Result<TableState, Refusal> {
        Err(Refusal::new(Code::UNSUPPORTED, "a table row keeps no history: there is nothing to squash"))
    }

    fn rebase(&self, _: &TableState, epoch: u32, _: &[TableOp]) -> Result<Vec<TableOp>, Refusal> {
        Err(Refusal::new(Code::BAD_EPOCH, format!("a table row has no generation {epoch}")))
    }
}

/// True if `cell` replaces `mine` in a join. Equal stamps have equal values, unless somebody forged one; the order of their bytes then keeps
/// the join commutative.
fn is_below(mine: &Cell, cell: &Cell) -> bool {
    mine.stamp < cell.stamp || (mine.stamp == cell.stamp && mine.value != cell.value && mine.value.to_cbor() < cell.value.to_cbor())
}

/// The values of an operation, decoded by the types of the schema.
fn check(collection: &Collection, op: &TableOp) -> Result<Vec<(FieldId, Value)>, Refusal> {
    for field in op.deltas.keys() {
        if let Some(field) = collection.field_by_id(*field).filter(|field| field.kind != FieldType::Counter) {
            return Err(Refusal::new(Code::BAD_VALUE, format!("field \"{}\" is not a counter", field.name)));
        }
    }
    op.fields
        .iter()
        .map(|(id, item)| {
            let field = collection.field_by_id(*id);
            Value::decode(item, field.map(|field| field.kind)).map(|value| (*id, value)).map_err(|error| {
                let name = field.map_or("?", |field| &field.name);
                Refusal::new(Code::BAD_VALUE, format!("field \"{name}\": {error}"))
            })
        })
        .collect()
}

/// One stamped write and what its author had seen.
struct Write<'a> {
    stamp: Stamp,
    base_ver: Ver,
    applying: &'a Applying<'a>,
}

impl Write<'_> {
    /// True if this write's author did not know of the write `other` (rule R12).
    fn unaware_of(&self, state: &TableState, other: &Stamp) -> bool {
        let own = self.applying.author.has_made(other);
        if own && !self.applying.is_shared {
            return false;
        }
        // Without a version, a write of the same log is of the same entry, or older than what a restored hub knows.
        state.vers.get(other).map_or(!own, |ver| !self.applying.has_seen(self.base_ver, *ver))
    }

    fn register(&self, state: &mut TableState, field: FieldId, value: Value) -> Option<Conflict> {
        let Some(cell) = state.cells.get(&field) else {
            state.cells.insert(field, Cell { stamp: self.stamp, value });
            return None;
        };
        if cell.stamp == self.stamp && cell.value == value {
            return None;
        }
        let conflict = (cell.value != value && self.unaware_of(state, &cell.stamp)).then(|| {
            let (old, new) = ((cell.stamp, cell.value.clone()), (self.stamp, value.clone()));
            let (winner, loser) = if self.stamp > cell.stamp { (new, old) } else { (old, new) };
            Conflict {
                field: Some(field),
                kind: self.kind(cell.stamp),
                loser: loser.0,
                loser_value: loser.1,
                winner: winner.0,
                winner_value: winner.1,
            }
        });
        if !crate::protect!("register.later-wins", self.stamp < cell.stamp) {
            state.cells.insert(field, Cell { stamp: self.stamp, value });
        }
        conflict
    }

    /// Hides the row. What its author did not know of, and what it hides, is a decision to be seen.
    fn delete(&self, state: &mut TableState) -> Option<Conflict> {
        let unseen = state
            .stamps()
            .into_iter()
            .filter(|stamp| Some(*stamp) != state.delete && *stamp < self.stamp && self.unaware_of(state, stamp))
            .max();
        if !crate::protect!("delete.later-wins", state.delete > Some(self.stamp)) {
            state.delete = Some(self.stamp);
        }
        let loser = unseen?;
        Some(self.whole(loser, self.stamp))
    }

    /// A put or patch that a delete hides, unless one of the two authors knew what it did.
    fn hidden(&self, state: &TableState) -> Option<Conflict> {
        let delete = state.delete?;
        (!state.is_visible() && self.unaware_of(state, &delete)).then(|| self.whole(self.stamp, delete))
    }

    fn whole(&self, loser: Stamp, winner: Stamp) -> Conflict {
        Conflict { field: None, kind: ConflictKind::HiddenByDelete, loser, loser_value: Value::Null, winner, winner_value: Value::Null }
    }

    fn kind(&self, rival: Stamp) -> ConflictKind {
        match self.applying.uncertain {
            Some((low, high)) if (low..=high).contains(&rival.eff) => ConflictKind::TimeUncertain,
            _ => ConflictKind::Concurrent,
        }
    }
}

/// Adds what the whole entry adds to each counter, once: an entry at or below the last one of its origin adds nothing (rule R10).
fn add_deltas(state: &mut TableState, ops: &[Stamped<'_, TableOp>], applying: &Applying<'_>) {
    let mut sums = BTreeMap::<FieldId, i128>::new();
    for (field, delta) in ops.iter().flat_map(|stamped| &stamped.op.deltas) {
        let sum = sums.entry(*field).or_default();
        *sum = sum.saturating_add(*delta);
    }
    for (field, delta) in sums {
        let tallies = state.counters.entry(field).or_default();
        let origin = lives::counts_for(tallies, applying.author.origin());
        match tallies.get_mut(&origin) {
            Some(tally) if crate::protect!("counter.last-seq", tally.last >= applying.seq) => {}
            Some(tally) => *tally = Tally { sum: tally.sum.saturating_add(delta), last: applying.seq },
            None => {
                tallies.insert(origin, Tally { sum: delta, last: applying.seq });
            }
        }
        drop_doubles(tallies, &[origin], |_, _| true);
        lives::fold(tallies, origin);
    }
}

/// An entry that was authored again counts in a log of its own, and a device may say that of any.
fn check_tallies(state: &TableState, ops: &[Stamped<'_, TableOp>], origin: Origin) -> Result<(), Refusal> {
    if tallies_are(limits::TALLIES_PER_DEVICE_MAX, (state, ops), origin) {
        let detail =
            format!("this device has counted in {} logs on one counter; count on in another record", limits::TALLIES_PER_DEVICE_MAX);
        return Err(Refusal::new(Code::TOO_LARGE, detail));
    }
    Ok(())
}

/// True if a counter that is added to has that many tallies of the device already, and none of this origin.
pub(super) fn tallies_are(most: usize, (state, ops): (&TableState, &[Stamped<'_, TableOp>]), origin: Origin) -> bool {
    let fields: BTreeSet<FieldId> = ops.iter().flat_map(|stamped| stamped.op.deltas.keys()).copied().collect();
    fields.iter().any(|field| {
        let tallies = state.counters.get(field).filter(|tallies| !tallies.contains_key(&origin));
        tallies.is_some_and(|tallies| of_device(tallies, origin.device).count() >= most)
    })
}

/// Notes at which version the new stamps arrived, and forgets stamps that nothing carries any more.
fn note_versions(state: &mut TableState, ops: &[Stamped<'_, TableOp>], ver: Ver) {
    let live = state.stamps();
    state.vers.retain(|stamp, _| live.binary_search(stamp).is_ok());
    for stamped in ops {
        if live.binary_search(&stamped.stamp).is_ok() {
            state.vers.entry(stamped.stamp).or_insert(ver);
        }
    }
}

#[cfg(test)]
mod tests;
