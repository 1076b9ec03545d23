//! The buckets of a batch: made where they are missing, locked last of all, read after that, and written with their memberships.

use std::collections::BTreeSet;

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, Position, ProjectId};
use mobo_core::merge::{BucketState, BucketWants, MemberWrite};
use sqlx::Row;

use crate::postgres::error::{Failure, known};
use crate::postgres::known::Known;
use crate::postgres::session::Tx;

/// Makes missing buckets, locks all in ascending order, then reads their heads and digests: in one statement with the locks, heads would
/// be right and digests those of before the wait.
pub(in crate::postgres) async fn lock_and_read(
    tx: &mut Tx,
    remembered: &Known,
    project: ProjectId,
    wants: &BucketWants,
) -> Result<Vec<BucketState>, Failure> {
    let mut ids: BTreeSet<i64> = wants.ids.iter().map(|id| id.sql()).collect();
    let mut unknown: Vec<(&str, i64)> = Vec::new();
    for (key, fresh) in &wants.keys {
        match remembered.bucket_id(project, key) {
            Some(id) => {
                ids.insert(id.sql());
            }
            None => unknown.push((key, fresh.sql())),
        }
    }
    if !unknown.is_empty() {
        ids.extend(ensure(tx, project, &unknown).await?.into_iter().map(|(_, id)| id.sql()));
    }
    let ids: Vec<i64> = ids.into_iter().collect();
    let lock = sqlx::query("SELECT 1 FROM mobo.bucket WHERE project = $1 AND id = ANY($2) ORDER BY id FOR UPDATE");
    tx.rows(lock.bind(project.sql()).bind(&ids)).await?;
    let look = sqlx::query("SELECT id, key, head, digest FROM mobo.bucket WHERE project = $1 AND id = ANY($2)");
    let rows = tx.rows(look.bind(project.sql()).bind(&ids)).await?;
    if rows.len() != ids.len() {
        remembered.forget();
        return Err(Failure::unavailable("buckets that were there are gone: was the database replaced? Restart the hub if this stays"));
    }
    rows.iter()
        .map(|row| {
            Ok(BucketState {
                id: known(BucketId::from_sql(row.try_get(0)?), "bucket")?,
                key: row.try_get(1)?,
                head: Position(known(u64::try_from(row.try_get::<i64, _>(2)?).ok(), "head")?),
                digest: Digest(row.try_get(3)?),
            })
        })
        .collect()
}

/// Buckets by key; missing ones are made under the ids given. Whoever comes second waits here for whoever came first.
pub(in crate::postgres) async fn ensure(
    tx: &mut Tx,
    project: ProjectId,
    wanted: &[(&str, i64)],
) -> Result<Vec<(String, BucketId)>, Failure> {
    let (keys, fresh): (Vec<&str>, Vec<i64>) = wanted.iter().copied().unzip();
    const LOOK: &str = "SELECT key, id FROM mobo.bucket WHERE project = $1 AND key = ANY($2)";
    let found = tx.rows(sqlx::query(LOOK).bind(project.sql()).bind(&keys)).await?;
    let distinct: BTreeSet<&str> = keys.iter().copied().collect();
    let rows = if found.len() == distinct.len() {
        found
    } else {
        let insert = sqlx::query(
            "INSERT INTO mobo.bucket(project, id, key, digest) SELECT $1, w.id, w.key, $4 \
             FROM unnest($2::text[], $3::int8[]) AS w(key, id) ORDER BY w.key COLLATE \"C\" ON CONFLICT DO NOTHING",
        );
        tx.run(insert.bind(project.sql()).bind(&keys).bind(fresh).bind(Digest::default().0)).await?;
        tx.rows(sqlx::query(LOOK).bind(project.sql()).bind(&keys)).await?
    };
    rows.iter().map(|row| Ok((row.try_get(0)?, known(BucketId::from_sql(row.try_get(1)?), "bucket")?))).collect()
}

/// Writes heads and digests, and memberships beyond first buckets.
pub(super) async fn write(tx: &mut Tx, project: ProjectId, buckets: &[BucketState], members: &[MemberWrite]) -> Result<(), Failure> {
    if !buckets.is_empty() {
        let ids: Vec<i64> = buckets.iter().map(|bucket| bucket.id.sql()).collect();
        let heads: Vec<i64> = buckets.iter().map(|bucket| bucket.head.0.cast_signed()).collect();
        let digests: Vec<[u8; 32]> = buckets.iter().map(|bucket| bucket.digest.0).collect();
        let update = sqlx::query(
            "UPDATE mobo.bucket b SET head = u.head, digest = u.digest FROM unnest($2::int8[], $3::int8[], $4::bytea[]) \
             AS u(id, head, digest) WHERE b.project = $1 AND b.id = u.id",
        );
        tx.run(update.bind(project.sql()).bind(ids).bind(heads).bind(digests)).await?;
    }
    write_members(tx, members).await
}

async fn write_members(tx: &mut Tx, members: &[MemberWrite]) -> Result<(), Failure> {
    let (kept, gone): (Vec<&MemberWrite>, Vec<&MemberWrite>) = members.iter().partition(|member| member.at.is_some());
    if !gone.is_empty() {
        let (buckets, collections, ids) = keys(&gone);
        let delete = sqlx::query(
            "DELETE FROM mobo.member m USING unnest($1::int8[], $2::int8[], $3::text[]) AS u(bucket, collection, id) \
             WHERE m.bucket = u.bucket AND m.collection = u.collection AND m.id = u.id",
        );
        tx.run(delete.bind(buckets).bind(collections).bind(ids)).await?;
    }
    if !kept.is_empty() {
        let (buckets, collections, ids) = keys(&kept);
        let (positions, present): (Vec<i64>, Vec<bool>) =
            kept.iter().filter_map(|member| member.at).map(|(position, present)| (position.0.cast_signed(), present)).unzip();
        let upsert = sqlx::query(
            "INSERT INTO mobo.member(bucket, collection, id, position, present) \
             SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::bool[]) \
             ON CONFLICT (bucket, collection, id) DO UPDATE SET position = excluded.position, present = excluded.present",
        );
        tx.run(upsert.bind(buckets).bind(collections).bind(ids).bind(positions).bind(present)).await?;
    }
    Ok(())
}

fn keys<'m>(members: &[&'m MemberWrite]) -> (Vec<i64>, Vec<i64>, Vec<&'m str>) {
    let buckets = members.iter().map(|member| member.bucket.sql()).collect();
    let collections = members.iter().map(|member| member.key.collection.sql()).collect();
    (buckets, collections, members.iter().map(|member| member.key.id.as_str()).collect())
}
