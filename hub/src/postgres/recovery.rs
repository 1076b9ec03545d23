//! A hub that has gone back in time, and devices that appear twice.

use std::sync::Arc;

use mobo_core::ids::{BucketId, DeviceId, Incarnation, Position, ProjectId, Timeline};
use mobo_core::message::Definition;
use mobo_core::schema::Schema;
use mobo_core::store::{DeviceRow, Fork, HubRow, OfferBatch, OfferReport, Recovery, RecoveryStore, StoreFuture, Twice};
use mobo_core::time::Eff;
use sqlx::Row;

use super::error::{Failure, known};
use super::session::{Purpose, Tx};
use super::{PostgresHubStore, apart, devices, hub, offers};

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

impl RecoveryStore for PostgresHubStore {
    fn current(&self) -> StoreFuture<'_, HubRow> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Read).await?;
            let row = hub::read(&mut tx).await;
            let row = tx.finish(row).await?;
            self.inner.known.see_timeline(row.timeline.timeline);
            Ok(row)
        })
    }

    fn heads(&self, project: ProjectId) -> StoreFuture<'_, Vec<(BucketId, Position)>> {
        transaction!(self, Read, |tx| heads(tx, Some(project)))
    }

    fn positions(&self, project: ProjectId) -> StoreFuture<'_, u64> {
        transaction!(self, Read, |tx| async {
            let sum = sqlx::query("SELECT coalesce(sum(head), 0)::int8 FROM mobo.bucket WHERE project = $1").bind(project.sql());
            let sum: i64 = known(tx.row(sum).await?, "sum")?.try_get(0)?;
            Ok::<u64, Failure>(sum.cast_unsigned())
        })
    }

    fn fork_timeline(&self, _: ProjectId, fork: Fork) -> StoreFuture<'_, HubRow> {
        Box::pin(async move {
            let mut tx = self.begin(Purpose::Write).await?;
            let forked = self::fork(&mut tx, &fork).await;
            let row = tx.finish(forked).await?;
            self.inner.known.begin_again();
            Ok(row)
        })
    }

    fn has_gone_back(&self) -> bool {
        self.inner.known.has_gone_back()
    }

    fn recovery(&self, project: ProjectId) -> StoreFuture<'_, Option<Recovery>> {
        transaction!(self, Read, |tx| recovery(tx, project))
    }

    fn readmit(&self, project: ProjectId, device: DeviceRow) -> StoreFuture<'_, ()> {
        transaction!(self, Write, |tx| devices::readmit(tx, project, &device))
    }

    fn join_offer(&self, project: ProjectId, batch: OfferBatch) -> StoreFuture<'_, OfferReport> {
        let inner = Arc::clone(&self.inner);
        Box::pin(apart(async move || offers::join(&inner, project, &batch).await))
    }

    fn adopt(&self, project: ProjectId, rev: u64, definitions: Vec<Definition>) -> StoreFuture<'_, (Schema, Vec<String>)> {
        transaction!(self, Write, |tx| offers::adopt(tx, project, rev, &definitions))
    }

    fn offered_all(&self, project: ProjectId, device: DeviceId, now: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| offered_all(tx, project, (device, now)))
    }

    fn finish_recovery(&self, _: ProjectId, now: Eff) -> StoreFuture<'_, bool> {
        transaction!(self, Write, |tx| end(tx, now, true))
    }

    fn note_twice(&self, project: ProjectId, twice: Twice, since: Eff) -> StoreFuture<'_, (bool, u64)> {
        transaction!(self, Write, |tx| note_twice(tx, project, &twice, since))
    }

    fn twice(&self, project: ProjectId) -> StoreFuture<'_, Vec<Twice>> {
        transaction!(self, Read, |tx| twice(tx, project))
    }

    fn is_continued(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, bool> {
        transaction!(self, Read, |tx| async {
            let look = sqlx::query("SELECT EXISTS (SELECT 1 FROM mobo.incarnation WHERE project = $1 AND device = $2 AND parent = $3)");
            let row = tx.row(look.bind(project.sql()).bind(device.0).bind(incarnation.sql())).await?;
            Ok::<bool, Failure>(known(row, "answer")?.try_get(0)?)
        })
    }
}

async fn heads(tx: &mut Tx, project: Option<ProjectId>) -> Result<Vec<(BucketId, Position)>, Failure> {
    let look = sqlx::query("SELECT id, head FROM mobo.bucket WHERE $1::int8 IS NULL OR project = $1 ORDER BY id");
    let rows = tx.rows(look.bind(project.map(ProjectId::sql))).await?;
    let head = |row: &sqlx::postgres::PgRow| {
        let bucket = known(BucketId::from_sql(row.try_get(0)?), "bucket")?;
        Ok((bucket, Position(row.try_get::<i64, _>(1)?.cast_unsigned())))
    };
    rows.iter().map(head).collect()
}

/// All in one transaction: whoever is told of the timeline finds everything that belongs to it. The buckets are locked, so that every merge
/// is either before the fork or behind it.
async fn fork(tx: &mut Tx, fork: &Fork) -> Result<HubRow, Failure> {
    tx.row(sqlx::query("SELECT 1 FROM mobo.hub FOR UPDATE")).await?;
    let now = hub::read(tx).await?;
    if now.timeline.timeline != fork.from {
        return Ok(now);
    }
    tx.rows(sqlx::query("SELECT 1 FROM mobo.bucket ORDER BY id FOR UPDATE")).await?;
    let heads = heads(tx, None).await?;
    let history = mobo_core::recover::fork(&now.timeline, fork.fresh, heads, &fork.foreign);
    hub::set_history(tx, &history, fork.incarnation).await?;
    // Sessions count on the timeline that gave them (R17).
    tx.run(sqlx::query("UPDATE mobo.incarnation SET confirmed = 0")).await?;
    tx.run(sqlx::query("DELETE FROM mobo.offered")).await?;
    tx.run(sqlx::query("DELETE FROM mobo.recovery")).await?;
    let begin = sqlx::query("INSERT INTO mobo.recovery(one, timeline, since_us) VALUES (1, $1, $2)");
    tx.run(begin.bind(fork.fresh.0).bind(fork.now.0)).await?;
    hub::read(tx).await
}

async fn recovery(tx: &mut Tx, project: ProjectId) -> Result<Option<Recovery>, Failure> {
    let look = sqlx::query("SELECT timeline, since_us, ended_us, by_operator, joined, refused FROM mobo.recovery");
    let Some(row) = tx.row(look).await? else { return Ok(None) };
    let ended = row.try_get::<Option<i64>, _>(2)?.map(Eff);
    Ok(Some(Recovery {
        timeline: Timeline(row.try_get(0)?),
        since: Eff(row.try_get(1)?),
        ended,
        by_operator: row.try_get(3)?,
        joined: row.try_get::<i64, _>(4)?.cast_unsigned(),
        refused: row.try_get::<i64, _>(5)?.cast_unsigned(),
        unseen: if ended.is_none() { unseen(tx, project).await? } else { Vec::new() },
    }))
}

async fn unseen(tx: &mut Tx, project: ProjectId) -> Result<Vec<(DeviceId, String)>, Failure> {
    let look = sqlx::query(
        "SELECT id, name FROM mobo.device d WHERE project = $1 AND revoked_us IS NULL \
         AND NOT EXISTS (SELECT 1 FROM mobo.offered o WHERE o.project = d.project AND o.device = d.id) ORDER BY name, id",
    );
    let rows = tx.rows(look.bind(project.sql())).await?;
    rows.iter().map(|row| Ok((DeviceId(row.try_get(0)?), row.try_get(1)?))).collect()
}

async fn offered_all(tx: &mut Tx, project: ProjectId, (device, now): (DeviceId, Eff)) -> Result<bool, Failure> {
    // One after the other: of two that come last at the same time, one sees the other.
    tx.row(sqlx::query("SELECT 1 FROM mobo.recovery FOR UPDATE")).await?;
    let note = sqlx::query("INSERT INTO mobo.offered(project, device, at_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
    tx.run(note.bind(project.sql()).bind(device.0).bind(now.0)).await?;
    if unseen(tx, project).await?.is_empty() { end(tx, now, false).await } else { Ok(false) }
}

async fn end(tx: &mut Tx, now: Eff, by_operator: bool) -> Result<bool, Failure> {
    let end = sqlx::query("UPDATE mobo.recovery SET ended_us = $1, by_operator = $2 WHERE ended_us IS NULL");
    Ok(tx.run(end.bind(now.0).bind(by_operator)).await? > 0)
}

async fn note_twice(tx: &mut Tx, project: ProjectId, twice: &Twice, since: Eff) -> Result<(bool, u64), Failure> {
    let note = sqlx::query(
        "INSERT INTO mobo.twice(project, device, incarnation, reason, at_us) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    );
    let note = note.bind(project.sql()).bind(twice.device.0).bind(twice.incarnation.sql()).bind(&twice.reason).bind(twice.at.0);
    let is_new = tx.run(note).await? > 0;
    let count = sqlx::query("SELECT count(*) FROM mobo.twice WHERE project = $1 AND device = $2 AND at_us >= $3");
    let row = tx.row(count.bind(project.sql()).bind(twice.device.0).bind(since.0)).await?;
    Ok((is_new, known(row, "count")?.try_get::<i64, _>(0)?.cast_unsigned()))
}

async fn twice(tx: &mut Tx, project: ProjectId) -> Result<Vec<Twice>, Failure> {
    let look = sqlx::query("SELECT device, incarnation, reason, at_us FROM mobo.twice WHERE project = $1 ORDER BY at_us DESC LIMIT 100");
    let rows = tx.rows(look.bind(project.sql())).await?;
    let found = |row: &sqlx::postgres::PgRow| {
        Ok(Twice {
            device: DeviceId(row.try_get(0)?),
            incarnation: known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?,
            reason: row.try_get(2)?,
            at: Eff(row.try_get(3)?),
        })
    };
    rows.iter().map(found).collect()
}
