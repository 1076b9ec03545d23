//! What a device's own log tells of a row: its own writes, as far as they are kept (rule R21).

use mobo_core::entry::Header;
use mobo_core::ids::{Incarnation, Lane, Ordinal, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::store::StoreError;
use mobo_core::table::past::{PastEntry, PastWrite, RowLog};
use mobo_core::time::{Eff, WallQuality};
use rusqlite::{Connection, Row};

use super::EdgeStore;
use super::fault::Try;
use super::meta::{self, Log};
use crate::sqlite::error::known;

impl EdgeStore {
    /// The device's own writes of a row that are kept, those on their way included: what others wrote, only the hub knows. An entry that
    /// the hub has not decided about is where the device's clock had it.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn past(&self, key: RecordKey) -> Result<RowLog, StoreError> {
        self.read(move |conn, _| past(conn, &key)).await
    }
}

fn past(conn: &Connection, key: &RecordKey) -> Try<RowLog> {
    let mut told = RowLog { is_own: true, ..RowLog::default() };
    let Some(log) = Log::read(conn)? else { return Ok(told) };
    let ordinal = meta::node(conn)?.ordinal;
    // Only an entry that holds the bytes of the id can write the row. Refused ones, and ones that were written again, did nothing.
    let sql = "SELECT incarnation, seq, eff, sealed_us, header, payload FROM mobo_outbox
               WHERE lane = ?1 AND state IN (0, 1) AND instr(payload, CAST(?2 AS BLOB)) > 0 ORDER BY rowid DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((Lane::State.number(), key.id.as_str()))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if told.writes.len() >= limits::HISTORY_ENTRIES_MAX || bytes >= limits::HISTORY_BYTES_MAX {
            told.is_cut = true;
            break;
        }
        if let Some(write) = PastWrite::of(entry(row, &log, ordinal)?, key) {
            bytes += write.bytes();
            told.writes.push(write);
        }
    }
    Ok(told)
}

fn entry(row: &Row<'_>, log: &Log, ordinal: Option<Ordinal>) -> Try<PastEntry> {
    let incarnation = known(Incarnation::from_sql(row.get(0)?), "incarnation")?;
    let header: Vec<u8> = row.get(4)?;
    let wall = Header::decode(&header).ok().filter(|header| header.moment.quality != WallQuality::None);
    let sealed = wall.map_or(row.get::<_, i64>(3)?, |header| header.moment.wall.0);
    Ok(PastEntry {
        lane: log.lane(incarnation, Lane::State),
        // The numbers of the logs before this one, only the hub keeps.
        ordinal: ordinal.filter(|_| incarnation == log.incarnation).unwrap_or(Ordinal(0)),
        seq: known(Seq::new(row.get::<_, i64>(1)?.cast_unsigned()), "position in a lane")?,
        eff: Eff(row.get::<_, Option<i64>>(2)?.unwrap_or(sealed)),
        before: Eff(i64::MIN),
        retried: false,
        header,
        payload: row.get(5)?,
    })
}
