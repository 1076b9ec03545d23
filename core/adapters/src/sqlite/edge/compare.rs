//! How the device's buckets stand against the hub's word, and pulls that start over (rules R13, R18, R20).

use mobo_core::digest::Digest;
use std::collections::BTreeSet;

use mobo_core::ids::{BucketId, Nonce, Position, RecordKey};
use mobo_core::message::Checkpoint;
use mobo_core::schema::{Kind, Schema};
use mobo_core::time::Wall;
use mobo_core::trust;
use rusqlite::Connection;

use super::answers::{Compared, Standing};
use super::counts::EdgeAudit;
use super::desk::Desk;
use super::fault::{Try, all};
use super::members::{self, BucketRow, Sweep, UNCONFIRMED};
use super::meta::{self, Log};
use super::overlays;
use super::recover;
use super::rows::key_of;
use super::stranded;
use crate::sqlite::table::quoted;

/// Compares cursors and digests with what the hub read in one snapshot.
///
/// A pull that started over and has reached the hub's head is complete: what it did not name is gone. Own entries that the hub has merged,
/// and that no bucket of this device has brought back, are in buckets that it does not hold: they are shown no more.
pub(super) fn checkpoint(
    conn: &Connection,
    schema: &Schema,
    checkpoint: &Checkpoint,
    (heard, nonce): (Wall, &mut dyn FnMut() -> Nonce),
) -> Try<Compared> {
    let mut compared = Compared::default();
    let Some(log) = Log::read(conn)? else { return Ok(compared) };
    let held = members::buckets(conn)?;
    let at = |bucket: &BucketRow| {
        let head = checkpoint.heads.iter().find(|head| head.0 == bucket.grant.bucket);
        head.filter(|_| bucket.timeline == checkpoint.timeline).copied()
    };
    for bucket in &held {
        // Where the hub did not name all that it counts, what is left may well be what it lacks: it is kept, unconfirmed.
        let named_all = at(bucket).is_some_and(|(_, head, digest)| bucket.cursor >= head && bucket.digest == digest);
        if bucket.sweep != Sweep::No && named_all {
            compared.changed.extend(finish(conn, schema, bucket)?);
        }
    }
    if held.iter().all(|bucket| at(bucket).is_some_and(|(_, head, _)| bucket.cursor >= head)) {
        let mut desk = Desk::new(conn, schema, log);
        // Everything that the hub has is here. What it has taken in under another name goes first: what it refused for want of something is
        // written again on what is left, and not on that.
        let own_merged = stranded::without(conn, &log, checkpoint.own_merged.clone())?;
        desk.note_refused(overlays::refused(conn, &own_merged)?)?;
        let merged = overlays::merged(conn, &own_merged)?;
        let drops = mobo_core::protect!("overlay.dropped-when-merged:checkpoint", true);
        for key in merged.iter().filter(|_| drops) {
            overlays::drop_merged(conn, key, &own_merged, &mut desk.refused)?;
        }
        compared.appended = desk.redo(schema, (heard, &mut *nonce))?;
        for key in merged.iter().filter(|_| drops) {
            desk.show(key, (None, None))?;
        }
        compared.appended.extend(stranded::settle(&mut desk, schema, nonce)?);
        compared.changed.extend(desk.finish()?);
    }
    // Where every bucket is at its head, so are the records that two of them share.
    let level = held.iter().all(|bucket| at(bucket).is_some_and(|(_, head, _)| bucket.cursor == head));
    let comparable = level || !shares_records(conn)?;
    for bucket in members::buckets(conn)? {
        let id = bucket.grant.bucket;
        let standing = match at(&bucket)
            .map(|(_, head, digest)| (!mobo_core::protect!("checkpoint.same-position", bucket.cursor != head), bucket.digest == digest))
        {
            Some((true, true)) => Standing::Equal,
            Some((true, false)) if comparable && bucket.diverged > 0 && bucket.sweep != Sweep::No => Standing::Disputed,
            Some((true, false)) if comparable => Standing::Diverged,
            _ => Standing::Behind,
        };
        note(conn, schema, bucket, standing)?;
        compared.buckets.push((id, standing));
    }
    if let Some(signature) = &checkpoint.signature {
        meta::set_checkpoint(conn, &trust::checkpoint_bytes(checkpoint.timeline, &checkpoint.heads), signature)?;
    }
    Ok(compared)
}

fn shares_records(conn: &Connection) -> Try<bool> {
    let mut statement = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM mobo_member)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn note(conn: &Connection, schema: &Schema, bucket: BucketRow, standing: Standing) -> Try<()> {
    match standing {
        Standing::Behind => Ok(()),
        Standing::Equal => members::put_bucket(conn, &BucketRow { checked: bucket.cursor, diverged: 0, ..bucket }),
        Standing::Disputed => members::put_bucket(conn, &BucketRow { diverged: bucket.diverged.saturating_add(1), ..bucket }),
        Standing::Diverged => {
            let id = bucket.grant.bucket;
            members::put_bucket(conn, &BucketRow { diverged: bucket.diverged.saturating_add(1), ..bucket })?;
            restart(conn, schema, id, Sweep::Remove)
        }
    }
}

/// Starts the pull of a bucket over: from now on its members are unconfirmed until they are named again, and its digest is of the
/// confirmed ones. What is kept for an offer stays so, whatever starts the pull over again.
pub(super) fn restart(conn: &Connection, schema: &Schema, bucket: BucketId, sweep: Sweep) -> Try<()> {
    for sql in tables(schema) {
        let sql = format!("UPDATE {} SET {} = {} + {UNCONFIRMED} WHERE {} = ?1 AND {} < {UNCONFIRMED}", sql.0, sql.2, sql.2, sql.1, sql.2);
        conn.execute(&sql, [bucket.sql()])?;
    }
    let sql = "UPDATE mobo_bucket SET cursor = 0, digest = ?2, sweep = max(sweep, ?3) WHERE id = ?1";
    conn.prepare_cached(sql)?.execute((bucket.sql(), &Digest::default().0, sweep.code()))?;
    Ok(())
}

/// Starts the pulls over that did not help in an earlier session: the hub may have been repaired.
pub(super) fn retry(conn: &Connection, schema: &Schema) -> Try<()> {
    for bucket in members::buckets(conn)? {
        if bucket.diverged > 1 && bucket.sweep != Sweep::No {
            let (id, sweep) = (bucket.grant.bucket, bucket.sweep);
            // One, so that a link which breaks in the middle of this pull does not start it over again.
            members::put_bucket(conn, &BucketRow { diverged: 1, ..bucket })?;
            restart(conn, schema, id, sweep)?;
        }
    }
    Ok(())
}

/// Starts the pulls over that a health check calls for.
pub(super) fn repair(conn: &Connection, schema: &Schema, audit: &EdgeAudit) -> Try<Vec<BucketId>> {
    let Some(log) = Log::read(conn)? else { return Ok(Vec::new()) };
    let differ = audit.buckets.iter().filter(|(_, stored, computed)| stored != computed);
    let mut again: BTreeSet<BucketId> = differ.map(|bucket| bucket.0).collect();
    let mut desk = Desk::new(conn, schema, log);
    for key in &audit.damaged {
        again.extend(desk.mend(key)?);
    }
    desk.finish()?;
    again.retain(|bucket| members::bucket(conn, *bucket).is_ok_and(|held| held.is_some()));
    for bucket in &again {
        restart(conn, schema, *bucket, Sweep::Remove)?;
    }
    Ok(again.into_iter().collect())
}

/// Ends a pull that started over, at the hub's head.
fn finish(conn: &Connection, schema: &Schema, bucket: &BucketRow) -> Try<Vec<RecordKey>> {
    let id = bucket.grant.bucket;
    let left = members_of(conn, schema, id, Part::Unconfirmed)?;
    if bucket.sweep == Sweep::Keep && !left.is_empty() {
        return Ok(Vec::new());
    }
    conn.prepare_cached("UPDATE mobo_bucket SET sweep = 0 WHERE id = ?1")?.execute([id.sql()])?;
    take_out(conn, schema, id, &left)
}

/// Ends a resync at the hub's word, if the pull has got there (rule R20).
pub(super) fn sweep(conn: &Connection, schema: &Schema, bucket: BucketId, to: Position) -> Try<Vec<RecordKey>> {
    match members::bucket(conn, bucket)? {
        Some(bucket) if bucket.sweep != Sweep::No && bucket.cursor >= to => finish(conn, schema, &bucket),
        _ => Ok(Vec::new()),
    }
}

/// The bucket may not be read any more. What is pending on its records stays.
pub(super) fn revoke(conn: &Connection, schema: &Schema, bucket: BucketId) -> Try<Vec<RecordKey>> {
    if members::bucket(conn, bucket)?.is_none() || recover::defer_revoke(conn, bucket)? {
        return Ok(Vec::new());
    }
    let keys = if mobo_core::protect!("rights.forgotten", true) { members_of(conn, schema, bucket, Part::All)? } else { Vec::new() };
    let changed = take_out(conn, schema, bucket, &keys)?;
    conn.prepare_cached("DELETE FROM mobo_bucket WHERE id = ?1")?.execute([bucket.sql()])?;
    Ok(changed)
}

fn take_out(conn: &Connection, schema: &Schema, bucket: BucketId, keys: &[RecordKey]) -> Try<Vec<RecordKey>> {
    let Some(log) = Log::read(conn)? else { return Ok(Vec::new()) };
    let mut desk = Desk::new(conn, schema, log);
    for key in keys {
        desk.leave(key, bucket, &[])?;
    }
    desk.finish()
}

/// Which members of a bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    All,
    Confirmed,
    Unconfirmed,
}

impl Part {
    const fn condition(self) -> &'static str {
        match self {
            Self::All => "IS NOT NULL",
            Self::Confirmed => "< 4611686018427387904",
            Self::Unconfirmed => ">= 4611686018427387904",
        }
    }
}

const _: () = assert!(UNCONFIRMED == 4_611_686_018_427_387_904);

/// The members of a bucket.
pub(super) fn members_of(conn: &Connection, schema: &Schema, bucket: BucketId, part: Part) -> Try<Vec<RecordKey>> {
    let mut keys = Vec::new();
    for (table, of, position, collection, id) in tables(schema).map(|table| (table.0, table.1, table.2, table.3, "id")) {
        let sql = format!("SELECT {collection}, {id} FROM {table} WHERE {of} = ?1 AND {position} {}", part.condition());
        keys.extend(all(conn.prepare_cached(&sql)?.query([bucket.sql()])?, key_of)?);
    }
    Ok(keys)
}

/// Every table that says which bucket a record is in: its name, and its columns for bucket, position and collection.
pub(super) fn tables(schema: &Schema) -> impl Iterator<Item = (String, &'static str, &'static str, String)> {
    let node = ["mobo_hidden", "mobo_document", "mobo_member"];
    let node = node.into_iter().map(|name| (name.to_owned(), "bucket", "position", "collection".to_owned()));
    let rows = schema.iter().filter(|collection| collection.kind == Kind::Table);
    node.chain(rows.map(|collection| (quoted(&collection.name), "_bucket", "_position", collection.id.sql().to_string())))
}
