//! A hub's store in one SQLite file.
//!
//! A merge is one job of the writer, and merges that wait together share a commit. Reads run beside it on snapshots.

mod audit;
mod backup;
mod changes;
mod conflicts;
mod cut;
mod desk;
mod devices;
mod entries;
mod identity;
mod intake;
mod keys;
mod lanes;
mod ledger;
mod live;
mod merge;
mod offers;
mod past;
mod pull;
mod quarantine;
mod rebucket;
mod recovery;
pub mod restore;
mod schema;
mod shown;
pub mod transfer;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{BucketId, Chain, CollectionId, DeviceId, Incarnation, LaneKey, Position, ProjectId, RecordId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::query::{Page, Select};
use mobo_core::schema::{Collection, Schema};
use mobo_core::stamp::Origin;
use mobo_core::store::{
    Admission, ApiKeyRow, Arrival, BucketAudit, ConflictPlace, ConflictPolicy, ConflictRow, Counts, DeviceRow, HubRow, HubStore, Invite,
    InviteState, LaneAudit, MergeBatch, MergeReport, PullPage, PullRequest, QuarantineRow, QuarantinedEntry, RebucketBatch, Rebucketed,
    Rebucketing, RecordRow, Shown, SqlRefused, StoreError, StoreFuture, StoreInfo,
};
use mobo_core::time::Eff;

use self::schema::Schemas;
use super::meta;
use super::open::{Role, open_writer, open_writer_on, quick_check};
use super::readers::Readers;
use super::select::select;
use super::writer::{InlineWriter, Writer};

/// In `mobo_meta`.
const FINGERPRINT: &str = "fingerprint";

/// A hub's store in one SQLite file. Close it to leave a database without a log beside it; dropping it loses nothing.
#[derive(Debug)]
pub struct SqliteHubStore {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    schemas: Arc<Schemas>,
    cuts: Arc<cut::Cuts>,
}

impl SqliteHubStore {
    /// Opens the store, and makes it when it is not there. Blocks while it reads and, after an upgrade, migrates.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] for a file of something else, of a later version, or in a place where it cannot be safe.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let writer = open_writer(path, Role::Hub, limits::SQLITE_HUB_CACHE_KIB)?;
        super::intake::prepare(&writer, transfer::collections(&writer)?.iter())?;
        let readers = Readers::new(path.to_owned(), limits::SQLITE_HUB_READERS_MAX, limits::SQLITE_HUB_CACHE_KIB);
        Ok(Self { path: path.to_owned(), writer: Writer::start(writer)?, readers, schemas: Arc::default(), cuts: Arc::default() })
    }

    /// Opens the store in the SQLite file system of that name, without a thread of its own: reads run on the caller's, and writes whenever
    /// the writer is given its turn. For a simulator.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_inline(path: &Path, vfs: &str) -> Result<(Self, InlineWriter), StoreError> {
        let writer = open_writer_on((path, Some(vfs)), Role::Hub, limits::SQLITE_HUB_CACHE_KIB)?;
        super::intake::prepare(&writer, transfer::collections(&writer)?.iter())?;
        let place = (path.to_owned(), Some(vfs.to_owned()));
        let readers = Readers::on(place, limits::SQLITE_HUB_READERS_MAX, limits::SQLITE_HUB_CACHE_KIB);
        let (writer, inline) = Writer::inline(writer);
        Ok((Self { path: path.to_owned(), writer, readers, schemas: Arc::default(), cuts: Arc::default() }, inline))
    }

    /// Reads every page of the database and checks that its trees hold together. What the rows say is checked by the audits.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] with the first fault found.
    pub async fn quick_check(&self) -> Result<(), StoreError> {
        self.readers.read(quick_check).await
    }

    /// What the machine and the file looked like when this was opened last; `None` before the first time.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn fingerprint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(|connection| meta::get(connection, FINGERPRINT)).await
    }

    /// Keeps what they look like now.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn set_fingerprint(&self, now: Vec<u8>) -> Result<(), StoreError> {
        self.writer.run(move |connection| meta::set(connection, FINGERPRINT, &now)).await
    }

    /// Transactions that were committed since it was opened: about the number of times that the disk was waited for.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.writer.counters().commits.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl HubStore for SqliteHubStore {
    fn info(&self) -> StoreFuture<'_, StoreInfo> {
        let place = self.path.display().to_string();
        Box::pin(self.readers.read(move |connection| {
            let version = connection.query_row("SELECT sqlite_version()", [], |row| row.get(0))?;
            Ok(StoreInfo { kind: "sqlite", version, place })
        }))
    }

    fn hub(&self, first: HubRow, project: ProjectId) -> StoreFuture<'_, (HubRow, ProjectId)> {
        Box::pin(self.writer.run(move |connection| identity::hub(connection, &first, project)))
    }

    fn reserve_time(&self, until: Eff) -> StoreFuture<'_, Eff> {
        Box::pin(self.writer.run(move |connection| identity::reserve_time(connection, until)))
    }

    fn schema(&self, project: ProjectId) -> StoreFuture<'_, Schema> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.readers.read(move |connection| Ok(Schema::clone(&*schemas.of(connection, project)?))))
    }

    fn create_collection(&self, project: ProjectId, collection: Collection) -> StoreFuture<'_, Schema> {
        Box::pin(self.writer.run(move |connection| schema::create(connection, project, &collection)))
    }

    fn alter_rules(&self, project: ProjectId, collection: CollectionId, rules: Vec<String>) -> StoreFuture<'_, Schema> {
        Box::pin(self.writer.run(move |connection| rebucket::alter(connection, project, collection, rules)))
    }

    fn alter_fields(&self, project: ProjectId, altered: Collection) -> StoreFuture<'_, Schema> {
        Box::pin(self.writer.run(move |connection| schema::alter(connection, project, &altered)))
    }

    fn rebucket(&self, batch: RebucketBatch) -> StoreFuture<'_, Option<Rebucketed>> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.writer.run(move |connection| rebucket::step(connection, &schemas, &batch)))
    }

    fn rebucketing(&self, project: ProjectId) -> StoreFuture<'_, Vec<Rebucketing>> {
        Box::pin(self.readers.read(move |connection| rebucket::under_way(connection, project)))
    }

    fn merge(&self, batch: MergeBatch) -> StoreFuture<'_, MergeReport> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.writer.run(move |connection| intake::first(connection, &schemas, batch, merge::merge)))
    }

    fn take_in(&self, batch: MergeBatch) -> StoreFuture<'_, Option<MergeReport>> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(async move {
            if !self.readers.read(super::intake::waits).await? {
                return Ok(None);
            }
            self.writer.run(move |connection| intake::take(connection, &schemas, &batch)).await
        })
    }

    fn pull(&self, request: PullRequest) -> StoreFuture<'_, PullPage> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.readers.read(move |connection| {
            let schema = schemas.of(connection, request.project)?;
            pull::pull(connection, &schema, &request)
        }))
    }

    fn ensure_buckets(&self, project: ProjectId, keys: Vec<(String, BucketId)>) -> StoreFuture<'_, Vec<(String, BucketId)>> {
        Box::pin(self.writer.run(move |connection| identity::ensure_buckets(connection, project, keys)))
    }

    fn invite(&self, project: ProjectId, invite: Invite) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| devices::invite(connection, project, &invite)))
    }

    fn invite_state(&self, project: ProjectId, secret_hash: [u8; 32], now: Eff) -> StoreFuture<'_, InviteState> {
        Box::pin(self.readers.read(move |connection| devices::invite_state(connection, project, &secret_hash, now)))
    }

    fn enrol(&self, project: ProjectId, secret_hash: [u8; 32], device: DeviceRow) -> StoreFuture<'_, InviteState> {
        Box::pin(self.writer.run(move |connection| devices::enrol(connection, project, &secret_hash, &device)))
    }

    fn device(&self, project: ProjectId, id: DeviceId) -> StoreFuture<'_, Option<DeviceRow>> {
        Box::pin(self.readers.read(move |connection| devices::device(connection, project, id)))
    }

    fn devices(&self, project: ProjectId) -> StoreFuture<'_, Vec<DeviceRow>> {
        Box::pin(self.readers.read(move |connection| devices::devices(connection, project)))
    }

    fn revoke(&self, project: ProjectId, id: DeviceId, now: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| devices::revoke(connection, project, id, now)))
    }

    fn grant(&self, project: ProjectId, id: DeviceId, bucket: String, write: bool) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| devices::grant(connection, project, id, (&bucket, write))))
    }

    fn ungrant(&self, project: ProjectId, id: DeviceId, bucket: String, accept_until: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| devices::ungrant(connection, project, id, (&bucket, accept_until))))
    }

    fn arrive(&self, project: ProjectId, arrival: Arrival) -> StoreFuture<'_, Admission> {
        Box::pin(self.writer.run(move |connection| lanes::arrive(connection, project, &arrival)))
    }

    fn fence(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| lanes::fence(connection, project, device, incarnation)))
    }

    fn chain_at(&self, project: ProjectId, lane: LaneKey, seq: Seq) -> StoreFuture<'_, Option<Chain>> {
        Box::pin(self.readers.read(move |connection| entries::chain_at(connection, project, &lane, seq)))
    }

    fn cursors(&self, project: ProjectId, device: DeviceId, at: Vec<(BucketId, Position)>, now: Eff) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| devices::cursors(connection, project, device, (at, now))))
    }

    fn create_key(&self, project: ProjectId, key: ApiKeyRow) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| keys::create(connection, project, &key)))
    }

    fn keys(&self, project: ProjectId) -> StoreFuture<'_, Vec<ApiKeyRow>> {
        Box::pin(self.readers.read(move |connection| keys::all(connection, project)))
    }

    fn key_by_hash(&self, hash: [u8; 32]) -> StoreFuture<'_, Option<(ProjectId, ApiKeyRow)>> {
        Box::pin(self.readers.read(move |connection| keys::by_hash(connection, &hash)))
    }

    fn revoke_key(&self, project: ProjectId, id_or_name: String, now: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| keys::revoke(connection, project, &id_or_name, now)))
    }

    fn select(&self, query: Select) -> StoreFuture<'_, Page> {
        Box::pin(self.readers.read(move |connection| select(connection, &query)))
    }

    fn record(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, Option<RecordRow>> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.readers.read(move |connection| {
            let schema = schemas.of(connection, project)?;
            ledger::record(connection, project, &schema, &key)
        }))
    }

    fn shown(&self, project: ProjectId, collection: Arc<Collection>, id: RecordId) -> StoreFuture<'_, Shown> {
        Box::pin(self.readers.glance(move |connection| shown::of(connection, project, (&collection, &id))))
    }

    fn rows_and_shown(&self, query: Select, id: RecordId) -> StoreFuture<'_, (Page, Shown)> {
        Box::pin(self.readers.glance(move |connection| shown::with_rows(connection, &query, &id)))
    }

    fn conflicts(&self, project: ProjectId, after: Option<ConflictPlace>, limit: u32) -> StoreFuture<'_, Vec<ConflictRow>> {
        Box::pin(self.readers.read(move |connection| ledger::conflicts(connection, project, after.as_ref(), limit)))
    }

    fn settle_conflicts(&self, project: ProjectId, key: RecordKey, field: Option<u64>) -> StoreFuture<'_, u64> {
        Box::pin(self.writer.run(move |connection| conflicts::settle_all(connection, project, &key, field)))
    }

    fn set_conflict_policy(&self, project: ProjectId, collection: CollectionId, field: u64, policy: ConflictPolicy) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| conflicts::set_policy(connection, project, (collection, field), policy)))
    }

    fn quarantine(&self, project: ProjectId, after: Option<u64>, limit: u32) -> StoreFuture<'_, Vec<QuarantineRow>> {
        Box::pin(self.readers.read(move |connection| ledger::quarantine(connection, project, after, limit)))
    }

    fn logs(&self, project: ProjectId) -> StoreFuture<'_, Vec<Origin>> {
        Box::pin(self.readers.read(move |connection| ledger::logs(connection, project)))
    }

    fn quarantined(&self, project: ProjectId, n: u64) -> StoreFuture<'_, Option<QuarantinedEntry>> {
        Box::pin(self.readers.read(move |connection| quarantine::entry(connection, project, n)))
    }

    fn drop_quarantined(&self, project: ProjectId, n: u64, now: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| quarantine::drop(connection, project, n, now)))
    }

    fn refusals(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, Vec<QuarantineRow>> {
        Box::pin(self.readers.read(move |connection| quarantine::refusals(connection, project, device, incarnation)))
    }

    fn counts(&self, project: ProjectId) -> StoreFuture<'_, Counts> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.readers.read(move |connection| {
            let schema = schemas.of(connection, project)?;
            ledger::counts(connection, project, &schema)
        }))
    }

    fn sql_refused(&self) -> StoreFuture<'_, SqlRefused> {
        Box::pin(self.readers.read(ledger::sql_refused))
    }

    fn audit_buckets(&self, project: ProjectId) -> StoreFuture<'_, Vec<BucketAudit>> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.readers.read(move |connection| {
            let schema = schemas.of(connection, project)?;
            audit::buckets(connection, project, &schema)
        }))
    }

    fn audit_lanes(&self, project: ProjectId) -> StoreFuture<'_, Vec<LaneAudit>> {
        Box::pin(self.readers.read(move |connection| entries::audit(connection, project)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.cuts.close();
            self.readers.close().await;
            self.writer.close().await;
        })
    }
}
