//! The device's own lanes and their sealed entries.

use mobo_core::entry::{Entry, Payload, chain_next, chain_start};
use mobo_core::ids::{Chain, Incarnation, Lane, Seq, Signature, Timeline};
use mobo_core::message::{AckProof, LaneReport, PushedEntry};
use mobo_core::recover::{Former, Tail};
use mobo_core::time::Eff;
use rusqlite::{Connection, Row};

use super::answers::{Outgoing, Pending, Sealed};
use super::fault::{Try, first};
use super::meta::{self, Log};
use crate::sqlite::error::known;

/// What became of an entry, as `mobo_outbox.state` has it; 1, acknowledged, is only set for whole ranges.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EntryState {
    Pending,
    Acknowledged,
    Rejected,
    Superseded,
}

impl EntryState {
    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Acknowledged => 1,
            Self::Rejected => 2,
            Self::Superseded => 3,
        }
    }
}

/// A row of `mobo_lane`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneRow {
    pub(super) last: Seq,
    pub(super) chain: Chain,
    pub(super) acked: Option<Seq>,
    pub(super) safe: Option<Seq>,
    /// Entries up to here are gone, and the chain there.
    pub(super) trimmed: Option<(Seq, Chain)>,
}

/// A row of `mobo_outbox`.
#[derive(Debug)]
pub(super) struct EntryRow {
    pub(super) seq: Seq,
    pub(super) entry: Entry,
    pub(super) chain: Chain,
    pub(super) eff: Option<Eff>,
}

pub(super) fn lane(conn: &Connection, incarnation: Incarnation, lane: Lane) -> Try<Option<LaneRow>> {
    let sql = "SELECT last, chain, acked, safe, trimmed, trimmed_chain FROM mobo_lane WHERE incarnation = ?1 AND lane = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    first(statement.query((incarnation.sql(), lane.number()))?, lane_row)
}

/// The lanes of a log that hold something, in order.
pub(super) fn lanes(conn: &Connection, incarnation: Incarnation) -> Try<Vec<(Lane, LaneRow)>> {
    let mut rows = Vec::new();
    for number in Lane::ALL {
        rows.extend(lane(conn, incarnation, number)?.map(|row| (number, row)));
    }
    Ok(rows)
}

fn lane_row(row: &Row<'_>) -> Try<LaneRow> {
    let trimmed_chain = row.get::<_, Option<[u8; 32]>>(5)?.map(Chain);
    Ok(LaneRow {
        last: known(seq(row.get(0)?), "last position of a lane")?,
        chain: Chain(row.get(1)?),
        acked: seq(row.get(2)?),
        safe: seq(row.get(3)?),
        trimmed: seq(row.get(4)?).zip(trimmed_chain),
    })
}

/// The position that the next entry of a lane gets.
pub(super) fn next(conn: &Connection, incarnation: Incarnation, number: Lane) -> Try<Seq> {
    Ok(Seq::after(lane(conn, incarnation, number)?.map(|row| row.last)))
}

/// Seals an entry behind the last one of its lane.
pub(super) fn append(conn: &Connection, log: &Log, number: Lane, entry: &Entry, sealed_us: i64) -> Try<Sealed> {
    let before = lane(conn, log.incarnation, number)?;
    let start = || chain_start(log.project, &log.lane(log.incarnation, number));
    let chain = chain_next(before.map_or_else(start, |row| row.chain), entry);
    let seq = Seq::after(before.map(|row| row.last));
    let sql = "INSERT INTO mobo_lane (incarnation, lane, last, chain) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (incarnation, lane) DO UPDATE SET last = excluded.last, chain = excluded.chain";
    conn.prepare_cached(sql)?.execute((log.incarnation.sql(), number.number(), seq_sql(seq), chain.as_bytes()))?;
    let payload = match &entry.payload {
        Payload::Present(bytes) => Some(bytes),
        Payload::Lost(_) => None,
    };
    // With room for what the hub will say of it: a row that stays as long as it is, is not written anew behind its payload.
    let sql = "INSERT INTO mobo_outbox (incarnation, lane, seq, header, payload, payload_hash, chain, sealed_us, eff_room)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, zeroblob(8))";
    let key = (log.incarnation.sql(), number.number(), seq_sql(seq));
    conn.prepare_cached(sql)?.execute((key.0, key.1, key.2, &entry.header, payload, entry.payload.hash(), chain.as_bytes(), sealed_us))?;
    meta::add(conn, meta::OUTBOX_BYTES, sql_len(entry.bytes()))?;
    Ok(Sealed { incarnation: log.incarnation, lane: number, seq, chain })
}

/// One entry; `None` when it is not kept any more.
pub(super) fn entry(conn: &Connection, incarnation: Incarnation, lane: Lane, at: Seq) -> Try<Option<EntryRow>> {
    let sql = "SELECT seq, header, payload, payload_hash, chain, eff FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    first(statement.query((incarnation.sql(), lane.number(), seq_sql(at)))?, entry_row)
}

/// The effective time of an entry that is kept, once it is known.
pub(super) fn eff(conn: &Connection, (incarnation, lane, at): (Incarnation, Lane, Seq)) -> Try<Option<Eff>> {
    let sql = "SELECT eff FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3 AND eff IS NOT NULL";
    first(conn.prepare_cached(sql)?.query((incarnation.sql(), lane.number(), seq_sql(at)))?, |row| Ok(Eff(row.get(0)?)))
}

/// Walks the kept entries of a lane behind a position in order, until `each` says false.
pub(super) fn walk(
    conn: &Connection,
    (incarnation, lane, after): (Incarnation, Lane, Option<Seq>),
    mut each: impl FnMut(EntryRow) -> Try<bool>,
) -> Try<()> {
    let sql = "SELECT seq, header, payload, payload_hash, chain, eff FROM mobo_outbox
               WHERE incarnation = ?1 AND lane = ?2 AND seq > ?3 ORDER BY seq";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((incarnation.sql(), lane.number(), after.map_or(0, seq_sql)))?;
    while let Some(row) = rows.next()? {
        if !each(entry_row(row)?)? {
            break;
        }
    }
    Ok(())
}

fn entry_row(row: &Row<'_>) -> Try<EntryRow> {
    let payload = match row.get::<_, Option<Vec<u8>>>(2)? {
        Some(bytes) => Payload::Present(bytes),
        None => Payload::Lost(row.get(3)?),
    };
    Ok(EntryRow {
        seq: known(seq(row.get(0)?), "position of an entry")?,
        entry: Entry { header: row.get(1)?, payload },
        chain: Chain(row.get(4)?),
        eff: row.get::<_, Option<i64>>(5)?.map(Eff),
    })
}

/// The entries behind `after`, acknowledged ones included: at most so many and so many bytes, but at least one.
pub(super) fn outgoing(conn: &Connection, number: Lane, after: Option<Seq>, (entries_max, bytes_max): (usize, usize)) -> Try<Pending> {
    let Some(log) = Log::read(conn)? else { return Ok(Pending::Nothing) };
    let Some(row) = lane(conn, log.incarnation, number)? else { return Ok(Pending::Nothing) };
    if after >= Some(row.last) {
        return Ok(Pending::Nothing);
    }
    if let Some((trimmed, _)) = row.trimmed.filter(|trimmed| after < Some(trimmed.0)) {
        return Ok(Pending::Trimmed(trimmed.next()));
    }
    let outgoing = between(conn, &log, (log.incarnation, number), (after, row.last), (entries_max, bytes_max))?;
    Ok(if outgoing.entries.is_empty() { Pending::Nothing } else { Pending::Entries(outgoing) })
}

/// The next entries of a log that was left behind, as far as a hub had acknowledged them.
pub(super) fn former(conn: &Connection, former: &Former, (entries_max, bytes_max): (usize, usize)) -> Try<Pending> {
    let Some(log) = Log::read(conn)? else { return Ok(Pending::Nothing) };
    let Some(row) = lane(conn, former.incarnation, former.lane)? else { return Ok(Pending::Nothing) };
    let (Some(acked), trimmed) = (row.acked, row.trimmed.map(|trimmed| trimmed.0)) else { return Ok(Pending::Nothing) };
    let (after, entries_max) = match former.tail {
        Tail::Last if trimmed >= Some(acked) => return Ok(Pending::Nothing),
        Tail::Last => (Seq::new(acked.get() - 1), 1),
        Tail::Behind(after) => (after, entries_max),
    };
    if after >= Some(acked) {
        return Ok(Pending::Nothing);
    }
    if let Some(trimmed) = trimmed.filter(|trimmed| after < Some(*trimmed)) {
        return Ok(Pending::Trimmed(trimmed.next()));
    }
    let outgoing = between(conn, &log, (former.incarnation, former.lane), (after, acked), (entries_max, bytes_max))?;
    Ok(if outgoing.entries.is_empty() { Pending::Nothing } else { Pending::Entries(outgoing) })
}

/// The entries behind `after` up to `last`: at most so many and so many bytes, but at least one.
fn between(
    conn: &Connection,
    log: &Log,
    (incarnation, number): (Incarnation, Lane),
    (after, last): (Option<Seq>, Seq),
    (entries_max, bytes_max): (usize, usize),
) -> Try<Outgoing> {
    let prev_chain = match after {
        None => chain_start(log.project, &log.lane(incarnation, number)),
        Some(after) => known(chain_at(conn, incarnation, number, after)?, "entry in the outbox")?,
    };
    let mut outgoing = Outgoing { incarnation, first: Seq::after(after), prev_chain, entries: Vec::new(), head_chain: prev_chain };
    let mut bytes = 0;
    walk(conn, (incarnation, number, after), |row| {
        bytes += row.entry.bytes();
        if row.seq > last || !outgoing.entries.is_empty() && (bytes > bytes_max || outgoing.entries.len() >= entries_max) {
            return Ok(false);
        }
        outgoing.head_chain = row.chain;
        outgoing.entries.push(PushedEntry { entry: row.entry, eff: row.eff });
        Ok(true)
    })?;
    Ok(outgoing)
}

/// What a hello says of the lanes of the log.
pub(super) fn reports(conn: &Connection, incarnation: Incarnation) -> Try<Vec<LaneReport>> {
    let rows = lanes(conn, incarnation)?;
    rows.into_iter()
        .map(|(lane, row)| Ok(LaneReport { lane, last: row.last, chain: row.chain, proof: proof(conn, incarnation, lane)? }))
        .collect()
}

fn proof(conn: &Connection, incarnation: Incarnation, lane: Lane) -> Try<Option<AckProof>> {
    let sql = "SELECT proof_timeline, proof_seq, proof_chain, proof_signature FROM mobo_lane
               WHERE incarnation = ?1 AND lane = ?2 AND proof_signature IS NOT NULL AND proof_seq > 0";
    let mut statement = conn.prepare_cached(sql)?;
    first(statement.query((incarnation.sql(), lane.number()))?, |row| {
        Ok(AckProof {
            timeline: Timeline(row.get(0)?),
            acked: known(seq(row.get(1)?), "position of a proof")?,
            chain: Chain(row.get(2)?),
            signature: Signature(row.get(3)?),
        })
    })
}

/// The chain after an entry of this device; `None` where there is no such entry, or none any more.
pub(super) fn chain_at(conn: &Connection, incarnation: Incarnation, number: Lane, at: Seq) -> Try<Option<Chain>> {
    let Some(row) = lane(conn, incarnation, number)? else { return Ok(None) };
    Ok(match row.trimmed {
        _ if at == row.last => Some(row.chain),
        Some((trimmed, chain)) if at == trimmed => Some(chain),
        _ => entry(conn, incarnation, number, at)?.map(|entry| entry.chain),
    })
}

/// True if that entry was there and is not kept any more, nor the chain after it.
pub(super) fn is_trimmed(conn: &Connection, incarnation: Incarnation, number: Lane, at: Seq) -> Try<bool> {
    let row = lane(conn, incarnation, number)?;
    Ok(row.and_then(|row| row.trimmed).is_some_and(|trimmed| at < trimmed.0))
}

/// True for an entry that the hub has refused.
pub(super) fn is_rejected(conn: &Connection, (incarnation, lane, at): (Incarnation, Lane, Seq)) -> Try<bool> {
    let sql = "SELECT state FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let state = first(statement.query((incarnation.sql(), lane.number(), seq_sql(at)))?, |row| Ok(row.get::<_, i64>(0)?))?;
    Ok(state == Some(EntryState::Rejected.code()))
}

pub(super) fn set_state(conn: &Connection, (incarnation, lane, at): (Incarnation, Lane, Seq), state: EntryState) -> Try<()> {
    let sql = "UPDATE mobo_outbox SET state = ?4 WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    conn.prepare_cached(sql)?.execute((incarnation.sql(), lane.number(), seq_sql(at), state.code()))?;
    Ok(())
}

/// Keeps the effective time of an entry that is authored again: that of its first sealing.
pub(super) fn set_eff(conn: &Connection, (incarnation, lane, at): (Incarnation, Lane, Seq), eff: Eff) -> Try<()> {
    let sql = "UPDATE mobo_outbox SET eff = ?4, eff_room = NULL WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    conn.prepare_cached(sql)?.execute((incarnation.sql(), lane.number(), seq_sql(at), eff.0))?;
    Ok(())
}

pub(super) fn seq(number: i64) -> Option<Seq> {
    Seq::new(number.cast_unsigned())
}

pub(super) fn seq_sql(seq: Seq) -> i64 {
    seq.get().cast_signed()
}

pub(super) fn sql_len(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
