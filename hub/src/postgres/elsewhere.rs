//! What other hubs of this database may have changed for devices that are connected to this one.

use mobo_core::digest::Digest;
use mobo_core::ids::{BucketId, DeviceId, Position, ProjectId};
use mobo_core::merge::Hint;
use mobo_core::store::Elsewhere;
use sqlx::Row;

use super::error::{Failure, known};
use super::session::Tx;

/// Marks of these devices' rights, and the heads of these buckets.
pub(super) async fn elsewhere(
    tx: &mut Tx,
    project: ProjectId,
    (devices, buckets): (&[DeviceId], &[BucketId]),
) -> Result<Elsewhere, Failure> {
    // Everything that `mobo_core::buckets::rights_of` asks of a device, besides the rules.
    const RIGHTS: &str = "SELECT d.id, hashtextextended(jsonb_build_array(d.revoked_us, d.claims, g.held)::text, 0) FROM mobo.device d \
                          LEFT JOIN LATERAL (SELECT jsonb_agg(jsonb_build_array(g.bucket, g.write, g.ended_us) ORDER BY g.bucket) AS held \
                          FROM mobo.grant g WHERE g.project = d.project AND g.device = d.id) g ON true \
                          WHERE d.project = $1 AND d.id = ANY($2)";
    const HEADS: &str = "SELECT id, head, digest FROM mobo.bucket WHERE project = $1 AND id = ANY($2)";
    let ids: Vec<Vec<u8>> = devices.iter().map(|device| device.as_bytes().to_vec()).collect();
    let mut found = Elsewhere::default();
    for row in tx.rows(sqlx::query(RIGHTS).bind(project.sql()).bind(ids)).await? {
        found.rights.push((DeviceId(row.try_get(0)?), row.try_get::<i64, _>(1)?.cast_unsigned()));
    }
    let ids: Vec<i64> = buckets.iter().map(|bucket| bucket.sql()).collect();
    for row in tx.rows(sqlx::query(HEADS).bind(project.sql()).bind(ids)).await? {
        let bucket = known(BucketId::from_sql(row.try_get(0)?), "bucket")?;
        let head = Position(known(u64::try_from(row.try_get::<i64, _>(1)?).ok(), "position")?);
        found.heads.push(Hint { bucket, head, digest: Digest(row.try_get(2)?) });
    }
    Ok(found)
}
