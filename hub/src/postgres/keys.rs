//! API keys.

use mobo_core::ids::ProjectId;
use mobo_core::store::ApiKeyRow;
use mobo_core::time::Eff;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::{Failure, known};
use super::session::Tx;

/// Keeps a key.
pub(super) async fn create(tx: &mut Tx, project: ProjectId, key: &ApiKeyRow) -> Result<(), Failure> {
    let id = i64::try_from(key.id).map_err(|_| Failure::refused("the id of a key has at most 63 bits"))?;
    let insert = sqlx::query(
        "INSERT INTO mobo.api_key(id, project, name, prefix, hash, role, created_us, expires_us, revoked_us, scopes) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id)
    .bind(project.sql())
    .bind(&key.name)
    .bind(&key.prefix)
    .bind(key.hash)
    .bind(&key.role)
    .bind(key.created.0)
    .bind(key.expires.map(|at| at.0))
    .bind(key.revoked.map(|at| at.0))
    .bind(serde_json::Value::from(key.scopes.clone()).to_string());
    tx.run(insert).await.map(|_| ())
}

/// All keys, by name.
pub(super) async fn all(tx: &mut Tx, project: ProjectId) -> Result<Vec<ApiKeyRow>, Failure> {
    const LOOK: &str = "SELECT project, id, name, prefix, hash, role, created_us, expires_us, revoked_us, scopes FROM mobo.api_key \
                        WHERE project = $1 ORDER BY name, id";
    let rows = tx.rows(sqlx::query(LOOK).bind(project.sql())).await?;
    rows.iter().map(|row| Ok(key(row)?.1)).collect()
}

/// The key with that hash, if it was not revoked.
pub(super) async fn by_hash(tx: &mut Tx, hash: [u8; 32]) -> Result<Option<(ProjectId, ApiKeyRow)>, Failure> {
    const LOOK: &str = "SELECT project, id, name, prefix, hash, role, created_us, expires_us, revoked_us, scopes FROM mobo.api_key \
                        WHERE hash = $1 AND revoked_us IS NULL";
    tx.row(sqlx::query(LOOK).bind(hash)).await?.as_ref().map(key).transpose()
}

/// Revokes keys by id or name; false when there is none. A key that was revoked before stays so since then.
pub(super) async fn revoke(tx: &mut Tx, project: ProjectId, id_or_name: &str, now: Eff) -> Result<bool, Failure> {
    let id: Option<i64> = id_or_name.parse().ok();
    let revoke =
        sqlx::query("UPDATE mobo.api_key SET revoked_us = coalesce(revoked_us, $4) WHERE project = $1 AND (name = $2 OR id = $3::int8)");
    Ok(tx.run(revoke.bind(project.sql()).bind(id_or_name).bind(id).bind(now.0)).await? > 0)
}

fn key(row: &PgRow) -> Result<(ProjectId, ApiKeyRow), Failure> {
    let project = known(ProjectId::from_sql(row.try_get(0)?), "project")?;
    let key = ApiKeyRow {
        id: known(u64::try_from(row.try_get::<i64, _>(1)?).ok(), "key id")?,
        name: row.try_get(2)?,
        prefix: row.try_get(3)?,
        hash: row.try_get(4)?,
        role: row.try_get(5)?,
        created: Eff(row.try_get(6)?),
        expires: row.try_get::<Option<i64>, _>(7)?.map(Eff),
        revoked: row.try_get::<Option<i64>, _>(8)?.map(Eff),
        scopes: known(serde_json::from_str(&row.try_get::<String, _>(9)?).ok(), "scopes")?,
    };
    Ok((project, key))
}
