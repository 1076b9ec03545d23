//! What a device keeps of its log: what a hub that was put back gets again as it was (rule R21).

use std::sync::Arc;

use mobo_adapters::sqlite::edge::Pending;
use mobo_core::ids::{Incarnation, Lane, Seq};
use mobo_core::store::StoreError;
use mobo_core::time::Eff;

use super::device::Life;

/// Entries that are read at once.
const ENTRIES_MAX: usize = 500;

/// The place of an entry.
pub(super) type At = (Incarnation, Lane, Seq);

/// The entries of its own log that a device keeps, and when each was made, where it has heard that.
pub(super) fn entries(life: &mut Life) -> Result<Vec<(At, Option<Eff>)>, StoreError> {
    let store = Arc::clone(&life.store);
    let mut found = Vec::new();
    for lane in Lane::ALL {
        let mut after = None;
        loop {
            match life.wait(store.pending(lane, after, ENTRIES_MAX, usize::MAX))? {
                Pending::Nothing => break,
                Pending::Trimmed(first) => after = Seq::new(first.get() - 1),
                Pending::Entries(outgoing) => {
                    let mut seq = outgoing.first;
                    for pushed in &outgoing.entries {
                        found.push(((outgoing.incarnation, lane, seq), pushed.eff));
                        (after, seq) = (Some(seq), seq.next());
                    }
                }
            }
        }
    }
    Ok(found)
}
