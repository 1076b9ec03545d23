//! Refused entries: kept whole, tried again, let go; never lost.

use std::collections::BTreeSet;

use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{Chain, CollectionId, DeviceId, Eid, Incarnation, LaneKey, ProjectId, Seq};
use mobo_core::merge::{EntryOutcome, EntryWrite, KeptEntry, Retried};
use mobo_core::message::Code;
use mobo_core::store::{QuarantineRow, QuarantineStatus, QuarantinedEntry};
use mobo_core::time::Eff;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::devices::{lane, seq};
use super::error::{Failure, known};
use super::session::{Statement, Tx};

const COLUMNS: &str = "n, device, incarnation, lane, seq, collection, id, code, detail, at_us";

/// A row of these columns.
pub(super) fn row(row: &PgRow) -> Result<QuarantineRow, Failure> {
    let device = DeviceId(row.try_get(1)?);
    let incarnation = known(Incarnation::from_sql(row.try_get(2)?), "incarnation")?;
    let collection = row.try_get::<Option<i64>, _>(5)?.and_then(CollectionId::from_sql);
    Ok(QuarantineRow {
        n: number(row, 0)?,
        lane: LaneKey { device, incarnation, lane: lane(row.try_get(3)?)? },
        seq: known(seq(row.try_get(4)?), "seq")?,
        record: collection.zip(row.try_get(6)?),
        code: known(u16::try_from(row.try_get::<i32, _>(7)?).ok(), "code")?,
        detail: row.try_get(8)?,
        at: Eff(row.try_get(9)?),
    })
}

fn number(row: &PgRow, index: usize) -> Result<u64, Failure> {
    known(u64::try_from(row.try_get::<i64, _>(index)?).ok(), "number")
}

fn bound<'q>(look: Statement<'q>, project: ProjectId, lane: &LaneKey, seq: Seq) -> Statement<'q> {
    let look = look.bind(project.sql()).bind(lane.device.0).bind(lane.incarnation.sql());
    look.bind(i16::from(lane.lane.number())).bind(seq.get().cast_signed())
}

/// One refused entry, whatever became of it.
pub(super) async fn entry(tx: &mut Tx, project: ProjectId, n: u64) -> Result<Option<QuarantinedEntry>, Failure> {
    let sql = format!("SELECT {COLUMNS}, status, settled_us, header, payload FROM mobo.quarantine WHERE project = $1 AND n = $2");
    let Some(found) = tx.row(sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(n.cast_signed())).await? else { return Ok(None) };
    let row = row(&found)?;
    let status = u8::try_from(found.try_get::<i16, _>(10)?).ok().and_then(QuarantineStatus::from_code);
    Ok(Some(QuarantinedEntry {
        status: known(status, "status of a refused entry")?,
        settled: found.try_get::<Option<i64>, _>(11)?.map(Eff),
        blocked_by: blocked_by(tx, project, &row).await?,
        blocks: blocks(tx, project, &row).await?,
        header: found.try_get(12)?,
        payload: found.try_get::<Option<Vec<u8>>, _>(13)?.unwrap_or_default(),
        row,
    }))
}

/// The first refused entry of the same log on the same document.
async fn blocked_by(tx: &mut Tx, project: ProjectId, row: &QuarantineRow) -> Result<Option<u64>, Failure> {
    let (Some((collection, id)), true) = (&row.record, row.code == Code::BLOCKED.0) else { return Ok(None) };
    let look = sqlx::query(
        "SELECT min(n) FROM mobo.quarantine WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq < $5 \
         AND collection = $6 AND id = $7 AND code <> $8",
    );
    let look = bound(look, project, &row.lane, row.seq).bind(collection.sql()).bind(id).bind(i32::from(Code::BLOCKED.0));
    let n: Option<i64> = known(tx.row(look).await?, "number")?.try_get(0)?;
    Ok(n.map(i64::cast_unsigned))
}

/// The open entries that were refused because they build on this one.
async fn blocks(tx: &mut Tx, project: ProjectId, row: &QuarantineRow) -> Result<Vec<u64>, Failure> {
    let (Some((collection, id)), true) = (&row.record, row.code != Code::BLOCKED.0) else { return Ok(Vec::new()) };
    let look = sqlx::query(
        "SELECT n FROM mobo.quarantine WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq > $5 \
         AND collection = $6 AND id = $7 AND code = $8 AND status = 0 ORDER BY seq",
    );
    let look = bound(look, project, &row.lane, row.seq).bind(collection.sql()).bind(id).bind(i32::from(Code::BLOCKED.0));
    tx.rows(look).await?.iter().map(|row| number(row, 0)).collect()
}

/// Lets an open entry go; false when it is not open.
pub(super) async fn drop(tx: &mut Tx, project: ProjectId, n: u64, now: Eff) -> Result<bool, Failure> {
    let drop = sqlx::query("UPDATE mobo.quarantine SET status = 2, settled_us = $3 WHERE project = $1 AND n = $2 AND status = 0");
    Ok(tx.run(drop.bind(project.sql()).bind(n.cast_signed()).bind(now.0)).await? > 0)
}

/// The refused entries of one log that were not merged after all, by lane and position.
pub(super) async fn refusals(
    tx: &mut Tx,
    project: ProjectId,
    device: DeviceId,
    incarnation: Incarnation,
) -> Result<Vec<QuarantineRow>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM mobo.quarantine WHERE project = $1 AND device = $2 AND incarnation = $3 AND status <> 1 ORDER BY lane, seq"
    );
    let look = sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(device.0).bind(incarnation.sql());
    tx.rows(look).await?.iter().map(row).collect()
}

/// An entry that is to be tried again, if it is open, locked against an operator who lets it go meanwhile.
pub(super) async fn kept(tx: &mut Tx, project: ProjectId, lane: &LaneKey, seq: Seq) -> Result<Option<(Entry, Chain, Eff)>, Failure> {
    let look = sqlx::query(
        "SELECT q.header, q.payload, e.chain, e.eff FROM mobo.quarantine q JOIN mobo.entry e \
         USING (project, device, incarnation, lane, seq) \
         WHERE q.project = $1 AND q.device = $2 AND q.incarnation = $3 AND q.lane = $4 AND q.seq = $5 AND q.status = 0 FOR UPDATE OF q",
    );
    let Some(row) = tx.row(bound(look, project, lane, seq)).await? else { return Ok(None) };
    let payload = Payload::Present(row.try_get::<Option<Vec<u8>>, _>(1)?.unwrap_or_default());
    Ok(Some((Entry { header: row.try_get(0)?, payload }, Chain(row.try_get(2)?), Eff(row.try_get(3)?))))
}

/// The effective time of the entry before; `None` for the first of its lane.
pub(super) async fn eff_before(tx: &mut Tx, project: ProjectId, lane: &LaneKey, seq: Seq) -> Result<Option<Eff>, Failure> {
    let look = sqlx::query(
        "SELECT eff FROM mobo.entry WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq < $5 \
         ORDER BY seq DESC LIMIT 1",
    );
    Ok(match tx.row(bound(look, project, lane, seq)).await? {
        Some(row) => Some(Eff(row.try_get(0)?)),
        None => None,
    })
}

/// The identities under which entries that are to be tried again may have been merged.
pub(super) fn eids(kept: &std::collections::BTreeMap<(LaneKey, Seq), KeptEntry>) -> BTreeSet<(DeviceId, Eid)> {
    kept.iter().flat_map(|((lane, _), kept)| kept.eids().into_iter().map(|eid| (lane.device, eid))).collect()
}

/// Notes of refused entries that their author has written them again, and that they were merged so: nobody has to decide about them any more.
pub(super) async fn replaced(tx: &mut Tx, (project, now): (ProjectId, Eff), entries: &[EntryWrite]) -> Result<(), Failure> {
    let is_in = |entry: &&EntryWrite| matches!(entry.outcome, EntryOutcome::Merged | EntryOutcome::Known);
    for (device, origin) in entries.iter().filter(is_in).filter_map(|entry| Some((entry.lane.device, entry.origin?))) {
        let update = sqlx::query(
            "UPDATE mobo.quarantine SET status = 1, settled_us = $4 WHERE project = $1 AND device = $2 AND status = 0 \
             AND (incarnation, lane, seq) IN ( \
               SELECT incarnation, lane, seq FROM mobo.entry WHERE project = $1 AND device = $2 AND eid = $3 AND outcome = 1 \
               UNION ALL \
               SELECT incarnation, lane, seq FROM mobo.entry WHERE project = $1 AND device = $2 AND origin_eid = $3 AND outcome = 1)",
        );
        tx.run(update.bind(project.sql()).bind(device.0).bind(origin.0).bind(now.0)).await?;
    }
    Ok(())
}

/// Notes what became of entries that were tried again.
pub(super) async fn write(tx: &mut Tx, (project, now): (ProjectId, Eff), retried: &[Retried]) -> Result<(), Failure> {
    const WHICH: &str = "WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq = $5";
    for again in retried {
        let (lane, seq) = (&again.lane, again.seq);
        let statement = |sql: String| sqlx::query(AssertSqlSafe(sql));
        if let Some(reject) = &again.reject {
            let record = reject.record.as_ref();
            let sql = format!("UPDATE mobo.quarantine SET code = $6, detail = $7, collection = $8, id = $9 {WHICH}");
            let update =
                bound(statement(sql), project, lane, seq).bind(i32::from(reject.code.0)).bind(reject.detail.replace('\0', "\u{fffd}"));
            tx.run(update.bind(record.map(|record| record.0.sql())).bind(record.map(|record| record.1.as_str()))).await?;
            continue;
        }
        let sql = format!("UPDATE mobo.quarantine SET status = 1, settled_us = $6 {WHICH}");
        tx.run(bound(statement(sql), project, lane, seq).bind(now.0)).await?;
        let sql = format!("UPDATE mobo.entry SET outcome = $6 {WHICH}");
        tx.run(bound(statement(sql), project, lane, seq).bind(i16::from(again.outcome.code()))).await?;
        // What was refused because of it may be tried again, too.
        let unblock = sqlx::query("DELETE FROM mobo.blocked WHERE project = $1 AND device = $2 AND incarnation = $3 AND seq = $4");
        let unblock = unblock.bind(project.sql()).bind(lane.device.0).bind(lane.incarnation.sql());
        tx.run(unblock.bind(seq.get().cast_signed())).await?;
    }
    Ok(())
}
