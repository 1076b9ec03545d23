//! Taking in what the hub delivers: a batch continues a bucket's cursor, or nothing of it happens.

pub(super) mod own;

use mobo_core::ids::{BucketId, Nonce, Position, RecordKey};
use mobo_core::message::{Batch, Grant, Item, ItemBody, Welcome};
use mobo_core::record::RecordState;
use mobo_core::schema::Schema;
use mobo_core::time::Wall;
use rusqlite::Connection;

use self::own::Arrived;
use super::ack;
use super::answers::{Admitted, Applied, ApplyError, Mismatch};
use super::compare;
use super::decided;
use super::desk::{Delivered, Desk};
use super::fault::Try;
use super::members::{self, BucketRow, Sweep};
use super::meta::{self, Log};
use super::outbox;
use super::recover;
use super::stranded;
use super::together::Arrival;
use crate::sqlite::error::Failure;

/// Applies a batch. Everything that can be wrong with it is found before anything is written.
pub(super) fn batch(
    conn: &Connection,
    schema: &Schema,
    batch: Batch,
    again: (Wall, &mut dyn FnMut() -> Nonce),
) -> Result<Applied, ApplyError> {
    let mismatch = |mismatch| Err(ApplyError::Mismatch(mismatch));
    let (Some(log), Some(bucket)) = (Log::read(conn)?, members::bucket(conn, batch.bucket)?) else {
        return mismatch(Mismatch::Bucket(batch.bucket));
    };
    if mobo_core::protect!("recovery.offer-first:batch", recover::holds(conn, batch.bucket)?) {
        return mismatch(Mismatch::Unoffered(batch.bucket));
    }
    if bucket.timeline != batch.timeline {
        return mismatch(Mismatch::Timeline { batch: batch.timeline, bucket: bucket.timeline });
    }
    if mobo_core::protect!("batch.continues:store", bucket.cursor != batch.from) || batch.to < batch.from {
        return mismatch(Mismatch::Cursor { from: batch.from, cursor: bucket.cursor });
    }
    let named = batch.own.as_ref().map_or(Ok(Vec::new()), |own| own::rows(conn, schema, &log, own))?;
    let last = batch.items.len() + named.len();
    let mut items = Vec::with_capacity(last);
    let mut named = named.into_iter().peekable();
    for item in batch.items {
        while let Some((_, key, row)) = named.next_if(|(place, ..)| *place as usize == items.len()) {
            items.push((key, Some(Arrived::Own(row))));
        }
        items.push(read(schema, item)?);
    }
    items.extend(named.map(|(_, key, row)| (key, Some(Arrived::Own(row)))));
    // Of a record that leaves a bucket nothing is told: it may be in another one.
    let keys: Vec<RecordKey> = items.iter().filter(|(_, delivered)| delivered.is_some()).map(|(key, _)| key.clone()).collect();
    decided::replace(conn, schema, &keys, &batch.decisions)?;
    let (mut desk, mut differed) = (Desk::new(conn, schema, log), Vec::new());
    if bucket.diverged > 0 && bucket.sweep != Sweep::No {
        for (key, delivered) in items.iter().filter_map(|(key, delivered)| Some((key, delivered.as_ref()?))) {
            if desk.differs(key, (delivered.ver(), delivered.state_hash()))? {
                differed.push(key.clone());
            }
        }
    }
    let arrival = |(nth, (key, delivered)): (u64, (RecordKey, Option<Arrived>))| {
        // Records come by position; only that they are in the bucket and which came last matters here.
        let at = Position(batch.to.0.saturating_sub(last as u64 - 1 - nth).max(1));
        Arrival { key, spot: (batch.bucket, at), delivered }
    };
    let arrivals = (0..).zip(items).map(arrival).collect();
    let own_merged = stranded::without(conn, &log, batch.own_merged)?;
    for Arrival { key, spot, delivered } in desk.deliver_together(arrivals, &own_merged)? {
        match delivered {
            Some(Arrived::Spelled(delivered)) => desk.deliver(&key, spot, delivered, &own_merged)?,
            Some(Arrived::Own(row)) => desk.deliver_own(&key, spot, &row, &own_merged)?,
            None => desk.leave(&key, batch.bucket, &own_merged)?,
        }
    }
    let appended = desk.redo(schema, again)?;
    let changed = desk.finish()?;
    set_cursor(conn, batch.bucket, batch.to)?;
    Ok(Applied { cursor: batch.to, changed, appended, differed })
}

/// Decodes a delivered state and recomputes its hash (rule R13).
fn read(schema: &Schema, item: Item) -> Result<(RecordKey, Option<Arrived>), ApplyError> {
    let key = RecordKey { collection: item.collection, id: item.id };
    let Some(collection) = schema.get(key.collection) else {
        let why = format!("no collection has the id {}", key.collection);
        return Err(ApplyError::NeedsSchema { key, why });
    };
    let ItemBody::State { epoch, bytes } = item.body else { return Ok((key, None)) };
    match RecordState::decode(collection, &key, epoch, &bytes) {
        Ok(state) => {
            let state_hash = state.hash_of(&bytes);
            Ok((key, Some(Arrived::Spelled(Delivered { ver: item.ver, mac: item.mac, state, state_hash }))))
        }
        Err(error) => Err(ApplyError::NeedsSchema { key, why: error.to_string() }),
    }
}

fn set_cursor(conn: &Connection, bucket: BucketId, cursor: Position) -> Try<()> {
    let mut statement = conn.prepare_cached("UPDATE mobo_bucket SET cursor = ?2 WHERE id = ?1")?;
    statement.execute((bucket.sql(), cursor.0.cast_signed()))?;
    Ok(())
}

/// Takes in a welcome: session, history, rights, and how far the lanes are merged.
pub(super) fn welcome(conn: &Connection, schema: &Schema, welcome: &Welcome) -> Try<Admitted> {
    let Some(log) = Log::read(conn)? else { return Err(not_joined()) };
    meta::set_session(conn, welcome.session, welcome.ordinal, &welcome.timeline)?;
    let moved = recover::arrive(conn, schema, (&log, welcome))?;
    let mut changed = Vec::new();
    for bucket in &welcome.revokes {
        changed.extend(compare::revoke(conn, schema, *bucket)?);
    }
    for grant in &welcome.grants {
        self::grant(conn, schema, grant)?;
    }
    compare::retry(conn, schema)?;
    let cursors = members::buckets(conn)?.iter().map(|bucket| (bucket.grant.bucket, bucket.cursor)).collect();
    let (mut forked, mut undecided) = (None, Vec::new());
    for status in &welcome.lanes {
        let Some(last) = status.last else { continue };
        match outbox::chain_at(conn, log.incarnation, status.lane, last)? {
            Some(chain) if chain == status.chain => {
                let unheard = ack::welcomed(conn, (log.incarnation, status.lane), last, (status.safe, status.eff))?;
                undecided.extend(unheard.map(|seq| (status.lane, seq)));
            }
            // Before what is kept: the hub went back in time, and there is nothing to compare.
            None if outbox::is_trimmed(conn, log.incarnation, status.lane, last)? => {}
            Some(_) | None if mobo_core::protect!("log.forked:welcome", true) => forked = forked.or(Some(status.lane)),
            Some(_) | None => {}
        }
    }
    Ok(Admitted { cursors, moved, undecided, forked, changed })
}

/// Takes in that a bucket may be read. One that is held already keeps its cursor, unless it counts on another timeline.
pub(super) fn grant(conn: &Connection, schema: &Schema, grant: &Grant) -> Try<()> {
    let timeline = Log::read(conn)?.and_then(|log| log.timeline).ok_or_else(not_joined)?;
    let Some(bucket) = members::bucket(conn, grant.bucket)? else {
        return members::put_bucket(conn, &BucketRow::fresh(grant.clone(), timeline));
    };
    let moved = bucket.timeline != timeline;
    members::put_bucket(conn, &BucketRow { grant: grant.clone(), timeline, ..bucket })?;
    if moved { compare::restart(conn, schema, grant.bucket, Sweep::Keep) } else { Ok(()) }
}

fn not_joined() -> Failure {
    Failure::refused("this device has not met its hub yet")
}
