//! Which entries wrote which rows: an index of the log that is made when somebody asks, and what it tells of one row.

use mobo_core::ids::{DeviceId, Incarnation, Lane, LaneKey, Ordinal, ProjectId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::store::{PastStore, StoreFuture};
use mobo_core::table::past::{Gathering, PastEntry, RowLog, rows_of};
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{SqliteHubStore, lanes};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::number;

impl PastStore for SqliteHubStore {
    fn trace(&self, project: ProjectId) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            // Whoever only asks keeps no writer waiting.
            if !self.readers.read(move |connection| Ok(!behind(connection, project)?.is_empty())).await? {
                return Ok(false);
            }
            self.writer.run(move |connection| trace(connection, project)).await
        })
    }

    fn past(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, RowLog> {
        Box::pin(self.readers.read(move |connection| past(connection, project, &key)))
    }
}

/// A log that the index lacks something of, and up to where it is in it.
type Behind = (DeviceId, Incarnation, i64);

fn behind(connection: &Connection, project: ProjectId) -> Result<Vec<Behind>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT l.device, l.incarnation, coalesce(t.seq, 0) FROM mobo_lane l LEFT JOIN mobo_traced t \
         ON t.project = l.project AND t.device = l.device AND t.incarnation = l.incarnation \
         WHERE l.project = ?1 AND l.lane = ?2 AND l.last > coalesce(t.seq, 0)",
    )?;
    let mut rows = statement.query((project.sql(), Lane::State.number()))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((DeviceId(row.get(0)?), known(Incarnation::from_sql(row.get(1)?), "incarnation")?, row.get(2)?));
    }
    Ok(found)
}

fn trace(connection: &Connection, project: ProjectId) -> Result<bool, Failure> {
    let (mut entries, mut bytes) = (0, 0);
    let mut insert = connection.prepare_cached(
        "INSERT INTO mobo_trace(project, collection, id, eff, device, incarnation, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT DO NOTHING",
    )?;
    let mut look = connection.prepare_cached(
        "SELECT seq, eff, header, payload FROM mobo_entry \
         WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq > ?5 ORDER BY seq",
    )?;
    for (device, incarnation, after) in behind(connection, project)? {
        let log = (project.sql(), device.as_bytes(), incarnation.sql());
        let mut rows = look.query((log.0, log.1, log.2, Lane::State.number(), after))?;
        let (mut done, mut is_full) = (after, false);
        while let Some(row) = rows.next()? {
            is_full = entries >= limits::TRACE_ENTRIES_MAX || bytes >= limits::TRACE_BYTES_MAX;
            if is_full {
                break;
            }
            done = row.get(0)?;
            let (eff, header, payload): (i64, Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let payload = payload.unwrap_or_default();
            (entries, bytes) = (entries + 1, bytes + payload.len());
            for key in rows_of(&header.unwrap_or_default(), &payload) {
                insert.execute((log.0, key.collection.sql(), key.id.as_str(), eff, log.1, log.2, done))?;
            }
        }
        let note = "INSERT INTO mobo_traced(project, device, incarnation, seq) VALUES (?1, ?2, ?3, ?4) \
                    ON CONFLICT (project, device, incarnation) DO UPDATE SET seq = excluded.seq";
        connection.prepare_cached(note)?.execute((log.0, log.1, log.2, done))?;
        if is_full {
            return Ok(true);
        }
    }
    Ok(false)
}

fn past(connection: &Connection, project: ProjectId, key: &RecordKey) -> Result<RowLog, Failure> {
    // The last ones first. One that was refused and is merged all the same was tried again.
    let mut statement = connection.prepare_cached(
        "SELECT t.device, t.incarnation, t.seq, t.eff, e.header, e.payload, i.ordinal, \
         (SELECT p.eff FROM mobo_entry p WHERE p.project = t.project AND p.device = t.device AND p.incarnation = t.incarnation \
          AND p.lane = ?4 AND p.seq = t.seq - 1), \
         EXISTS (SELECT 1 FROM mobo_quarantine q WHERE q.project = t.project AND q.device = t.device AND q.incarnation = t.incarnation \
          AND q.lane = ?4 AND q.seq = t.seq) \
         FROM mobo_trace t LEFT JOIN mobo_entry e ON e.project = t.project AND e.device = t.device AND e.incarnation = t.incarnation \
         AND e.lane = ?4 AND e.seq = t.seq \
         LEFT JOIN mobo_incarnation i ON i.project = t.project AND i.device = t.device AND i.incarnation = t.incarnation \
         WHERE t.project = ?1 AND t.collection = ?2 AND t.id = ?3 AND coalesce(e.outcome, 0) = 0 ORDER BY t.eff DESC",
    )?;
    let mut rows = statement.query((project.sql(), key.collection.sql(), key.id.as_str(), Lane::State.number()))?;
    let mut gathering = Gathering::new(key, restored(connection)?);
    while let Some(row) = rows.next()? {
        if !gathering.goes_on() {
            break;
        }
        gathering.take(entry(connection, project, row)?);
    }
    Ok(gathering.finish())
}

/// An entry; `None` where its bytes are kept no more.
fn entry(connection: &Connection, project: ProjectId, row: &Row<'_>) -> Result<Option<PastEntry>, Failure> {
    let (header, payload): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(4)?, row.get(5)?);
    let ordinal: Option<u32> = row.get(6)?;
    let (Some(header), Some(payload), Some(ordinal)) = (header, payload, ordinal) else { return Ok(None) };
    let lane = LaneKey {
        device: DeviceId(row.get(0)?),
        incarnation: known(Incarnation::from_sql(row.get(1)?), "incarnation")?,
        lane: Lane::State,
    };
    let before = match row.get::<_, Option<i64>>(7)? {
        Some(eff) => Eff(eff),
        None => lanes::begin(connection, project, &lane)?,
    };
    Ok(Some(PastEntry {
        lane,
        ordinal: Ordinal(ordinal),
        seq: known(Seq::new(number(row, 2)?), "position in a lane")?,
        eff: Eff(row.get(3)?),
        before,
        retried: row.get(8)?,
        header,
        payload,
    }))
}

fn restored(connection: &Connection) -> Result<Option<Eff>, Failure> {
    let mut statement = connection.prepare_cached("SELECT since_us FROM mobo_recovery")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?.map(Eff))
}
