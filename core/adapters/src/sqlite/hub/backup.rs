//! The hub's own record of its backups, and what is safe by them.

use std::sync::Arc;

use mobo_core::backup::RepositoryId;
use mobo_core::backup::manifest::Anchor;
use mobo_core::ids::{BucketId, LaneKey, Position, ProjectId, Seq};
use mobo_core::store::{BackupRow, BackupStore, Cut, StoreFuture};
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

    fn note_backup(&self, project: ProjectId, row: BackupRow, safe: Vec<(LaneKey, Seq)>) -> StoreFuture<'_, ()> {
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

fn note(connection: &Connection, project: ProjectId, row: &BackupRow, safe: &[(LaneKey, Seq)]) -> Result<(), Failure> {
    connection
        .execute("DELETE FROM mobo_backup_head WHERE NOT EXISTS (SELECT 1 FROM mobo_backup WHERE repository = ?1)", [&row.repository.0])?;
    connection.execute(
        "INSERT OR REPLACE INTO mobo_backup(one, repository, place, number, hash, taken_us, base) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        (row.repository.0, &row.place, row.anchor.number.cast_signed(), row.anchor.hash, row.taken_us, row.base.cast_signed()),
    )?;
    let mut head = connection.prepare_cached("INSERT OR REPLACE INTO mobo_backup_head(bucket, position) VALUES (?1, ?2)")?;
    for (bucket, position) in &row.heads {
        head.execute((bucket.sql(), position.0.cast_signed()))?;
    }
    let sql = "UPDATE mobo_lane SET safe = max(safe, ?5) WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4";
    let mut raise = connection.prepare_cached(sql)?;
    for (lane, seq) in safe {
        raise.execute((project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), seq.get().cast_signed()))?;
    }
    Ok(())
}
