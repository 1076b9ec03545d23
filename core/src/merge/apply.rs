//! Step 2: the entries are applied, in order, each all or nothing. The records are locked.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::admit::{Admission, Admitted, AdmittedEntry, AdmittedPush, LaneState};
use super::parts::{Doing, Part, document_parts, table_parts, wrong_kind};
use super::place::{bucket_keys, present_keys};
use super::prepare::Content;
use super::{
    Change, ChangeWrite, ConflictWrite, Context, EntryOutcome, EntryWrite, LaneWrite, Merged, Outcome, QuarantineWrite, Rights,
    SampleWrite, Writes,
};
use crate::engine::{self, Applying, Author, Refusal};
use crate::entry::{Entry, Payload, Provenance};
use crate::ids::{BucketId, DeviceId, Eid, LaneKey, Position, RecordKey, Seq, StateHash, Ver};
use crate::limits;
use crate::message::{Code, Reject};
use crate::record::RecordState;
use crate::schema::{Collection, Kind};
use crate::stamp::Origin;
use crate::stream::{Loss, Segment};
use crate::table::again::Again;

/// A record as the store has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its state, or what is wrong with its row: it does not fit its own hash.
    pub state: Result<RecordState, String>,
    /// Its version.
    pub ver: Ver,
    /// True if its row is in its collection's table.
    pub visible: bool,
    /// The hash that its buckets' digests hold.
    pub state_hash: StateHash,
    /// The buckets that it is in, or has left.
    pub memberships: Vec<Membership>,
}

/// A record's place in a bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Membership {
    /// The bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: String,
    /// The record's position there.
    pub position: Position,
    /// False: it has left.
    pub present: bool,
}

/// A batch whose entries are applied in memory.
#[derive(Debug)]
pub struct Applied<'a> {
    pub(super) context: Context<'a>,
    pub(super) records: BTreeMap<RecordKey, Working>,
    pub(super) writes: Writes,
    pub(super) outcomes: Vec<Outcome>,
}

/// A record while the batch is applied.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) stored: Option<Stored>,
    pub(super) state: RecordState,
    pub(super) ver: Ver,
    /// True once an entry was applied to it, even one that changed nothing: its author waits to see it delivered.
    pub(super) touched: bool,
    /// The keys of its buckets now.
    pub(super) buckets: Vec<String>,
}

impl<'a> Admitted<'a> {
    /// Applies the entries to the records that the store read; `blocked` names the authors of documents with a refused change.
    #[must_use]
    pub fn apply(self, records: BTreeMap<RecordKey, Stored>, blocked: &BTreeSet<(RecordKey, Origin)>) -> Applied<'a> {
        let mut run = Run {
            context: self.context,
            records: BTreeMap::new(),
            corrupt: BTreeMap::new(),
            blocked: blocked.clone(),
            origins: self.origins,
            lanes: self.lanes,
            writes: Writes::default(),
        };
        run.load(records, self.keys);
        let mut touched_lanes = self.touched_lanes;
        let outcomes = self
            .items
            .into_iter()
            .map(|item| match item {
                Admission::Settled(outcome) => outcome,
                Admission::Push(push) => Outcome::Merged(run.push(push)),
                Admission::Retry(again) => run.retry(*again),
                Admission::Local(write, author) => {
                    let lane = write.lane;
                    let outcome = run.local(*write, &author);
                    if matches!(&outcome, Outcome::Merged(merged) if !merged.effs.is_empty()) {
                        touched_lanes.insert(lane, None);
                    }
                    outcome
                }
            })
            .collect();
        for (key, signature) in touched_lanes {
            run.writes.lanes.extend(run.lanes.get(&key).and_then(|state| lane_write(key, state, signature)));
        }
        Applied { context: run.context, records: run.records, writes: run.writes, outcomes }
    }
}

fn lane_write(key: LaneKey, state: &LaneState, signature: Option<crate::ids::Signature>) -> Option<LaneWrite> {
    Some(LaneWrite { key, last: state.last?, chain: state.chain, eff: state.time.eff, clock: state.time.clock, signature })
}

pub(super) struct Run<'a> {
    pub(super) context: Context<'a>,
    pub(super) records: BTreeMap<RecordKey, Working>,
    pub(super) corrupt: BTreeMap<RecordKey, String>,
    blocked: BTreeSet<(RecordKey, Origin)>,
    origins: BTreeSet<(DeviceId, Eid)>,
    pub(super) lanes: BTreeMap<LaneKey, LaneState>,
    pub(super) writes: Writes,
}

/// A record as it was before an entry: its state, its buckets, and whether it was touched.
type Undo<'o> = (&'o RecordKey, RecordState, Vec<String>, bool);

impl<'a> Run<'a> {
    fn collection(&self, key: &RecordKey) -> Option<&'a Collection> {
        self.context.schema.get(key.collection)
    }

    fn load(&mut self, mut stored: BTreeMap<RecordKey, Stored>, keys: BTreeSet<RecordKey>) {
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(collection) = self.collection(&key) else { continue };
            let mut found = stored.remove(&key);
            // What is left of it says where the record was; its state is what is worked on.
            let state = match found.as_mut().map(|stored| std::mem::replace(&mut stored.state, Err(String::new()))) {
                Some(Err(why)) => {
                    self.corrupt.insert(key, why);
                    continue;
                }
                Some(Ok(state)) => Some(state),
                None => RecordState::empty(collection, &key),
            };
            let Some(state) = state else { continue };
            let ver = Ver(found.as_ref().map_or(0, |stored| stored.ver.0) + 1);
            let buckets = present_keys(found.as_ref());
            records.push((key, Working { stored: found, state, ver, touched: false, buckets }));
        }
        self.records = records.into_iter().collect();
    }

    fn push(&mut self, push: AdmittedPush) -> Merged {
        let mut merged = Merged {
            acked: push.last.0,
            chain: push.last.1,
            eff_first: push.eff_first,
            effs: push.known,
            rejects: Vec::new(),
            changed: Vec::new(),
        };
        for entry in push.entries {
            merged.effs.push(entry.decided.eff);
            merged.rejects.extend(self.entry(&push.lane, &push.author, &push.rights, entry));
        }
        merged
    }

    /// Applies one entry; what it is refused for is kept, and its position is used all the same.
    pub(super) fn entry(&mut self, lane: &LaneKey, author: &Author, rights: &Rights, entry: AdmittedEntry) -> Option<Reject> {
        // Most entries add to no counter, and a name costs a hash.
        let adds = matches!(&entry.prepared.content, Content::Table(ops) if ops.iter().any(|op| !op.deltas.is_empty()));
        let life = entry.prepared.header.as_ref().filter(|header| adds && header.life.is_some());
        let counting = life.map(|header| Author { incarnation: header.counts_under(lane.device, lane.incarnation), ..author.clone() });
        let (outcome, reject) = self.judge(lane, (author, counting.as_ref().unwrap_or(author)), rights, &entry);
        let AdmittedEntry { prepared, decided, .. } = entry;
        let origin = prepared.header.as_ref().and_then(|header| header.provenance).map(|origin| origin.eid);
        if let (Some(reject), EntryOutcome::Quarantined) = (&reject, outcome) {
            let prepared = Arc::clone(&prepared);
            self.writes.quarantine.push(QuarantineWrite { lane: *lane, reject: reject.clone(), prepared });
        }
        self.writes.entries.push(EntryWrite {
            lane: *lane,
            seq: prepared.seq,
            eid: prepared.eid,
            origin,
            chain: prepared.chain,
            eff: decided.eff,
            outcome,
            prepared,
        });
        reject
    }

    /// Applies one entry to the records that it names, all of it or nothing; `tallies` is the log that its increments are counted under.
    pub(super) fn judge(
        &mut self,
        lane: &LaneKey,
        (author, tallies): (&Author, &Author),
        rights: &Rights,
        entry: &AdmittedEntry,
    ) -> (EntryOutcome, Option<Reject>) {
        let AdmittedEntry { prepared, decided, lane_before, is_shared } = entry;
        let origin = prepared.header.as_ref().and_then(|header| header.provenance).map(|origin| origin.eid);
        let known = crate::protect!(
            "provenance.known",
            origin.into_iter().chain(prepared.eid).any(|eid| self.origins.contains(&(lane.device, eid)))
        );
        let provenance = prepared.header.as_ref().and_then(|header| header.provenance);
        let first = provenance.map(|origin| Provenance { sole: crate::protect!("provenance.sole", origin.sole), ..origin });
        let doing = Doing {
            lane,
            author,
            tallies,
            again: first.map(|origin| Again::of(author, &origin)),
            apart: (prepared.eid, OnceCell::new()),
            rights,
            seq: prepared.seq,
            decided: *decided,
            lane_before: *lane_before,
            is_shared: *is_shared,
            header: prepared.header.as_ref(),
            known,
        };
        let result = match &prepared.content {
            Content::Table(ops) => self.apply_parts(&doing, table_parts(ops, &doing)),
            Content::Document(ops) => self.apply_parts(&doing, document_parts(ops, &doing)),
            Content::Stream => self.append(&doing, &prepared.entry),
            Content::Lost => Err((None, Refusal::new(Code::LOST, "the device dropped the payload under its storage quota"))),
            Content::Poison(refusal) => Err((None, refusal.clone())),
        };
        let outcome = match (&prepared.content, &result) {
            (Content::Lost, _) => EntryOutcome::Lost,
            (_, Err(_)) => EntryOutcome::Quarantined,
            (_, Ok(())) if known => EntryOutcome::Known,
            (_, Ok(())) => EntryOutcome::Merged,
        };
        if result.is_ok() {
            self.origins.extend(prepared.eid.into_iter().chain(origin).map(|eid| (lane.device, eid)));
        }
        let reject = result.err().map(|(record, refusal)| self.reject(lane, prepared.seq, record, refusal));
        (outcome, reject)
    }

    fn reject(&mut self, lane: &LaneKey, seq: Seq, record: Option<RecordKey>, refusal: Refusal) -> Reject {
        let hub_ver = record.as_ref().and_then(|key| self.records.get(key)).and_then(|working| working.stored.as_ref());
        let reject = Reject {
            lane: lane.lane,
            incarnation: lane.incarnation,
            seq,
            code: refusal.code,
            detail: refusal.detail,
            hub_ver: hub_ver.map_or(Ver(0), |stored| stored.ver),
            record: record.as_ref().map(|key| (key.collection, key.id.clone())),
        };
        if let Some(key) = record {
            self.blocked.insert((key, Origin { device: lane.device, incarnation: lane.incarnation }));
        }
        reject
    }

    /// All parts of an entry, or none of them.
    fn apply_parts(&mut self, doing: &Doing<'_>, parts: Vec<Part<'_>>) -> Result<(), (Option<RecordKey>, Refusal)> {
        let mut undo: Vec<Undo<'_>> = Vec::with_capacity(parts.len());
        let (mut conflicts, mut changes, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for part in &parts {
            let key = part.key;
            match self.apply_part(doing, part, &mut undo) {
                Ok((ver, merged)) => {
                    conflicts.extend(merged.conflicts.into_iter().map(|conflict| ConflictWrite { key: key.clone(), ver, conflict }));
                    changes.extend(merged.changes.into_iter().map(|(change, stamp)| ChangeWrite { key: key.clone(), change, stamp }));
                    if doing.is_of(self.context.timeline) {
                        settled.extend(part.settled());
                    }
                }
                Err(refusal) => {
                    for (key, state, buckets, touched) in undo.into_iter().rev() {
                        if let Some(working) = self.records.get_mut(key) {
                            (working.state, working.buckets, working.touched) = (state, buckets, touched);
                        }
                    }
                    return Err((Some(key.clone()), refusal));
                }
            }
        }
        self.writes.conflicts.extend(conflicts);
        self.writes.changes.extend(changes);
        self.writes.settled.extend(settled);
        Ok(())
    }

    fn apply_part<'o>(&mut self, doing: &Doing<'_>, part: &Part<'o>, undo: &mut Vec<Undo<'o>>) -> Result<(Ver, engine::Merged), Refusal> {
        let key = part.key;
        if let Some(why) = self.corrupt.get(key) {
            return Err(Refusal::new(Code::CORRUPT_RECORD, format!("the stored record is damaged: {why}; run `mobo-hub health check`")));
        }
        let unknown = || Refusal::new(Code::UNKNOWN_COLLECTION, format!("no collection has the id {}", key.collection));
        let collection = self.collection(key).ok_or_else(unknown)?;
        let wrong = || wrong_kind(collection);
        if collection.lane != doing.lane.lane {
            return Err(wrong());
        }
        let origin = doing.author.origin();
        let blocked = !self.blocked.is_empty() && self.blocked.contains(&(key.clone(), origin));
        let same_timeline = doing.is_of(self.context.timeline);
        let recovering = self.context.recovering || doing.rights.owes_offers();
        let working = self.records.get_mut(key).ok_or_else(wrong)?;
        undo.push((key, working.state.clone(), working.buckets.clone(), working.touched));
        // Of a record that nobody has written yet, or of which a restored hub has only what came after, there is nothing that somebody may see.
        let is_nobodys = |working: &Working| working.buckets.is_empty() && !working.state.is_visible(collection);
        let before = ((working.stored.is_some() || working.touched) && !is_nobodys(working)).then(|| working.buckets.clone());
        if let Some(before) = &before {
            // First of all, so that a refusal tells nothing about what the record holds.
            let unmoved = Change { before: Some(before), after: before };
            if let Some(why) = doing.rights.refuse(unmoved, doing.decided.eff).filter(|_| crate::protect!("rights.judged:before", true)) {
                return Err(Refusal::new(Code::FORBIDDEN, why));
            }
        }
        let merged = if doing.known {
            engine::Merged::default()
        } else {
            let (author, seq) = doing.counts(&working.state, &part.ops);
            let applying =
                Applying { author, seq, ver: working.ver, uncertain: doing.decided.uncertain, same_timeline, is_shared: doing.is_shared };
            working.state.apply(collection, &part.ops, &applying).map_err(|refusal| match refusal.code {
                Code::MISSING_DEPENDENCY | Code::BAD_CHANGE if blocked => {
                    Refusal::new(Code::BLOCKED, format!("an earlier change of this author was refused: {}", refusal.detail))
                }
                _ => refusal,
            })?
        };
        if working.state.bytes() > limits::ROW_STATE_BYTES_MAX {
            let detail = format!("the record would take more than {} KiB: split it into several", limits::ROW_STATE_BYTES_MAX / 1024);
            return Err(Refusal::new(Code::TOO_LARGE, detail));
        }
        let buckets = bucket_keys(collection, key, working);
        // What makes the record comes later, from another device or in this one's offers: by then this must have been merged, or a deletion would
        // be undone.
        let comes_first = recovering && before.is_none() && buckets.is_empty() && is_nobodys(working) && doing.rights.reach(collection);
        let change = Change { before: before.as_deref(), after: &buckets };
        let refused = doing.rights.refuse(change, doing.decided.eff).filter(|_| crate::protect!("rights.judged:after", true));
        if let Some(why) = refused.filter(|_| !crate::protect!("recovery.comes-first", comes_first)) {
            return Err(Refusal::new(Code::FORBIDDEN, why));
        }
        working.buckets = buckets;
        working.touched = true;
        Ok((working.ver, merged))
    }

    fn append(&mut self, doing: &Doing<'_>, entry: &Entry) -> Result<(), (Option<RecordKey>, Refusal)> {
        let Payload::Present(payload) = &entry.payload else { return Ok(()) };
        let poison = |error| (None, Refusal::new(Code::BAD_PAYLOAD, format!("samples: {error}")));
        let id = crate::stream::peek_collection(payload).map_err(poison)?;
        let collection = self
            .context
            .schema
            .get(id)
            .ok_or_else(|| (None, Refusal::new(Code::UNKNOWN_COLLECTION, format!("no collection has the id {id}"))))?;
        if collection.kind != Kind::Stream || collection.lane != doing.lane.lane {
            return Err((None, wrong_kind(collection)));
        }
        if let Some(loss) = Loss::decode(payload).map_err(poison)? {
            // It is for the operator to know, and to say so.
            return Err((None, Refusal::new(Code::LOST, loss.sentence(&collection.name, doing.decided.eff))));
        }
        let segment = Segment::decode(payload, collection).map_err(poison)?;
        if !doing.known {
            self.writes.samples.push(SampleWrite { lane: *doing.lane, seq: doing.seq, eff: doing.decided.eff, segment });
        }
        Ok(())
    }
}
