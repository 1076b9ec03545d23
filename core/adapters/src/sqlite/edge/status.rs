//! Numbers for `status`, and a health check that recomputes everything (rules R13, R29).

use mobo_core::digest::Digest;
use mobo_core::entry::{chain_next, chain_start};
use mobo_core::ids::{Incarnation, Lane, RecordId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::store::StoreError;
use rusqlite::Connection;

use super::EdgeStore;
use super::ack;
use super::answers::Record;
use super::bases;
use super::compare::{Part, members_of};
use super::counts::{BucketCount, EdgeAudit, EdgeCounts, LaneCount, Obstacle};
use super::detached;
use super::fault::{Try, all};
use super::members::{self, BucketRow};
use super::meta::Log;
use super::outbox::{self, LaneRow};
use super::room;
use super::rows::Rows;
use crate::sqlite::error::{Failure, known};
use crate::sqlite::open::quick_check;
use crate::sqlite::table::quoted;

pub(super) fn counts(conn: &Connection, schema: &Schema) -> Try<EdgeCounts> {
    let mut counts = EdgeCounts {
        pending: count(conn, "SELECT (SELECT count(*) FROM mobo_outbox WHERE state = 0) + (SELECT count(*) FROM mobo_intake)")?,
        rejected: count(conn, "SELECT count(*) FROM mobo_inbox WHERE status = 0")?,
        sql_refused: count(conn, "SELECT count(*) FROM mobo_intake_refused")?,
        kept: count(conn, "SELECT count(*) FROM mobo_outbox")?,
        kept_bytes: ack::bytes(conn)?,
        used_bytes: room::used(conn)?,
        losses: room::losses(conn)?,
        ..EdgeCounts::default()
    };
    for collection in schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        counts.records += count(conn, &format!("SELECT count(*) FROM {}", quoted(&collection.name)))?;
    }
    if let Some(log) = Log::read(conn)? {
        let lane = |(lane, row): (Lane, LaneRow)| LaneCount { lane, last: row.last, hub: row.acked, safe: row.safe };
        counts.lanes = outbox::lanes(conn, log.incarnation)?.into_iter().map(lane).collect();
    }
    counts.detached = detached::records(conn, schema)?;
    for bucket in members::buckets(conn)? {
        let unconfirmed = members_of(conn, schema, bucket.grant.bucket, Part::Unconfirmed)?.len() as u64;
        let BucketRow { grant, timeline, cursor, digest, checked, diverged, sweep: _ } = bucket;
        counts.buckets.push(BucketCount { grant, timeline, cursor, digest, checked, diverged, unconfirmed });
    }
    Ok(counts)
}

impl EdgeStore {
    /// What somebody has put on the tables of collections that what the hub delivers may not get past.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn obstacles(&self) -> Result<Vec<Obstacle>, StoreError> {
        self.read(|conn, inner| obstacles(conn, &*inner.schema.get(conn)?)).await
    }
}

/// The UNIQUE indexes that somebody has put on tables of collections.
fn obstacles(conn: &Connection, schema: &Schema) -> Try<Vec<Obstacle>> {
    let mut statement =
        conn.prepare_cached("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND origin = 'c' ORDER BY name")?;
    let mut found = Vec::new();
    for collection in schema.iter() {
        let name = |row: &rusqlite::Row<'_>| Ok(Obstacle { table: collection.name.clone(), index: row.get(0)? });
        found.extend(all(statement.query([&collection.name])?, name)?);
    }
    Ok(found)
}

/// One record as it is shown.
pub(super) fn record(conn: &Connection, schema: &Schema, key: &RecordKey) -> Try<Option<Record>> {
    let Some(log) = Log::read(conn)? else { return Ok(None) };
    match Rows::new(conn, log.project, schema).read(key)? {
        None => Ok(None),
        Some((Err(why), _)) => Err(Failure::damaged(format!("\"{}\": {why}; run `mobo-edge health check`", key.id))),
        Some((Ok(state), kept)) => {
            let pending = bases::row(conn, key)?.is_some();
            let detached = pending && detached::is_detached(conn, schema, key)?;
            Ok(Some(Record { ver: kept.ver, state, pending, detached }))
        }
    }
}

fn count(conn: &Connection, sql: &str) -> Try<u64> {
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Recomputes the file's trees, every own chain, every row's hash and every bucket's digest.
pub(super) fn audit(conn: &Connection, schema: &Schema) -> Try<EdgeAudit> {
    let mut audit = EdgeAudit::default();
    match quick_check(conn) {
        Ok(()) => {}
        Err(Failure(StoreError::Damaged(what))) => audit.file = Some(what),
        Err(failure) => return Err(failure),
    }
    let Some(log) = Log::read(conn)? else { return Ok(audit) };
    for (incarnation, lane) in ack::lanes(conn)? {
        audit.lanes.push((incarnation, lane, broken_at(conn, &log, incarnation, lane)?));
    }
    let mut rows = Rows::new(conn, log.project, schema);
    for collection in schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        for key in keys(conn, &log, collection)? {
            if audit.damaged.len() < limits::AUDIT_DAMAGED_MAX && !is_intact(conn, &mut rows, collection, &key)? {
                audit.damaged.push(key);
            }
        }
    }
    for bucket in members::buckets(conn)? {
        let mut digest = Digest::default();
        for key in members_of(conn, schema, bucket.grant.bucket, Part::Confirmed)? {
            if let Some(hash) = delivered_hash(conn, &mut rows, schema, &key)? {
                digest = digest.plus(hash);
            }
        }
        audit.buckets.push((bucket.grant.bucket, bucket.digest, digest));
    }
    Ok(audit)
}

/// The first position at which the chain does not hold.
fn broken_at(conn: &Connection, log: &Log, incarnation: Incarnation, lane: Lane) -> Try<Option<Seq>> {
    let Some(row) = outbox::lane(conn, incarnation, lane)? else { return Ok(None) };
    let (mut last, mut chain) = match row.trimmed {
        Some((trimmed, chain)) => (Some(trimmed), chain),
        None => (None, chain_start(log.project, &log.lane(incarnation, lane))),
    };
    let mut broken = None;
    outbox::walk(conn, (incarnation, lane, last), |entry| {
        chain = chain_next(chain, &entry.entry);
        if entry.seq != Seq::after(last) || entry.chain != chain {
            broken = Some(entry.seq);
        }
        last = Some(entry.seq);
        Ok(broken.is_none())
    })?;
    let whole = last == Some(row.last) && chain == row.chain;
    Ok(broken.or((!whole).then_some(row.last)))
}

/// The records of a collection, visible or not.
fn keys(conn: &Connection, log: &Log, collection: &Collection) -> Try<Vec<RecordKey>> {
    let beside = match collection.kind {
        Kind::Document => "mobo_document",
        Kind::Table | Kind::Stream => "mobo_hidden",
    };
    let sql = format!(
        "SELECT id FROM {} UNION SELECT id FROM {beside} WHERE project = ?1 AND collection = ?2 ORDER BY 1",
        quoted(&collection.name)
    );
    all(conn.prepare_cached(&sql)?.query((log.project.sql(), collection.id.sql()))?, |row| {
        let id = known(RecordId::new(row.get::<_, String>(0)?).ok(), "record id")?;
        Ok(RecordKey { collection: collection.id, id })
    })
}

/// True if a record's row, and what was delivered under it, is as it was written.
fn is_intact(conn: &Connection, rows: &mut Rows<'_>, collection: &Collection, key: &RecordKey) -> Try<bool> {
    let Some((Ok(state), kept)) = rows.read(key)? else { return Ok(false) };
    if !rows.shows(key, &state, kept.ver)? {
        return Ok(false);
    }
    let Some(base) = bases::row(conn, key)? else { return Ok(true) };
    Ok(match base.state(collection, key) {
        Ok(state) => state.map(|state| state.state_hash()) == base.state_hash,
        Err(_) => false,
    })
}

/// What a record contributes to its buckets, by the hash of what is really there.
fn delivered_hash(conn: &Connection, rows: &mut Rows<'_>, schema: &Schema, key: &RecordKey) -> Try<Option<Digest>> {
    let Some(collection) = schema.get(key.collection) else { return Ok(None) };
    let state = match bases::row(conn, key)? {
        Some(base) => base.state(collection, key).unwrap_or_default(),
        None => rows.read(key)?.and_then(|(state, _)| state.ok()),
    };
    Ok(state.map(|state| Digest::of(key, state.state_hash())))
}
