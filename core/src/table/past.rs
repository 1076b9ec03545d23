//! What a row was: the writes that are kept of it, and the row after each of them.
//!
//! Stamped writes give the same state in any order (rule R8). So the row at a moment is what all writes that were made up to then give
//! together, and a write that came late is where it was made. A log that does not give the row as it is now lacks something: then what was
//! is told from where nothing of it can be missing any more, and refused before that.

mod gather;

use std::collections::{BTreeMap, BTreeSet};

pub use gather::Gathering;

use super::again::Again;
use super::engine::TableEngine;
use super::op::{Action, TableOp, decode_payload};
use super::state::{Cell, TableState, Tally};
use crate::engine::{Applying, Author, MergeEngine, Stamped};
use crate::entry::{Entry, Header, Payload};
use crate::ids::{DeviceId, Eid, FieldId, Incarnation, LaneKey, Ordinal, RecordKey, Seq, Ver};
use crate::merge::tally_log;
use crate::merge::time::of_op;
use crate::schema::{Collection, Kind};
use crate::stamp::{Origin, Stamp};
use crate::time::Eff;
use crate::value::Value;

/// An entry that is merged, as a log keeps it.
#[derive(Clone, Debug)]
pub struct PastEntry {
    /// Its lane.
    pub lane: LaneKey,
    /// The hub's number of its log.
    pub ordinal: Ordinal,
    /// Its position.
    pub seq: Seq,
    /// Its effective time.
    pub eff: Eff,
    /// That of the entry before it, or the time above which its lane begins; `Eff(i64::MIN)` where that is not known.
    pub before: Eff,
    /// True if it was refused first, and merged later: its increments count apart (rule R15).
    pub retried: bool,
    /// As it was sealed.
    pub header: Vec<u8>,
    /// As it was sealed.
    pub payload: Vec<u8>,
}

/// What one entry did to one row.
#[derive(Clone, Debug)]
pub struct PastWrite {
    /// The identity of the entry.
    pub eid: Eid,
    /// The user or key, where its author has named one.
    pub by: Option<String>,
    ops: Vec<(Stamp, TableOp)>,
    /// Under which log its increments count, and as which of its entries.
    tallies: (Author, Seq),
    again: Option<Again>,
}

/// The kept writes of a row.
#[derive(Clone, Debug, Default)]
pub struct RowLog {
    /// In any order.
    pub writes: Vec<PastWrite>,
    /// True if only the writes of one author are here: what others wrote in between is not known.
    pub is_own: bool,
    /// True if older ones are not here: they are kept no more, or are too many.
    pub is_cut: bool,
    /// When the hub was restored last: what was written before and is not here may have been lost then.
    pub restored: Option<Eff>,
}

/// From where on a log tells everything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// From the first write.
    Whole,
    /// From this moment.
    Since(Eff),
    /// What the row is now, and nothing else.
    Now,
}

impl Known {
    /// True if what was at that time is known.
    #[must_use]
    pub fn covers(self, time: Eff) -> bool {
        match self {
            Self::Whole => true,
            Self::Since(since) => time >= since,
            Self::Now => false,
        }
    }
}

/// A write as people are told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Of the last of its operations.
    pub stamp: Stamp,
    /// The entry: the name of the version that it made. `None` where only the row itself knows of the write.
    pub eid: Option<Eid>,
    /// True if it was a delete.
    pub is_delete: bool,
    /// The row before and after it; `None` where what was before it is not known for certain.
    pub rows: Option<[Option<Vec<Value>>; 2]>,
    /// The registers that it wrote.
    pub wrote: BTreeMap<FieldId, Value>,
}

/// Steps of a row, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// At most as many as were asked for.
    pub steps: Vec<Step>,
    /// True if there are older ones.
    pub more: bool,
    /// From where on the log tells everything.
    pub known: Known,
}

/// What a row was at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Was {
    /// This; `None` while it was not visible.
    Row(Option<Vec<Value>>),
    /// It had no such version, or several whose names begin so.
    NoVersion,
    /// The log does not say; it does from there on.
    Unknown(Known),
}

/// The rows that an entry writes; none for one that writes no rows, or cannot be read.
#[must_use]
pub fn rows_of(header: &[u8], payload: &[u8]) -> BTreeSet<RecordKey> {
    let is_table = Header::decode(header).is_ok_and(|header| header.kind() == Some(Kind::Table));
    let ops = if is_table { decode_payload(payload).unwrap_or_default() } else { Vec::new() };
    ops.into_iter().map(|op| op.key).collect()
}

impl PastWrite {
    /// What an entry did to a row; `None` where it did nothing.
    #[must_use]
    pub fn of(entry: PastEntry, key: &RecordKey) -> Option<Self> {
        let PastEntry { lane, ordinal, seq, eff, before, retried, header, payload } = entry;
        let read = Header::decode(&header).ok().filter(|header| header.kind() == Some(Kind::Table))?;
        let by = crate::author::of_payload(&payload);
        let stamp = |op: &TableOp, index: usize| Stamp {
            eff: of_op(before, eff, op.before_us),
            device: lane.device,
            ordinal,
            seq,
            op: u32::try_from(index).unwrap_or(u32::MAX),
        };
        let ops = decode_payload(&payload).ok()?.into_iter().enumerate().filter(|(_, op)| op.key == *key);
        let ops: Vec<(Stamp, TableOp)> = ops.map(|(index, op)| (stamp(&op, index), op)).collect();
        if ops.is_empty() {
            return None;
        }
        let eid = Entry { header, payload: Payload::Present(payload) }.eid()?;
        let incarnation = if retried { tally_log(lane.device, Some(eid)) } else { read.counts_under(lane.device, lane.incarnation) };
        let author = Author { device: lane.device, incarnation, ordinal, ancestors: BTreeSet::new() };
        let again = read.provenance.map(|first| Again::of(&author, &first));
        Some(Self { eid, by, ops, tallies: (author, seq), again })
    }

    /// Of the last of its operations.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let none = Stamp { eff: Eff(i64::MIN), device: DeviceId([0; 16]), ordinal: Ordinal(0), seq: Seq::FIRST, op: 0 };
        self.ops.iter().map(|(stamp, _)| *stamp).max().unwrap_or(none)
    }

    /// About the memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let op = |(_, op): &(Stamp, TableOp)| size_of::<TableOp>() + op.fields.values().map(|value| 64 + value.len()).sum::<usize>();
        self.ops.iter().map(op).sum()
    }

    fn is_delete(&self) -> bool {
        self.ops.iter().max_by_key(|(stamp, _)| *stamp).is_some_and(|(_, op)| op.action == Action::Delete)
    }

    /// Applies what of it was done up to a time. What does not fit the row is left out, as it was when it was merged.
    fn apply(&self, collection: &Collection, state: &mut TableState, until: Eff) {
        let ops: Vec<Stamped<'_, TableOp>> =
            self.ops.iter().filter(|(stamp, _)| stamp.eff <= until).map(|(stamp, op)| Stamped { op, stamp: *stamp }).collect();
        let (author, seq) = Again::counts(self.again.as_ref(), (&self.tallies.0, self.tallies.1), (state, &ops));
        let applying = Applying { author, seq, ver: Ver(0), uncertain: None, same_timeline: false, is_shared: false };
        if !ops.is_empty() {
            // Nothing of a write that is refused is there, and then the log does not give the row as it is.
            let _ = TableEngine.apply(collection, state, &ops, &applying);
        }
    }
}

/// A row with its log, in the order in which it was written.
struct Replay<'r> {
    collection: &'r Collection,
    writes: Vec<&'r PastWrite>,
    /// What the row holds that no kept write has brought.
    rest: TableState,
    known: Known,
}

impl<'r> Replay<'r> {
    fn of(collection: &'r Collection, now: &TableState, log: &'r RowLog) -> Self {
        let mut writes: Vec<&PastWrite> = log.writes.iter().collect();
        writes.sort_by_key(|write| write.stamp());
        let mut given = TableState::default();
        writes.iter().for_each(|write| write.apply(collection, &mut given, Eff(i64::MAX)));
        if !log.is_own && !log.is_cut && given.hash() == now.hash() {
            // What was lost when the hub was restored, and overwritten by what is kept, is in no row any more.
            let known = log.restored.map_or(Known::Whole, |_| known(&TableState::default(), &writes, log));
            return Self { collection, writes, rest: TableState::default(), known };
        }
        let rest = rest(now, &given, &writes);
        let known = if log.is_own { Known::Now } else { known(&rest, &writes, log) };
        Self { collection, writes, rest, known }
    }

    /// The state after so many writes.
    fn after(&self, writes: usize) -> TableState {
        let mut state = self.rest.clone();
        self.writes.iter().take(writes).for_each(|write| write.apply(self.collection, &mut state, Eff(i64::MAX)));
        state
    }

    fn row(&self, state: &TableState) -> Option<Vec<Value>> {
        TableEngine.project(self.collection, state)
    }
}

/// The last steps of a row behind a stamp, at most so many, newest first.
#[must_use]
pub fn steps(collection: &Collection, now: &TableState, log: &RowLog, (behind, most): (Option<Stamp>, usize)) -> Steps {
    let replay = Replay::of(collection, now, log);
    let until = behind.map_or(replay.writes.len(), |behind| replay.writes.partition_point(|write| write.stamp() < behind));
    let first = until.saturating_sub(most);
    let mut state = replay.after(first);
    let mut steps = Vec::new();
    for write in replay.writes.get(first..until).unwrap_or_default() {
        let before = replay.row(&state);
        write.apply(collection, &mut state, Eff(i64::MAX));
        let stamp = write.stamp();
        let is_sure = replay.known == Known::Whole || matches!(replay.known, Known::Since(since) if stamp.eff > since);
        steps.push(Step {
            stamp,
            eid: Some(write.eid),
            is_delete: write.is_delete(),
            rows: is_sure.then(|| [before, replay.row(&state)]),
            wrote: wrote(collection, write),
        });
    }
    // Between them, what the row alone knows of.
    steps.extend(stands(&replay.rest).into_iter().filter(|step| behind.is_none_or(|behind| step.stamp < behind)));
    steps.sort_by_key(|step| std::cmp::Reverse(step.stamp));
    let more = first > 0 || steps.len() > most;
    steps.truncate(most);
    Steps { steps, more, known: replay.known }
}

/// The row after everything that was done up to a time.
#[must_use]
pub fn at(collection: &Collection, now: &TableState, log: &RowLog, time: Eff) -> Was {
    let replay = Replay::of(collection, now, log);
    if !replay.known.covers(time) {
        return Was::Unknown(replay.known);
    }
    let mut state = replay.rest.clone();
    replay.writes.iter().for_each(|write| write.apply(collection, &mut state, time));
    Was::Row(replay.row(&state))
}

/// The row after the write whose name, as hex, begins so, and after all that were made before it.
#[must_use]
pub fn version(collection: &Collection, now: &TableState, log: &RowLog, prefix: &str) -> Was {
    let replay = Replay::of(collection, now, log);
    let named = |(_, write): &(usize, &&PastWrite)| name(&write.eid).starts_with(prefix);
    let mut found = replay.writes.iter().enumerate().filter(named);
    match (found.next(), found.next()) {
        (Some((index, write)), None) if replay.known.covers(write.stamp().eff) => Was::Row(replay.row(&replay.after(index + 1))),
        (Some(_), None) => Was::Unknown(replay.known),
        _ => Was::NoVersion,
    }
}

/// The name of the version that an entry made.
#[must_use]
pub fn name(eid: &Eid) -> String {
    eid.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The registers that a write wrote, by the types of today.
fn wrote(collection: &Collection, write: &PastWrite) -> BTreeMap<FieldId, Value> {
    let value = |field: &FieldId, item: &[u8]| Value::decode(item, collection.field_by_id(*field).map(|field| field.kind)).ok();
    let fields = write.ops.iter().flat_map(|(_, op)| &op.fields);
    fields.filter_map(|(field, item)| Some((*field, value(field, item)?))).collect()
}

/// What the row holds and no kept write has brought. Counts of which nothing else is known go to an origin that nobody has.
fn rest(now: &TableState, given: &TableState, writes: &[&PastWrite]) -> TableState {
    let stamps: BTreeSet<Stamp> = writes.iter().flat_map(|write| write.ops.iter().map(|(stamp, _)| *stamp)).collect();
    let is_rest = |stamp: &Stamp| !stamps.contains(stamp);
    let mut rest = TableState { put: now.put.filter(is_rest), delete: now.delete.filter(is_rest), ..TableState::default() };
    rest.cells = now.cells.iter().filter(|(_, cell)| is_rest(&cell.stamp)).map(|(field, cell)| (*field, Cell::clone(cell))).collect();
    let sum = |state: &TableState, field: &FieldId| {
        state.counters.get(field).map_or(0, |tallies| tallies.values().fold(0_i128, |sum, tally| sum.saturating_add(tally.sum)))
    };
    let nobody = Origin { device: DeviceId([0; 16]), incarnation: Incarnation::from_entropy([0; 8]) };
    for field in now.counters.keys() {
        let missing = sum(now, field).saturating_sub(sum(given, field));
        if missing != 0 {
            rest.counters.insert(*field, BTreeMap::from([(nobody, Tally { sum: missing, last: Seq::FIRST })]));
        }
    }
    rest
}

/// From where on nothing that is missing can have changed what the row was.
fn known(rest: &TableState, writes: &[&PastWrite], log: &RowLog) -> Known {
    let mut since = rest.stamps().last().map(|stamp| stamp.eff).max(log.restored);
    let mut first: BTreeMap<FieldId, Eff> = BTreeMap::new();
    let mut shown = None;
    // Of what came before the hub was restored, nobody knows what followed it and was lost.
    let is_sure = |(stamp, _): &&(Stamp, TableOp)| log.restored.is_none_or(|restored| stamp.eff > restored);
    for (stamp, op) in writes.iter().flat_map(|write| &write.ops).filter(is_sure) {
        for field in op.fields.keys() {
            let at = first.entry(*field).or_insert(stamp.eff);
            *at = stamp.eff.min(*at);
        }
        if op.action != Action::Patch {
            shown = Some(shown.map_or(stamp.eff, |shown: Eff| shown.min(stamp.eff)));
        }
    }
    first.retain(|field, _| !rest.cells.contains_key(field));
    since = since.max(first.into_values().max());
    if rest.put.is_none() && rest.delete.is_none() {
        since = since.max(shown);
    }
    // When it was counted is not known: before what is kept, or before the hub was restored.
    if log.is_cut {
        since = since.max(writes.first().map(|write| write.stamp().eff));
    } else if log.restored.is_none() && !rest.counters.is_empty() {
        return Known::Now;
    }
    since.map_or(Known::Now, Known::Since)
}

/// Writes of which only the row itself knows.
fn stands(rest: &TableState) -> Vec<Step> {
    let mut by_stamp: BTreeMap<Stamp, BTreeMap<FieldId, Value>> = BTreeMap::new();
    for (field, cell) in &rest.cells {
        by_stamp.entry(cell.stamp).or_default().insert(*field, cell.value.clone());
    }
    for stamp in rest.put.into_iter().chain(rest.delete) {
        by_stamp.entry(stamp).or_default();
    }
    // On a device, what is on its way has no time yet.
    by_stamp.retain(|stamp, _| stamp.eff < Eff(i64::MAX));
    let step = |(stamp, wrote)| Step { stamp, eid: None, is_delete: rest.delete == Some(stamp), rows: None, wrote };
    by_stamp.into_iter().map(step).collect()
}

#[cfg(test)]
mod tests;
