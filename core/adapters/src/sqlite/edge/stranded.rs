//! Own entries of a log that was left behind, which a restored hub has lost and cannot take back: what was before them is kept nowhere (R21).
//!
//! What they did may be in rows that come back, from this device or another. But no row will say so, because the hub gets no further in their
//! log: they stayed laid over their records for good. So they are pending again, until everything that the hub has is here; what of them is not
//! in it by then is authored again under their first names. Samples are in no row: all that is kept of them is authored again, and the hub
//! takes what it lacks.

use std::collections::BTreeSet;

use mobo_core::author::RecordOp;
use mobo_core::entry::{Entry, Header, Payload, Provenance};
use mobo_core::ids::{DeviceId, FieldId, Incarnation, Lane, Nonce, Ordinal, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::record::RecordState;
use mobo_core::schema::{Kind, Schema};
use mobo_core::stamp::{Origin, Stamp};
use mobo_core::stream::{Segment, peek_collection};
use mobo_core::table::op::{decode_payload, encode_payload};
use mobo_core::table::{Action, TableOp, TableState, counts_under};
use mobo_core::time::Eff;
use rusqlite::Connection;

use super::bases;
use super::desk::Desk;
use super::fault::{Try, all};
use super::floor;
use super::meta::{self, Log};
use super::outbox::{self, EntryRow, EntryState};
use super::overlays::{self, EntryAt};
use super::refence::author_of;
use super::refusals::origin_of;
use super::stream;
use crate::sqlite::error::known;

/// The hub does not go on with a lane of a log that was left behind. What of it is still laid over rows waits for these, and so do its samples. A
/// document tells by its changes what it holds, and its entries are left as they are.
pub(super) fn strand(conn: &Connection, (incarnation, lane): (Incarnation, Lane)) -> Try<()> {
    let sql = "SELECT DISTINCT incarnation, lane, seq FROM mobo_overlay WHERE incarnation = ?1 AND lane = ?2";
    let found: Vec<EntryAt> = all(conn.prepare_cached(sql)?.query((incarnation.sql(), lane.number()))?, overlays::entry_at)?;
    for at in found {
        let header = outbox::entry(conn, at.0, at.1, at.2)?.and_then(|row| Header::decode(&row.entry.header).ok());
        if header.is_some_and(|header| header.kind() == Some(Kind::Table)) && !outbox::is_rejected(conn, at)? {
            outbox::set_state(conn, at, EntryState::Pending)?;
        }
    }
    // The lane of states has no samples, and much that need not be looked at.
    if lane == Lane::State {
        return Ok(());
    }
    let mut samples = Vec::new();
    outbox::walk(conn, (incarnation, lane, None), |row| {
        samples.extend((is_samples(&row) && matches!(row.entry.payload, Payload::Present(_))).then_some(row.seq));
        Ok(true)
    })?;
    let sql = "UPDATE mobo_outbox SET state = 0 WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3 AND state = 1";
    let mut statement = conn.prepare_cached(sql)?;
    for seq in samples {
        statement.execute((incarnation.sql(), lane.number(), outbox::seq_sql(seq)))?;
    }
    Ok(())
}

fn is_samples(row: &EntryRow) -> bool {
    Header::decode(&row.entry.header).is_ok_and(|header| header.kind() == Some(Kind::Stream))
}

/// How far the hub has merged this device's lanes, but for those that wait here: what the hub has in their places is a copy's of this device, and
/// says nothing of their entries.
pub(super) fn without(conn: &Connection, log: &Log, mut own_merged: Vec<(Lane, Incarnation, Seq)>) -> Try<Vec<(Lane, Incarnation, Seq)>> {
    let sql = "SELECT 1 FROM mobo_outbox INDEXED BY mobo_outbox_pending WHERE state = 0 AND incarnation = ?1 AND lane = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let mut waiting = Vec::new();
    for (lane, incarnation, _) in own_merged.iter().filter(|merged| merged.1 != log.incarnation) {
        if statement.exists((incarnation.sql(), lane.number()))? {
            waiting.push((*lane, *incarnation));
        }
    }
    own_merged.retain(|(lane, incarnation, _)| !waiting.contains(&(*lane, *incarnation)));
    Ok(own_merged)
}

/// Everything that the hub has is here: authors again what of stranded entries it does not hold. Gives the lanes that have got entries.
pub(super) fn settle(desk: &mut Desk<'_>, schema: &Schema, nonce: &mut dyn FnMut() -> Nonce) -> Try<BTreeSet<Lane>> {
    // There are hardly ever any, and each checkpoint asks: neither what the log keeps nor what waits in it is looked through.
    let sql = "SELECT incarnation, lane, seq, rowid FROM mobo_outbox INDEXED BY mobo_outbox_pending WHERE state = 0 AND incarnation < ?1 \
               UNION ALL \
               SELECT incarnation, lane, seq, rowid FROM mobo_outbox INDEXED BY mobo_outbox_pending WHERE state = 0 AND incarnation > ?1 \
               ORDER BY rowid";
    let found: Vec<EntryAt> = all(desk.conn.prepare_cached(sql)?.query([desk.log.incarnation.sql()])?, overlays::entry_at)?;
    let (mut lanes, mut sealed_here) = (BTreeSet::new(), BTreeSet::new());
    for at in found {
        let row = known(outbox::entry(desk.conn, at.0, at.1, at.2)?, "entry in the outbox")?;
        if is_samples(&row) {
            samples_again((desk.conn, &desk.log), schema, (at, &row), nonce())?;
            lanes.insert(at.1);
            continue;
        }
        let keys = overlays::of_entry(desk.conn, at)?;
        let again = again(desk, schema, (at, &row, &keys), (&sealed_here, &mut *nonce))?;
        overlays::drop_entry(desk.conn, at)?;
        outbox::set_state(desk.conn, at, if again.is_some() { EntryState::Superseded } else { EntryState::Acknowledged })?;
        if let Some((entry, ops)) = again {
            let wall = Header::decode(&entry.header)?.moment.wall;
            let sealed = outbox::append(desk.conn, &desk.log, at.1, &entry, wall.0)?;
            for op in &ops {
                overlays::put(desk.conn, &op.key, (sealed.incarnation, sealed.lane, sealed.seq))?;
            }
            sealed_here.insert((sealed.incarnation, sealed.lane, sealed.seq));
            lanes.insert(at.1);
        }
        for key in &keys {
            desk.show(key, (None, None))?;
        }
    }
    Ok(lanes)
}

/// Authors samples again under the first name of their entry: a hub that has them by that name, or any other that bears it, adds nothing.
///
/// An entry is later than the one before it in its log, and these come behind what was written since. So that they stay where they were in time,
/// they are said to have been taken so much longer before it.
fn samples_again((conn, log): (&Connection, &Log), schema: &Schema, (at, row): (EntryAt, &EntryRow), nonce: Nonce) -> Try<()> {
    outbox::set_state(conn, at, EntryState::Acknowledged)?;
    let (Payload::Present(payload), Some(first)) = (&row.entry.payload, origin_of(at, &row.entry)) else { return Ok(()) };
    let header = Header { nonce, provenance: Some(first), ..Header::decode(&row.entry.header)? };
    let floor = floor::last(conn, (log.incarnation, at.1))?.map(|last| last.plus(1));
    let eff = row.eff.map(|made| floor.map_or(made, |floor| floor.max(made)));
    let longer_us = eff.zip(row.eff).map_or(0, |(eff, made)| u64::try_from(eff.0.saturating_sub(made.0)).unwrap_or_default());
    let again = longer_ago(schema, payload, longer_us).unwrap_or_else(|| payload.clone());
    let sealed = outbox::append(conn, log, at.1, &Entry::seal(&header, again), header.moment.wall.0)?;
    if let Some(eff) = eff {
        outbox::set_eff(conn, (sealed.incarnation, sealed.lane, sealed.seq), eff)?;
    }
    outbox::set_state(conn, at, EntryState::Superseded)?;
    let places = ((log.lane(at.0, at.1), at.2), (log.lane(sealed.incarnation, sealed.lane), sealed.seq));
    stream::move_samples(conn, schema, payload, places)
}

/// The payload of samples that were taken so much longer before their entry; `None` where it cannot say that.
fn longer_ago(schema: &Schema, payload: &[u8], longer_us: u64) -> Option<Vec<u8>> {
    let collection = schema.get(peek_collection(payload).ok()?)?;
    let mut segment = Segment::decode(payload, collection).ok().filter(|_| longer_us > 0)?;
    segment.before_us.iter_mut().for_each(|before| *before = before.saturating_add(longer_us));
    segment.encode(collection).ok().filter(|payload| payload.len() <= limits::ENTRY_PAYLOAD_BYTES_MAX)
}

/// What is left to do of an entry; `None` where the rows hold all of it. A row that it is not laid over was delivered with it.
fn again(
    desk: &mut Desk<'_>,
    schema: &Schema,
    (at, row, keys): (EntryAt, &EntryRow, &[RecordKey]),
    (sealed_here, nonce): (&BTreeSet<EntryAt>, &mut dyn FnMut() -> Nonce),
) -> Try<Option<(Entry, Vec<TableOp>)>> {
    let (Payload::Present(payload), Some(first)) = (&row.entry.payload, origin_of(at, &row.entry)) else { return Ok(None) };
    let header = Header::decode(&row.entry.header)?;
    let own = (Origin { device: desk.log.device, incarnation: header.counts_under(desk.log.device, at.0) }, at.2);
    let counts: Vec<_> = header.provenance.iter().map(|first| (counts_under(own.0.device, first), first.seq)).chain([own]).collect();
    let mut ops = Vec::new();
    for op in decode_payload(payload)?.into_iter().filter(|op| keys.contains(&op.key)) {
        let Some(collection) = schema.get(op.key.collection) else { continue };
        let Some(RecordState::Table(base)) = bases::delivered(desk.conn, collection, &op.key)? else { continue };
        let later = Later::on(desk, &op.key, sealed_here)?;
        ops.extend(left_of(op, &base, (row.eff, &counts), &later));
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

/// What this device has written to a row in the log that it has now: later than all of a log that it has left behind, whatever a restored hub's
/// time makes of it.
struct Later {
    log: Option<(DeviceId, Ordinal)>,
    /// What of it waits to be merged.
    fields: BTreeSet<FieldId>,
    places: bool,
}

impl Later {
    fn on(desk: &mut Desk<'_>, key: &RecordKey, but: &BTreeSet<EntryAt>) -> Try<Self> {
        let log = meta::ordinal(desk.conn)?.map(|ordinal| (desk.log.device, ordinal));
        let mut later = Self { log, fields: BTreeSet::new(), places: false };
        for at in overlays::of_record(desk.conn, key)? {
            if at.0 != desk.log.incarnation || but.contains(&at) {
                continue;
            }
            for (_, op) in desk.decoded.ops(desk.conn, at)?.get(key).into_iter().flatten() {
                if let RecordOp::Table(op) = op {
                    later.fields.extend(op.fields.keys());
                    later.places |= op.action != Action::Patch;
                }
            }
        }
        Ok(later)
    }

    fn made(&self, stamp: Stamp) -> bool {
        self.log == Some((stamp.device, stamp.ordinal))
    }
}

/// What an operation would still change on a row. Made again it is later than it was, and must not win over what was later than it then.
fn left_of(mut op: TableOp, base: &TableState, (eff, counts): (Option<Eff>, &[(Origin, Seq)]), later: &Later) -> Option<TableOp> {
    let made = eff.map(|eff| eff.before(op.before_us));
    let is_later = |stamp: Stamp| later.made(stamp) || made.is_some_and(|made| stamp.eff >= made);
    op.fields.retain(|field, _| !later.fields.contains(field) && !base.cells.get(field).is_some_and(|cell| is_later(cell.stamp)));
    op.deltas.retain(|field, _| {
        let tallies = base.counters.get(field);
        !counts.iter().any(|(origin, seq)| tallies.and_then(|tallies| tallies.get(origin)).is_some_and(|tally| tally.last >= *seq))
    });
    if later.places || base.put.into_iter().chain(base.delete).any(is_later) {
        op.action = Action::Patch;
    }
    (op.action != Action::Patch || !op.fields.is_empty() || !op.deltas.is_empty()).then_some(op)
}
