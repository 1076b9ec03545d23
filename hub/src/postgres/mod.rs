//! Postgres: the store of a hub in production, and of several hubs that share one database.
//!
//! Rows of collections are plain typed tables in schema `public` that any SQL tool reads; what the merge needs besides is in schema
//! `mobo`. Follow a batch through `merge.rs`: lanes, records and buckets are locked in this order, each is read in a statement after its
//! lock, and everything is written by one statement for each table. Nothing is kept here that the database does not have.

mod address;
mod audit;
mod backup;
mod cells;
mod changes;
mod cut;
mod desk;
mod devices;
mod elsewhere;
mod error;
mod hub;
mod intake;
mod keys;
mod known;
mod live;
mod look;
mod merge;
mod migrate;
mod offers;
mod past;
mod pull;
mod quarantine;
mod rebucket;
mod recovery;
mod schemas;
mod select;
mod session;
mod shell;
mod shown;
mod stored;
mod table;
mod transfer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::ids::{BucketId, Chain, CollectionId, DeviceId, Incarnation, LaneKey, Position, ProjectId, RecordId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::query::{Page, Select};
use mobo_core::schema::{Collection, Schema};
use mobo_core::stamp::Origin;
use mobo_core::store::{
    Admission, ApiKeyRow, Arrival, BucketAudit, ConflictPlace, ConflictPolicy, ConflictRow, Connections, Counts, DeviceRow, Elsewhere,
    HubRow, HubStore, Invite, InviteState, LaneAudit, MergeBatch, MergeReport, PullPage, PullRequest, QuarantineRow, QuarantinedEntry,
    RebucketBatch, Rebucketed, Rebucketing, RecordRow, Shown, SqlRefused, StoreError, StoreFuture, StoreInfo,
};
use mobo_core::time::Eff;
use sqlx::postgres::PgPool;
use sqlx::{Connection, Row};

use address::Address;
use cut::Shapes;
use error::Failure;
use known::Known;
use session::{Purpose, Tx};

pub use shell::PostgresShell;
pub use transfer::{Export, Import};

/// A hub's store in a Postgres database, 15 or newer.
///
/// Cloning gives another handle to the same connections. Connections are made when they are needed: a database that goes away and comes
/// back is used again by itself, and every request in between is answered with [`StoreError::Unavailable`].
#[derive(Clone)]
pub struct PostgresHubStore {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PgPool,
    address: Address,
    known: Known,
    shapes: Arc<Shapes>,
}

impl fmt::Debug for PostgresHubStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresHubStore").field("place", &self.inner.address.shown).finish_non_exhaustive()
    }
}

impl PostgresHubStore {
    /// Opens the database at a URL such as `postgres://user:password@host:5432/database`, and brings it to the tables of this version.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] where waiting does not help: a URL that is none, a login that is refused, a database that does not exist, is
    /// too old, or was made by a newer hub. [`StoreError::Unavailable`] where it does. Each names the place, never the password.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let (mut connection, _) = address.connect().await?;
        migrate::migrate(&mut connection, &address.shown).await?;
        // It has done its work; the pool makes its own.
        let _ = connection.close().await;
        let pool = address.pool();
        Ok(Self { inner: Arc::new(Inner { pool, address, known: Known::default(), shapes: Arc::default() }) })
    }

    /// The version of the database at a URL, and where it is: looked at with one connection, and changed in nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub async fn version_at(url: &str) -> Result<(String, String), StoreError> {
        let address = Address::parse(url)?;
        let (connection, version) = address.connect().await?;
        let _ = connection.close().await;
        Ok((version, address.shown))
    }

    async fn begin(&self, purpose: Purpose) -> Result<Tx, StoreError> {
        Ok(Tx::begin(&self.inner.pool, purpose).await?)
    }
}

/// Runs work that computes a lot between its statements where it keeps no other task waiting.
async fn apart<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> Result<T, StoreError> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work())).await;
    done.unwrap_or_else(|error| Err(StoreError::Damaged(format!("the store gave up in the middle of its work: {error}"))))
}

/// `self.$purpose(tx => work)`: one transaction around `work`, in a boxed future.
macro_rules! transaction {
    ($store:expr, $purpose:ident, |$tx:ident| $work:expr) => {
        Box::pin(async move {
            let mut transaction = $store.begin(Purpose::$purpose).await?;
            let $tx = &mut transaction;
            let result = $work.await;
            Ok(transaction.finish(result).await?)
        })
    };
}

impl HubStore for PostgresHubStore {
    fn info(&self) -> StoreFuture<'_, StoreInfo> {
        transaction!(self, Read, |tx| async {
            let row = tx.row(sqlx::query("SELECT current_setting('server_version')")).await?;
            let version = error::known(row, "version")?.try_get(0)?;
            Ok::<_, Failure>(StoreInfo { kind: "postgres", version, place: self.inner.address.shown.clone() })
        })
    }

    fn hub(&self, first: HubRow, project: ProjectId) -> StoreFuture<'_, (HubRow, ProjectId)> {
        transaction!(self, Write, |tx| hub::hub(tx, &first, project))
    }

    fn reserve_time(&self, until: Eff) -> StoreFuture<'_, Eff> {
        transaction!(self, Write, |tx| hub::reserve_time(tx, until))
    }

    fn schema(&self, project: ProjectId) -> StoreFuture<'_, Schema> {
        transaction!(self, Read, |tx| async {
            let schema = schemas::current(tx, &self.inner.known, project).await?;
            Ok::<_, Failure>(Schema::clone(&schema))
        })
    }

    fn create_collection(&self, project: ProjectId, collection: Collection) -> StoreFuture<'_, Schema> {
        transaction!(self, Write, |tx| schemas::create(tx, project, &collection))
    }

    fn alter_rules(&self, project: ProjectId, collection: CollectionId, rules: Vec<String>) -> StoreFuture<'_, Schema> {
        transaction!(self, Write, |tx| rebucket::alter(tx, project, collection, rules))
    }

    fn alter_fields(&self, project: ProjectId, altered: Collection) -> StoreFuture<'_, Schema> {
        transaction!(self, Write, |tx| schemas::alter(tx, project, altered))
    }

    fn rebucket(&self, batch: RebucketBatch) -> StoreFuture<'_, Option<Rebucketed>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(apart(async move || Ok(rebucket::step(&inner, &batch).await?)))
    }

    fn rebucketing(&self, project: ProjectId) -> StoreFuture<'_, Vec<Rebucketing>> {
        transaction!(self, Read, |tx| rebucket::under_way(tx, project))
    }

    fn merge(&self, batch: MergeBatch) -> StoreFuture<'_, MergeReport> {
        let inner = Arc::clone(&self.inner);
        Box::pin(apart(async move || merge::merge(&inner, &batch).await))
    }

    fn take_in(&self, batch: MergeBatch) -> StoreFuture<'_, Option<MergeReport>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(apart(async move || Ok(intake::take_in(&inner, &batch).await?)))
    }

    fn elsewhere(&self, project: ProjectId, devices: Vec<DeviceId>, buckets: Vec<BucketId>) -> StoreFuture<'_, Option<Elsewhere>> {
        transaction!(self, Read, |tx| async { elsewhere::elsewhere(tx, project, (&devices, &buckets)).await.map(Some) })
    }

    fn pull(&self, request: PullRequest) -> StoreFuture<'_, PullPage> {
        Box::pin(async move {
            // A connection first: whoever waits for one keeps no thread.
            let mut tx = self.begin(Purpose::Pull).await?;
            let inner = Arc::clone(&self.inner);
            apart(async move || {
                let page = pull::pull(&mut tx, &inner, &request).await;
                Ok(tx.finish(page).await?)
            })
            .await
        })
    }

    fn ensure_buckets(&self, project: ProjectId, keys: Vec<(String, BucketId)>) -> StoreFuture<'_, Vec<(String, BucketId)>> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let wanted: Vec<(&str, i64)> = keys.iter().map(|(key, fresh)| (key.as_str(), fresh.sql())).collect();
            let ensured = merge::ensure_buckets(&mut tx, project, &wanted).await;
            let ids: BTreeMap<String, BucketId> = tx.finish(ensured).await?.into_iter().collect();
            // In the order of the request.
            Ok(keys.into_iter().filter_map(|(key, _)| ids.get(&key).copied().map(|id| (key, id))).collect())
        })
    }

    fn invite(&self, project: ProjectId, invite: Invite) -> StoreFuture<'_, ()> {
        transaction!(self, Write, |tx| devices::invite(tx, project, &invite))
    }

    fn invite_state(&self, project: ProjectId, secret_hash: [u8; 32], now: Eff) -> StoreFuture<'_, InviteState> {
        transaction!(self, Read, |tx| devices::invite_state(tx, project, secret_hash, now, false))
    }

    fn enrol(&self, project: ProjectId, secret_hash: [u8; 32], device: DeviceRow) -> StoreFuture<'_, InviteState> {
        transaction!(self, Write, |tx| devices::enrol(tx, project, secret_hash, &device))
    }

    fn device(&self, project: ProjectId, id: DeviceId) -> StoreFuture<'_, Option<DeviceRow>> {
        transaction!(self, Read, |tx| async { Ok::<_, Failure>(devices::devices(tx, project, Some(id)).await?.into_iter().next()) })
    }

    fn devices(&self, project: ProjectId) -> StoreFuture<'_, Vec<DeviceRow>> {
        transaction!(self, Read, |tx| devices::devices(tx, project, None))
    }

    fn revoke(&self, project: ProjectId, id: DeviceId, now: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| devices::revoke(tx, project, id, now))
    }

    fn grant(&self, project: ProjectId, id: DeviceId, bucket: String, write: bool) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| devices::grant(tx, project, id, (&bucket, write)))
    }

    fn ungrant(&self, project: ProjectId, id: DeviceId, bucket: String, accept_until: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| devices::ungrant(tx, project, id, (&bucket, accept_until)))
    }

    fn arrive(&self, project: ProjectId, arrival: Arrival) -> StoreFuture<'_, Admission> {
        transaction!(self, Write, |tx| devices::arrive(tx, project, &arrival))
    }

    fn fence(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, ()> {
        transaction!(self, Write, |tx| devices::fence(tx, project, device, incarnation))
    }

    fn chain_at(&self, project: ProjectId, lane: LaneKey, seq: Seq) -> StoreFuture<'_, Option<Chain>> {
        transaction!(self, Read, |tx| devices::chain_at(tx, project, lane, seq))
    }

    fn cursors(&self, project: ProjectId, device: DeviceId, at: Vec<(BucketId, Position)>, now: Eff) -> StoreFuture<'_, ()> {
        // A bucket that is named twice is named once.
        let at: BTreeMap<BucketId, Position> = at.into_iter().collect();
        transaction!(self, Write, |tx| devices::cursors(tx, project, device, &at, now))
    }

    fn create_key(&self, project: ProjectId, key: ApiKeyRow) -> StoreFuture<'_, ()> {
        transaction!(self, Write, |tx| keys::create(tx, project, &key))
    }

    fn keys(&self, project: ProjectId) -> StoreFuture<'_, Vec<ApiKeyRow>> {
        transaction!(self, Read, |tx| keys::all(tx, project))
    }

    fn key_by_hash(&self, hash: [u8; 32]) -> StoreFuture<'_, Option<(ProjectId, ApiKeyRow)>> {
        transaction!(self, Read, |tx| keys::by_hash(tx, hash))
    }

    fn revoke_key(&self, project: ProjectId, id_or_name: String, now: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| keys::revoke(tx, project, &id_or_name, now))
    }

    fn select(&self, select: Select) -> StoreFuture<'_, Page> {
        transaction!(self, Read, |tx| select::select(tx, &select))
    }

    fn shown(&self, project: ProjectId, collection: Arc<Collection>, id: RecordId) -> StoreFuture<'_, Shown> {
        transaction!(self, Read, |tx| shown::of(tx, project, (&collection, &id)))
    }

    fn rows_and_shown(&self, select: Select, id: RecordId) -> StoreFuture<'_, (Page, Shown)> {
        Box::pin(async move {
            // Both in one statement sees one moment without a transaction, whose beginning and end are each a way to the database and back.
            if let Some(found) = shown::at_once(&self.inner.pool, &select).await? {
                return Ok(found);
            }
            let mut tx = self.begin(Purpose::Read).await?;
            let found = shown::with_rows(&mut tx, &select, &id).await;
            Ok(tx.finish(found).await?)
        })
    }

    fn record(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, Option<RecordRow>> {
        transaction!(self, Read, |tx| async {
            let schema = schemas::current(tx, &self.inner.known, project).await?;
            look::record(tx, project, &schema, key).await
        })
    }

    fn conflicts(&self, project: ProjectId, after: Option<ConflictPlace>, limit: u32) -> StoreFuture<'_, Vec<ConflictRow>> {
        transaction!(self, Read, |tx| look::conflicts(tx, project, after.as_ref(), limit))
    }

    fn settle_conflicts(&self, project: ProjectId, key: RecordKey, field: Option<u64>) -> StoreFuture<'_, u64> {
        transaction!(self, Write, |tx| look::settle_conflicts(tx, project, &key, field))
    }

    fn set_conflict_policy(&self, project: ProjectId, collection: CollectionId, field: u64, policy: ConflictPolicy) -> StoreFuture<'_, ()> {
        transaction!(self, Write, |tx| look::set_conflict_policy(tx, project, (collection, field), policy))
    }

    fn quarantine(&self, project: ProjectId, after: Option<u64>, limit: u32) -> StoreFuture<'_, Vec<QuarantineRow>> {
        transaction!(self, Read, |tx| look::quarantine(tx, project, after, limit))
    }

    fn logs(&self, project: ProjectId) -> StoreFuture<'_, Vec<Origin>> {
        transaction!(self, Read, |tx| look::logs(tx, project))
    }

    fn quarantined(&self, project: ProjectId, n: u64) -> StoreFuture<'_, Option<QuarantinedEntry>> {
        transaction!(self, Read, |tx| quarantine::entry(tx, project, n))
    }

    fn drop_quarantined(&self, project: ProjectId, n: u64, now: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| quarantine::drop(tx, project, n, now))
    }

    fn refusals(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, Vec<QuarantineRow>> {
        transaction!(self, Read, |tx| quarantine::refusals(tx, project, device, incarnation))
    }

    fn counts(&self, project: ProjectId) -> StoreFuture<'_, Counts> {
        transaction!(self, Read, |tx| async {
            let schema = schemas::current(tx, &self.inner.known, project).await?;
            look::counts(tx, project, &schema).await
        })
    }

    fn sql_refused(&self) -> StoreFuture<'_, SqlRefused> {
        transaction!(self, Read, |tx| look::sql_refused(tx))
    }

    fn audit_buckets(&self, project: ProjectId) -> StoreFuture<'_, Vec<BucketAudit>> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Audit).await?;
            let inner = Arc::clone(&self.inner);
            apart(async move || {
                let audits = audit::of_project(&mut tx, &inner.known, project).await;
                Ok(tx.finish(audits).await?)
            })
            .await
        })
    }

    fn audit_lanes(&self, project: ProjectId) -> StoreFuture<'_, Vec<LaneAudit>> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Audit).await?;
            apart(async move || {
                let audits = audit::lanes(&mut tx, project).await;
                Ok(tx.finish(audits).await?)
            })
            .await
        })
    }

    fn connections(&self) -> Option<Connections> {
        let (all, idle) = (self.inner.pool.size(), u32::try_from(self.inner.pool.num_idle()).unwrap_or(0));
        Some(Connections { idle, used: all.saturating_sub(idle), max: limits::POSTGRES_CONNECTIONS_MAX })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inner.pool.close())
    }
}
