//! Entries on record: their identity, their chain, their bytes.

use std::collections::BTreeMap;

use mobo_core::entry::{Entry, Payload, chain_next, chain_start};
use mobo_core::ids::{Chain, DeviceId, Eid, Incarnation, Lane, LaneKey, ProjectId, Seq};
use mobo_core::merge::{EntryOutcome, EntryWrite};
use mobo_core::store::LaneAudit;
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::sqlite::error::{Failure, known};

/// The chain after one entry.
pub(super) fn chain_at(connection: &Connection, project: ProjectId, lane: &LaneKey, seq: Seq) -> Result<Option<Chain>, Failure> {
    let mut known = BTreeMap::new();
    known_in(connection, project, (lane, seq, seq), &mut known)?;
    Ok(known.into_values().next().map(|(chain, _)| chain))
}

/// Chain and effective time of the entries in a range.
pub(super) fn known_in(
    connection: &Connection,
    project: ProjectId,
    (lane, first, last): (&LaneKey, Seq, Seq),
    into: &mut BTreeMap<(LaneKey, Seq), (Chain, Eff)>,
) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, chain, eff FROM mobo_entry \
         WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq BETWEEN ?5 AND ?6",
    )?;
    let (first, last) = (first.get().cast_signed(), last.get().cast_signed());
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), first, last);
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        into.insert((*lane, seq_of(row, 0)?), (Chain(row.get(1)?), Eff(row.get(2)?)));
    }
    Ok(())
}

/// True if an entry of this identity was merged, as itself or authored again.
pub(super) fn is_known(connection: &Connection, project: ProjectId, device: DeviceId, eid: &Eid) -> Result<bool, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM mobo_entry WHERE project = ?1 AND device = ?2 AND eid = ?3 AND outcome IN (0, 3) \
         UNION ALL SELECT 1 FROM mobo_entry WHERE project = ?1 AND device = ?2 AND origin_eid = ?3 AND outcome IN (0, 3) LIMIT 1",
    )?;
    Ok(statement.exists((project.sql(), device.as_bytes(), eid.as_bytes()))?)
}

/// The effective time of the last entry up to a position.
pub(super) fn eff_at_or_before(connection: &Connection, project: ProjectId, lane: &LaneKey, seq: Seq) -> Result<Option<Eff>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT eff FROM mobo_entry WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 AND seq <= ?5 \
         ORDER BY seq DESC LIMIT 1",
    )?;
    let key = (project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number(), seq.get().cast_signed());
    Ok(statement.query_row(key, |row| row.get(0)).optional()?.map(Eff))
}

/// Keeps the entries of a merge.
pub(super) fn write(connection: &Connection, project: ProjectId, entries: &[EntryWrite]) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO mobo_entry(project, device, incarnation, lane, seq, eid, origin_eid, chain, eff, outcome, header, payload) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for entry in entries {
        let lane = entry.lane;
        let payload = match &entry.prepared.entry.payload {
            Payload::Present(bytes) => bytes.as_slice(),
            Payload::Lost(hash) => hash,
        };
        statement.execute((
            project.sql(),
            lane.device.as_bytes(),
            lane.incarnation.sql(),
            lane.lane.number(),
            entry.seq.get().cast_signed(),
            entry.eid.as_ref().map(|eid| eid.as_bytes()),
            entry.origin.as_ref().map(|eid| eid.as_bytes()),
            entry.chain.as_bytes(),
            entry.eff.0,
            entry.outcome.code(),
            &entry.prepared.entry.header,
            payload,
        ))?;
    }
    Ok(())
}

/// Recomputes the chain of every lane from its entries.
pub(super) fn audit(connection: &Connection, project: ProjectId) -> Result<Vec<LaneAudit>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT device, incarnation, lane, last, chain FROM mobo_lane WHERE project = ?1 AND last > 0 ORDER BY device, incarnation, lane",
    )?;
    let mut rows = statement.query([project.sql()])?;
    let mut audits = Vec::new();
    while let Some(row) = rows.next()? {
        let lane = LaneKey {
            device: DeviceId(row.get(0)?),
            incarnation: known(Incarnation::from_sql(row.get(1)?), "incarnation")?,
            lane: known(Lane::from_number(row.get(2)?), "lane")?,
        };
        audits.push(audit_lane(connection, project, lane, (seq_of(row, 3)?, Chain(row.get(4)?)))?);
    }
    Ok(audits)
}

fn audit_lane(connection: &Connection, project: ProjectId, lane: LaneKey, (last, head): (Seq, Chain)) -> Result<LaneAudit, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, chain, header, payload, outcome FROM mobo_entry \
         WHERE project = ?1 AND device = ?2 AND incarnation = ?3 AND lane = ?4 ORDER BY seq",
    )?;
    let mut rows = statement.query((project.sql(), lane.device.as_bytes(), lane.incarnation.sql(), lane.lane.number()))?;
    let mut audit = LaneAudit { lane, last, entries: 0, broken_at: None };
    let (mut chain, mut expect) = (chain_start(project, &lane), Seq::FIRST);
    while let Some(row) = rows.next()? {
        audit.entries += 1;
        let (seq, stored) = (seq_of(row, 0)?, Chain(row.get(1)?));
        let next = match kept(row)? {
            Some(entry) => chain_next(chain, &entry),
            // Its bytes were let go once they were safe: its word for the chain is all there is.
            None => stored,
        };
        if audit.broken_at.is_none() && (seq != expect || next != stored) {
            audit.broken_at = Some(seq.min(expect));
        }
        (chain, expect) = (stored, seq.next());
    }
    if audit.broken_at.is_none() && (expect != last.next() || chain != head) {
        audit.broken_at = Some(last.min(expect));
    }
    Ok(audit)
}

fn kept(row: &Row<'_>) -> Result<Option<Entry>, Failure> {
    let (Some(header), Some(payload)) = (row.get(2)?, row.get::<_, Option<Vec<u8>>>(3)?) else { return Ok(None) };
    let payload = if row.get::<_, u8>(4)? == EntryOutcome::Lost.code() {
        // A hash of another length cannot give the stored chain either.
        Payload::Lost(payload.try_into().unwrap_or_default())
    } else {
        Payload::Present(payload)
    };
    Ok(Some(Entry { header, payload }))
}

fn seq_of(row: &Row<'_>, column: usize) -> Result<Seq, Failure> {
    known(Seq::new(row.get::<_, i64>(column)?.cast_unsigned()), "position in a lane")
}
