//! The log of committed changes: written with the rows that it tells of, in the same transaction.

use std::time::Duration;

use mobo_core::ids::{CollectionId, LaneKey, ProjectId, RecordId};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::live::{LiveHead, LivePage, LoggedRow, log_number};
use mobo_core::query::{self, Column, ColumnType};
use mobo_core::rfc3339;
use mobo_core::schema::Collection;
use mobo_core::stream::{Column as Samples, Segment};
use mobo_core::time::Eff;
use mobo_core::value::Value;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use serde_json::{Map, Value as Json};

use super::columns;
use super::error::{Failure, known};
use super::records::number;
use super::table::quoted;

/// The clock of the log, in microseconds.
const NOW: &str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";

/// Writes the log of one collection that somebody follows.
pub(crate) struct LiveLog<'c> {
    connection: &'c Connection,
    collection: &'c Collection,
    project: i64,
    columns: Vec<Column>,
    row: Option<CachedStatement<'c>>,
}

impl<'c> LiveLog<'c> {
    /// The log; `None` for a collection that nobody follows.
    pub(crate) fn of(connection: &'c Connection, collection: &'c Collection) -> Result<Option<Self>, Failure> {
        let sql = format!("SELECT project, until_us > {NOW} FROM mobo_live_follow WHERE collection = ?1");
        let follow: Option<(i64, bool)> =
            connection.prepare_cached(&sql)?.query_row([collection.id.sql()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((project, is_on)) = follow else { return Ok(None) };
        if !is_on {
            // Whoever follows it again finds that there was a time without.
            connection.prepare_cached("DELETE FROM mobo_live_follow WHERE collection = ?1")?.execute([collection.id.sql()])?;
            return Ok(None);
        }
        Ok(Some(Self { connection, collection, project, columns: query::columns(collection), row: None }))
    }

    /// The row of a record as readers see it now; `None` when they see none.
    pub(crate) fn shown(&mut self, id: &RecordId) -> Result<Option<String>, Failure> {
        let statement = match &mut self.row {
            Some(statement) => statement,
            none => {
                let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
                let sql = format!("SELECT {} FROM {} WHERE id = ?1", names.join(", "), quoted(&self.collection.name));
                none.insert(self.connection.prepare_cached(&sql)?)
            }
        };
        let mut rows = statement.query([id.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mut shown = Map::new();
        for (index, column) in self.columns.iter().enumerate() {
            shown.insert(column.name.clone(), seen(row.get_ref(index)?, column)?);
        }
        Ok(Some(Json::Object(shown).to_string()))
    }

    /// Logs what became of a record, if readers see a difference.
    pub(crate) fn changed(&mut self, before: Option<String>, after: Option<(&RecordId, &[Value])>) -> Result<(), Failure> {
        let after = after.map(|(id, values)| {
            let mut row = Map::from_iter([("id".to_owned(), Json::from(id.as_str()))]);
            let fields = self.collection.fields.iter().zip(values.iter().chain(std::iter::repeat(&Value::Null)));
            row.extend(
                fields.filter(|(field, _)| !field.retired).map(|(field, value)| (field.name.clone(), value_to_json(value, field.kind))),
            );
            Json::Object(row).to_string()
        });
        if before == after { Ok(()) } else { self.append(1, before, after) }
    }

    /// Logs the samples of an entry that was sealed at `eff`.
    pub(crate) fn sampled(&mut self, lane: &LaneKey, eff: Eff, segment: &Segment) -> Result<(), Failure> {
        let device = lane.device.to_string();
        let sample = |(index, before_us): (usize, &u64)| {
            let mut row = Map::from_iter([
                ("at".to_owned(), Json::from(rfc3339::format(eff.before(*before_us).0))),
                ("device".to_owned(), Json::from(device.as_str())),
            ]);
            row.extend(self.collection.live_fields().map(|field| {
                let value = match segment.columns.get(&field.id) {
                    Some(Samples::Typed(values)) => values.get(index),
                    Some(Samples::Unknown(_)) | None => None,
                };
                (field.name.clone(), value.map_or(Json::Null, |value| value_to_json(value, field.kind)))
            }));
            Json::Object(row)
        };
        let rows: Vec<Json> = segment.before_us.iter().enumerate().map(sample).collect();
        if rows.is_empty() { Ok(()) } else { self.append(rows.len(), None, Some(Json::Array(rows).to_string())) }
    }

    fn append(&self, count: usize, before: Option<String>, after: Option<String>) -> Result<(), Failure> {
        let bytes = before.as_ref().map_or(0, String::len) + after.as_ref().map_or(0, String::len);
        let (count, bytes) = (i64::try_from(count).unwrap_or(i64::MAX), i64::try_from(bytes).unwrap_or(i64::MAX));
        let advance = "UPDATE mobo_live_log SET head = head + ?1, bytes = bytes + ?2 RETURNING head, bytes";
        let (head, total): (i64, i64) =
            self.connection.prepare_cached(advance)?.query_row((count, bytes), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let insert = format!(
            "INSERT INTO mobo_live(n, count, project, collection, before, after, at_us, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, {NOW}, ?7)"
        );
        let row = (head, count, self.project, self.collection.id.sql(), before, after, total);
        self.connection.prepare_cached(&insert)?.execute(row)?;
        let every = limits::LIVE_CUT_EVERY.cast_signed();
        if head / every != (head - count) / every { cut(self.connection, (head, total)) } else { Ok(()) }
    }
}

/// What readers see of a stored value.
fn seen(stored: ValueRef<'_>, column: &Column) -> Result<Json, Failure> {
    let damaged = || Failure::damaged(format!("column \"{}\" holds a value of another type; run a health check", column.name));
    match column.kind {
        ColumnType::Key => Ok(Json::from(stored.as_str().map_err(|_| damaged())?)),
        ColumnType::Field(kind) => Ok(value_to_json(&columns::value(stored, kind).ok_or_else(damaged)?, kind)),
    }
}

/// Takes away what is over the bounds, some of it with each call.
fn cut(connection: &Connection, (head, total): (i64, i64)) -> Result<(), Failure> {
    let (rows, bytes) = (head - limits::LIVE_ROWS_MAX.cast_signed(), total - limits::LIVE_BYTES_MAX.cast_signed());
    let floor = "SELECT max(n) FROM (SELECT n, bytes FROM mobo_live ORDER BY n LIMIT ?1) WHERE n <= ?2 OR bytes <= ?3";
    let floor: Option<i64> =
        connection.prepare_cached(floor)?.query_row((limits::LIVE_CUT_ROWS_MAX.cast_signed(), rows, bytes), |row| row.get(0))?;
    let Some(floor) = floor else { return Ok(()) };
    connection.prepare_cached("DELETE FROM mobo_live WHERE n <= ?1")?.execute([floor])?;
    connection.prepare_cached("UPDATE mobo_live_log SET floor = ?1")?.execute([floor])?;
    Ok(())
}

/// Has the changes of these collections logged from now on. `history` is what the log's number depends on besides.
pub(crate) fn follow(
    connection: &Connection,
    history: u64,
    (project, collections): (ProjectId, &[CollectionId]),
    lasts: Duration,
) -> Result<LiveHead, Failure> {
    let us = i64::try_from(lasts.as_micros()).unwrap_or(i64::MAX);
    connection.prepare_cached(&format!("DELETE FROM mobo_live_follow WHERE until_us <= {NOW}"))?.execute([])?;
    let renew = format!("UPDATE mobo_live_follow SET until_us = {NOW} + ?2 WHERE collection = ?1");
    let start =
        format!("INSERT INTO mobo_live_follow(collection, project, since, until_us) SELECT ?1, ?2, head, {NOW} + ?3 FROM mobo_live_log");
    for collection in collections {
        if connection.prepare_cached(&renew)?.execute((collection.sql(), us))? == 0 {
            // One number is left out: what was seen before this is not what is seen from here on.
            connection.prepare_cached("UPDATE mobo_live_log SET head = head + 1")?.execute([])?;
            connection.prepare_cached(&start)?.execute((collection.sql(), project.sql(), us))?;
        }
    }
    head(connection, history)
}

/// What the log holds.
pub(crate) fn head(connection: &Connection, history: u64) -> Result<LiveHead, Failure> {
    let mut statement = connection.prepare_cached("SELECT log, head, floor FROM mobo_live_log")?;
    let (log, head, floor) = statement.query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    let mut follows = Vec::new();
    let mut statement = connection.prepare_cached("SELECT collection, since FROM mobo_live_follow ORDER BY collection")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        follows.push((known(CollectionId::from_sql(row.get(0)?), "collection")?, number(row, 1)?));
    }
    Ok(LiveHead { log: log_number(log, history), head: head.cast_unsigned(), floor: floor.cast_unsigned(), follows })
}

/// The changes behind a number. Run it in a snapshot.
pub(crate) fn changes(
    connection: &Connection,
    history: u64,
    (project, after, rows_max): (ProjectId, u64, u32),
) -> Result<LivePage, Failure> {
    let mut page = LivePage { head: head(connection, history)?, ..LivePage::default() };
    page.read = page.head.head;
    let sql = "SELECT n, count, collection, before, after, at_us FROM mobo_live WHERE n > ?1 AND project = ?2 ORDER BY n LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((after.cast_signed(), project.sql(), rows_max))?;
    let (mut taken, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        let logged = LoggedRow {
            n: number(row, 0)?,
            count: number(row, 1)?,
            collection: known(CollectionId::from_sql(row.get(2)?), "collection")?,
            before: row.get(3)?,
            after: row.get(4)?,
            at: Eff(row.get(5)?),
        };
        let n = logged.n;
        let changes = known(logged.changes(after), "row in the log of changes")?;
        bytes += changes.iter().map(|change| change.bytes).sum::<usize>();
        page.changes.extend(changes);
        taken += 1;
        if taken == rows_max || bytes >= limits::LIVE_PAGE_BYTES_MAX {
            page.read = n;
            break;
        }
    }
    Ok(page)
}
