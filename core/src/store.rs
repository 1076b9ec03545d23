//! The socket for a hub's store. Two adapters fill it: SQLite (`mobo-adapters`) and Postgres (`mobo-hub`); one conformance suite runs on both.
//!
//! A store keeps; it does not decide. What a batch of entries changes is decided by [`crate::merge`], whose steps a store calls with its
//! locks held. Everything here is durable when its future is ready.

use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;
use crate::future::BoxFuture;
use crate::ids::{
    BootId, BucketId, Chain, CollectionId, DeviceId, Incarnation, Lane, LaneKey, Ordinal, Position, ProjectId, PublicKey, RecordKey, Seq,
    StateHash, Timeline, Ver,
};
use crate::merge::{Hint, Outcome, Prepared};
use crate::message::{LaneStatus, Parent, TimelineInfo};
use crate::query::{Page, Select};
use crate::schema::{Collection, Schema};
use crate::time::Eff;

/// What a store answers.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Why a store cannot do what it is asked, by what the caller does next.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or too busy: try again later. Nothing was changed, or it is not known whether it was; both are safe, because
    /// merges are idempotent.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The disk or quota is full: writing must wait, reading goes on.
    #[error("the store is full: {0}")]
    Full(String),
    /// A write or sync failed; what is on disk is not known. The process must stop and start again.
    #[error("the store failed while writing and must be reopened: {0}")]
    Poisoned(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The request cannot be fulfilled as it is; the sentence says why.
    #[error("{0}")]
    Refused(String),
}

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
    /// Keys of the buckets that it may read, and whether it may write there.
    pub grants: Vec<(String, bool)>,
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
    /// Its boot, and the hub's time minus its mono: kept if smaller than what is known (a slow network only makes it larger).
    pub boot: (BootId, i64),
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
    /// `admin`, `service` or `anon`.
    pub role: String,
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
    /// How far the device's lanes are merged.
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

/// A decision of a merge, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictRow {
    /// The collection.
    pub collection: CollectionId,
    /// The record.
    pub id: String,
    /// The field's id; 0 for the record as a whole.
    pub field: u64,
    /// [`crate::engine::ConflictKind::code`].
    pub kind: u8,
    /// The value that lost, as JSON.
    pub loser: serde_json::Value,
    /// Who wrote it.
    pub loser_device: Option<DeviceId>,
    /// The value that won, as JSON.
    pub winner: serde_json::Value,
    /// Who wrote it.
    pub winner_device: Option<DeviceId>,
    /// When it was decided.
    pub at: Eff,
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

/// Who wrote each field of a record last.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRow {
    /// Its version.
    pub ver: Ver,
    /// Its state.
    pub state: crate::record::RecordState,
}

/// The socket.
pub trait HubStore: fmt::Debug + Send + Sync {
    /// Kind, version and place; proves that the store answers.
    fn info(&self) -> StoreFuture<'_, StoreInfo>;

    /// The hub of this store; `first` is written when there is none yet, with the project `default` under the id given.
    fn hub(&self, first: HubRow, project: ProjectId) -> StoreFuture<'_, (HubRow, ProjectId)>;

    /// Raises the time reservation to at least `until` and gives what it is now: hubs on one store share it (rule R6).
    fn reserve_time(&self, until: Eff) -> StoreFuture<'_, Eff>;

    /// The collections of a project.
    fn schema(&self, project: ProjectId) -> StoreFuture<'_, Schema>;

    /// Makes a collection and its table; the name must be free. Gives the schema with it.
    fn create_collection(&self, project: ProjectId, collection: Collection) -> StoreFuture<'_, Schema>;

    /// Merges a batch in one transaction, and retries by itself what a retry can mend.
    fn merge(&self, batch: MergeBatch) -> StoreFuture<'_, MergeReport>;

    /// What changed in some buckets, in one snapshot.
    fn pull(&self, request: PullRequest) -> StoreFuture<'_, PullPage>;

    /// Buckets by key; missing ones are made under the ids given.
    fn ensure_buckets(&self, project: ProjectId, keys: Vec<(String, BucketId)>) -> StoreFuture<'_, Vec<(String, BucketId)>>;

    /// Keeps an invitation.
    fn invite(&self, project: ProjectId, invite: Invite) -> StoreFuture<'_, ()>;

    /// Looks an invitation up without using it.
    fn invite_state(&self, project: ProjectId, secret_hash: [u8; 32], now: Eff) -> StoreFuture<'_, InviteState>;

    /// Uses an invitation for a device, in one transaction: it is kept with its grants, or nothing happens. The same device may use its own
    /// invitation again (its answer was lost).
    fn enrol(&self, project: ProjectId, secret_hash: [u8; 32], device: DeviceRow) -> StoreFuture<'_, InviteState>;

    /// A device.
    fn device(&self, project: ProjectId, id: DeviceId) -> StoreFuture<'_, Option<DeviceRow>>;

    /// All devices, by name.
    fn devices(&self, project: ProjectId) -> StoreFuture<'_, Vec<DeviceRow>>;

    /// Revokes a device; false when there is none.
    fn revoke(&self, project: ProjectId, id: DeviceId, now: Eff) -> StoreFuture<'_, bool>;

    /// Takes note of a hello and says what is known of the device's logs.
    fn arrive(&self, project: ProjectId, arrival: Arrival) -> StoreFuture<'_, Admission>;

    /// Closes a log after a refence.
    fn fence(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, ()>;

    /// The chain after one entry of a lane, if it is on record.
    fn chain_at(&self, project: ProjectId, lane: LaneKey, seq: Seq) -> StoreFuture<'_, Option<Chain>>;

    /// Notes how far a device has read; positions never go back.
    fn cursors(&self, project: ProjectId, device: DeviceId, at: Vec<(BucketId, Position)>, now: Eff) -> StoreFuture<'_, ()>;

    /// Keeps an API key.
    fn create_key(&self, project: ProjectId, key: ApiKeyRow) -> StoreFuture<'_, ()>;

    /// All API keys, by name.
    fn keys(&self, project: ProjectId) -> StoreFuture<'_, Vec<ApiKeyRow>>;

    /// The key with that hash, if it was not revoked.
    fn key_by_hash(&self, hash: [u8; 32]) -> StoreFuture<'_, Option<(ProjectId, ApiKeyRow)>>;

    /// Revokes an API key by id or name; false when there is none.
    fn revoke_key(&self, project: ProjectId, id_or_name: String, now: Eff) -> StoreFuture<'_, bool>;

    /// Rows of a collection.
    fn select(&self, select: Select) -> StoreFuture<'_, Page>;

    /// One record with its merge state; `None` when it was never written.
    fn record(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, Option<RecordRow>>;

    /// Open conflicts, newest first.
    fn conflicts(&self, project: ProjectId, limit: u32) -> StoreFuture<'_, Vec<ConflictRow>>;

    /// Open quarantine entries, newest first.
    fn quarantine(&self, project: ProjectId, limit: u32) -> StoreFuture<'_, Vec<QuarantineRow>>;

    /// Numbers for `status`.
    fn counts(&self, project: ProjectId) -> StoreFuture<'_, Counts>;

    /// Recomputes every bucket's digest from its rows.
    fn audit_buckets(&self, project: ProjectId) -> StoreFuture<'_, Vec<BucketAudit>>;

    /// Recomputes every lane's chain from its entries.
    fn audit_lanes(&self, project: ProjectId) -> StoreFuture<'_, Vec<LaneAudit>>;

    /// Finishes what is under way and closes.
    fn close(&self) -> BoxFuture<'_, ()>;
}
