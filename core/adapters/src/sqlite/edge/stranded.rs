//! Own entries of a log that was left behind, which a restored hub has lost and cannot take back: what was before them is kept nowhere (R21).
//!
//! What they did may be in rows that come back, from this device or another. But no row will say so, because the hub gets no further in their
//! log: they stayed laid over their records for good. So they are pending again, until everything that the hub has is here; what of them is not
//! in it by then is authored again under their first names.

use std::collections::BTreeSet;

use mobo_core::entry::{Entry, Header, Payload, Provenance};
use mobo_core::ids::{Incarnation, Lane, Nonce, RecordKey, Seq};
use mobo_core::record::RecordState;
use mobo_core::schema::{Kind, Schema};
use mobo_core::stamp::{Origin, Stamp};
use mobo_core::table::op::{decode_payload, encode_payload};
use mobo_core::table::{Action, TableOp, TableState, counts_under};
use mobo_core::time::Eff;
use rusqlite::Connection;

use super::bases;
use super::desk::Desk;
use super::fault::{Try, all};
use super::outbox::{self, EntryRow, EntryState};
use super::overlays::{self, EntryAt};
use super::refence::author_of;
use super::refusals::origin_of;
use crate::sqlite::error::known;

/// The hub does not go on with a lane of a log that was left behind. What of it is still laid over rows waits for these. A document tells by its
/// changes what it holds, and its entries are left as they are.
pub(super) fn strand(conn: &Connection, (incarnation, lane): (Incarnation, Lane)) -> Try<()> {
    let sql = "SELECT DISTINCT incarnation, lane, seq FROM mobo_overlay WHERE incarnation = ?1 AND lane = ?2";
    let found: Vec<EntryAt> = all(conn.prepare_cached(sql)?.query((incarnation.sql(), lane.number()))?, overlays::entry_at)?;
    for at in found {
        let header = outbox::entry(conn, at.0, at.1, at.2)?.and_then(|row| Header::decode(&row.entry.header).ok());
        if header.is_some_and(|header| header.kind() == Some(Kind::Table)) && !outbox::is_rejected(conn, at)? {
            outbox::set_state(conn, at, EntryState::Pending)?;
        }
    }
    Ok(())
}

/// Everything that the hub has is here: authors again what of stranded entries it does not hold. Gives the lanes that have got entries.
pub(super) fn settle(desk: &mut Desk<'_>, schema: &Schema, nonce: &mut dyn FnMut() -> Nonce) -> Try<BTreeSet<Lane>> {
    // There are hardly ever any, and each checkpoint asks: neither what the log keeps nor what waits in it is looked through.
    let sql = "SELECT incarnation, lane, seq, rowid FROM mobo_outbox INDEXED BY mobo_outbox_pending WHERE state = 0 AND incarnation < ?1 \
               UNION ALL \
               SELECT incarnation, lane, seq, rowid FROM mobo_outbox INDEXED BY mobo_outbox_pending WHERE state = 0 AND incarnation > ?1 \
               ORDER BY rowid";
    let found: Vec<EntryAt> = all(desk.conn.prepare_cached(sql)?.query([desk.log.incarnation.sql()])?, overlays::entry_at)?;
    let mut lanes = BTreeSet::new();
    for at in found {
        let row = known(outbox::entry(desk.conn, at.0, at.1, at.2)?, "entry in the outbox")?;
        let keys = overlays::of_entry(desk.conn, at)?;
        let again = again(desk, schema, (at, &row, &keys), nonce)?;
        overlays::drop_entry(desk.conn, at)?;
        outbox::set_state(desk.conn, at, if again.is_some() { EntryState::Superseded } else { EntryState::Acknowledged })?;
        if let Some((entry, ops)) = again {
            let wall = Header::decode(&entry.header)?.moment.wall;
            let sealed = outbox::append(desk.conn, &desk.log, at.1, &entry, wall.0)?;
            for op in &ops {
                overlays::put(desk.conn, &op.key, (sealed.incarnation, sealed.lane, sealed.seq))?;
            }
            lanes.insert(at.1);
        }
        for key in &keys {
            desk.show(key, (None, None))?;
        }
    }
    Ok(lanes)
}

/// What is left to do of an entry; `None` where the rows hold all of it. A row that it is not laid over was delivered with it.
fn again(
    desk: &Desk<'_>,
    schema: &Schema,
    (at, row, keys): (EntryAt, &EntryRow, &[RecordKey]),
    nonce: &mut dyn FnMut() -> Nonce,
) -> Try<Option<(Entry, Vec<TableOp>)>> {
    let (Payload::Present(payload), Some(first)) = (&row.entry.payload, origin_of(at, &row.entry)) else { return Ok(None) };
    let header = Header::decode(&row.entry.header)?;
    let own = (Origin { device: desk.log.device, incarnation: at.0 }, at.2);
    let counts: Vec<_> = header.provenance.iter().map(|first| (counts_under(own.0.device, first), first.seq)).chain([own]).collect();
    let mut ops = Vec::new();
    for op in decode_payload(payload)?.into_iter().filter(|op| keys.contains(&op.key)) {
        let Some(collection) = schema.get(op.key.collection) else { continue };
        let Some(RecordState::Table(base)) = bases::delivered(desk.conn, collection, &op.key)? else { continue };
        ops.extend(left_of(op, &base, (row.eff, &counts)));
    }
    if ops.is_empty() {
        return Ok(None);
    }
    // A hub had acknowledged it: rows that are still to come may have it as the first log's.
    let sole = header.provenance.is_none() || first.sole;
    let header = Header { nonce: nonce(), provenance: Some(Provenance { sole, ..first }), ..header };
    let entry = Entry::seal(&header, encode_payload(&ops, author_of(payload)?.as_deref()));
    Ok(Some((entry, ops)))
}

/// What an operation would still change on a row. Made again it is later than it was, and must not win over what was later than it then.
fn left_of(mut op: TableOp, base: &TableState, (eff, counts): (Option<Eff>, &[(Origin, Seq)])) -> Option<TableOp> {
    let made = eff.map(|eff| eff.before(op.before_us));
    let is_later = |stamp: Stamp| made.is_some_and(|made| stamp.eff >= made);
    op.fields.retain(|field, _| !base.cells.get(field).is_some_and(|cell| is_later(cell.stamp)));
    op.deltas.retain(|field, _| {
        let tallies = base.counters.get(field);
        !counts.iter().any(|(origin, seq)| tallies.and_then(|tallies| tallies.get(origin)).is_some_and(|tally| tally.last >= *seq))
    });
    if base.put.into_iter().chain(base.delete).any(is_later) {
        op.action = Action::Patch;
    }
    (op.action != Action::Patch || !op.fields.is_empty() || !op.deltas.is_empty()).then_some(op)
}
