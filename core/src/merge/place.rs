//! Step 3: every touched record gets its next position in each of its buckets (rules R28, R29). The buckets are locked, last of all.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applied, Membership, Stored, Working};
use super::{ConflictWrite, Hint, MemberWrite, Outcome, Place, RecordWrite, Writes};
use crate::buckets;
use crate::digest::Digest;
use crate::document::{ChangeId, conflict};
use crate::ids::{BucketId, Position, RecordKey, StateHash};
use crate::record::RecordState;
use crate::schema::Collection;
use crate::stamp::Stamp;

/// The buckets that step 3 needs, locked in ascending order of their ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BucketWants {
    /// These keys; a key without a bucket gets one under the id given here.
    pub keys: BTreeMap<String, BucketId>,
    /// And these ids: buckets that records may leave.
    pub ids: BTreeSet<BucketId>,
    /// Besides, without a lock of their own, the stamps of these changes of locked documents, as far as they are known.
    pub rivals: BTreeSet<(RecordKey, ChangeId)>,
}

/// The stamps of changes that were merged earlier. One that is not here was merged before stamps were kept, or joined from an offer.
pub type Rivals = BTreeMap<(RecordKey, ChangeId), Stamp>;

/// A bucket, read after it was locked; or as it is to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BucketState {
    /// Its id.
    pub id: BucketId,
    /// Its key.
    pub key: String,
    /// Positions used.
    pub head: Position,
    /// The digest over its records.
    pub digest: Digest,
}

/// A batch that is ready to be written.
#[derive(Debug)]
pub struct Placed {
    /// What to write.
    pub writes: Writes,
    /// What became of each submission.
    pub outcomes: Vec<Outcome>,
    /// What changed, for sessions and subscribers: told after the commit, never inside the transaction.
    pub hints: Vec<Hint>,
}

impl<'a> Applied<'a> {
    /// The buckets to lock, and then to read in a statement of its own.
    #[must_use]
    pub fn wants(&self) -> BucketWants {
        let mut wants = BucketWants::default();
        for working in self.records.values().filter(|working| working.touched) {
            for key in &working.buckets {
                let seed = (self.context.entropy, key);
                wants.keys.entry(key.clone()).or_insert_with(|| fresh_id(seed));
            }
            wants.ids.extend(members(working).iter().map(|member| member.bucket));
        }
        wants.rivals = rivals(&self.writes.conflicts);
        if !wants.rivals.is_empty() {
            let own: BTreeSet<_> = self.writes.changes.iter().map(|own| (own.key.clone(), own.change)).collect();
            wants.rivals.retain(|rival| !own.contains(rival));
        }
        wants
    }

    /// True if nothing needs to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.entries.is_empty() && self.writes.retried.is_empty() && self.touched() == 0
    }

    /// Assigns positions and digests, and gives rivals their stamps.
    #[must_use]
    pub fn place(self, buckets: Vec<BucketState>, rivals: Rivals) -> Placed {
        let mut by_id: BTreeMap<BucketId, BucketState> = buckets.into_iter().map(|bucket| (bucket.id, bucket)).collect();
        let ids: BTreeMap<String, BucketId> = by_id.values().map(|bucket| (bucket.key.clone(), bucket.id)).collect();
        let mut writes = self.writes;
        name_rivals(&mut writes, rivals);
        let mut used = BTreeSet::new();
        for (key, working) in self.records {
            if !working.touched {
                continue;
            }
            let state_hash = working.state.state_hash();
            let now: BTreeSet<BucketId> = working.buckets.iter().filter_map(|key| ids.get(key).copied()).collect();
            let mut placing = Placing { key: &key, buckets: &mut by_id, used: &mut used, members: &mut writes.members };
            let home = placing.place(&working, &now, state_hash);
            let Some(collection) = self.context.schema.get(key.collection) else { continue };
            writes.records.push(RecordWrite {
                before: match &working.stored {
                    None => Place::Absent,
                    Some(stored) if stored.visible => Place::Visible,
                    Some(_) => Place::Hidden,
                },
                columns: working.state.project(collection),
                state: working.state,
                state_hash,
                ver: working.ver,
                home,
                key,
            });
        }
        writes.buckets = by_id.into_values().filter(|bucket| used.contains(&bucket.id)).collect();
        let hint = |bucket: &BucketState| Hint { bucket: bucket.id, head: bucket.head, digest: bucket.digest };
        Placed { hints: writes.buckets.iter().map(hint).collect(), writes, outcomes: self.outcomes }
    }
}

fn members(working: &Working) -> &[Membership] {
    working.stored.as_ref().map(|stored| stored.memberships.as_slice()).unwrap_or_default()
}

struct Placing<'p> {
    key: &'p RecordKey,
    buckets: &'p mut BTreeMap<BucketId, BucketState>,
    used: &'p mut BTreeSet<BucketId>,
    members: &'p mut Vec<MemberWrite>,
}

impl Placing<'_> {
    /// Places a record in the buckets that it is in `now`, and out of those that it has left. The first by id is its home.
    fn place(&mut self, working: &Working, now: &BTreeSet<BucketId>, state_hash: StateHash) -> Option<(BucketId, Position)> {
        let old = working.stored.as_ref().map(|stored| Digest::of(self.key, stored.state_hash));
        let new = Digest::of(self.key, state_hash);
        let was: BTreeMap<BucketId, &Membership> = members(working).iter().map(|member| (member.bucket, member)).collect();
        let home = now.first().copied();
        let mut home_position = None;
        for bucket in now {
            let taken = was.get(bucket).filter(|member| member.present).and(old);
            let Some(position) = self.next(*bucket, taken, Some(new)) else { continue };
            if Some(*bucket) == home {
                home_position = Some((*bucket, position));
                if was.contains_key(bucket) {
                    self.members.push(MemberWrite { bucket: *bucket, key: self.key.clone(), at: None });
                }
            } else {
                self.members.push(MemberWrite { bucket: *bucket, key: self.key.clone(), at: Some((position, true)) });
            }
        }
        for (bucket, member) in was {
            if crate::protect!("leave.told", member.present)
                && !now.contains(&bucket)
                && let Some(position) = self.next(bucket, old, None)
            {
                self.members.push(MemberWrite { bucket, key: self.key.clone(), at: Some((position, false)) });
            }
        }
        home_position
    }

    fn next(&mut self, bucket: BucketId, old: Option<Digest>, new: Option<Digest>) -> Option<Position> {
        let state = self.buckets.get_mut(&bucket)?;
        state.head = Position(state.head.0 + u64::from(crate::protect!("bucket.next-position", true)));
        if let Some(old) = old.filter(|_| crate::protect!("bucket.digest-old", true)) {
            state.digest = state.digest.minus(old);
        }
        if let Some(new) = new.filter(|_| crate::protect!("bucket.digest-new", true)) {
            state.digest = state.digest.plus(new);
        }
        self.used.insert(bucket);
        Some(state.head)
    }
}

/// The sides of conflicts that are known by their change only.
fn rivals(conflicts: &[ConflictWrite]) -> BTreeSet<(RecordKey, ChangeId)> {
    let sides = conflicts.iter().flat_map(|write| [&write.conflict.loser, &write.conflict.winner].map(|stamp| (&write.key, stamp)));
    sides.filter_map(|(key, stamp)| Some((key.clone(), conflict::rival(stamp)?))).collect()
}

/// A write has one stamp on the ledger, whichever of two rivals was merged first (rule R12).
fn name_rivals(writes: &mut Writes, mut known: Rivals) {
    if rivals(&writes.conflicts).is_empty() {
        return;
    }
    known.extend(writes.changes.iter().map(|own| ((own.key.clone(), own.change), own.stamp)));
    for ConflictWrite { key, conflict, .. } in &mut writes.conflicts {
        for stamp in [&mut conflict.loser, &mut conflict.winner] {
            let found = conflict::rival(stamp).and_then(|change| known.get(&(key.clone(), change)));
            *stamp = found.copied().unwrap_or(*stamp);
        }
    }
}

fn fresh_id((entropy, key): ([u8; 32], &String)) -> BucketId {
    let hash = blake3::keyed_hash(&entropy, key.as_bytes());
    BucketId::from_entropy(hash.as_bytes().first_chunk().copied().unwrap_or([1; 8]))
}

pub(super) fn present_keys(stored: Option<&Stored>) -> Vec<String> {
    let memberships = stored.map(|stored| stored.memberships.as_slice()).unwrap_or_default();
    let mut keys: Vec<String> = memberships.iter().filter(|member| member.present).map(|member| member.key.clone()).collect();
    keys.sort_unstable();
    keys
}

/// The buckets of a record now. A hidden record stays where it was, so that those who hold it hear of its end.
pub(super) fn bucket_keys(collection: &Collection, key: &RecordKey, working: &Working) -> Vec<String> {
    if let RecordState::Table(row) = &working.state {
        let visible = row.is_visible();
        if !visible && !working.buckets.is_empty() {
            return working.buckets.clone();
        }
        // Its columns need not be copied for that.
        return buckets::keys_of(collection, key.id.as_str(), |name| {
            let field = collection.fields.iter().find(|field| field.name == name).filter(|_| visible)?;
            Some(row.value(field.id))
        });
    }
    let columns = working.state.project(collection);
    if columns.is_none() && !working.buckets.is_empty() {
        return working.buckets.clone();
    }
    buckets::keys_in(collection, key, &columns.unwrap_or_default())
}
