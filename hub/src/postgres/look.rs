//! What people ask for: one record, decisions, refusals, numbers.

use std::collections::BTreeSet;

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, CollectionId, DeviceId, Incarnation, Position, ProjectId, RecordKey};
use mobo_core::limits;
use mobo_core::schema::{Kind, Schema};
use mobo_core::stamp::Origin;
use mobo_core::store::{ConflictPlace, ConflictPolicy, ConflictRow, Counts, PullItem, QuarantineRow, RecordRow, SqlRefused};
use mobo_core::time::Eff;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::changes;
use super::error::{Failure, known};
use super::quarantine;
use super::session::Tx;
use super::stored;
use super::table::table;

/// One record with its merge state.
pub(super) async fn record(tx: &mut Tx, project: ProjectId, schema: &Schema, key: RecordKey) -> Result<Option<RecordRow>, Failure> {
    let mut found = stored::load(tx, project, schema, &BTreeSet::from([key.clone()])).await?;
    let Some(record) = found.remove(&key) else { return Ok(None) };
    match record.state {
        Ok(state) => Ok(Some(RecordRow { ver: record.ver, state, changes: changes::of(tx, project, &key).await? })),
        Err(why) => Err(Failure::damaged(format!("record \"{}\" is damaged: {why}; run `mobo-hub health check`", key.id))),
    }
}

/// Open conflicts, newest first, behind a place.
pub(super) async fn conflicts(
    tx: &mut Tx,
    project: ProjectId,
    after: Option<&ConflictPlace>,
    limit: u32,
) -> Result<Vec<ConflictRow>, Failure> {
    const COLUMNS: &str = "SELECT collection, id, field, kind, loser::text, loser_stamp, winner::text, winner_stamp, at_us \
                           FROM mobo.conflict WHERE project = $1 AND status = 0";
    const ORDER: &str = "ORDER BY at_us DESC, collection, id, field, loser_stamp LIMIT $2";
    // The first condition alone lets the index find the place.
    const BEHIND: &str = "AND at_us <= $3 AND (at_us < $3 OR (collection, id, field, loser_stamp) > ($4, $5, $6, $7))";
    let sql = if after.is_some() { format!("{COLUMNS} {BEHIND} {ORDER}") } else { format!("{COLUMNS} {ORDER}") };
    let mut look = sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(i64::from(limit));
    if let Some(place) = after {
        look = look.bind(place.at.0).bind(place.collection.sql()).bind(&place.id).bind(place.field.cast_signed());
        look = look.bind(changes::encode(&place.loser));
    }
    tx.rows(look).await?.iter().map(conflict).collect()
}

/// The open conflicts of these records, newest first.
pub(super) async fn open_of(tx: &mut Tx, project: ProjectId, items: &[PullItem]) -> Result<Vec<ConflictRow>, Failure> {
    let keys = items.iter().filter(|item| item.state.is_some()).map(|item| (item.key.collection.sql(), item.key.id.as_str()));
    let (collections, ids): (Vec<i64>, Vec<&str>) = keys.unzip();
    let look = sqlx::query(
        // Each record's are found by its key: the sum keeps the planner from looking through the index of all open ones for each of them.
        "WITH found AS MATERIALIZED (\
           SELECT k.* FROM unnest($2::int8[], $3::text[]) AS w(collection, id) CROSS JOIN LATERAL (\
             SELECT * FROM mobo.conflict k \
             WHERE k.project = $1 AND k.collection = w.collection AND k.id = w.id AND k.status + 0 = 0 OFFSET 0) k) \
         SELECT collection, id, field, kind, CASE WHEN octet_length(loser::text) <= $5 THEN loser::text END, loser_stamp, \
           CASE WHEN octet_length(winner::text) <= $5 THEN winner::text END, winner_stamp, at_us \
         FROM found ORDER BY at_us DESC, collection, id, field, loser_stamp LIMIT $4",
    );
    let look = look.bind(project.sql()).bind(collections).bind(ids).bind(limits::BATCH_DECISIONS_MAX as i64);
    let look = look.bind(limits::DECISION_VALUE_BYTES_MAX as i64);
    tx.rows(look).await?.iter().map(conflict).collect()
}

/// Settles the open conflicts of a record, or of one of its fields.
pub(super) async fn settle_conflicts(tx: &mut Tx, project: ProjectId, key: &RecordKey, field: Option<u64>) -> Result<u64, Failure> {
    let update = sqlx::query(
        "UPDATE mobo.conflict SET status = 1 \
         WHERE project = $1 AND collection = $2 AND id = $3 AND ($4::int8 IS NULL OR field = $4) AND status = 0",
    );
    let update = update.bind(project.sql()).bind(key.collection.sql()).bind(key.id.as_str()).bind(field.map(u64::cast_signed));
    tx.run(update).await
}

/// Keeps what becomes of conflicts of a field.
pub(super) async fn set_conflict_policy(
    tx: &mut Tx,
    project: ProjectId,
    (collection, field): (CollectionId, u64),
    policy: ConflictPolicy,
) -> Result<(), Failure> {
    let put = sqlx::query(
        "INSERT INTO mobo.conflict_policy(project, collection, field, policy) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (project, collection, field) DO UPDATE SET policy = excluded.policy",
    );
    let put = put.bind(project.sql()).bind(collection.sql()).bind(field.cast_signed()).bind(i16::from(policy.code()));
    tx.run(put).await.map(|_| ())
}

/// Every log that has been met.
pub(super) async fn logs(tx: &mut Tx, project: ProjectId) -> Result<Vec<Origin>, Failure> {
    let look = sqlx::query("SELECT device, incarnation FROM mobo.incarnation WHERE project = $1").bind(project.sql());
    let log = |row: &PgRow| {
        let incarnation = known(Incarnation::from_sql(row.try_get(1)?), "incarnation")?;
        Ok(Origin { device: DeviceId(row.try_get(0)?), incarnation })
    };
    tx.rows(look).await?.iter().map(log).collect()
}

fn conflict(row: &PgRow) -> Result<ConflictRow, Failure> {
    Ok(ConflictRow {
        collection: known(CollectionId::from_sql(row.try_get(0)?), "collection")?,
        id: row.try_get(1)?,
        field: known(u64::try_from(row.try_get::<i64, _>(2)?).ok(), "field")?,
        kind: known(u8::try_from(row.try_get::<i16, _>(3)?).ok(), "kind of conflict")?,
        loser: json(row.try_get(4)?)?,
        loser_stamp: changes::decode(row.try_get(5)?)?,
        winner: json(row.try_get(6)?)?,
        winner_stamp: changes::decode(row.try_get(7)?)?,
        at: Eff(row.try_get(8)?),
    })
}

fn json(text: Option<String>) -> Result<serde_json::Value, Failure> {
    let Some(text) = text else { return Ok(serde_json::Value::Null) };
    serde_json::from_str(&text).map_err(|error| Failure::damaged(format!("value of a conflict: {error}")))
}

/// Open quarantine entries, newest first, behind a number.
pub(super) async fn quarantine(tx: &mut Tx, project: ProjectId, after: Option<u64>, limit: u32) -> Result<Vec<QuarantineRow>, Failure> {
    let look = sqlx::query(
        "SELECT n, device, incarnation, lane, seq, collection, id, code, detail, at_us FROM mobo.quarantine \
         WHERE project = $1 AND status = 0 AND n < $3 ORDER BY n DESC LIMIT $2",
    );
    let after = after.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX));
    tx.rows(look.bind(project.sql()).bind(i64::from(limit)).bind(after)).await?.iter().map(quarantine::row).collect()
}

/// Numbers for `status`.
pub(super) async fn counts(tx: &mut Tx, project: ProjectId, schema: &Schema) -> Result<Counts, Failure> {
    let mut records = 0;
    for collection in schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        records += count(tx, &format!("SELECT count(*) FROM {} WHERE $1::int8 IS NOT NULL", table(collection)), project).await?;
    }
    let of = |table: &str, condition: &str| format!("SELECT count(*) FROM mobo.{table} WHERE project = $1 AND {condition}");
    let quarantined = count(tx, &of("quarantine", "status = 0"), project).await?;
    let conflicts = count(tx, &of("conflict", "status = 0"), project).await?;
    let devices = count(tx, &of("device", "revoked_us IS NULL"), project).await?;
    let look = sqlx::query("SELECT id, key, head, digest FROM mobo.bucket WHERE project = $1 ORDER BY key").bind(project.sql());
    let buckets = tx.rows(look).await?.iter().map(bucket).collect::<Result<_, _>>()?;
    Ok(Counts { records, quarantined, conflicts, devices, buckets })
}

/// What SQL has written in vain.
pub(super) async fn sql_refused(tx: &mut Tx) -> Result<SqlRefused, Failure> {
    let look = sqlx::query("SELECT count(*), (extract(epoch FROM max(at)) * 1000000)::int8 FROM mobo.intake_refused");
    let row = known(tx.row(look).await?, "answer")?;
    let count = known(u64::try_from(row.try_get::<i64, _>(0)?).ok(), "count")?;
    Ok(SqlRefused { count, last: row.try_get::<Option<i64>, _>(1)?.map(Eff) })
}

fn bucket(row: &PgRow) -> Result<(BucketId, String, Position, Digest), Failure> {
    let id = known(BucketId::from_sql(row.try_get(0)?), "bucket")?;
    let head = Position(known(u64::try_from(row.try_get::<i64, _>(2)?).ok(), "head")?);
    Ok((id, row.try_get(1)?, head, Digest(row.try_get(3)?)))
}

async fn count(tx: &mut Tx, sql: &str, project: ProjectId) -> Result<u64, Failure> {
    let row = tx.row(sqlx::query(AssertSqlSafe(sql.to_owned())).bind(project.sql())).await?;
    let number: i64 = known(row, "count")?.try_get(0)?;
    Ok(number.cast_unsigned())
}
