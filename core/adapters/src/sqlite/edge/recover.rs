//! A hub on a new timeline (rules R17, R18): what it shares with this device stays, what is above is offered before anything is pulled.
//!
//! What is to be offered stands as members that no pull has named: it is shown, it counts in no digest, and the pull that follows names it
//! again or, when that is complete, ends it.

use mobo_core::ids::{BucketId, Chain, Incarnation, Lane, Position, RecordKey, Seq, Timeline};
use mobo_core::limits;
use mobo_core::message::{Item, ItemBody, Offer, Welcome};
use mobo_core::record::RecordState;
use mobo_core::recover::{Former, Moved, Tail, fork_head, knows};
use mobo_core::schema::Schema;
use rusqlite::Connection;

use super::bases;
use super::compare::{self, tables};
use super::desk::delivered_hash;
use super::fault::{Try, all, first};
use super::members::{self, BucketRow, Digests, OF_BEFORE, Sweep, UNCONFIRMED};
use super::meta::{self, Log};
use super::outbox::{self, seq_sql};
use super::rows::{Rows, key_of};
use crate::sqlite::error::known;

/// A bucket that is to be offered.
#[derive(Clone, Copy, Debug)]
struct Due {
    timeline: Timeline,
    above: Position,
    revoked: bool,
}

fn due(conn: &Connection, bucket: BucketId) -> Try<Option<Due>> {
    let mut statement = conn.prepare_cached("SELECT timeline, above, revoked FROM mobo_offer WHERE bucket = ?1")?;
    first(statement.query([bucket.sql()])?, |row| {
        Ok(Due { timeline: Timeline(row.get(0)?), above: Position(row.get::<_, i64>(1)?.cast_unsigned()), revoked: row.get(2)? })
    })
}

fn put(conn: &Connection, bucket: BucketId, due: &Due) -> Try<()> {
    let sql = "INSERT OR REPLACE INTO mobo_offer(bucket, timeline, above, revoked) VALUES (?1, ?2, ?3, ?4)";
    let (timeline, above) = (due.timeline.as_bytes(), due.above.0.cast_signed());
    conn.prepare_cached(sql)?.execute((bucket.sql(), timeline, above, due.revoked))?;
    Ok(())
}

/// True while a bucket may not be pulled, swept or purged.
pub(super) fn holds(conn: &Connection, bucket: BucketId) -> Try<bool> {
    Ok(due(conn, bucket)?.is_some())
}

/// Notes that a bucket may not be read any more. False if it need not be offered first, and can go at once.
pub(super) fn defer_revoke(conn: &Connection, bucket: BucketId) -> Try<bool> {
    let Some(due) = due(conn, bucket)? else { return Ok(false) };
    put(conn, bucket, &Due { revoked: true, ..due })?;
    Ok(true)
}

/// Takes in the history that a welcome tells; `before` is the log as it was. Gives what is to be done first, where anything is.
pub(super) fn arrive(conn: &Connection, schema: &Schema, (before, welcome): (&Log, &Welcome)) -> Try<Option<Moved>> {
    let now = welcome.timeline.timeline;
    for bucket in members::buckets(conn)? {
        let id = bucket.grant.bucket;
        if bucket.timeline != now {
            leave_timeline(conn, schema, welcome, bucket)?;
        } else if let Some(due) = due(conn, id)? {
            // Rights may have come back, or gone, since it was last met.
            put(conn, id, &Due { revoked: !welcome.grants.iter().any(|grant| grant.bucket == id), ..due })?;
        }
    }
    let is_new = before.timeline.is_some_and(|timeline| timeline != now);
    if mobo_core::protect!("recovery.pushed-again", is_new) {
        go_back(conn, before, welcome)?;
    }
    let mut statement = conn.prepare_cached("SELECT bucket FROM mobo_offer ORDER BY bucket")?;
    let offers: Vec<BucketId> = all(statement.query([])?, |row| known(BucketId::from_sql(row.get(0)?), "bucket"))?;
    let was_giving = meta::get::<bool>(conn, meta::GIVING_BACK)?.unwrap_or_default();
    if !mobo_core::protect!("recovery.offer-first:session", is_new || !offers.is_empty() || was_giving) {
        return Ok(None);
    }
    let former = former(conn, before.incarnation, now)?;
    if !former.is_empty() {
        meta::set(conn, meta::GIVING_BACK, true)?;
    }
    let lanes = outbox::lanes(conn, before.incarnation)?;
    let lasts = lanes.into_iter().map(|(lane, row)| (lane, row.last)).collect();
    let mut timelines = meta::timelines(conn)?;
    timelines.retain(|timeline| !knows(&welcome.timeline, *timeline));
    Ok(Some(Moved { offers, lasts, former, timelines }))
}

/// The kept tails of the logs that were left behind, in the order of their last entries, but for those that the hub of this timeline has
/// acknowledged to their end. What was pending in them when they ended was authored again; what a hub had acknowledged, a restored one may have
/// lost.
fn former(conn: &Connection, own: Incarnation, now: Timeline) -> Try<Vec<Former>> {
    // A lane is trimmed from its start: where its last acknowledged entry is gone, nothing of it is left.
    let sql = "SELECT l.incarnation, l.lane FROM mobo_lane l
               JOIN mobo_outbox o ON o.incarnation = l.incarnation AND o.lane = l.lane AND o.seq = l.acked
               WHERE l.incarnation <> ?1 AND (l.proof_timeline IS NOT ?2 OR l.proof_seq < l.acked)
               ORDER BY o.eff, l.incarnation, l.lane";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = all(statement.query((own.sql(), now.as_bytes()))?, |row| {
        let (incarnation, lane) = (Incarnation::from_sql(row.get(0)?), Lane::from_number(row.get(1)?));
        Ok(Former { incarnation: known(incarnation, "incarnation")?, lane: known(lane, "lane")?, tail: Tail::Last })
    })?;
    // Of more logs than a hub takes, the latest.
    let mut latest = Vec::new();
    for former in found.iter().rev() {
        if !latest.contains(&former.incarnation) && latest.len() < limits::FORMER_LOGS_MAX {
            latest.push(former.incarnation);
        }
    }
    found.retain(|former| mobo_core::protect!("recovery.former", latest.contains(&former.incarnation)));
    Ok(found)
}

/// Everything was given back.
pub(super) fn given_back(conn: &Connection) -> Try<()> {
    meta::clear(conn, meta::GIVING_BACK)
}

/// What a restored hub has lost is not acknowledged any more: it is kept, and pushed again.
fn go_back(conn: &Connection, log: &Log, welcome: &Welcome) -> Try<()> {
    for lane in Lane::ALL {
        let status = welcome.lanes.iter().find(|status| status.lane == lane);
        let safe = status.and_then(|status| status.safe);
        let last = status.and_then(|status| Some((status.last?, status.chain)));
        let last = match last {
            // Another instance has written there since the hub went back: how much of it both have, nobody has said.
            Some(last) if !is_shared(conn, (log.incarnation, lane), last)? => None,
            last => last.map(|last| last.0),
        };
        forget_acks(conn, (log.incarnation, lane), (last, last.and(safe)))?;
    }
    Ok(())
}

/// True if the hub's lane is this one up to there, as far as that is kept.
pub(super) fn is_shared(conn: &Connection, (incarnation, lane): (Incarnation, Lane), (last, chain): (Seq, Chain)) -> Try<bool> {
    Ok(match outbox::chain_at(conn, incarnation, lane, last)? {
        Some(own) => own == chain,
        None => outbox::is_trimmed(conn, incarnation, lane, last)?,
    })
}

/// Entries behind `last` are not acknowledged any more.
pub(super) fn forget_acks(
    conn: &Connection,
    (incarnation, lane): (Incarnation, Lane),
    (last, safe): (Option<Seq>, Option<Seq>),
) -> Try<()> {
    let key = (incarnation.sql(), lane.number(), last.map_or(0, seq_sql));
    let sql = "UPDATE mobo_lane SET acked = min(acked, ?3), safe = min(safe, ?4) WHERE incarnation = ?1 AND lane = ?2";
    conn.prepare_cached(sql)?.execute((key.0, key.1, key.2, safe.map_or(0, seq_sql)))?;
    let sql = "UPDATE mobo_outbox SET state = 0 WHERE incarnation = ?1 AND lane = ?2 AND seq > ?3 AND state = 1";
    conn.prepare_cached(sql)?.execute(key)?;
    Ok(())
}

fn leave_timeline(conn: &Connection, schema: &Schema, welcome: &Welcome, bucket: BucketRow) -> Try<()> {
    let (id, from) = (bucket.grant.bucket, bucket.timeline);
    let granted = welcome.grants.iter().any(|grant| grant.bucket == id);
    // Not offered yet, or not all of it, since the last time that the hub went back: its rows are still those of before, and stand at positions
    // of before. Of what was offered of them meanwhile this hub may have lost everything, wherever the bucket stood by then.
    let unfinished = due(conn, id)?;
    if unfinished.is_none() {
        set_apart(conn, schema, id)?;
    }
    let timeline = unfinished.map_or(from, |known| known.timeline);
    let fork = fork_head(&welcome.timeline, timeline, id);
    // A row may stand higher here than at the hub. One that was above the fork before this for that alone is named by no pull from there: it is
    // offered, though this hub has not lost it.
    let is_read_on = unfinished.is_some() && bucket.cursor > Position(0);
    let above = if is_read_on { fork.min(bucket.cursor) } else { fork };
    if mobo_core::protect!("recovery.offered", true) {
        put(conn, id, &Due { timeline, above, revoked: !granted })?;
    }
    unconfirm(conn, schema, bucket, (welcome.timeline.timeline, fork))?;
    // A hub that has lost a bucket makes another of the same key: for this device it is the same one.
    let again = welcome.grants.iter().find(|grant| !granted && grant.key == key_of_bucket(conn, id).unwrap_or_default());
    if let Some(again) = again
        && members::bucket(conn, again.bucket)?.is_none()
    {
        rename(conn, schema, (id, again.bucket))?;
    }
    Ok(())
}

fn key_of_bucket(conn: &Connection, id: BucketId) -> Try<String> {
    Ok(members::bucket(conn, id)?.map(|bucket| bucket.grant.key).unwrap_or_default())
}

fn rename(conn: &Connection, schema: &Schema, (old, new): (BucketId, BucketId)) -> Try<()> {
    for (table, of, _, _) in tables(schema) {
        conn.execute(&format!("UPDATE {table} SET {of} = ?2 WHERE {of} = ?1"), (old.sql(), new.sql()))?;
    }
    conn.execute("UPDATE mobo_bucket SET id = ?2, cursor = 0 WHERE id = ?1", (old.sql(), new.sql()))?;
    conn.execute("UPDATE mobo_offer SET bucket = ?2, revoked = 0 WHERE bucket = ?1", (old.sql(), new.sql()))?;
    Ok(())
}

/// What was offered to the hub that is lost now, and that no pull has named since, still stands at positions of the timeline before. They say
/// nothing of how far this hub goes: all of it is offered, wherever the fork is.
fn set_apart(conn: &Connection, schema: &Schema, bucket: BucketId) -> Try<()> {
    for (table, of, position, _) in tables(schema) {
        let condition = format!("{of} = ?1 AND {position} >= {UNCONFIRMED} AND {position} < {UNCONFIRMED} + {OF_BEFORE}");
        let sql = format!("UPDATE {table} SET {position} = {position} + {OF_BEFORE} WHERE {condition}");
        conn.execute(&sql, [bucket.sql()])?;
    }
    Ok(())
}

/// Members above the fork are unconfirmed from now on, and the bucket is read from there.
fn unconfirm(conn: &Connection, schema: &Schema, bucket: BucketRow, (timeline, above): (Timeline, Position)) -> Try<()> {
    let id = bucket.grant.bucket;
    let Some(log) = Log::read(conn)? else { return Ok(()) };
    let mut rows = Rows::new(conn, log.project, schema);
    let mut digests = Digests::default();
    for (table, of, position, collection) in tables(schema) {
        let condition = format!("{of} = ?1 AND {position} > ?2 AND {position} < {UNCONFIRMED}");
        let sql = format!("SELECT {collection}, id FROM {table} WHERE {condition}");
        let keys: Vec<RecordKey> = all(conn.prepare(&sql)?.query((id.sql(), above.0.cast_signed()))?, key_of)?;
        for key in &keys {
            let hash = delivered_hash(conn, &mut rows, key)?;
            digests.replace(conn, id, key, (hash, None))?;
        }
        conn.execute(
            &format!("UPDATE {table} SET {position} = {position} + {UNCONFIRMED} WHERE {condition}"),
            (id.sql(), above.0.cast_signed()),
        )?;
    }
    digests.store(conn)?;
    let Some(bucket) = members::bucket(conn, id)? else { return Ok(()) };
    let (cursor, checked) = (bucket.cursor.min(above), bucket.checked.min(above));
    members::put_bucket(conn, &BucketRow { timeline, cursor, checked, diverged: 0, sweep: Sweep::Keep, ..bucket })
}

/// A page of what is held of a bucket above the fork, by position; with its last position where more follow.
pub(super) fn page(conn: &Connection, schema: &Schema, bucket: BucketId, after: Option<Position>) -> Try<(Offer, Option<Position>)> {
    let (Some(log), Some(due)) = (Log::read(conn)?, due(conn, bucket)?) else {
        return Ok((Offer { bucket, timeline: Timeline([0; 16]), rows: Vec::new(), more: false }, None));
    };
    let above = after.unwrap_or_default().max(due.above);
    let (places, is_cut) = places(conn, schema, bucket, above)?;
    let mut rows = Rows::new(conn, log.project, schema);
    let mut offer = Offer { bucket, timeline: due.timeline, rows: Vec::new(), more: false };
    let (mut bytes, mut last) = (0, None);
    for (position, key) in &places {
        // Never between two at one position: the next page begins behind a position.
        if bytes > limits::BATCH_BYTES_MAX && last < Some(*position) {
            return Ok((Offer { more: true, ..offer }, last));
        }
        if let Some(item) = item(conn, (&mut rows, schema), key)? {
            bytes += match &item.body {
                ItemBody::State { bytes, .. } => bytes.len(),
                ItemBody::Leave => 0,
            };
            offer.rows.push(item);
        }
        last = Some(*position);
    }
    Ok((Offer { more: is_cut, ..offer }, last.filter(|_| is_cut)))
}

/// The next members above a position, and whether there are more.
fn places(conn: &Connection, schema: &Schema, bucket: BucketId, above: Position) -> Try<(Vec<(Position, RecordKey)>, bool)> {
    let max = limits::BATCH_ITEMS_MAX;
    let mut places = Vec::new();
    for (table, of, position, collection) in tables(schema) {
        let sql = format!(
            "SELECT {collection}, id, {position} - {UNCONFIRMED} FROM {table} WHERE {of} = ?1 AND {position} > ?2 ORDER BY {position} LIMIT {}",
            max + 1
        );
        let from = above.0.cast_signed().saturating_add(UNCONFIRMED);
        let found = all(conn.prepare(&sql)?.query((bucket.sql(), from))?, |row| {
            Ok((Position(row.get::<_, i64>(2)?.cast_unsigned()), key_of(row)?))
        })?;
        places.extend(found);
    }
    places.sort_unstable();
    let is_cut = places.len() > max;
    if let Some((next, _)) = places.get(max).cloned() {
        places.truncate(max);
        places.retain(|(position, _)| *position < next);
    }
    Ok((places, is_cut))
}

/// A record as it was delivered; `None` where the hub's MAC of it is not at hand.
fn item(conn: &Connection, (rows, schema): (&mut Rows<'_>, &Schema), key: &RecordKey) -> Try<Option<Item>> {
    let Some(collection) = schema.get(key.collection) else { return Ok(None) };
    let delivered: Option<(RecordState, _, _)> = match bases::row(conn, key)? {
        Some(base) => base.state(collection, key)?.map(|state| (state, base.ver, base.mac)),
        None => rows.read(key)?.and_then(|(state, kept)| Some((state.ok()?, kept.ver, kept.mac))),
    };
    let Some((state, ver, Some(mac))) = delivered else { return Ok(None) };
    let (epoch, bytes) = state.encode();
    Ok(Some(Item { collection: key.collection, id: key.id.clone(), ver, body: ItemBody::State { epoch, bytes }, mac }))
}

/// The hub has joined a page: a session that ends now goes on behind it.
pub(super) fn sent(conn: &Connection, bucket: BucketId, up_to: Position) -> Try<()> {
    let sql = "UPDATE mobo_offer SET above = max(above, ?2) WHERE bucket = ?1";
    conn.prepare_cached(sql)?.execute((bucket.sql(), up_to.0.cast_signed()))?;
    Ok(())
}

/// The hub has joined all of a bucket: it may be pulled now, and what the pull does not name is gone. Gives the records of one that may not
/// be read any more.
pub(super) fn offered(conn: &Connection, schema: &Schema, bucket: BucketId) -> Try<Vec<RecordKey>> {
    let Some(due) = due(conn, bucket)? else { return Ok(Vec::new()) };
    conn.prepare_cached("DELETE FROM mobo_offer WHERE bucket = ?1")?.execute([bucket.sql()])?;
    if due.revoked {
        return compare::revoke(conn, schema, bucket);
    }
    let sql = "UPDATE mobo_bucket SET sweep = ?2 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute((bucket.sql(), Sweep::Remove.code()))?;
    Ok(Vec::new())
}
