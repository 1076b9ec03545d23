//! The records of a batch: locked in ascending order, then read in later statements.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::ids::{BucketId, CollectionId, DeviceId, Incarnation, Position, ProjectId, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::merge::{Membership, Stored};
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stamp::Origin;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use crate::postgres::error::{Failure, known};
use crate::postgres::known::Known;
use crate::postgres::session::Tx;
use crate::postgres::stored::{self, Source, by_collection, ids};
use crate::postgres::table::table;

/// Records, and the authors of documents with a refused change.
pub(in crate::postgres) type Records = (BTreeMap<RecordKey, Stored>, BTreeSet<(RecordKey, Origin)>);

/// Locks the records, then reads them with their buckets.
pub(in crate::postgres) async fn lock_and_read(
    tx: &mut Tx,
    remembered: &Known,
    (project, schema): (ProjectId, &Schema),
    wants: &BTreeSet<RecordKey>,
) -> Result<Records, Failure> {
    if wants.is_empty() {
        return Ok(Records::default());
    }
    let present = lock(tx, project, schema, wants).await?;
    let found = stored::load(tx, project, schema, &present).await?;
    let mut memberships = read_members(tx, project, &present).await?;
    let homes: BTreeSet<BucketId> = found.values().filter_map(|record| record.home).map(|(bucket, _)| bucket).collect();
    let keys = bucket_keys(tx, remembered, project, homes).await?;
    let mut records = BTreeMap::new();
    for (key, record) in found {
        let mut memberships = memberships.remove(&key).unwrap_or_default();
        if let Some((bucket, position)) = record.home {
            let key = known(keys.get(&bucket).cloned(), "bucket")?;
            memberships.push(Membership { bucket, key, position, present: true });
        }
        let (state, ver, visible, state_hash) = (record.state, record.ver, record.visible, record.state_hash);
        records.insert(key, Stored { state, ver, visible, state_hash, memberships });
    }
    let blocked = read_blocked(tx, project, schema, wants).await?;
    Ok((records, blocked))
}

/// Locks the records that exist, and gives their keys. Nobody else makes one of the others before this transaction ends.
async fn lock(tx: &mut Tx, project: ProjectId, schema: &Schema, wants: &BTreeSet<RecordKey>) -> Result<BTreeSet<RecordKey>, Failure> {
    let mut present = existing(tx, project, schema, wants).await?;
    let absent: BTreeSet<RecordKey> = wants.difference(&present).cloned().collect();
    if !absent.is_empty() {
        // Before any record: whoever waits here holds nothing that the one in front needs.
        let collections: BTreeSet<CollectionId> = absent.iter().map(|key| key.collection).collect();
        let collections: Vec<i64> = collections.into_iter().map(CollectionId::sql).collect();
        tx.rows(sqlx::query("SELECT pg_advisory_xact_lock(c) FROM unnest($1::int8[]) AS c").bind(collections)).await?;
        // Whoever was in front may have made some of them.
        present.extend(existing(tx, project, schema, &absent).await?);
    }
    let mut unlocked = lock_existing(tx, project, schema, &present).await?;
    while !unlocked.is_empty() {
        // It was on its way from one table to the other, and was seen in neither: now it is there.
        unlocked = existing(tx, project, schema, &unlocked).await?;
        unlocked = lock_existing(tx, project, schema, &unlocked).await?;
    }
    Ok(present)
}

/// Locks the records that are there; gives those that are not.
async fn lock_existing(
    tx: &mut Tx,
    project: ProjectId,
    schema: &Schema,
    wants: &BTreeSet<RecordKey>,
) -> Result<BTreeSet<RecordKey>, Failure> {
    let mut missing = wants.clone();
    for (collection, keys) in by_collection(schema, wants) {
        for source in Source::of(collection.kind) {
            let sql = format!("{} ORDER BY id FOR UPDATE", keys_in(*source, collection));
            for some in keys.chunks(limits::POSTGRES_ROWS_MAX) {
                for row in rows(tx, &sql, (project, collection), some).await? {
                    missing.remove(&key(collection.id, &row)?);
                }
            }
        }
    }
    Ok(missing)
}

/// The records that are there: each collection in one snapshot over all its tables, which shows every record in exactly one of them.
async fn existing(tx: &mut Tx, project: ProjectId, schema: &Schema, wants: &BTreeSet<RecordKey>) -> Result<BTreeSet<RecordKey>, Failure> {
    let mut found = BTreeSet::new();
    for (collection, keys) in by_collection(schema, wants) {
        let parts: Vec<String> = Source::of(collection.kind).iter().map(|source| keys_in(*source, collection)).collect();
        let sql = parts.join(" UNION ALL ");
        let keys = if collection.kind == Kind::Table { near(tx, (project, collection), keys).await? } else { keys };
        for some in keys.chunks(limits::POSTGRES_ROWS_MAX) {
            for row in rows(tx, &sql, (project, collection), some).await? {
                found.insert(key(collection.id, &row)?);
            }
        }
    }
    Ok(found)
}

/// Keys that are looked for at once.
const PROBED: usize = 64;

/// The keys of a table without those of runs where nothing is between the first and the last: what is new there is not looked for by itself.
async fn near<'k>(
    tx: &mut Tx,
    (project, collection): (ProjectId, &Collection),
    keys: Vec<&'k RecordKey>,
) -> Result<Vec<&'k RecordKey>, Failure> {
    let runs: Vec<&[&RecordKey]> = keys.chunks(PROBED).collect();
    if runs.first().is_none_or(|run| run.len() < PROBED) {
        return Ok(keys);
    }
    let end = |at: fn(&[&'k RecordKey]) -> Option<&'k RecordKey>| -> Vec<&'k str> {
        runs.iter().filter_map(|run| at(run)).map(|key| key.id.as_str()).collect()
    };
    let (low, high) = (end(|run| run.first().copied()), end(|run| run.last().copied()));
    // The first row at or behind the low end is read by the index, however many there are.
    let sql = format!(
        "SELECT w.n FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS w(low, high, n) WHERE \
         (SELECT t.id FROM {} t WHERE t.id >= w.low COLLATE \"C\" ORDER BY t.id LIMIT 1) <= w.high COLLATE \"C\" OR \
         (SELECT h.id FROM mobo.hidden h WHERE h.project = $1 AND h.collection = $2 AND h.id >= w.low COLLATE \"C\" \
          ORDER BY h.project, h.collection, h.id LIMIT 1) <= w.high COLLATE \"C\"",
        table(collection)
    );
    let look = sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(collection.id.sql()).bind(low).bind(high);
    let mut found = Vec::new();
    for row in tx.rows(look).await? {
        let run = usize::try_from(row.try_get::<i64, _>(0)?).ok().and_then(|n| runs.get(n.checked_sub(1)?));
        found.extend_from_slice(known(run, "run of keys")?);
    }
    Ok(found)
}

/// A `SELECT` of the ids among `$3`.
fn keys_in(source: Source, collection: &Collection) -> String {
    match source {
        Source::Table => format!("SELECT id FROM {} WHERE id = ANY($3)", table(collection)),
        Source::Hidden => "SELECT id FROM mobo.hidden WHERE project = $1 AND collection = $2 AND id = ANY($3)".to_owned(),
        Source::Document => "SELECT id FROM mobo.document WHERE project = $1 AND collection = $2 AND id = ANY($3)".to_owned(),
    }
}

async fn rows(tx: &mut Tx, sql: &str, (project, collection): (ProjectId, &Collection), keys: &[&RecordKey]) -> Result<Vec<PgRow>, Failure> {
    tx.rows(sqlx::query(AssertSqlSafe(sql.to_owned())).bind(project.sql()).bind(collection.id.sql()).bind(ids(keys))).await
}

fn key(collection: CollectionId, row: &PgRow) -> Result<RecordKey, Failure> {
    let id = RecordId::new(row.try_get::<String, _>(0)?).map_err(|error| Failure::damaged(error.to_string()))?;
    Ok(RecordKey { collection, id })
}

/// The buckets beyond their first that the records are in, or have left.
async fn read_members(
    tx: &mut Tx,
    project: ProjectId,
    keys: &BTreeSet<RecordKey>,
) -> Result<BTreeMap<RecordKey, Vec<Membership>>, Failure> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (collections, names) = pairs(keys);
    let look = sqlx::query(
        "SELECT m.id, m.collection, m.bucket, b.key, m.position, m.present FROM mobo.member m \
         JOIN unnest($2::int8[], $3::text[]) AS w(collection, id) ON m.collection = w.collection AND m.id = w.id \
         JOIN mobo.bucket b ON b.project = $1 AND b.id = m.bucket",
    );
    let mut members: BTreeMap<RecordKey, Vec<Membership>> = BTreeMap::new();
    for row in tx.rows(look.bind(project.sql()).bind(collections).bind(names)).await? {
        let collection = known(CollectionId::from_sql(row.try_get(1)?), "collection")?;
        let membership = Membership {
            bucket: known(BucketId::from_sql(row.try_get(2)?), "bucket")?,
            key: row.try_get(3)?,
            position: Position(known(u64::try_from(row.try_get::<i64, _>(4)?).ok(), "position")?),
            present: row.try_get(5)?,
        };
        members.entry(key(collection, &row)?).or_default().push(membership);
    }
    Ok(members)
}

/// The keys of buckets: remembered, or read.
async fn bucket_keys(
    tx: &mut Tx,
    remembered: &Known,
    project: ProjectId,
    wanted: BTreeSet<BucketId>,
) -> Result<BTreeMap<BucketId, String>, Failure> {
    let mut keys: BTreeMap<BucketId, String> = wanted.iter().filter_map(|id| Some((*id, remembered.bucket_key(project, *id)?))).collect();
    let missing: Vec<i64> = wanted.iter().filter(|id| !keys.contains_key(id)).map(|id| id.sql()).collect();
    if missing.is_empty() {
        return Ok(keys);
    }
    // A record was committed in them: so were they.
    let look = sqlx::query("SELECT id, key FROM mobo.bucket WHERE project = $1 AND id = ANY($2)").bind(project.sql()).bind(missing);
    for row in tx.rows(look).await? {
        keys.insert(known(BucketId::from_sql(row.try_get(0)?), "bucket")?, row.try_get(1)?);
    }
    remembered.keep_buckets(project, keys.iter().map(|(id, key)| (*id, key.clone())));
    Ok(keys)
}

async fn read_blocked(
    tx: &mut Tx,
    project: ProjectId,
    schema: &Schema,
    wants: &BTreeSet<RecordKey>,
) -> Result<BTreeSet<(RecordKey, Origin)>, Failure> {
    let is_document = |key: &&RecordKey| schema.get(key.collection).is_some_and(|collection| collection.kind == Kind::Document);
    let (collections, names) = pairs(wants.iter().filter(is_document));
    if collections.is_empty() {
        return Ok(BTreeSet::new());
    }
    let look = sqlx::query(
        "SELECT b.id, b.collection, b.device, b.incarnation FROM mobo.blocked b \
         JOIN unnest($2::int8[], $3::text[]) AS w(collection, id) ON b.collection = w.collection AND b.id = w.id WHERE b.project = $1",
    );
    let mut blocked = BTreeSet::new();
    for row in tx.rows(look.bind(project.sql()).bind(collections).bind(names)).await? {
        let collection = known(CollectionId::from_sql(row.try_get(1)?), "collection")?;
        let incarnation = known(Incarnation::from_sql(row.try_get(3)?), "incarnation")?;
        blocked.insert((key(collection, &row)?, Origin { device: DeviceId(row.try_get(2)?), incarnation }));
    }
    Ok(blocked)
}

/// Collections and ids of keys, as two arrays.
fn pairs<'k>(keys: impl IntoIterator<Item = &'k RecordKey>) -> (Vec<i64>, Vec<&'k str>) {
    keys.into_iter().map(|key| (key.collection.sql(), key.id.as_str())).unzip()
}
