//! Under which log the increments of an entry count that was authored again (rules R10, R15).
//!
//! A restored hub has rows back that others give it, and not the entries that made them: it cannot tell by an eid that a row has what comes once
//! more. A tally can tell, where each authoring of an entry counts under the same log.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::tallies_are;
use super::op::TableOp;
use super::state::{TableState, Tally, of_device, stands_for};
use crate::engine::{Author, Stamped};
use crate::entry::Provenance;
use crate::ids::{DeviceId, Eid, Incarnation, Seq};
use crate::life::Life;
use crate::limits;
use crate::merge::tally_log;
use crate::stamp::Origin;

/// The log under which the increments of an entry count that was sealed there first, for the position that it had there.
///
/// Where the first log may have counted it, that is told by its position, which is all that a tally says of an entry. Else by its identity: two
/// copies of a device may both have it without an answer, and each writes it again in a log of its own.
#[must_use]
pub fn counts_under(device: DeviceId, first: &Provenance) -> Origin {
    let incarnation = match first.sole {
        true => stands_for(device, Life::counting_log(first.life, (device, first.incarnation)), first.seq),
        false => tally_log(device, Some(first.eid)),
    };
    Origin { device, incarnation }
}

/// By device and position, the logs that a hub has counted an entry in there, and its identity.
pub type Counted = BTreeMap<(DeviceId, Seq), Vec<(Incarnation, Eid)>>;

/// The first positions of entries that an offered row counts apart, of which the row at hand may count some in their first logs: what a hub
/// that has the entries must look up.
pub(crate) fn doubtful(mine: &TableState, offered: &TableState) -> BTreeSet<(DeviceId, Seq)> {
    let mut found = BTreeSet::new();
    for (field, tallies) in &offered.counters {
        let Some(known) = mine.counters.get(field) else { continue };
        for (origin, tally) in tallies.iter().filter(|(origin, _)| !known.contains_key(origin)) {
            if of_device(known, origin.device).any(|(_, first)| first.last >= tally.last) {
                found.insert((origin.device, tally.last));
            }
        }
    }
    found
}

/// Takes out of an offered row what it counts apart, and the row at hand in the first log: a copy of the device has authored an entry again that
/// the device has pushed itself. Not where the offered tally of that log is the one that stays: beside it, it counts apart what that lacks.
pub(crate) fn drop_counted(offered: &mut TableState, mine: &TableState, counted: &Counted) {
    for (field, tallies) in &mut offered.counters {
        let Some(known) = mine.counters.get(field) else { continue };
        let doubled = |origin: &Origin, tally: &Tally| {
            counted.get(&(origin.device, tally.last)).into_iter().flatten().any(|(log, eid)| {
                let first = Origin { device: origin.device, incarnation: *log };
                let stays = |ours: &&Tally| tallies.get(&first).is_none_or(|theirs| (theirs.last, theirs.sum) <= (ours.last, ours.sum));
                tally_log(origin.device, Some(*eid)) == origin.incarnation
                    && known.get(&first).filter(stays).is_some_and(|ours| ours.last >= tally.last)
            })
        };
        let doubles: Vec<Origin> = tallies.iter().filter(|(origin, tally)| doubled(origin, tally)).map(|(origin, _)| *origin).collect();
        tallies.retain(|origin, _| !doubles.contains(origin));
    }
}

/// True if a counter that is added to has a tally of that origin.
pub(crate) fn is_there((state, ops): (&TableState, &[Stamped<'_, TableOp>]), origin: &Origin) -> bool {
    let mut fields = ops.iter().flat_map(|stamped| stamped.op.deltas.keys());
    fields.any(|field| state.counters.get(field).is_some_and(|tallies| tallies.contains_key(origin)))
}

/// An entry that was authored again.
#[derive(Clone, Debug)]
pub(crate) struct Again {
    author: Author,
    seq: Seq,
    sole: bool,
}

impl Again {
    pub(crate) fn of(author: &Author, first: &Provenance) -> Self {
        let incarnation = counts_under(author.device, first).incarnation;
        Self { author: Author { incarnation, ..author.clone() }, seq: first.seq, sole: first.sole }
    }

    /// The log and the position that it counts for on a row; `own` are those that it was authored in. A counter keeps only so many apart, and
    /// what a device has written without its hub is no reason to refuse it: beyond, it counts as any other entry does.
    pub(crate) fn counts<'a>(
        again: Option<&'a Self>,
        own: (&'a Author, Seq),
        (state, ops): (&TableState, &[Stamped<'_, TableOp>]),
    ) -> (&'a Author, Seq) {
        let fits = |again: &&Self| again.sole || !tallies_are(limits::TALLIES_APART_MAX, (state, ops), again.author.origin());
        again.filter(fits).map_or(own, |again| (&again.author, again.seq))
    }
}
