//! The ledger of decisions: written, by the policy of each field, and settled.

use mobo_core::ids::{CollectionId, FieldId, ProjectId, RecordKey};
use mobo_core::json::value_to_json;
use mobo_core::merge::{ConflictWrite, SettledWrite};
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::ConflictPolicy;
use mobo_core::table::extra::item_to_json;
use mobo_core::time::Eff;
use mobo_core::value::Value;
use rusqlite::{Connection, OptionalExtension};

use super::write::encode;
use crate::sqlite::error::{Failure, known};

/// Puts decisions on record; one about the same loser stands.
pub(super) fn write(
    connection: &Connection,
    project: ProjectId,
    (schema, now): (&Schema, Eff),
    writes: &[ConflictWrite],
) -> Result<(), Failure> {
    let mut policy =
        connection.prepare_cached("SELECT policy FROM mobo_conflict_policy WHERE project = ?1 AND collection = ?2 AND field = ?3")?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO mobo_conflict(project, collection, id, field, loser_stamp, winner_stamp, kind, loser, winner, ver, at_us, status, name) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
    )?;
    for ConflictWrite { key, ver, conflict } in writes {
        let collection = known(schema.get(key.collection), "collection")?;
        let field = conflict.field.map_or(0, FieldId::sql);
        let policy = policy.query_row((project.sql(), key.collection.sql(), field), |row| row.get::<_, u8>(0)).optional()?;
        let policy = policy.unwrap_or(ConflictPolicy::Review.code());
        if policy == ConflictPolicy::Silent.code() {
            continue;
        }
        statement.execute((
            project.sql(),
            key.collection.sql(),
            key.id.as_str(),
            field,
            encode(&conflict.loser),
            encode(&conflict.winner),
            conflict.kind.code(),
            shown(collection, conflict.field, &conflict.loser_value),
            shown(collection, conflict.field, &conflict.winner_value),
            ver.0.cast_signed(),
            now.0,
            policy == ConflictPolicy::Log.code(),
            conflict.field.and_then(|field| collection.field_by_id(field)).map(|field| &field.name),
        ))?;
    }
    Ok(())
}

/// Settles what somebody has written over who knew of it.
pub(super) fn settle(connection: &Connection, project: ProjectId, writes: &[SettledWrite]) -> Result<(), Failure> {
    let open = "SELECT 1 FROM mobo_conflict WHERE project = ?1 AND status = 0 LIMIT 1";
    if writes.is_empty() || connection.prepare_cached(open)?.query_row([project.sql()], |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "UPDATE mobo_conflict SET status = 1 WHERE project = ?1 AND collection = ?2 AND id = ?3 AND field = ?4 AND ver <= ?5 AND status = 0",
    )?;
    for SettledWrite { key, field, seen } in writes {
        let field = field.map_or(0, FieldId::sql);
        statement.execute((project.sql(), key.collection.sql(), key.id.as_str(), field, seen.0.cast_signed()))?;
    }
    Ok(())
}

/// Settles the open ones of a record, or of one of its fields.
pub(super) fn settle_all(connection: &Connection, project: ProjectId, key: &RecordKey, field: Option<u64>) -> Result<u64, Failure> {
    let sql = "UPDATE mobo_conflict SET status = 1 WHERE project = ?1 AND collection = ?2 AND id = ?3 AND (?4 IS NULL OR field = ?4) AND status = 0";
    let field = field.map(u64::cast_signed);
    Ok(connection.execute(sql, (project.sql(), key.collection.sql(), key.id.as_str(), field))? as u64)
}

/// Keeps the policy of a field.
pub(super) fn set_policy(
    connection: &Connection,
    project: ProjectId,
    (collection, field): (CollectionId, u64),
    policy: ConflictPolicy,
) -> Result<(), Failure> {
    let sql = "INSERT INTO mobo_conflict_policy(project, collection, field, policy) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (project, collection, field) DO UPDATE SET policy = excluded.policy";
    connection.execute(sql, (project.sql(), collection.sql(), field.cast_signed(), policy.code()))?;
    Ok(())
}

/// A value of a conflict as JSON text; `None` for a record as a whole.
fn shown(collection: &Collection, field: Option<FieldId>, value: &Value) -> Option<String> {
    let field = field?;
    let json = match (value, collection.field_by_id(field)) {
        (Value::Unknown(item), _) => item_to_json(item),
        (value, Some(field)) => value_to_json(value, field.kind),
        (_, None) => serde_json::Value::Null,
    };
    Some(json.to_string())
}
