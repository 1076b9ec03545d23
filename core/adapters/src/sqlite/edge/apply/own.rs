//! Rows that the hub names in place of sending them, because puts of this device made them: they are made anew from its own entries, which it
//! keeps until their rows have come back.
//!
//! What this device cannot make, or makes otherwise than the hub has it, it asks for (`ApplyError::NeedsSpelling`), and nothing of the batch is
//! applied: an entry may be trimmed, lost with its database, or not be the one that the hub has of that name.

use mobo_core::entry::{Header, Payload};
use mobo_core::ids::{Lane, Mac, Ordinal, RecordKey, Seq, StateHash, Ver};
use mobo_core::limits;
use mobo_core::message::{OwnRows, OwnRun};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stamp::Stamp;
use mobo_core::table::own::{Made, OwnEntry, OwnLog, Sameness};
use mobo_core::table::row::RowMeta;
use mobo_core::time::Eff;
use rusqlite::Connection;

use crate::sqlite::edge::answers::ApplyError;
use crate::sqlite::edge::desk::Delivered;
use crate::sqlite::edge::fault::{Try, damaged};
use crate::sqlite::edge::meta::{self, Log};
use crate::sqlite::edge::outbox;
use crate::sqlite::edge::overlays::EntryAt;

/// A row of a batch, whole or named.
#[derive(Debug)]
pub(in crate::sqlite::edge) enum Arrived {
    /// As it came.
    Spelled(Delivered),
    /// As this device has made it.
    Own(OwnRow),
}

/// A row that one put of this device made, as the hub has it.
#[derive(Debug)]
pub(in crate::sqlite::edge) struct OwnRow {
    /// The put's entry.
    pub(in crate::sqlite::edge) at: EntryAt,
    /// What the hub stamped it with.
    pub(in crate::sqlite::edge) stamp: Stamp,
    pub(in crate::sqlite::edge) meta: RowMeta,
    /// The canonical state.
    bytes: Vec<u8>,
}

impl OwnRow {
    /// The row as if it had come.
    pub(in crate::sqlite::edge) fn spelled(&self, collection: &Collection, key: &RecordKey) -> Try<Delivered> {
        let state = RecordState::decode(collection, key, 0, &self.bytes).map_err(|error| damaged(&error.to_string()))?;
        let RowMeta { ver, mac, state_hash } = self.meta;
        Ok(Delivered { ver, mac: mac.unwrap_or(Mac([0; 16])), state, state_hash })
    }
}

impl Arrived {
    pub(in crate::sqlite::edge) fn ver(&self) -> Ver {
        match self {
            Self::Spelled(delivered) => delivered.ver,
            Self::Own(own) => own.meta.ver,
        }
    }

    pub(in crate::sqlite::edge) fn state_hash(&self) -> StateHash {
        match self {
            Self::Spelled(delivered) => delivered.state_hash,
            Self::Own(own) => own.meta.state_hash,
        }
    }
}

/// One named row: its place in the batch, its put, and what the hub says of it.
struct Named {
    place: u32,
    put: (Seq, u32),
    said: (Ver, Mac),
    row: Option<(RecordKey, OwnRow)>,
}

/// Makes all that a batch names, by position: each with how many records of the batch come before it.
pub(in crate::sqlite::edge) fn rows(
    conn: &Connection,
    schema: &Schema,
    log: &Log,
    own: &OwnRows,
) -> Result<Vec<(u32, RecordKey, OwnRow)>, ApplyError> {
    let no = |why: &str| ApplyError::NeedsSpelling(why.to_owned());
    let ordinal = meta::ordinal(conn)?.filter(|_| own.incarnation == log.incarnation);
    let ordinal = ordinal.ok_or_else(|| no("they are of another log than this one"))?;
    let mut named: Vec<Named> = own.runs.iter().flat_map(named).collect();
    // Each entry is read once, whichever way the rows lie.
    let mut by_put: Vec<&mut Named> = named.iter_mut().collect();
    by_put.sort_by_key(|named| named.put);
    let mut room = limits::BATCH_NAMED_BYTES_MAX;
    for of_entry in by_put.chunk_by_mut(|a, b| a.put.0 == b.put.0) {
        let ops: Vec<u32> = of_entry.iter().map(|named| named.put.1).collect();
        let Some(seq) = of_entry.first().map(|named| named.put.0) else { continue };
        let made = entry(conn, (log, ordinal), seq, &ops)?.filter(|made| made.len() == ops.len());
        for (named, made) in of_entry.iter_mut().zip(made.ok_or_else(|| no("this device does not have the entries any more"))?) {
            let is_row = schema.get(made.key.collection).is_some_and(|collection| collection.kind == Kind::Table);
            let left = room.checked_sub(made.bytes.len()).filter(|_| is_row);
            room = left.ok_or_else(|| no("they are no rows, or too many"))?;
            let meta = RowMeta { ver: named.said.0, mac: Some(named.said.1), state_hash: made.state_hash() };
            let at = (log.incarnation, Lane::State, seq);
            named.row = Some((made.key, OwnRow { at, stamp: made.stamp, meta, bytes: made.bytes }));
        }
    }
    let mut sameness = Sameness::default();
    let rows = named.into_iter().filter_map(|named| named.row.map(|(key, row)| (named.place, key, row)));
    let rows: Vec<_> = rows.inspect(|(_, key, row)| sameness.add(key, row.meta.state_hash)).collect();
    if sameness.finish() != own.sameness {
        return Err(no("what the hub has of them is not what this device wrote"));
    }
    Ok(rows)
}

fn named(run: &OwnRun) -> impl Iterator<Item = Named> {
    let OwnRun { place, seq, op, ver, .. } = *run;
    (0..).zip(&run.macs).map(move |(nth, mac)| {
        let (place, op): (u32, u32) = (place.saturating_add(nth), op.saturating_add(nth));
        Named { place, put: (seq, op), said: (ver, *mac), row: None }
    })
}

/// The rows that operations of an own entry made; `None` where it is not here, or not decided.
fn entry(conn: &Connection, (log, ordinal): (&Log, Ordinal), seq: Seq, ops: &[u32]) -> Try<Option<Vec<Made>>> {
    let Some(row) = outbox::entry(conn, log.incarnation, Lane::State, seq)? else { return Ok(None) };
    let (Some(eff), Payload::Present(payload)) = (row.eff, &row.entry.payload) else { return Ok(None) };
    let header = Header::decode(&row.entry.header).ok().filter(|header| header.kind() == Some(Kind::Table));
    let Some(counts_under) = header.map(|header| header.counts_under(log.device, log.incarnation)) else { return Ok(None) };
    let before = match Seq::new(seq.get() - 1) {
        Some(before) => outbox::eff(conn, (log.incarnation, Lane::State, before))?,
        None => None,
    };
    let log = OwnLog { device: log.device, incarnation: log.incarnation, ordinal };
    let own = OwnEntry { log, counts_under, seq, eff, before: before.unwrap_or(Eff(i64::MIN)), payload };
    Ok(own.rows(ops).ok())
}
