//! API keys: their hashes, never the keys.

use mobo_core::ids::ProjectId;
use mobo_core::store::ApiKeyRow;
use mobo_core::time::Eff;
use rusqlite::{Connection, Row};

use crate::sqlite::error::{Failure, known};

const COLUMNS: &str = "project, id, name, prefix, hash, role, created_us, expires_us, revoked_us, scopes";

/// Keeps a key.
pub(super) fn create(connection: &Connection, project: ProjectId, key: &ApiKeyRow) -> Result<(), Failure> {
    let sql = format!("INSERT INTO mobo_api_key({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    let times = (key.created.0, key.expires.map(|time| time.0), key.revoked.map(|time| time.0));
    let (id, project, scopes) = (key.id.cast_signed(), project.sql(), serde_json::Value::from(key.scopes.clone()).to_string());
    connection.execute(&sql, (project, id, &key.name, &key.prefix, key.hash, &key.role, times.0, times.1, times.2, scopes))?;
    Ok(())
}

/// All keys, by name.
pub(super) fn all(connection: &Connection, project: ProjectId) -> Result<Vec<ApiKeyRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_api_key WHERE project = ?1 ORDER BY name, id"))?;
    let mut rows = statement.query([project.sql()])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?.1);
    }
    Ok(keys)
}

/// The key of that hash, unless it was revoked.
pub(super) fn by_hash(connection: &Connection, hash: &[u8; 32]) -> Result<Option<(ProjectId, ApiKeyRow)>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM mobo_api_key WHERE hash = ?1 AND revoked_us IS NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([hash])?;
    rows.next()?.map(read).transpose()
}

/// Revokes a key by id or name. One that was revoked before stays revoked since then.
pub(super) fn revoke(connection: &Connection, project: ProjectId, id_or_name: &str, now: Eff) -> Result<bool, Failure> {
    let id = id_or_name.parse::<u64>().ok().map(u64::cast_signed);
    let sql = "UPDATE mobo_api_key SET revoked_us = coalesce(revoked_us, ?1) WHERE project = ?2 AND (name = ?3 OR id = ?4)";
    Ok(connection.execute(sql, (now.0, project.sql(), id_or_name, id))? > 0)
}

fn read(row: &Row<'_>) -> Result<(ProjectId, ApiKeyRow), Failure> {
    let key = ApiKeyRow {
        id: row.get::<_, i64>(1)?.cast_unsigned(),
        name: row.get(2)?,
        prefix: row.get(3)?,
        hash: row.get(4)?,
        role: row.get(5)?,
        created: Eff(row.get(6)?),
        expires: row.get::<_, Option<i64>>(7)?.map(Eff),
        revoked: row.get::<_, Option<i64>>(8)?.map(Eff),
        scopes: known(serde_json::from_str(&row.get::<_, String>(9)?).ok(), "scopes")?,
    };
    Ok((known(ProjectId::from_sql(row.get(0)?), "project")?, key))
}
