//! The hub's own record of its backups, and what is safe by them.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::backup::RepositoryId;
use mobo_core::backup::manifest::Anchor;
use mobo_core::ids::{BucketId, LaneKey, Position, ProjectId, Seq};
use mobo_core::limits;
use mobo_core::store::{BackupRow, BackupStore, Cut, StoreError, StoreFuture, Turn};
use sqlx::Row;

use super::PostgresHubStore;
use super::cut::PostgresCut;
use super::error::{Failure, known};
use super::session::{Purpose, Tx};

/// Held by the hub that writes into the repository. Any number, as long as it is the same in every hub.
const TURN_LOCK: i64 = 0x6d6f_626f_7475_726e;

impl BackupStore for PostgresHubStore {
    fn cut(&self) -> StoreFuture<'_, Box<dyn Cut>> {
        Box::pin(async move {
            let tx = self.begin(Purpose::Cut).await?;
            Ok(Box::new(PostgresCut::new(tx, Arc::clone(&self.inner.shapes))) as Box<dyn Cut>)
        })
    }

    fn backup(&self) -> StoreFuture<'_, Option<BackupRow>> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Read).await?;
            let found = read(&mut tx).await;
            Ok(tx.finish(found).await?)
        })
    }

    fn turn(&self, patience: Duration) -> StoreFuture<'_, Option<Box<dyn Turn>>> {
        Box::pin(async move {
            // Nothing is read before it has the lock, and nothing is written: it keeps no row from being forgotten.
            let mut tx = self.begin(Purpose::Write).await?;
            if !lock(&mut tx, patience).await? {
                tx.rollback().await?;
                return Ok(None);
            }
            Ok(Some(Box::new(PostgresTurn(tx)) as Box<dyn Turn>))
        })
    }

    fn try_backup(&self, repository: RepositoryId, anchor: Anchor) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let kept = attempt(&mut tx, repository, anchor).await;
            Ok(tx.finish(kept).await?)
        })
    }

    fn note_backup(&self, project: ProjectId, row: BackupRow, safe: Vec<(LaneKey, Seq)>) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let noted = note(&mut tx, project, &row, &safe).await;
            Ok(tx.finish(noted).await?)
        })
    }
}

/// A transaction that has the lock. The database ends it when the hub dies.
#[derive(Debug)]
struct PostgresTurn(Tx);

impl Turn for PostgresTurn {
    fn holds(&mut self) -> StoreFuture<'_, bool> {
        Box::pin(async { Ok(self.0.row(sqlx::query("SELECT 1")).await.is_ok()) })
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(async { self.0.reset().await.map_err(StoreError::from) })
    }
}

async fn lock(tx: &mut Tx, patience: Duration) -> Result<bool, Failure> {
    // A hub whose machine is gone without a word must not keep its turn until the system notices, hours later.
    let idle_ms = limits::BACKUP_TURN_IDLE_MAX.as_millis();
    let settings = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = {idle_ms}; \
         SET LOCAL tcp_keepalives_idle = 15; SET LOCAL tcp_keepalives_interval = 5; SET LOCAL tcp_keepalives_count = 3"
    );
    if patience.is_zero() {
        let rows = tx.script_rows(format!("{settings}; SELECT pg_try_advisory_xact_lock({TURN_LOCK})")).await?;
        return Ok(known(rows.first(), "lock")?.try_get(0)?);
    }
    tx.script(format!("{settings}; SET LOCAL lock_timeout = {}", patience.as_millis())).await?;
    match tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TURN_LOCK)).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_locked_out() => Ok(false),
        Err(failure) => Err(failure),
    }
}

async fn attempt(tx: &mut Tx, repository: RepositoryId, anchor: Anchor) -> Result<(), Failure> {
    const KEEP: &str = "INSERT INTO mobo.backup_tried(repository, number, hash) VALUES ($1, $2, $3)";
    const FORGET: &str = "DELETE FROM mobo.backup_tried WHERE n <= (SELECT max(n) FROM mobo.backup_tried) - $1";
    let keep = sqlx::query(KEEP).bind(repository.0.to_vec()).bind(anchor.number.cast_signed()).bind(anchor.hash.to_vec());
    tx.run(keep).await?;
    tx.run(sqlx::query(FORGET).bind(i64::try_from(limits::BACKUP_TRIED_MAX).unwrap_or(i64::MAX))).await?;
    Ok(())
}

async fn read(tx: &mut Tx) -> Result<Option<BackupRow>, Failure> {
    let look = sqlx::query("SELECT repository, place, number, hash, taken_us, base FROM mobo.backup");
    let Some(row) = tx.row(look).await? else { return Ok(None) };
    let bytes = |column: usize| row.try_get::<Vec<u8>, _>(column);
    let repository = known(bytes(0)?.try_into().ok(), "repository")?;
    let hash = known(bytes(3)?.try_into().ok(), "hash")?;
    let anchor = Anchor { number: row.try_get::<i64, _>(2)?.cast_unsigned(), hash };
    let mut heads = Vec::new();
    for head in tx.rows(sqlx::query("SELECT bucket, position FROM mobo.backup_head ORDER BY bucket")).await? {
        let bucket = known(BucketId::from_sql(head.try_get(0)?), "bucket")?;
        heads.push((bucket, Position(head.try_get::<i64, _>(1)?.cast_unsigned())));
    }
    let (place, taken_us, base) = (row.try_get(1)?, row.try_get(4)?, row.try_get::<i64, _>(5)?.cast_unsigned());
    Ok(Some(BackupRow { repository: RepositoryId(repository), place, anchor, taken_us, base, heads }))
}

async fn note(tx: &mut Tx, project: ProjectId, row: &BackupRow, safe: &[(LaneKey, Seq)]) -> Result<bool, Failure> {
    const TRIED: &str = "SELECT 1 FROM mobo.backup_tried WHERE repository = $1 AND hash = $2 FOR UPDATE";
    const DONE: &str = "DELETE FROM mobo.backup_tried WHERE repository = $1 AND number <= $2";
    const FORGET: &str = "DELETE FROM mobo.backup_head WHERE NOT EXISTS (SELECT FROM mobo.backup WHERE repository = $1)";
    const KEEP: &str = "INSERT INTO mobo.backup(one, repository, place, number, hash, taken_us, base) VALUES (1, $1, $2, $3, $4, $5, $6) \
                        ON CONFLICT (one) DO UPDATE SET repository = excluded.repository, place = excluded.place, \
                        number = excluded.number, hash = excluded.hash, taken_us = excluded.taken_us, base = excluded.base";
    const HEADS: &str = "INSERT INTO mobo.backup_head(bucket, position) SELECT * FROM unnest($1::bigint[], $2::bigint[]) \
                         ON CONFLICT (bucket) DO UPDATE SET position = excluded.position";
    // In the order of their keys, as every writer locks them.
    const RAISE: &str = "UPDATE mobo.lane l SET safe = greatest(l.safe, s.safe) FROM \
                         (SELECT l.project, l.device, l.incarnation, l.lane, u.safe FROM mobo.lane l \
                          JOIN unnest($2::bytea[], $3::bigint[], $4::smallint[], $5::bigint[]) AS u(device, incarnation, lane, safe) \
                          USING (device, incarnation, lane) WHERE l.project = $1 \
                          ORDER BY l.device, l.incarnation, l.lane FOR UPDATE OF l) s \
                         WHERE l.project = s.project AND l.device = s.device AND l.incarnation = s.incarnation AND l.lane = s.lane";
    if tx.row(sqlx::query(TRIED).bind(row.repository.0.to_vec()).bind(row.anchor.hash.to_vec())).await?.is_none() {
        return Ok(false);
    }
    tx.run(sqlx::query(DONE).bind(row.repository.0.to_vec()).bind(row.anchor.number.cast_signed())).await?;
    tx.run(sqlx::query(FORGET).bind(row.repository.0.to_vec())).await?;
    let keep = sqlx::query(KEEP).bind(row.repository.0.to_vec()).bind(&row.place).bind(row.anchor.number.cast_signed());
    tx.run(keep.bind(row.anchor.hash.to_vec()).bind(row.taken_us).bind(row.base.cast_signed())).await?;
    let buckets: Vec<i64> = row.heads.iter().map(|(bucket, _)| bucket.sql()).collect();
    let positions: Vec<i64> = row.heads.iter().map(|(_, position)| position.0.cast_signed()).collect();
    tx.run(sqlx::query(HEADS).bind(buckets).bind(positions)).await?;
    let devices: Vec<Vec<u8>> = safe.iter().map(|(lane, _)| lane.device.as_bytes().to_vec()).collect();
    let incarnations: Vec<i64> = safe.iter().map(|(lane, _)| lane.incarnation.sql()).collect();
    let lanes: Vec<i16> = safe.iter().map(|(lane, _)| i16::from(lane.lane.number())).collect();
    let seqs: Vec<i64> = safe.iter().map(|(_, seq)| seq.get().cast_signed()).collect();
    tx.run(sqlx::query(RAISE).bind(project.sql()).bind(devices).bind(incarnations).bind(lanes).bind(seqs)).await?;
    Ok(true)
}
