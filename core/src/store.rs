//! The socket for a hub's store. Two adapters fill it: SQLite (`mobo-adapters`) and Postgres (`mobo-hub`); one conformance suite runs on both.
//!
//! A store keeps; it does not decide. What a batch of entries changes is decided by [`crate::merge`], whose steps a store calls with its
//! locks held. Everything here is durable when its future is ready.

mod backing;
mod changing;
mod ledger;
mod past;
mod recovering;
mod rows;
pub mod transfer;

use std::fmt;
use std::sync::Arc;

pub use backing::*;
pub use changing::*;
pub use ledger::*;
pub use past::*;
pub use recovering::*;
pub use rows::*;

use crate::future::BoxFuture;
use crate::ids::{BucketId, Chain, CollectionId, DeviceId, Incarnation, LaneKey, Position, ProjectId, RecordId, RecordKey, Seq};
use crate::live::LiveStore;
use crate::query::{Page, Select};
use crate::schema::{Collection, Schema};
use crate::stamp::Origin;
use crate::time::Eff;

/// Why a hello is refused that would begin one log too many.
pub const TOO_MANY_LOGS: &str = "this device has begun more logs than a hub keeps: revoke it, and let it join again with a new data folder";

/// What a store answers.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Why a store cannot do what it is asked, by what the caller does next.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or too busy: try again later. Nothing was changed, or it is not known whether it was; both are safe, because
    /// merges are idempotent.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Others hold what this batch needs, again and again, and nothing of it was changed: merge it in smaller parts. Only
    /// [`HubStore::merge`] gives it, and only for more than one submission.
    #[error("others hold the same records: {0}")]
    Contended(String),
    /// The disk or quota is full: writing must wait, reading goes on.
    #[error("the store is full: {0}")]
    Full(String),
    /// A write or sync failed; what is on disk is not known. The process must stop and start again.
    #[error("the store failed while writing and must be reopened: {0}")]
    Poisoned(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A value that is stored cannot be given as what was asked for; the sentence says which. Only reading gives it.
    #[error("{0}")]
    BadValue(String),
    /// The request cannot be fulfilled as it is; the sentence says why.
    #[error("{0}")]
    Refused(String),
}

/// The socket.
pub trait HubStore: RecoveryStore + LiveStore + BackupStore + PastStore + fmt::Debug + Send + Sync {
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

    /// Changes a collection's rules and counts up its revision; everything else of it stays. Its records are to be placed anew by
    /// [`Self::rebucket`], which goes on where it was if this comes again. Gives the schema with it.
    fn alter_rules(&self, project: ProjectId, collection: CollectionId, rules: Vec<String>) -> StoreFuture<'_, Schema>;

    /// Replaces a collection's definition by a later one of [`crate::schema::altered`]: its table is extended, and no row of it is written.
    /// Gives the schema with it.
    ///
    /// [`StoreError::Contended`] while SQL that was written by the labels before waits to be taken in.
    fn alter_fields(&self, project: ProjectId, altered: Collection) -> StoreFuture<'_, Schema>;

    /// Visits the next records of a collection whose rules were changed, in one transaction; `None` when there is nothing to do.
    fn rebucket(&self, batch: RebucketBatch) -> StoreFuture<'_, Option<Rebucketed>>;

    /// The collections whose records are being placed by new rules.
    fn rebucketing(&self, project: ProjectId) -> StoreFuture<'_, Vec<Rebucketing>>;

    /// Merges a batch in one transaction, and retries by itself what a retry can mend. All of the batch is committed, or nothing of it; only
    /// a connection that is lost at COMMIT leaves it unknown which, and then the error is [`StoreError::Unavailable`]. A local write is
    /// authored anew whenever it is merged: after that error, nobody but its caller may try it again.
    fn merge(&self, batch: MergeBatch) -> StoreFuture<'_, MergeReport>;

    /// Takes in what other programs have written into the tables of collections, as writes of the hub's own (rule R24); `None` when nothing
    /// waits, or the tables are closed to them. The batch says what holds for a merge; its submissions are not looked at.
    fn take_in(&self, batch: MergeBatch) -> StoreFuture<'_, Option<MergeReport>> {
        let _ = batch;
        Box::pin(async { Ok(None) })
    }

    /// What other hubs of this store may have changed for devices that are connected to this one, and in the buckets that these hold; `None`
    /// where one hub alone can use it.
    fn elsewhere(&self, project: ProjectId, devices: Vec<DeviceId>, buckets: Vec<BucketId>) -> StoreFuture<'_, Option<Elsewhere>> {
        let _ = (project, devices, buckets);
        Box::pin(async { Ok(None) })
    }

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

    /// Gives a device a bucket, or another right on one that it has; false when there is no such device.
    fn grant(&self, project: ProjectId, id: DeviceId, bucket: String, write: bool) -> StoreFuture<'_, bool>;

    /// Takes a bucket away from a device, whether it was granted or follows from its claims; false when there is no such device. What the
    /// device has made there up to `accept_until` is still taken when it comes.
    fn ungrant(&self, project: ProjectId, id: DeviceId, bucket: String, accept_until: Eff) -> StoreFuture<'_, bool>;

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

    /// What readers see of a record, without its state.
    fn shown(&self, project: ProjectId, collection: Arc<Collection>, id: RecordId) -> StoreFuture<'_, Shown>;

    /// Rows, as [`select`](Self::select) gives them, and what readers see of the record that the filter names, as [`shown`](Self::shown) does:
    /// both as they are at one moment.
    fn rows_and_shown(&self, select: Select, id: RecordId) -> StoreFuture<'_, (Page, Shown)>;

    /// Open conflicts, newest first, behind a place in that list; `None` starts it.
    fn conflicts(&self, project: ProjectId, after: Option<ConflictPlace>, limit: u32) -> StoreFuture<'_, Vec<ConflictRow>>;

    /// Settles the open conflicts of a record, or of one field of it; gives their number.
    fn settle_conflicts(&self, project: ProjectId, key: RecordKey, field: Option<u64>) -> StoreFuture<'_, u64>;

    /// Says what becomes of conflicts of a field from now on; 0 is the record as a whole.
    fn set_conflict_policy(&self, project: ProjectId, collection: CollectionId, field: u64, policy: ConflictPolicy) -> StoreFuture<'_, ()>;

    /// Open quarantine entries, newest first, behind the one of that number; `None` starts the list.
    fn quarantine(&self, project: ProjectId, after: Option<u64>, limit: u32) -> StoreFuture<'_, Vec<QuarantineRow>>;

    /// Every log that has ever been met: what names the author of a change whose stamp is not known.
    fn logs(&self, project: ProjectId) -> StoreFuture<'_, Vec<Origin>>;

    /// One refused entry, whatever became of it.
    fn quarantined(&self, project: ProjectId, n: u64) -> StoreFuture<'_, Option<QuarantinedEntry>>;

    /// Lets an open refused entry go; false when it is not open. It stays on record.
    fn drop_quarantined(&self, project: ProjectId, n: u64, now: Eff) -> StoreFuture<'_, bool>;

    /// The refused entries of one log that were not merged after all, by lane and position: what its device must have heard.
    fn refusals(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, Vec<QuarantineRow>>;

    /// Numbers for `status`.
    fn counts(&self, project: ProjectId) -> StoreFuture<'_, Counts>;

    /// What SQL has written in vain.
    fn sql_refused(&self) -> StoreFuture<'_, SqlRefused>;

    /// Recomputes every bucket's digest from its rows.
    fn audit_buckets(&self, project: ProjectId) -> StoreFuture<'_, Vec<BucketAudit>>;

    /// Recomputes every lane's chain from its entries.
    fn audit_lanes(&self, project: ProjectId) -> StoreFuture<'_, Vec<LaneAudit>>;

    /// Its connections to a database; `None` where there are none to be counted.
    fn connections(&self) -> Option<Connections> {
        None
    }

    /// Finishes what is under way and closes.
    fn close(&self) -> BoxFuture<'_, ()>;
}
