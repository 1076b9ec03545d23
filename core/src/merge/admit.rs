//! Step 1: which entries of each push are new, and when they were made. The lanes are locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::prepare::{Content, Prepared, PreparedEntry, PreparedPush};
use super::retry::{self, AdmittedRetry, KeptEntry};
use super::time::{Boots, Decided, LaneTime, decide, known};
use super::{Context, LocalWrite, Outcome, Rights};
use crate::engine::Author;
use crate::entry::chain_start;
use crate::ids::{Chain, DeviceId, Eid, LaneKey, Ordinal, ProjectId, RecordKey, Seq};
use crate::message::{Code, RefenceReason};
use crate::schema::Kind;
use crate::time::Eff;

/// A batch at its start.
#[derive(Debug)]
pub struct Merge<'a> {
    context: Context<'a>,
    submissions: Vec<Prepared>,
}

/// What step 1 must read, after locking the lanes in ascending order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LaneWants {
    /// These lanes, locked.
    pub lanes: BTreeSet<LaneKey>,
    /// The entries on record in these ranges; none, unless something is pushed again.
    pub ranges: Vec<(LaneKey, Seq, Seq)>,
    /// Which of these identities were merged before, as an entry's own or as the origin of a re-authored one (rule R15).
    pub origins: BTreeSet<(DeviceId, Eid)>,
    /// These entries, if they are open in quarantine; and which of their identities were merged before ([`KeptEntry::eids`]).
    pub retries: BTreeSet<(LaneKey, Seq)>,
}

/// What step 1 reads.
#[derive(Clone, Debug, Default)]
pub struct LaneReads {
    /// The lanes that exist, or may: [`LaneState::fresh`] for a known incarnation without entries. An unknown incarnation is left out.
    pub lanes: BTreeMap<LaneKey, LaneState>,
    /// Chain and effective time of the entries in the wanted ranges.
    pub known: BTreeMap<(LaneKey, Seq), (Chain, Eff)>,
    /// The wanted origins that are on record.
    pub origins: BTreeSet<(DeviceId, Eid)>,
    /// The boots of the devices of the wanted lanes.
    pub boots: BTreeMap<DeviceId, Boots>,
    /// The wanted entries that are open in quarantine.
    pub retries: BTreeMap<(LaneKey, Seq), KeptEntry>,
}

/// A lane as the store has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaneState {
    /// The last position; `None` before the first entry.
    pub last: Option<Seq>,
    /// The chain there.
    pub chain: Chain,
    /// Its clock.
    pub time: LaneTime,
    /// The hub's number for the incarnation.
    pub ordinal: Ordinal,
    /// The numbers of the incarnations that it continues.
    pub ancestors: BTreeSet<Ordinal>,
    /// True after a refence: this log is closed, but for what a restored hub has lost of it ([`PreparedPush::gives_back`]).
    pub fenced: bool,
}

impl LaneState {
    /// A lane without entries. `eff`: effective time of the parent's fork entry, or of the enrolment.
    #[must_use]
    pub fn fresh(project: ProjectId, key: &LaneKey, ordinal: Ordinal, ancestors: BTreeSet<Ordinal>, eff: Eff) -> Self {
        let time = LaneTime { eff, clock: None };
        Self { last: None, chain: chain_start(project, key), time, ordinal, ancestors, fenced: false }
    }

    pub(super) fn author(&self, key: &LaneKey) -> Author {
        Author { device: key.device, incarnation: key.incarnation, ordinal: self.ordinal, ancestors: self.ancestors.clone() }
    }
}

/// A batch whose entries are known to be new.
#[derive(Debug)]
pub struct Admitted<'a> {
    pub(super) context: Context<'a>,
    pub(super) lanes: BTreeMap<LaneKey, LaneState>,
    pub(super) touched_lanes: BTreeMap<LaneKey, Option<crate::ids::Signature>>,
    pub(super) origins: BTreeSet<(DeviceId, Eid)>,
    pub(super) items: Vec<Admission>,
    pub(super) keys: BTreeSet<RecordKey>,
}

/// One submission after admission.
#[derive(Debug)]
pub(super) enum Admission {
    /// Its outcome is settled.
    Settled(Outcome),
    /// A push with new entries.
    Push(AdmittedPush),
    /// A local write.
    Local(Box<LocalWrite>, Author),
    /// A refused entry.
    Retry(Box<AdmittedRetry>),
}

/// A push with its new entries.
#[derive(Debug)]
pub(super) struct AdmittedPush {
    pub(super) lane: LaneKey,
    pub(super) author: Author,
    pub(super) rights: Rights,
    /// The position of the first of `effs`.
    pub(super) eff_first: Seq,
    /// Effective times of the entries that were known already.
    pub(super) known: Vec<Eff>,
    /// Its own last entry and the chain there: what its ack covers, so that no ack overtakes the rejects of another push.
    pub(super) last: (Seq, Chain),
    pub(super) entries: Vec<AdmittedEntry>,
}

/// A new entry and when it was made.
#[derive(Debug)]
pub(super) struct AdmittedEntry {
    pub(super) prepared: Arc<PreparedEntry>,
    pub(super) decided: Decided,
    /// Effective time of the entry before it.
    pub(super) lane_before: Eff,
    /// True for a write of the hub's own, whose log everybody shares who writes there.
    pub(super) is_shared: bool,
}

impl<'a> Merge<'a> {
    /// A batch of submissions. Those of one lane are in order.
    #[must_use]
    pub fn new(context: Context<'a>, submissions: Vec<Prepared>) -> Self {
        Self { context, submissions }
    }

    /// What must be locked and read first.
    #[must_use]
    pub fn wants(&self) -> LaneWants {
        let mut wants = LaneWants::default();
        for submission in &self.submissions {
            match submission {
                Prepared::Local(write) => {
                    wants.lanes.insert(write.lane);
                }
                Prepared::Retry(retry) => {
                    wants.lanes.insert(retry.lane);
                    wants.retries.insert((retry.lane, retry.seq));
                }
                Prepared::Push(push) => {
                    wants.lanes.insert(push.lane);
                    let last = push.entries.last().map_or(push.first, |entry| entry.seq);
                    wants.ranges.push((push.lane, push.first, last));
                    // An original may come after its re-authored copy: from the image that the copy was made of.
                    let origins = push.entries.iter().filter_map(|entry| entry.header.as_ref()?.provenance);
                    let eids = origins.map(|origin| origin.eid).chain(push.entries.iter().filter_map(|entry| entry.eid));
                    wants.origins.extend(eids.map(|eid| (push.lane.device, eid)));
                }
            }
        }
        wants
    }

    /// Takes what the store read, and settles which entries are new.
    #[must_use]
    pub fn admit(self, mut reads: LaneReads) -> Admitted<'a> {
        let mut lanes = reads.lanes.clone();
        let mut touched_lanes = BTreeMap::new();
        let mut items = Vec::with_capacity(self.submissions.len());
        for submission in self.submissions {
            items.push(match submission {
                Prepared::Local(write) => match lanes.get(&write.lane) {
                    Some(state) => {
                        let author = state.author(&write.lane);
                        Admission::Local(write, author)
                    }
                    None => Admission::Settled(refence(None)),
                },
                Prepared::Retry(again) => retry::admit(*again, &lanes, &mut reads),
                Prepared::Push(push) => {
                    let (key, signature) = (push.lane, push.signature);
                    let admission = admit_push(*push, &mut lanes, &mut reads, self.context.now);
                    if let Admission::Push(_) = admission {
                        let kept = touched_lanes.entry(key).or_insert(None);
                        *kept = signature.or(*kept);
                    }
                    admission
                }
            });
        }
        let mut keys = wanted(&items);
        keys.retain(|key| self.context.schema.get(key.collection).is_some_and(|collection| collection.kind != Kind::Stream));
        Admitted { context: self.context, lanes, touched_lanes, origins: reads.origins, items, keys }
    }
}

fn refence(hub_last: Option<Seq>) -> Outcome {
    Outcome::Refence { hub_last, reason: RefenceReason::Forked }
}

fn admit_push(push: PreparedPush, lanes: &mut BTreeMap<LaneKey, LaneState>, reads: &mut LaneReads, now: Eff) -> Admission {
    let Some(state) = lanes.get_mut(&push.lane) else { return Admission::Settled(refence(None)) };
    // What was acknowledged before a log was closed is no second writer's: a restored hub may have closed it before it had that back.
    if crate::protect!("lane.fenced", state.fenced && !push.gives_back) {
        return Admission::Settled(refence(state.last));
    }
    let expect = Seq::after(state.last);
    if crate::protect!("lane.gap", push.first > expect) {
        return Admission::Settled(Outcome::Nack { expect, code: Code::GAP });
    }
    if crate::protect!("log.forked:push", !continues(&push, state, reads)) {
        return Admission::Settled(refence(state.last));
    }
    let known = push.entries.iter().take_while(|entry| crate::protect!("lane.skip-known", entry.seq < expect));
    let known: Vec<Eff> = known.map(|entry| reads.known.get(&(push.lane, entry.seq)).map_or(state.time.eff, |known| known.1)).collect();
    let author = state.author(&push.lane);
    let empty = Boots::new();
    let boots = reads.boots.get(&push.lane.device).unwrap_or(&empty);
    let mut admitted = AdmittedPush {
        lane: push.lane,
        author,
        rights: push.rights,
        eff_first: push.first,
        entries: Vec::with_capacity(push.entries.len() - known.len()),
        known,
        last: push.entries.last().map_or((push.first, push.prev_chain), |entry| (entry.seq, entry.chain)),
    };
    let nexts = next_known(&push.entries, boots);
    for (prepared, next) in push.entries.into_iter().zip(nexts).skip(admitted.known.len()) {
        let moment = prepared.header.as_ref().map(|header| header.moment);
        let lane_before = state.time.eff;
        let decided = decide(&state.time, moment.as_ref(), boots, prepared.eff, (next, now));
        let clock = moment.map_or(state.time.clock, |moment| Some((moment.boot, moment.mono)));
        state.time = LaneTime { eff: decided.eff, clock };
        state.last = Some(prepared.seq);
        state.chain = prepared.chain;
        // A ghost of this session may push the same again in this very batch.
        reads.known.insert((push.lane, prepared.seq), (prepared.chain, decided.eff));
        admitted.entries.push(AdmittedEntry { prepared, decided, lane_before, is_shared: false });
    }
    Admission::Push(admitted)
}

/// True if the push and the lane agree wherever they overlap: two payloads for one position never both merge (I11).
fn continues(push: &PreparedPush, state: &LaneState, reads: &LaneReads) -> bool {
    if push.first == Seq::after(state.last) {
        return push.prev_chain == state.chain;
    }
    let overlap = push.entries.iter().take_while(|entry| Some(entry.seq) <= state.last);
    overlap.last().is_some_and(|entry| match reads.known.get(&(push.lane, entry.seq)) {
        Some((chain, _)) => *chain == entry.chain,
        // Not in the store yet: pushed earlier in this very batch, or forgotten after the lease. The lane's head decides.
        None => !crate::protect!("log.forked:head", Some(entry.seq) != state.last || entry.chain != state.chain),
    })
}

/// For each entry, the exact time of the nearest later one whose boot is known.
fn next_known(entries: &[Arc<PreparedEntry>], boots: &Boots) -> Vec<Option<Eff>> {
    let mut next = None;
    let mut nexts: Vec<Option<Eff>> = entries
        .iter()
        .rev()
        .map(|entry| {
            let later = next;
            next = entry.header.as_ref().and_then(|header| known(boots, &header.moment)).or(next);
            later
        })
        .collect();
    nexts.reverse();
    nexts
}

impl Admitted<'_> {
    /// The records to lock, ascending, and to read in a later statement. Only such as a collection of the schema can hold.
    #[must_use]
    pub const fn wants(&self) -> &BTreeSet<RecordKey> {
        &self.keys
    }
}

/// The records that the admitted entries name.
fn wanted(items: &[Admission]) -> BTreeSet<RecordKey> {
    let (mut keys, mut own) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Admission::Settled(_) => {}
            Admission::Local(write, _) => {
                own.extend(write.edits().map(|(collection, edit, _)| RecordKey { collection, id: edit.id.clone() }));
            }
            Admission::Push(push) => push.entries.iter().for_each(|entry| named(&entry.prepared, &mut keys)),
            Admission::Retry(again) => named(&again.entry.prepared, &mut keys),
        }
    }
    // Put in order before they are copied: most come in order, and each is copied once.
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().cloned().chain(own).collect()
}

fn named<'p>(prepared: &'p PreparedEntry, keys: &mut Vec<&'p RecordKey>) {
    match &prepared.content {
        Content::Table(ops) => keys.extend(ops.iter().map(|op| &op.key)),
        Content::Document(ops) => keys.extend(ops.iter().map(|op| &op.key)),
        Content::Stream | Content::Lost | Content::Poison(_) => {}
    }
}
