//! Refused entries: kept whole, tried again, let go; never lost.

use std::collections::BTreeSet;

use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{Chain, CollectionId, DeviceId, Eid, Incarnation, Lane, LaneKey, ProjectId, Seq};
use mobo_core::merge::{EntryOutcome, EntryWrite, KeptEntry, LaneReads, Retried};
use mobo_core::message::Code;
use mobo_core::store::{QuarantineRow, QuarantineStatus, QuarantinedEntry};
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{entries, lanes};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::number;

const COLUMNS: &str = "n, device, incarnation, lane, seq, collection, id, code, detail, at_us";

fn row(row: &Row<'_>) -> Result<QuarantineRow, Failure> {
    let collection = row.get::<_, Option<i64>>(5)?.and_then(CollectionId::from_sql);
    Ok(QuarantineRow {
        n: number(row, 0)?,
        lane: LaneKey {
            device: DeviceId(row.get(1)?),
            incarnation: known(Incarnation::from_sql(row.get(2)?), "incarnation")?,
            lane: known(Lane::from_number(row.get(3)?), "lane")?,
        },
        seq: known(Seq::new(number(row, 4)?), "position in a lane")?,
        record: collection.zip(row.get(6)?),
        code: row.get(7)?,
        detail: row.get(8)?,
        at: Eff(row.get(9)?),
    })
}

/// One refused entry, whatever became of it.
pub(super) fn entry(connection: &Connection, project: ProjectId, n: u64) -> Result<Option<QuarantinedEntry>, Failure> {
    let sql = format!("SELECT {COLUMNS}, status, settled_us, header, payload FROM mobo_quarantine WHERE project = ?1 AND n = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((project.sql(), n.cast_signed()))?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let row = row(found)?;
    Ok(Some(QuarantinedEntry {
        status: known(QuarantineStatus::from_code(found.get(10)?), "status of a refused entry")?,
        settled: found.get::<_, Option<i64>>(11)?.map(Eff),
        blocked_by: blocked_by(connection, project, &row)?,
        blocks: blocks(connection, project, &row)?,
        header: found.get(12)?,
        payload: found.get::<_, Option<Vec<u8>>>(13)?.unwrap_or_default(),
        row,
    }))
}

/// The first refused entry of the same log on the same document.
fn blocked_by(connection: &Connection, project: ProjectId, row: &QuarantineRow) -> Result<Option<u64>, Failure> {
    let (Some((collection, id)), true) = (&row.record, row.code == Code::BLOCKED.0) else { return Ok(None) };
    let sql = "SELECT min(n) FROM mobo_quarantine WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq < ?5 \
               AND collection = ?6 AND id = ?7 AND code <> ?8";
    let lane = &row.lane;
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), row.seq.get().cast_signed());
    let mut statement = connection.prepare_cached(sql)?;
    let key = (key.0, key.1, key.2, key.3, key.4, collection.sql(), id, Code::BLOCKED.0);
    let n: Option<i64> = statement.query_row(key, |row| row.get(0))?;
    Ok(n.map(i64::cast_unsigned))
}

/// The open entries that were refused because they build on this one.
fn blocks(connection: &Connection, project: ProjectId, row: &QuarantineRow) -> Result<Vec<u64>, Failure> {
    let (Some((collection, id)), true) = (&row.record, row.code != Code::BLOCKED.0) else { return Ok(Vec::new()) };
    let sql = "SELECT n FROM mobo_quarantine WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq > ?5 \
               AND collection = ?6 AND id = ?7 AND code = ?8 AND status = 0 ORDER BY seq";
    let lane = &row.lane;
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), row.seq.get().cast_signed());
    let mut statement = connection.prepare_cached(sql)?;
    let key = (key.0, key.1, key.2, key.3, key.4, collection.sql(), id, Code::BLOCKED.0);
    let found = statement.query_map(key, |row| row.get::<_, i64>(0))?;
    found.map(|n| Ok(n?.cast_unsigned())).collect()
}

/// Lets an open entry go; false when it is not open.
pub(super) fn drop(connection: &Connection, project: ProjectId, n: u64, now: Eff) -> Result<bool, Failure> {
    let sql = "UPDATE mobo_quarantine SET status = 2, settled_us = ?3 WHERE project = ?1 AND n = ?2 AND status = 0";
    Ok(connection.prepare_cached(sql)?.execute((project.sql(), n.cast_signed(), now.0))? > 0)
}

/// The refused entries of one log that were not merged after all, by lane and position.
pub(super) fn refusals(
    connection: &Connection,
    project: ProjectId,
    device: DeviceId,
    incarnation: Incarnation,
) -> Result<Vec<QuarantineRow>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM mobo_quarantine WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND status <> 1 ORDER BY lane, seq"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((project.sql(), device.as_bytes(), incarnation.sql()))?;
    let mut refusals = Vec::new();
    while let Some(found) = rows.next()? {
        refusals.push(row(found)?);
    }
    Ok(refusals)
}

/// Reads the entries that are to be tried again, as far as they are open, and which of them were merged under another name.
pub(super) fn read_kept(
    connection: &Connection,
    project: ProjectId,
    wanted: &BTreeSet<(LaneKey, Seq)>,
    reads: &mut LaneReads,
) -> Result<(), Failure> {
    for (lane, seq) in wanted {
        let Some(kept) = kept(connection, project, lane, *seq)? else { continue };
        for eid in kept.eids() {
            let eid: Eid = eid;
            if entries::is_known(connection, project, lane.device, &eid)? {
                reads.origins.insert((lane.device, eid));
            }
        }
        reads.retries.insert((*lane, *seq), kept);
    }
    Ok(())
}

fn kept(connection: &Connection, project: ProjectId, lane: &LaneKey, seq: Seq) -> Result<Option<KeptEntry>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT q.header, q.payload, e.chain, e.eff FROM mobo_quarantine q JOIN mobo_entry e \
         USING (project, device, incarnation, lane, seq) \
         WHERE q.project = ?1 AND q.device = ?2 AND q.incarnation = ?3 AND q.lane = ?4 AND q.seq = ?5 AND q.status = 0",
    )?;
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), seq.get().cast_signed());
    let found = statement.query_row(key, |row| {
        let payload = Payload::Present(row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default());
        Ok((Entry { header: row.get(0)?, payload }, Chain(row.get(2)?), Eff(row.get(3)?)))
    });
    let Some((entry, chain, eff)) = found.optional()? else { return Ok(None) };
    let before = match Seq::new(seq.get() - 1) {
        Some(before) => entries::eff_at_or_before(connection, project, lane, before)?,
        None => None,
    };
    let before = match before {
        Some(before) => before,
        None => lanes::begin(connection, project, lane)?,
    };
    Ok(Some(KeptEntry { entry, chain, eff, before }))
}

/// Notes of refused entries that their author has written them again, and that they were merged so: nobody has to decide about them any more.
pub(super) fn replaced(connection: &Connection, project: ProjectId, now: Eff, entries: &[EntryWrite]) -> Result<(), Failure> {
    let sql = "UPDATE mobo_quarantine SET status = 1, settled_us = ?4 WHERE project = ?1 AND device = ?2 AND status = 0 \
               AND (incarnation, lane, seq) IN ( \
                 SELECT incarnation, lane, seq FROM mobo_entry WHERE project = ?1 AND device = ?2 AND eid = ?3 AND outcome = 1 \
                 UNION ALL \
                 SELECT incarnation, lane, seq FROM mobo_entry WHERE project = ?1 AND device = ?2 AND origin_eid = ?3 AND outcome = 1)";
    let is_in = |entry: &&EntryWrite| {
        mobo_core::protect!("redo.settled-at-hub", matches!(entry.outcome, EntryOutcome::Merged | EntryOutcome::Known))
    };
    for (device, origin) in entries.iter().filter(is_in).filter_map(|entry| Some((entry.lane.device, entry.origin?))) {
        connection.prepare_cached(sql)?.execute((project.sql(), device.as_bytes(), origin.as_bytes(), now.0))?;
    }
    Ok(())
}

/// Notes what became of entries that were tried again.
pub(super) fn write(connection: &Connection, project: ProjectId, now: Eff, retried: &[Retried]) -> Result<(), Failure> {
    for again in retried {
        let (lane, seq) = (&again.lane, again.seq.get().cast_signed());
        let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), seq);
        if let Some(reject) = &again.reject {
            let record = reject.record.as_ref();
            let sql = "UPDATE mobo_quarantine SET code = ?6, detail = ?7, collection = ?8, id = ?9 \
                       WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq = ?5";
            let (collection, id) = (record.map(|record| record.0.sql()), record.map(|record| record.1.as_str()));
            connection.prepare_cached(sql)?.execute((key.0, key.1, key.2, key.3, key.4, reject.code.0, &reject.detail, collection, id))?;
            continue;
        }
        let sql = "UPDATE mobo_quarantine SET status = 1, settled_us = ?6 \
                   WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq = ?5";
        connection.prepare_cached(sql)?.execute((key.0, key.1, key.2, key.3, key.4, now.0))?;
        let sql = "UPDATE mobo_entry SET outcome = ?6 \
                   WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq = ?5";
        connection.prepare_cached(sql)?.execute((key.0, key.1, key.2, key.3, key.4, again.outcome.code()))?;
        // What was refused because of it may be tried again, too.
        let sql = "DELETE FROM mobo_blocked WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND seq = ?4";
        connection.prepare_cached(sql)?.execute((key.0, key.1, key.2, seq))?;
    }
    Ok(())
}
