//! Under which log the increments of an entry count that was authored again (rules R10, R15).
//!
//! A restored hub has rows back that others give it, and not the entries that made them: it cannot tell by an eid that a row has what comes once
//! more. A tally can tell, where each authoring of an entry counts under the same log.

use super::engine::tallies_are;
use super::op::TableOp;
use super::state::{TableState, stands_for};
use crate::engine::{Author, Stamped};
use crate::entry::Provenance;
use crate::ids::{DeviceId, Seq};
use crate::limits;
use crate::merge::tally_log;
use crate::stamp::Origin;

/// The log under which the increments of an entry count that was sealed there first, for the position that it had there.
///
/// Where the first log may have counted it, that is told by its position, which is all that a tally says of an entry. Else by its identity: two
/// copies of a device may both have it without an answer, and each writes it again in a log of its own.
#[must_use]
pub fn counts_under(device: DeviceId, first: &Provenance) -> Origin {
    let incarnation = if first.sole { stands_for(device, first.incarnation, first.seq) } else { tally_log(device, Some(first.eid)) };
    Origin { device, incarnation }
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
