//! A hub that has gone back in time, and devices that appear twice.

use std::sync::Arc;

use mobo_core::ids::{BucketId, DeviceId, Incarnation, Position, ProjectId, Timeline};
use mobo_core::message::Definition;
use mobo_core::schema::Schema;
use mobo_core::store::{DeviceRow, Fork, HubRow, OfferBatch, OfferReport, Recovery, RecoveryStore, StoreFuture, Twice};
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension};

use super::{SqliteHubStore, devices, identity, offers};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::number;

impl RecoveryStore for SqliteHubStore {
    fn current(&self) -> StoreFuture<'_, HubRow> {
        Box::pin(self.readers.read(identity::current))
    }

    fn heads(&self, project: ProjectId) -> StoreFuture<'_, Vec<(BucketId, Position)>> {
        Box::pin(self.readers.read(move |connection| heads(connection, Some(project))))
    }

    fn positions(&self, project: ProjectId) -> StoreFuture<'_, u64> {
        Box::pin(self.readers.read(move |connection| {
            let sql = "SELECT coalesce(sum(head), 0) FROM mobo_bucket WHERE project = ?1";
            let sum: i64 = connection.prepare_cached(sql)?.query_row([project.sql()], |row| row.get(0))?;
            Ok(sum.cast_unsigned())
        }))
    }

    fn fork_timeline(&self, _: ProjectId, fork: Fork) -> StoreFuture<'_, HubRow> {
        Box::pin(self.writer.run(move |connection| self::fork(connection, &fork)))
    }

    fn recovery(&self, project: ProjectId) -> StoreFuture<'_, Option<Recovery>> {
        Box::pin(self.readers.read(move |connection| recovery(connection, project)))
    }

    fn readmit(&self, project: ProjectId, device: DeviceRow) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| devices::readmit(connection, project, &device)))
    }

    fn join_offer(&self, project: ProjectId, batch: OfferBatch) -> StoreFuture<'_, OfferReport> {
        let schemas = Arc::clone(&self.schemas);
        Box::pin(self.writer.run(move |connection| offers::join(connection, &schemas, project, &batch)))
    }

    fn adopt(&self, project: ProjectId, rev: u64, definitions: Vec<Definition>) -> StoreFuture<'_, (Schema, Vec<String>)> {
        Box::pin(self.writer.run(move |connection| offers::adopt(connection, project, rev, &definitions)))
    }

    fn offered_all(&self, project: ProjectId, device: DeviceId, now: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| offered_all(connection, project, (device, now))))
    }

    fn finish_recovery(&self, _: ProjectId, now: Eff) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| end(connection, now, true)))
    }

    fn note_twice(&self, project: ProjectId, twice: Twice, since: Eff) -> StoreFuture<'_, (bool, u64)> {
        Box::pin(self.writer.run(move |connection| note_twice(connection, project, &twice, since)))
    }

    fn twice(&self, project: ProjectId) -> StoreFuture<'_, Vec<Twice>> {
        Box::pin(self.readers.read(move |connection| twice(connection, project)))
    }

    fn is_continued(&self, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> StoreFuture<'_, bool> {
        Box::pin(self.readers.read(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM mobo_incarnation WHERE project = ?1 AND device = ?2 AND parent = ?3)";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row((project.sql(), device.as_bytes(), incarnation.sql()), |row| row.get(0))?)
        }))
    }
}

fn heads(connection: &Connection, project: Option<ProjectId>) -> Result<Vec<(BucketId, Position)>, Failure> {
    let sql = "SELECT id, head FROM mobo_bucket WHERE ?1 IS NULL OR project = ?1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([project.map(ProjectId::sql)])?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        heads.push((known(BucketId::from_sql(row.get(0)?), "bucket")?, Position(number(row, 1)?)));
    }
    Ok(heads)
}

/// All in one transaction: whoever is told of the timeline finds everything that belongs to it.
fn fork(connection: &Connection, fork: &Fork) -> Result<HubRow, Failure> {
    let hub = identity::current(connection)?;
    if hub.timeline.timeline != fork.from {
        return Ok(hub);
    }
    let history = mobo_core::recover::fork(&hub.timeline, fork.fresh, heads(connection, None)?, &fork.foreign);
    identity::set_history(connection, &history, fork.incarnation)?;
    // Sessions count on the timeline that gave them (R17).
    connection.execute("UPDATE mobo_incarnation SET confirmed = 0", [])?;
    connection.execute("UPDATE mobo_device SET confirmed = 0", [])?;
    connection.execute("DELETE FROM mobo_offered", [])?;
    let sql = "INSERT OR REPLACE INTO mobo_recovery(one, timeline, since_us) VALUES (1, ?1, ?2)";
    connection.execute(sql, (fork.fresh.as_bytes(), fork.now.0))?;
    identity::current(connection)
}

fn recovery(connection: &Connection, project: ProjectId) -> Result<Option<Recovery>, Failure> {
    let sql = "SELECT timeline, since_us, ended_us, by_operator, joined, refused FROM mobo_recovery";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row([], |row| {
        Ok(Recovery {
            timeline: Timeline(row.get(0)?),
            since: Eff(row.get(1)?),
            ended: row.get::<_, Option<i64>>(2)?.map(Eff),
            by_operator: row.get(3)?,
            joined: row.get::<_, i64>(4)?.cast_unsigned(),
            refused: row.get::<_, i64>(5)?.cast_unsigned(),
            unseen: Vec::new(),
        })
    });
    let Some(mut recovery) = row.optional()? else { return Ok(None) };
    if recovery.ended.is_none() {
        recovery.unseen = unseen(connection, project)?;
    }
    Ok(Some(recovery))
}

fn unseen(connection: &Connection, project: ProjectId) -> Result<Vec<(DeviceId, String)>, Failure> {
    let sql = "SELECT id, name FROM mobo_device d WHERE project = ?1 AND revoked_us IS NULL \
               AND NOT EXISTS (SELECT 1 FROM mobo_offered o WHERE o.project = d.project AND o.device = d.id) ORDER BY name, id";
    let mut statement = connection.prepare_cached(sql)?;
    let devices = statement.query_map([project.sql()], |row| Ok((DeviceId(row.get(0)?), row.get(1)?)))?;
    Ok(devices.collect::<Result<_, _>>()?)
}

fn offered_all(connection: &Connection, project: ProjectId, (device, now): (DeviceId, Eff)) -> Result<bool, Failure> {
    let sql = "INSERT INTO mobo_offered(project, device, at_us) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute((project.sql(), device.as_bytes(), now.0))?;
    if unseen(connection, project)?.is_empty() { end(connection, now, false) } else { Ok(false) }
}

fn end(connection: &Connection, now: Eff, by_operator: bool) -> Result<bool, Failure> {
    let sql = "UPDATE mobo_recovery SET ended_us = ?1, by_operator = ?2 WHERE ended_us IS NULL";
    Ok(connection.execute(sql, (now.0, by_operator))? > 0)
}

fn note_twice(connection: &Connection, project: ProjectId, twice: &Twice, since: Eff) -> Result<(bool, u64), Failure> {
    let sql = "INSERT INTO mobo_twice(project, device, incarnation, reason, at_us) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let key = (project.sql(), twice.device.as_bytes(), twice.incarnation.sql());
    let is_new = connection.execute(sql, (key.0, key.1, key.2, &twice.reason, twice.at.0))? > 0;
    let sql = "SELECT count(*) FROM mobo_twice WHERE project = ?1 AND device = ?2 AND at_us >= ?3";
    let count = connection.query_row(sql, (key.0, key.1, since.0), |row| row.get::<_, i64>(0))?;
    Ok((is_new, count.cast_unsigned()))
}

fn twice(connection: &Connection, project: ProjectId) -> Result<Vec<Twice>, Failure> {
    let sql = "SELECT device, incarnation, reason, at_us FROM mobo_twice WHERE project = ?1 ORDER BY at_us DESC LIMIT 100";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([project.sql()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Twice {
            device: DeviceId(row.get(0)?),
            incarnation: known(Incarnation::from_sql(row.get(1)?), "incarnation")?,
            reason: row.get(2)?,
            at: Eff(row.get(3)?),
        });
    }
    Ok(found)
}
