//! What a device's own log tells of a row: its own writes, as far as they are kept (rule R21).

use mobo_core::entry::Header;
use mobo_core::ids::{Incarnation, Lane, Ordinal, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::store::StoreError;
use mobo_core::table::past::{PastEntry, PastWrite, RowLog};
use mobo_core::time::{Eff, WallQuality};
use rusqlite::{Connection, Row};

use super::EdgeStore;
use super::fault::{Try, all};
use super::meta::{self, Log};
use crate::sqlite::error::known;

impl EdgeStore {
    /// The device's own writes of a row that are kept, those on their way included: what others wrote, only the hub knows. An entry that
    /// the hub has not decided about is where the device's clock had it. Of a log with very much in it, the newest part is looked through.
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
    let sql = "SELECT incarnation, seq, eff, sealed_us, header, CASE WHEN state IN (0, 1) AND instr(payload, CAST(?3 AS BLOB)) > 0 THEN payload END,
                 coalesce(length(payload), 0)
               FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 ORDER BY seq DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let (mut bytes, mut looked_at) = (0, 0);
    for incarnation in logs(conn)? {
        let mut rows = statement.query((incarnation, Lane::State.number(), key.id.as_str()))?;
        while let Some(row) = rows.next()? {
            let is_full = told.writes.len() >= limits::HISTORY_ENTRIES_MAX || bytes >= limits::HISTORY_BYTES_MAX;
            if is_full || looked_at >= limits::PAST_LOOKED_AT_BYTES_MAX {
                told.is_cut = true;
                return Ok(told);
            }
            looked_at += limits::ENTRY_HEADER_BYTES_MAX + usize::try_from(row.get::<_, i64>(6)?).unwrap_or_default();
            let Some(payload) = row.get::<_, Option<Vec<u8>>>(5)? else { continue };
            if let Some(write) = PastWrite::of(entry(row, payload, (&log, ordinal))?, key) {
                bytes += write.bytes();
                told.writes.push(write);
            }
        }
    }
    Ok(told)
}

/// The logs of which anything is kept, the newest first: each was begun when the one before it had ended.
fn logs(conn: &Connection) -> Try<Vec<i64>> {
    // There are a few lanes, and perhaps many entries: CROSS begins with the lanes.
    let sql = "SELECT l.incarnation FROM mobo_lane l
               CROSS JOIN mobo_outbox o ON o.incarnation = l.incarnation AND o.lane = l.lane AND o.seq = l.last
               WHERE l.lane = ?1 ORDER BY o.rowid DESC";
    let mut statement = conn.prepare_cached(sql)?;
    all(statement.query([Lane::State.number()])?, |row| Ok(row.get(0)?))
}

fn entry(row: &Row<'_>, payload: Vec<u8>, (log, ordinal): (&Log, Option<Ordinal>)) -> Try<PastEntry> {
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
        payload,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mobo_core::entry::{Entry, Payload};
    use mobo_core::ids::{BootId, CollectionId, DeviceId, Nonce, ProjectId, PublicKey, RecordId, Signature, Ver};
    use mobo_core::table::op::{Action, TableOp, encode_payload};
    use mobo_core::time::{Moment, Mono, Wall};

    use super::*;
    use crate::sqlite::edge::{Identity, outbox};
    use crate::sqlite::open::{Role, open_writer};

    /// What broke: whoever asked for the history of one row read every payload that is kept, 64 MiB of them and what is pending besides, from a
    /// card, while nobody else could use that connection.
    #[test]
    fn the_history_of_a_row_looks_through_the_newest_part_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&folder.path().join("edge.db"), Role::Edge, 1_024).unwrap();
        let key = RecordKey { collection: CollectionId::new(7).unwrap(), id: RecordId::new("pump-1").unwrap() };
        let (project, device) = (ProjectId::new(5).unwrap(), DeviceId([3; 16]));
        let identity = Identity {
            project,
            device,
            hub_key: PublicKey([1; 32]),
            hub_addresses: Vec::new(),
            certificate: vec![1],
            certificate_signature: Signature([0; 64]),
        };
        meta::set_identity(&conn, &identity).unwrap();
        let own = |seq: u64| {
            let op = TableOp {
                key: key.clone(),
                action: Action::Put,
                before_us: 0,
                base_ver: Ver(0),
                fields: BTreeMap::new(),
                deltas: BTreeMap::new(),
            };
            let moment = Moment { boot: BootId([1; 8]), mono: Mono(seq), wall: Wall(0), quality: WallQuality::None };
            let header = Header { engine: 2, moment, nonce: Nonce(seq.to_le_bytes()), timeline: None, provenance: None, life: None };
            Entry::seal(&header, encode_payload(&[op], None))
        };
        let other = Entry { header: vec![0; 60], payload: Payload::Present(vec![0; limits::ENTRY_PAYLOAD_BYTES_MAX]) };
        let many = limits::PAST_LOOKED_AT_BYTES_MAX / limits::ENTRY_PAYLOAD_BYTES_MAX + 1;
        // Each log has one write of the row, and others behind it: the log, how many of them, and what is told from then on.
        for (number, others, want) in [(1, 3, (1, false)), (2, 3, (2, false)), (3, many, (0, true)), (4, 0, (1, true))] {
            let incarnation = Incarnation::new(number).unwrap();
            meta::set_incarnation(&conn, incarnation, None).unwrap();
            let log = Log { project, device, incarnation, timeline: None, life: None };
            let transaction = conn.unchecked_transaction().unwrap();
            for entry in std::iter::once(&own(number)).chain(std::iter::repeat_n(&other, others)) {
                outbox::append(&conn, &log, Lane::State, entry, 1).unwrap();
            }
            transaction.commit().unwrap();
            let told = past(&conn, &key).unwrap();
            assert_eq!((told.writes.len(), told.is_cut), want, "log {number}");
        }
    }
}
