//! Merging a refused entry after all: the schema or its device's rights have changed since, or this version reads what an older one could not.
//!
//! It is merged as the entry that it is, under the stamp that it got when it came, so that what was written later still wins, and exactly
//! once: it must be open in quarantine, with its lane locked, and an entry that was authored again from it is the same one (rule R15).
//!
//! A counter adds only entries above the last of their origin (rule R10), and later ones of this log have come by now. So a retried entry
//! adds under an origin of its own, which follows from its identity: retried twice, by whatever hub, it still adds once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admit::{Admission, AdmittedEntry, LaneReads, LaneState};
use super::apply::Run;
use super::prepare::prepare_entry;
use super::time::Decided;
use super::{EntryOutcome, Merged, Outcome, Rights};
use crate::author::EditError;
use crate::engine::Author;
use crate::entry::{Entry, Header};
use crate::ids::{Chain, DeviceId, Eid, Incarnation, LaneKey, Seq};
use crate::message::Reject;
use crate::time::Eff;

/// An entry in quarantine that is to be merged.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Its lane.
    pub lane: LaneKey,
    /// Its position.
    pub seq: Seq,
    /// What its author may write now.
    pub rights: Rights,
}

/// An entry as quarantine keeps it.
#[derive(Clone, Debug)]
pub struct KeptEntry {
    /// The sealed bytes.
    pub entry: Entry,
    /// The chain after it.
    pub chain: Chain,
    /// Its effective time, decided when it came (rule R5).
    pub eff: Eff,
    /// That of the entry before it, or the time above which its lane begins.
    pub before: Eff,
}

impl KeptEntry {
    /// The identities under which it may have been merged: its own, and that of its first sealing.
    #[must_use]
    pub fn eids(&self) -> Vec<Eid> {
        let origin = Header::decode(&self.entry.header).ok().and_then(|header| header.provenance);
        self.entry.eid().into_iter().chain(origin.map(|origin| origin.eid)).collect()
    }
}

/// What became of a retried entry; its row in quarantine and its entry on record are changed to say so.
#[derive(Clone, Debug)]
pub struct Retried {
    /// Its lane.
    pub lane: LaneKey,
    /// Its position.
    pub seq: Seq,
    /// Merged or known; or quarantined, as before.
    pub outcome: EntryOutcome,
    /// Why it was refused again.
    pub reject: Option<Reject>,
}

/// A refused entry with what is known of its lane.
#[derive(Debug)]
pub(super) struct AdmittedRetry {
    pub(super) lane: LaneKey,
    pub(super) author: Author,
    pub(super) rights: Rights,
    pub(super) entry: AdmittedEntry,
}

pub(super) fn admit(retry: Retry, lanes: &BTreeMap<LaneKey, LaneState>, reads: &mut LaneReads) -> Admission {
    let Retry { lane, seq, rights } = retry;
    // Taken out: the same entry twice in one batch is retried once.
    let (Some(state), Some(kept)) = (lanes.get(&lane), reads.retries.remove(&(lane, seq))) else {
        let why = "the entry is not in quarantine any more: it was retried or dropped meanwhile".to_owned();
        return Admission::Settled(Outcome::Refused(EditError::Refused(why)));
    };
    let entry = AdmittedEntry {
        prepared: Arc::new(prepare_entry(seq, kept.entry, kept.chain)),
        decided: Decided { eff: kept.eff, uncertain: None },
        lane_before: kept.before,
        is_shared: false,
    };
    Admission::Retry(Box::new(AdmittedRetry { lane, author: state.author(&lane), rights, entry }))
}

impl Run<'_> {
    /// Applies a refused entry, or finds why not, once more.
    pub(super) fn retry(&mut self, again: AdmittedRetry) -> Outcome {
        let AdmittedRetry { lane, author, rights, entry } = again;
        let (seq, chain) = (entry.prepared.seq, entry.prepared.chain);
        let mut tallies = author.clone();
        tallies.incarnation = tally_log(lane.device, entry.prepared.eid);
        let (outcome, reject) = self.judge(&lane, (&author, &tallies), &rights, &entry);
        let rejects = reject.iter().cloned().collect();
        self.writes.retried.push(Retried { lane, seq, outcome, reject });
        Outcome::Merged(Merged { acked: seq, chain, eff_first: seq, effs: Vec::new(), rejects, changed: Vec::new() })
    }
}

/// The log under which the increments of a retried entry are counted.
pub(crate) fn tally_log(device: DeviceId, eid: Option<Eid>) -> Incarnation {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mobo retry 1").update(device.as_bytes()).update(eid.unwrap_or(Eid([0; 16])).as_bytes());
    Incarnation::from_entropy(hasher.finalize().as_bytes().first_chunk().copied().unwrap_or([1; 8]))
}
