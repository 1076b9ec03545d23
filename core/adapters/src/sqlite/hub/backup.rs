//! The hub's own record of its backups, and what is safe by them.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::backup::RepositoryId;
use mobo_core::backup::manifest::Anchor;
use mobo_core::ids::{BucketId, LaneKey, Position, ProjectId, Seq};
use mobo_core::limits;
use mobo_core::store::{BackupRow, BackupStore, Cut, SoleTurn, StoreFuture, Turn};
use rusqlite::{Connection, OptionalExtension};

use super::SqliteHubStore;
use super::cut::SqliteCut;
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::number;

impl BackupStore for SqliteHubStore {
    fn cut(&self) -> StoreFuture<'_, Box<dyn Cut>> {
        Box::pin(async { Ok(Box::new(SqliteCut::begin(Arc::clone(&self.cuts), self.readers.place()).await?) as Box<dyn Cut>) })
    }

    fn backup(&self) -> StoreFuture<'_, Option<BackupRow>> {
        Box::pin(self.readers.read(read))
    }

    fn turn(&self, _: Duration) -> StoreFuture<'_, Option<Box<dyn Turn>>> {
        // One hub alone has the file.
        Box::pin(async { Ok(Some(Box::new(SoleTurn) as Box<dyn Turn>)) })
    }

    fn try_backup(&self, repository: RepositoryId, anchor: Anchor) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |connection| attempt(connection, repository, anchor)))
    }

    fn note_backup(&self, project: ProjectId, row: BackupRow, safe: Vec<(LaneKey, Seq)>) -> StoreFuture<'_, bool> {
        Box::pin(self.writer.run(move |connection| note(connection, project, &row, &safe)))
    }
}

fn read(connection: &Connection) -> Result<Option<BackupRow>, Failure> {
    let sql = "SELECT repository, place, number, hash, taken_us, base FROM mobo_backup";
    let row = connection.query_row(sql, [], |row| {
        let anchor = Anchor { number: row.get::<_, i64>(2)?.cast_unsigned(), hash: row.get(3)? };
        let (repository, base) = (RepositoryId(row.get(0)?), row.get::<_, i64>(5)?.cast_unsigned());
        Ok(BackupRow { repository, place: row.get(1)?, anchor, taken_us: row.get(4)?, base, heads: Vec::new() })
    });
    let Some(mut found) = row.optional()? else { return Ok(None) };
    let mut statement = connection.prepare("SELECT bucket, position FROM mobo_backup_head ORDER BY bucket")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.heads.push((known(BucketId::from_sql(row.get(0)?), "bucket")?, Position(number(row, 1)?)));
    }
    Ok(Some(found))
}

fn attempt(connection: &Connection, repository: RepositoryId, anchor: Anchor) -> Result<(), Failure> {
    let keep = "INSERT INTO mobo_backup_tried(repository, number, hash) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(keep)?.execute((repository.0, anchor.number.cast_signed(), anchor.hash))?;
    let forget = "DELETE FROM mobo_backup_tried WHERE n <= (SELECT max(n) FROM mobo_backup_tried) - ?1";
    connection.prepare_cached(forget)?.execute([i64::try_from(limits::BACKUP_TRIED_MAX).unwrap_or(i64::MAX)])?;
    Ok(())
}

fn note(connection: &Connection, project: ProjectId, row: &BackupRow, safe: &[(LaneKey, Seq)]) -> Result<bool, Failure> {
    let tried = "SELECT EXISTS (SELECT 1 FROM mobo_backup_tried WHERE repository = ?1 AND hash = ?2)";
    if !connection.prepare_cached(tried)?.query_row((row.repository.0, row.anchor.hash), |found| found.get(0))? {
        return Ok(false);
    }
    let forget = "DELETE FROM mobo_backup_tried WHERE repository = ?1 AND number <= ?2";
    connection.prepare_cached(forget)?.execute((row.repository.0, row.anchor.number.cast_signed()))?;
    let others = "DELETE FROM mobo_backup_head WHERE NOT EXISTS (SELECT 1 FROM mobo_backup WHERE repository = ?1)";
    connection.prepare_cached(others)?.execute([&row.repository.0])?;
    let keep =
        "INSERT OR REPLACE INTO mobo_backup(one, repository, place, number, hash, taken_us, base) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)";
    let (number, base) = (row.anchor.number.cast_signed(), row.base.cast_signed());
    connection.prepare_cached(keep)?.execute((row.repository.0, &row.place, number, row.anchor.hash, row.taken_us, base))?;
    let mut head = connection.prepare_cached("INSERT OR REPLACE INTO mobo_backup_head(bucket, position) VALUES (?1, ?2)")?;
    for (bucket, position) in &row.heads {
        head.execute((bucket.sql(), position.0.cast_signed()))?;
    }
    let sql = "UPDATE mobo_lane SET safe = max(safe, ?5) WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4";
    let mut raise = connection.prepare_cached(sql)?;
    for (lane, seq) in safe {
        raise.execute((project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), seq.get().cast_signed()))?;
    }
    Ok(true)
}
