//! What people and `status` ask for: conflicts, quarantine, numbers, one record.

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, DeviceId, Incarnation, Lane, LaneKey, Position, ProjectId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::schema::{Kind, Schema};
use mobo_core::stamp::Origin;
use mobo_core::store::{BucketPage, ConflictPlace, ConflictRow, Counts, QuarantineRow, RecordRow, SqlRefused};
use mobo_core::time::Eff;
use rusqlite::{Connection, Row};
use serde_json::Value as Json;

use super::{changes, write};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::{RecordReader, number};
use crate::sqlite::table::quoted;

/// One record with its merge state.
pub(super) fn record(connection: &Connection, project: ProjectId, schema: &Schema, key: &RecordKey) -> Result<Option<RecordRow>, Failure> {
    let Some(collection) = schema.get(key.collection).filter(|collection| collection.kind != Kind::Stream) else { return Ok(None) };
    let Some(stored) = RecordReader::new(connection, project, collection)?.read(&key.id)? else { return Ok(None) };
    let damaged = |why| Failure::damaged(format!("record \"{}\" of \"{}\": {why}; run a health check", key.id, collection.name));
    let changes = changes::of(connection, project, key)?;
    Ok(Some(RecordRow { ver: stored.ver, state: stored.state.map_err(damaged)?, changes }))
}

/// Open conflicts, newest first, behind a place.
pub(super) fn conflicts(
    connection: &Connection,
    project: ProjectId,
    after: Option<&ConflictPlace>,
    limit: u32,
) -> Result<Vec<ConflictRow>, Failure> {
    const COLUMNS: &str = "SELECT collection, id, field, kind, loser, loser_stamp, winner, winner_stamp, at_us FROM mobo_conflict \
                           WHERE project = ?1 AND status = 0";
    const ORDER: &str = "ORDER BY at_us DESC, collection, id, field, loser_stamp LIMIT ?2";
    // The first condition alone lets the index find the place.
    const BEHIND: &str = "AND at_us <= ?3 AND (at_us < ?3 OR (collection, id, field, loser_stamp) > (?4, ?5, ?6, ?7))";
    let mut statement;
    let mut rows = match after {
        None => {
            statement = connection.prepare_cached(&format!("{COLUMNS} {ORDER}"))?;
            statement.query((project.sql(), limit))?
        }
        Some(place) => {
            let (collection, field) = (place.collection.sql(), place.field.cast_signed());
            statement = connection.prepare_cached(&format!("{COLUMNS} {BEHIND} {ORDER}"))?;
            statement.query((project.sql(), limit, place.at.0, collection, &place.id, field, write::encode(&place.loser)))?
        }
    };
    let mut conflicts = Vec::new();
    while let Some(row) = rows.next()? {
        conflicts.push(conflict(row)?);
    }
    Ok(conflicts)
}

fn conflict(row: &Row<'_>) -> Result<ConflictRow, Failure> {
    Ok(ConflictRow {
        collection: known(CollectionId::from_sql(row.get(0)?), "collection")?,
        id: row.get(1)?,
        field: number(row, 2)?,
        kind: row.get(3)?,
        loser: json(row, 4)?,
        loser_stamp: changes::decode(&row.get::<_, Vec<u8>>(5)?)?,
        winner: json(row, 6)?,
        winner_stamp: changes::decode(&row.get::<_, Vec<u8>>(7)?)?,
        at: Eff(row.get(8)?),
    })
}

/// The open conflicts of a record, newest first. A record has a few, a hub may have many: the plus keeps the planner from looking through all
/// of them by the index of open ones, which has them in this order.
const OF_RECORD: &str = "SELECT collection, id, field, kind, CASE WHEN octet_length(loser) <= ?4 THEN loser END, loser_stamp, \
    CASE WHEN octet_length(winner) <= ?4 THEN winner END, winner_stamp, at_us FROM mobo_conflict \
    WHERE project = ?1 AND collection = ?2 AND id = ?3 AND +status = 0 ORDER BY at_us DESC LIMIT ?5";

/// Puts the open conflicts of the records of each page into it, newest first.
pub(super) fn tell(connection: &Connection, project: ProjectId, pages: &mut [BucketPage]) -> Result<(), Failure> {
    let open = "SELECT 1 FROM mobo_conflict WHERE project = ?1 AND status = 0 LIMIT 1";
    let is_something = pages.iter().any(|page| !page.items.is_empty());
    if !is_something || !connection.prepare_cached(open)?.exists([project.sql()])? {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(OF_RECORD)?;
    for page in pages {
        for item in page.items.iter().filter(|item| item.state.is_some()) {
            let room = limits::BATCH_DECISIONS_MAX.saturating_sub(page.decisions.len()) as i64;
            let of = (project.sql(), item.key.collection.sql(), item.key.id.as_str());
            let mut rows = statement.query((of.0, of.1, of.2, limits::DECISION_VALUE_BYTES_MAX as i64, room))?;
            while let Some(row) = rows.next()? {
                page.decisions.push(conflict(row)?);
            }
        }
        page.decisions.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| (a.collection, &a.id, a.field).cmp(&(b.collection, &b.id, b.field))));
        page.decisions.truncate(limits::BATCH_DECISIONS_MAX);
    }
    Ok(())
}

/// Every log that has been met.
pub(super) fn logs(connection: &Connection, project: ProjectId) -> Result<Vec<Origin>, Failure> {
    let mut statement = connection.prepare_cached("SELECT device, incarnation FROM mobo_incarnation WHERE project = ?1")?;
    let mut rows = statement.query([project.sql()])?;
    let mut logs = Vec::new();
    while let Some(row) = rows.next()? {
        let incarnation = known(Incarnation::from_sql(row.get(1)?), "incarnation")?;
        logs.push(Origin { device: DeviceId(row.get(0)?), incarnation });
    }
    Ok(logs)
}

/// Open quarantine entries, newest first, behind a number.
pub(super) fn quarantine(
    connection: &Connection,
    project: ProjectId,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<QuarantineRow>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT n, device, incarnation, lane, seq, collection, id, code, detail, at_us FROM mobo_quarantine \
         WHERE project = ?1 AND status = 0 AND n < ?3 ORDER BY n DESC LIMIT ?2",
    )?;
    let after = after.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let mut rows = statement.query((project.sql(), limit, after))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let collection = row.get::<_, Option<i64>>(5)?.and_then(CollectionId::from_sql);
        entries.push(QuarantineRow {
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
        });
    }
    Ok(entries)
}

/// Numbers for `status`.
pub(super) fn counts(connection: &Connection, project: ProjectId, schema: &Schema) -> Result<Counts, Failure> {
    let count = |sql: &str| -> Result<u64, Failure> {
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row([project.sql()], |row| row.get::<_, i64>(0))?.cast_unsigned())
    };
    let mut counts = Counts {
        records: 0,
        quarantined: count("SELECT count(*) FROM mobo_quarantine WHERE project = ?1 AND status = 0")?,
        conflicts: count("SELECT count(*) FROM mobo_conflict WHERE project = ?1 AND status = 0")?,
        devices: count("SELECT count(*) FROM mobo_device WHERE project = ?1 AND revoked_us IS NULL")?,
        buckets: Vec::new(),
    };
    for collection in schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        let sql = format!("SELECT count(*) FROM {}", quoted(&collection.name));
        counts.records += connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned();
    }
    let mut statement = connection.prepare_cached("SELECT id, key, head, digest FROM mobo_bucket WHERE project = ?1 ORDER BY key")?;
    let mut rows = statement.query([project.sql()])?;
    while let Some(row) = rows.next()? {
        let id = known(BucketId::from_sql(row.get(0)?), "bucket")?;
        counts.buckets.push((id, row.get(1)?, Position(number(row, 2)?), Digest(row.get(3)?)));
    }
    Ok(counts)
}

/// What SQL has written in vain.
pub(super) fn sql_refused(connection: &Connection) -> Result<SqlRefused, Failure> {
    let mut statement = connection.prepare_cached("SELECT count(*), max(at_us) FROM mobo_intake_refused")?;
    let (count, last): (i64, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(SqlRefused { count: count.cast_unsigned(), last: last.map(Eff) })
}

fn json(row: &Row<'_>, column: usize) -> Result<Json, Failure> {
    let text: Option<String> = row.get(column)?;
    text.map_or(Ok(Json::Null), |text| known(serde_json::from_str(&text).ok(), "JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::open::{Role, plan_of};

    /// With 10,000 open conflicts and the index of open ones, each delivered record cost a look at all of them.
    #[test]
    fn the_conflicts_of_a_record_are_found_by_its_key() {
        let steps = plan_of(Role::Hub, OF_RECORD);
        assert!(steps[0].ends_with("USING PRIMARY KEY (project=? AND collection=? AND id=?)"), "{steps:?}");
    }
}
