//! Step 2: the entries are applied, in order, each all or nothing. The records are locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::admit::{Admission, Admitted, AdmittedEntry, AdmittedPush, LaneState, wanted};
use super::prepare::{Content, Rights};
use super::time::{Decided, of_op};
use super::{
    ChangeWrite, ConflictWrite, Context, EntryOutcome, EntryWrite, LaneWrite, Merged, Outcome, QuarantineWrite, SampleWrite, Writes,
};
use crate::buckets;
use crate::document::DocumentOp;
use crate::engine::{self, Applying, Author, Refusal, Stamped};
use crate::entry::{Entry, Header, Payload};
use crate::ids::{BucketId, DeviceId, Eid, LaneKey, Position, RecordKey, Seq, StateHash, Ver};
use crate::limits;
use crate::message::{Code, Reject};
use crate::record::{RecordOps, RecordState};
use crate::schema::{Collection, Kind};
use crate::stamp::{Origin, Stamp};
use crate::stream::Segment;
use crate::table::TableOp;
use crate::time::Eff;

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
        run.load(records, &self.items);
        let mut touched_lanes = self.touched_lanes;
        let outcomes = self
            .items
            .into_iter()
            .map(|item| match item {
                Admission::Settled(outcome) => outcome,
                Admission::Push(push) => Outcome::Merged(run.push(push)),
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
    writes: Writes,
}

/// What one entry does to one record.
struct Part<'o> {
    key: &'o RecordKey,
    ops: RecordOps<'o>,
}

impl<'a> Run<'a> {
    fn collection(&self, key: &RecordKey) -> Option<&'a Collection> {
        self.context.schema.get(key.collection)
    }

    fn load(&mut self, mut stored: BTreeMap<RecordKey, Stored>, items: &[Admission]) {
        for key in wanted(items) {
            if self.records.contains_key(&key) || self.corrupt.contains_key(&key) {
                continue;
            }
            let Some(collection) = self.collection(&key) else { continue };
            let found = stored.remove(&key);
            let state = match &found {
                Some(Stored { state: Err(why), .. }) => {
                    self.corrupt.insert(key, why.clone());
                    continue;
                }
                Some(Stored { state: Ok(state), .. }) => Some(state.clone()),
                None => RecordState::empty(collection, &key),
            };
            let Some(state) = state else { continue };
            let ver = Ver(found.as_ref().map_or(0, |stored| stored.ver.0) + 1);
            let buckets = present_keys(found.as_ref());
            self.records.insert(key, Working { stored: found, state, ver, touched: false, buckets });
        }
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
        let AdmittedEntry { prepared, decided, lane_before } = entry;
        let origin = prepared.header.as_ref().and_then(|header| header.provenance).map(|origin| origin.eid);
        let known = crate::protect!(
            "provenance.known",
            origin.into_iter().chain(prepared.eid).any(|eid| self.origins.contains(&(lane.device, eid)))
        );
        let doing = Doing { lane, author, rights, seq: prepared.seq, decided, lane_before, header: prepared.header.as_ref(), known };
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
        let mut undo: Vec<(RecordKey, RecordState, Vec<String>, bool)> = Vec::with_capacity(parts.len());
        let (mut conflicts, mut changes) = (Vec::new(), Vec::new());
        for part in &parts {
            let key = part.key;
            if let Some(working) = self.records.get(key) {
                undo.push((key.clone(), working.state.clone(), working.buckets.clone(), working.touched));
            }
            match self.apply_part(doing, part) {
                Ok((ver, merged)) => {
                    conflicts.extend(merged.conflicts.into_iter().map(|conflict| ConflictWrite { key: key.clone(), ver, conflict }));
                    changes.extend(merged.changes.into_iter().map(|(change, stamp)| ChangeWrite { key: key.clone(), change, stamp }));
                }
                Err(refusal) => {
                    for (key, state, buckets, touched) in undo.into_iter().rev() {
                        if let Some(working) = self.records.get_mut(&key) {
                            (working.state, working.buckets, working.touched) = (state, buckets, touched);
                        }
                    }
                    return Err((Some(key.clone()), refusal));
                }
            }
        }
        self.writes.conflicts.extend(conflicts);
        self.writes.changes.extend(changes);
        Ok(())
    }

    fn apply_part(&mut self, doing: &Doing<'_>, part: &Part<'_>) -> Result<(Ver, engine::Merged), Refusal> {
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
        let blocked = self.blocked.contains(&(key.clone(), origin));
        let timeline = self.context.timeline.short();
        let working = self.records.get_mut(key).ok_or_else(wrong)?;
        if !working.buckets.is_empty() && !doing.rights.allow_any(&working.buckets) {
            return Err(Refusal::new(Code::FORBIDDEN, format!("this device may not write in {}", working.buckets.join(", "))));
        }
        let merged = if doing.known {
            engine::Merged::default()
        } else {
            let applying = Applying {
                author: doing.author,
                seq: doing.seq,
                ver: working.ver,
                uncertain: doing.decided.uncertain,
                same_timeline: doing.header.and_then(|header| header.timeline).is_none_or(|short| short == timeline),
            };
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
        if !doing.rights.allow_any(&buckets) {
            let place = if buckets.is_empty() { "no bucket".to_owned() } else { buckets.join(", ") };
            return Err(Refusal::new(Code::FORBIDDEN, format!("the record would be in {place}, where this device may not write")));
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
        let segment = Segment::decode(payload, collection).map_err(poison)?;
        if !doing.known {
            self.writes.samples.push(SampleWrite { lane: *doing.lane, seq: doing.seq, eff: doing.decided.eff, segment });
        }
        Ok(())
    }
}

/// One author's writes to one collection travel on one lane: otherwise their order, which counters rely on, would not be known.
fn wrong_kind(collection: &Collection) -> Refusal {
    let (kind, lane) = (collection.kind.name(), collection.lane.number());
    Refusal::new(Code::WRONG_KIND, format!("\"{}\" is a {kind}, and its entries travel on lane {lane}", collection.name))
}

/// What is the same for all parts of an entry.
struct Doing<'o> {
    lane: &'o LaneKey,
    author: &'o Author,
    rights: &'o Rights,
    seq: Seq,
    decided: Decided,
    lane_before: Eff,
    header: Option<&'o Header>,
    /// Merged before, under its provenance: its author only waits to see the records delivered.
    known: bool,
}

impl Doing<'_> {
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

fn table_parts<'o>(ops: &'o [TableOp], doing: &Doing<'_>) -> Vec<Part<'o>> {
    let mut by_key: BTreeMap<&RecordKey, Vec<Stamped<'o, TableOp>>> = BTreeMap::new();
    for (index, op) in ops.iter().enumerate() {
        by_key.entry(&op.key).or_default().push(Stamped { op, stamp: doing.stamp(op.before_us, index) });
    }
    by_key.into_iter().map(|(key, ops)| Part { key, ops: RecordOps::Table(ops) }).collect()
}

fn document_parts<'o>(ops: &'o [DocumentOp], doing: &Doing<'_>) -> Vec<Part<'o>> {
    let mut by_key: BTreeMap<&RecordKey, Vec<Stamped<'o, DocumentOp>>> = BTreeMap::new();
    for (index, op) in ops.iter().enumerate() {
        by_key.entry(&op.key).or_default().push(Stamped { op, stamp: doing.stamp(op.before_us, index) });
    }
    by_key.into_iter().map(|(key, ops)| Part { key, ops: RecordOps::Document(ops) }).collect()
}

fn present_keys(stored: Option<&Stored>) -> Vec<String> {
    let memberships = stored.map(|stored| stored.memberships.as_slice()).unwrap_or_default();
    let mut keys: Vec<String> = memberships.iter().filter(|member| member.present).map(|member| member.key.clone()).collect();
    keys.sort_unstable();
    keys
}

/// The buckets of a record now. A hidden record stays where it was, so that those who hold it hear of its end.
fn bucket_keys(collection: &Collection, key: &RecordKey, working: &Working) -> Vec<String> {
    let columns = working.state.project(collection);
    if columns.is_none() && !working.buckets.is_empty() {
        return working.buckets.clone();
    }
    let columns = columns.unwrap_or_default();
    buckets::keys_of(collection, key.id.as_str(), |name| {
        let index = collection.fields.iter().position(|field| field.name == name)?;
        columns.get(index)
    })
}
