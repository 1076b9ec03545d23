//! A hub in memory: the merge's four steps over maps, so that rules can be tried without a database. It keeps no more than the merge asks
//! for, and every read is what a store would have read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::digest::Digest;
use mobo_core::ids::*;
use mobo_core::merge::time::{Boots, LaneTime};
use mobo_core::merge::{
    BucketState, Context, EntryOutcome, KeptEntry, LaneReads, LaneState, LaneWants, Membership, Merge, Outcome, Prepared, RecordWrite,
    Rivals, Stored, Writes,
};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};
use mobo_core::stamp::Origin;
use mobo_core::time::Eff;

pub(crate) const PROJECT: ProjectId = ProjectId::new(1).unwrap();
pub(crate) const TITLE: FieldId = FieldId::new(11).unwrap();
pub(crate) const SITE: FieldId = FieldId::new(12).unwrap();
pub(crate) const HOURS: FieldId = FieldId::new(13).unwrap();
pub(crate) const ORDERS: CollectionId = CollectionId::new(21).unwrap();

/// `orders`: title, site, hours (a counter), in bucket `site:{site}`.
pub(crate) fn schema() -> Schema {
    let field = |id, name: &str, kind| Field { id, name: name.into(), kind, retired: false, references: None };
    let orders = Collection {
        id: ORDERS,
        name: "orders".into(),
        kind: Kind::Table,
        rev: 1,
        fields: vec![
            field(TITLE, "title", FieldType::Text),
            field(SITE, "site", FieldType::Text),
            field(HOURS, "hours", FieldType::Counter),
        ],
        rules: vec!["site:{site}".into()],
        lane: Lane::State,
        store: "default".into(),
    };
    Schema::new(1, [orders])
}

/// What a batch says of memberships beyond first buckets.
type Members = BTreeMap<RecordKey, Vec<(BucketId, Option<(Position, bool)>)>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryHub {
    pub(crate) lanes: BTreeMap<LaneKey, LaneState>,
    pub(crate) entries: BTreeMap<(LaneKey, Seq), (Chain, Eff, u8)>,
    pub(crate) origins: BTreeSet<(DeviceId, Eid)>,
    pub(crate) boots: BTreeMap<DeviceId, Boots>,
    pub(crate) records: BTreeMap<RecordKey, Stored>,
    pub(crate) buckets: BTreeMap<String, BucketState>,
    pub(crate) blocked: BTreeSet<(RecordKey, Origin)>,
    pub(crate) conflicts: usize,
    pub(crate) quarantined: usize,
    pub(crate) kept: BTreeMap<(LaneKey, Seq), KeptEntry>,
    pub(crate) clock: i64,
    pub(crate) recovering: bool,
}

impl MemoryHub {
    /// Lets a device's log in, under the next number.
    pub(crate) fn admit(&mut self, device: DeviceId, incarnation: Incarnation, ordinal: u32) {
        for lane in Lane::ALL {
            let key = LaneKey { device, incarnation, lane };
            let state = LaneState::fresh(PROJECT, &key, Ordinal(ordinal), BTreeSet::new(), Eff(0));
            self.lanes.entry(key).or_insert(state);
        }
    }

    pub(crate) fn merge(&mut self, submissions: Vec<Prepared>) -> Vec<Outcome> {
        let schema = schema();
        self.clock += 1_000;
        let context = Context {
            project: PROJECT,
            schema: &schema,
            timeline: Timeline([7; 16]),
            now: Eff(self.clock),
            entropy: [self.clock as u8; 32],
            recovering: self.recovering,
        };
        let merge = Merge::new(context, submissions);
        let reads = self.read_lanes(&merge.wants());
        let admitted = merge.admit(reads);
        let records = admitted.wants().iter().filter_map(|key| Some((key.clone(), self.records.get(key)?.clone()))).collect();
        let applied = admitted.apply(records, &self.blocked);
        let wants = applied.wants();
        let mut buckets = Vec::new();
        for (key, id) in &wants.keys {
            let fresh = BucketState { id: *id, key: key.clone(), head: Position(0), digest: Digest::default() };
            buckets.push(self.buckets.entry(key.clone()).or_insert(fresh).clone());
        }
        buckets.extend(
            self.buckets.values().filter(|bucket| wants.ids.contains(&bucket.id) && !wants.keys.contains_key(&bucket.key)).cloned(),
        );
        let placed = applied.place(buckets, Rivals::new());
        self.write(placed.writes);
        placed.outcomes
    }

    fn read_lanes(&self, wants: &LaneWants) -> LaneReads {
        let in_range =
            |key: &(LaneKey, Seq)| wants.ranges.iter().any(|(lane, first, last)| key.0 == *lane && (*first..=*last).contains(&key.1));
        let retries: BTreeMap<_, _> = wants.retries.iter().filter_map(|at| Some((*at, self.kept.get(at)?.clone()))).collect();
        let retried: BTreeSet<_> = retries.iter().flat_map(|(at, kept)| kept.eids().into_iter().map(|eid| (at.0.device, eid))).collect();
        LaneReads {
            lanes: wants.lanes.iter().filter_map(|key| Some((*key, self.lanes.get(key)?.clone()))).collect(),
            known: self.entries.iter().filter(|(key, _)| in_range(key)).map(|(key, (chain, eff, _))| (*key, (*chain, *eff))).collect(),
            origins: self.origins.iter().filter(|origin| wants.origins.contains(origin) || retried.contains(origin)).copied().collect(),
            boots: self.boots.clone(),
            retries,
        }
    }

    pub(crate) fn write(&mut self, writes: Writes) {
        for lane in writes.lanes {
            let state = self.lanes.get_mut(&lane.key).unwrap();
            (state.last, state.chain, state.time) = (Some(lane.last), lane.chain, LaneTime { eff: lane.eff, clock: lane.clock });
        }
        for entry in writes.entries {
            let old = self.entries.insert((entry.lane, entry.seq), (entry.chain, entry.eff, entry.outcome.code()));
            assert!(old.is_none(), "I1, I11: one position, one entry");
            if entry.outcome == EntryOutcome::Quarantined {
                let before = Seq::new(entry.seq.get() - 1).map_or(Eff(0), |seq| self.entries[&(entry.lane, seq)].1);
                let kept = KeptEntry { entry: entry.prepared.entry.clone(), chain: entry.chain, eff: entry.eff, before };
                self.kept.insert((entry.lane, entry.seq), kept);
            }
            if matches!(entry.outcome, EntryOutcome::Merged | EntryOutcome::Known) {
                self.origins.extend(entry.eid.into_iter().chain(entry.origin).map(|eid| (entry.lane.device, eid)));
            }
        }
        for again in writes.retried.iter().filter(|again| again.reject.is_none()) {
            let kept = self.kept.remove(&(again.lane, again.seq)).unwrap();
            self.entries.get_mut(&(again.lane, again.seq)).unwrap().2 = again.outcome.code();
            self.origins.extend(kept.eids().into_iter().map(|eid| (again.lane.device, eid)));
        }
        for bucket in writes.buckets {
            self.buckets.insert(bucket.key.clone(), bucket);
        }
        let mut members = Members::new();
        for member in writes.members {
            members.entry(member.key).or_default().push((member.bucket, member.at));
        }
        for record in writes.records {
            self.write_record(record, &members);
        }
        self.conflicts += writes.conflicts.len();
        self.quarantined += writes.quarantine.len();
        for refused in writes.quarantine {
            if let Some((collection, id)) = refused.reject.record {
                let origin = Origin { device: refused.lane.device, incarnation: refused.lane.incarnation };
                self.blocked.insert((RecordKey { collection, id }, origin));
            }
        }
    }

    fn write_record(&mut self, write: RecordWrite, members: &Members) {
        let key_of = |id: BucketId| self.buckets.values().find(|bucket| bucket.id == id).unwrap().key.clone();
        let old = self.records.get(&write.key).map(|stored| stored.memberships.clone()).unwrap_or_default();
        let mut now: BTreeMap<BucketId, (Position, bool)> =
            old.iter().map(|member| (member.bucket, (member.position, member.present))).collect();
        for (bucket, at) in members.get(&write.key).into_iter().flatten() {
            match at {
                Some(at) => now.insert(*bucket, *at),
                None => now.remove(bucket),
            };
        }
        if let Some((bucket, position)) = write.home {
            now.insert(bucket, (position, true));
        }
        let memberships =
            now.into_iter().map(|(bucket, (position, present))| Membership { bucket, key: key_of(bucket), position, present }).collect();
        let visible = write.columns.is_some();
        let stored = Stored { state: Ok(write.state), ver: write.ver, visible, state_hash: write.state_hash, memberships };
        self.records.insert(write.key, stored);
    }

    /// R28 and R29: positions are used once each without gaps, and the digest is the sum over present records.
    pub(crate) fn check(&self) {
        for bucket in self.buckets.values() {
            let mut digest = Digest::default();
            let mut positions = BTreeSet::new();
            for (key, stored) in &self.records {
                for member in stored.memberships.iter().filter(|member| member.bucket == bucket.id) {
                    assert!(positions.insert(member.position), "position {:?} used twice in {}", member.position, bucket.key);
                    assert!(member.position <= bucket.head);
                    if member.present {
                        let Ok(state) = &stored.state else { panic!("damaged") };
                        digest = digest.plus(Digest::of(key, state.state_hash()));
                    }
                }
            }
            assert_eq!(digest, bucket.digest, "digest of {}", bucket.key);
        }
        for (key, lane) in &self.lanes {
            let entries = self.entries.range((*key, Seq::FIRST)..=(*key, Seq::new(i64::MAX as u64).unwrap())).count() as u64;
            assert_eq!(entries, lane.last.map_or(0, Seq::get), "I1: entries of {key:?}");
        }
    }

    /// What a reader sees: title, site and hours of each visible record, by id.
    pub(crate) fn rows(&self) -> BTreeMap<String, String> {
        let schema = schema();
        let show = |stored: &Stored| {
            let Ok(RecordState::Table(state)) = &stored.state else { return None };
            let columns = RecordState::Table(state.clone()).project(schema.get(ORDERS).unwrap())?;
            Some(columns.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" "))
        };
        self.records.iter().filter_map(|(key, stored)| Some((key.id.to_string(), show(stored)?))).collect()
    }
}
