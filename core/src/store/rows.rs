//! What a hub's store is told, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ConflictRow;
use crate::digest::Digest;
use crate::ids::{
    BootId, BucketId, CollectionId, DeviceId, Incarnation, Lane, LaneKey, Ordinal, Position, ProjectId, PublicKey, RecordKey, Seq,
    StateHash, Timeline, Ver,
};
use crate::merge::{Hint, Outcome, Prepared};
use crate::message::{LaneStatus, Parent, TimelineInfo};
use crate::schema::Schema;
use crate::time::Eff;

/// What kind of store this is, for POST and `status`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreInfo {
    /// `sqlite` or `postgres`.
    pub kind: &'static str,
    /// The engine's version.
    pub version: String,
    /// Where it is, without secrets.
    pub place: String,
}

/// The hub as its store knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubRow {
    /// The hub's public key. A store belongs to one hub identity.
    pub key: PublicKey,
    /// The incarnation of the hub's own log.
    pub incarnation: Incarnation,
    /// Its history.
    pub timeline: TimelineInfo,
    /// The hub's time up to which it may go without asking the store (rule R6).
    pub time: Eff,
}

/// A device as the hub knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceRow {
    /// Its id.
    pub id: DeviceId,
    /// Its key.
    pub key: PublicKey,
    /// Its label.
    pub name: String,
    /// Its certificate, as issued.
    pub certificate: Vec<u8>,
    /// When it was enrolled.
    pub enrolled: Eff,
    /// When it was revoked.
    pub revoked: Option<Eff>,
    /// When it last said hello.
    pub seen: Option<Eff>,
    /// Keys of the buckets that it was granted, and whether it may write there; by key.
    pub grants: Vec<(String, bool)>,
    /// Names and values of its claims, which the rules of collections give it buckets by; in order, each once.
    pub claims: Vec<(String, String)>,
    /// Keys of the buckets that were taken away, also from its claims, and up to when what it has made there is still taken; by key.
    pub ended: Vec<(String, Eff)>,
}

/// An invitation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invite {
    /// blake3 of the secret: the secret itself is not kept.
    pub secret_hash: [u8; 32],
    /// The device's label; empty lets the device propose one.
    pub name: String,
    /// The buckets that the device gets.
    pub buckets: Vec<String>,
    /// The claims that the device gets.
    pub claims: Vec<(String, String)>,
    /// When it ends.
    pub expires: Eff,
}

/// What became of an invitation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InviteState {
    /// It is good.
    Open(Invite),
    /// It was used, by this device.
    Used(DeviceId),
    /// Its time is over.
    Expired,
    /// There is none.
    Unknown,
}

/// A device that says hello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The device.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
    /// The log that it continues.
    pub parent: Option<Parent>,
    /// The number that a hub gave its incarnation earlier: taken back if it is free.
    pub ordinal: Option<Ordinal>,
    /// Its boot, and the hub's time minus its mono: kept if smaller than what is known (a slow network only makes it larger). `None` where
    /// nothing is known of it: the hello was carried.
    pub boot: Option<(BootId, i64)>,
    /// The hub's time.
    pub now: Eff,
    /// The last session generation that it has seen.
    pub session: u64,
}

/// The hub's record of a device's logs, at a hello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admission {
    /// The number of its incarnation.
    pub ordinal: Ordinal,
    /// True if this log is closed by an earlier refence.
    pub fenced: bool,
    /// The generation of the new session: one more than the last.
    pub session: u64,
    /// The highest generation that the device has ever shown.
    pub confirmed: u64,
    /// Its lanes.
    pub lanes: Vec<LaneStatus>,
}

/// An API key as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiKeyRow {
    /// Its id.
    pub id: u64,
    /// Its label.
    pub name: String,
    /// What may be shown of it.
    pub prefix: String,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// The name of its role.
    pub role: String,
    /// Parts of the role to which it is held, as [`Scope::to_text`](crate::rights::Scope::to_text) writes them; empty for all of it.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Eff,
    /// When it ends.
    pub expires: Option<Eff>,
    /// When it was revoked.
    pub revoked: Option<Eff>,
}

/// A batch to merge.
#[derive(Clone, Debug)]
pub struct MergeBatch {
    /// The project.
    pub project: ProjectId,
    /// Its collections.
    pub schema: Arc<Schema>,
    /// The hub's history.
    pub timeline: Timeline,
    /// The hub's time.
    pub now: Eff,
    /// Random bytes.
    pub entropy: [u8; 32],
    /// True while devices give back what the hub has lost (rule R18).
    pub recovering: bool,
    /// The submissions; those of one lane in order.
    pub submissions: Vec<Prepared>,
}

/// What became of a batch, once committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeReport {
    /// For each submission, in order.
    pub outcomes: Vec<Outcome>,
    /// Buckets that changed.
    pub hints: Vec<Hint>,
    /// Decisions that went into the ledger, by collection.
    pub conflicts: BTreeMap<CollectionId, u64>,
}

impl MergeReport {
    /// What two merges did, the second of which, this one, answers.
    #[must_use]
    pub fn behind(mut self, before: Self) -> Self {
        told_before(&mut self.hints, before.hints);
        for (collection, conflicts) in before.conflicts {
            *self.conflicts.entry(collection).or_default() += conflicts;
        }
        self
    }
}

/// Adds what an earlier commit has changed, where a later one does not say more.
pub fn told_before(hints: &mut Vec<Hint>, before: Vec<Hint>) {
    let told: BTreeSet<_> = hints.iter().map(|hint| hint.bucket).collect();
    hints.extend(before.into_iter().filter(|hint| !told.contains(&hint.bucket)));
}

/// Connections to a database, for metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connections {
    /// Those that wait for work.
    pub idle: u32,
    /// Those at work.
    pub used: u32,
    /// The most that there may be.
    pub max: u32,
}

/// A request for what changed in some buckets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PullRequest {
    /// The project.
    pub project: ProjectId,
    /// Whose lanes `own_merged` reports.
    pub device: DeviceId,
    /// Buckets and cursors.
    pub wants: Vec<(BucketId, Position)>,
    /// At most so many records in all.
    pub items_max: usize,
    /// At most so many bytes of states in all, but at least one record.
    pub bytes_max: usize,
}

/// The answer to a pull: everything in it was read in one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct PullPage {
    /// One for each wanted bucket that exists, in the order of the request; empty ones included.
    pub buckets: Vec<BucketPage>,
    /// How far the device's lanes are merged: at most [`OWN_MERGED_MAX`](crate::limits::OWN_MERGED_MAX), those of its youngest logs first.
    pub own_merged: Vec<(Lane, Incarnation, Seq)>,
}

/// What changed in one bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketPage {
    /// The bucket.
    pub bucket: BucketId,
    /// The cursor asked from.
    pub from: Position,
    /// The cursor afterwards: the bucket's head, unless more is to come.
    pub to: Position,
    /// The bucket's head.
    pub head: Position,
    /// Its digest at that head.
    pub digest: Digest,
    /// The records, by position.
    pub items: Vec<PullItem>,
    /// Records whose row does not fit its own hash: not delivered, and an alarm.
    pub damaged: Vec<RecordKey>,
    /// Open decisions about the records of `items`, newest first, at most [`BATCH_DECISIONS_MAX`](crate::limits::BATCH_DECISIONS_MAX).
    pub decisions: Vec<ConflictRow>,
}

/// One record of a page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PullItem {
    /// The record.
    pub key: RecordKey,
    /// Its version.
    pub ver: Ver,
    /// Its state as an item delivers it with its hash; `None`: it left the bucket.
    pub state: Option<PullState>,
}

/// A delivered state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PullState {
    /// A document's generation.
    pub epoch: u32,
    /// The bytes: [`crate::record::RecordState::encode`].
    pub bytes: Vec<u8>,
    /// Recomputed from the row.
    pub hash: StateHash,
}

/// What a health check finds in one bucket, recomputed from the rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BucketAudit {
    /// The bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: String,
    /// Its head as stored.
    pub head: Position,
    /// The highest position of any record in it, which a head must not be below.
    pub position_max: Position,
    /// Its digest as stored.
    pub stored: Digest,
    /// Its digest as recomputed.
    pub computed: Digest,
    /// Records whose row does not fit its own hash, at most 20 of them.
    pub damaged: Vec<RecordKey>,
}

/// What a health check finds in one lane: its chain, recomputed from the entries that are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaneAudit {
    /// The lane.
    pub lane: LaneKey,
    /// Its last position as stored.
    pub last: Seq,
    /// Entries on record; must equal `last` until any are forgotten.
    pub entries: u64,
    /// The first position at which the chain does not hold.
    pub broken_at: Option<Seq>,
}

/// Numbers for `status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Visible records of all tables and documents.
    pub records: u64,
    /// Open quarantine entries.
    pub quarantined: u64,
    /// Open conflicts.
    pub conflicts: u64,
    /// Devices that are enrolled and not revoked.
    pub devices: u64,
    /// Buckets with key, head and digest.
    pub buckets: Vec<(BucketId, String, Position, Digest)>,
}

/// What readers see of a record: by what it is told from what it was and will be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// Nothing: it was never written, or is deleted.
    Nothing,
    /// What SQL has just written. It has a state once that is taken in.
    Unsettled,
    /// The state of this hash, as it was written with it.
    State(StateHash),
}

/// Rows that other programs wrote by SQL, and that could not be taken in: they are what they were before. Those on record, which the newest are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SqlRefused {
    /// How many.
    pub count: u64,
    /// When the last one was taken back; `None` where there is none.
    pub last: Option<Eff>,
}

/// A refused entry, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuarantineRow {
    /// Its number.
    pub n: u64,
    /// Its lane.
    pub lane: LaneKey,
    /// Its position.
    pub seq: Seq,
    /// The record, where one is to blame.
    pub record: Option<(CollectionId, String)>,
    /// Why, for programs.
    pub code: u16,
    /// Why, for people.
    pub detail: String,
    /// When.
    pub at: Eff,
}
