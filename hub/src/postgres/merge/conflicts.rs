//! The ledger of decisions: written, by the policy of each field, and settled.

use std::collections::BTreeMap;

use mobo_core::ids::{FieldId, ProjectId};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::merge::{ConflictWrite, SettledWrite};
use mobo_core::schema::Schema;
use mobo_core::store::ConflictPolicy;
use mobo_core::table::extra::item_to_json;
use mobo_core::time::Eff;
use mobo_core::value::Value;
use sqlx::Row;

use crate::postgres::changes::encode;
use crate::postgres::error::{Failure, known};
use crate::postgres::session::Tx;

/// Puts decisions on record; one about the same loser stands.
pub(super) async fn write(
    tx: &mut Tx,
    (project, now): (ProjectId, Eff),
    schema: &Schema,
    conflicts: &[ConflictWrite],
) -> Result<(), Failure> {
    if conflicts.is_empty() {
        return Ok(());
    }
    let policies = policies(tx, project).await?;
    let field = |write: &ConflictWrite| write.conflict.field.map_or(0, FieldId::sql);
    let policy = |write: &ConflictWrite| {
        let of_field = policies.get(&(write.key.collection.sql(), field(write)));
        of_field.copied().unwrap_or(i16::from(ConflictPolicy::Review.code()))
    };
    let told: Vec<&ConflictWrite> = conflicts.iter().filter(|write| policy(write) != i16::from(ConflictPolicy::Silent.code())).collect();
    for some in told.chunks(limits::POSTGRES_ROWS_MAX) {
        let collections: Vec<i64> = some.iter().map(|write| write.key.collection.sql()).collect();
        let ids: Vec<&str> = some.iter().map(|write| write.key.id.as_str()).collect();
        let fields: Vec<i64> = some.iter().map(|write| field(write)).collect();
        let losers: Vec<Vec<u8>> = some.iter().map(|write| encode(&write.conflict.loser)).collect();
        let winners: Vec<Vec<u8>> = some.iter().map(|write| encode(&write.conflict.winner)).collect();
        let kinds: Vec<i16> = some.iter().map(|write| i16::from(write.conflict.kind.code())).collect();
        let lost: Vec<Option<String>> = some.iter().map(|write| shown(schema, write, &write.conflict.loser_value)).collect();
        let won: Vec<Option<String>> = some.iter().map(|write| shown(schema, write, &write.conflict.winner_value)).collect();
        let vers: Vec<i64> = some.iter().map(|write| write.ver.0.cast_signed()).collect();
        let statuses: Vec<i16> = some.iter().map(|write| i16::from(policy(write) == i16::from(ConflictPolicy::Log.code()))).collect();
        let names: Vec<Option<&str>> = some.iter().map(|write| name(schema, write)).collect();
        let insert = sqlx::query(
            "INSERT INTO mobo.conflict(project, collection, id, field, loser_stamp, winner_stamp, kind, loser, winner, ver, at_us, status, name) \
             SELECT $1, u.collection, u.id, u.field, u.loser_stamp, u.winner_stamp, u.kind, u.loser::jsonb, u.winner::jsonb, u.ver, $2, \
             u.status, u.name FROM unnest($3::int8[], $4::text[], $5::int8[], $6::bytea[], $7::bytea[], $8::int2[], $9::text[], $10::text[], \
             $11::int8[], $12::int2[], $13::text[]) \
             AS u(collection, id, field, loser_stamp, winner_stamp, kind, loser, winner, ver, status, name) ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(project.sql()).bind(now.0).bind(collections).bind(ids).bind(fields).bind(losers).bind(winners);
        tx.run(insert.bind(kinds).bind(lost).bind(won).bind(vers).bind(statuses).bind(names)).await?;
    }
    Ok(())
}

/// Settles what somebody has written over who knew of it.
pub(super) async fn settle(tx: &mut Tx, project: ProjectId, writes: &[SettledWrite]) -> Result<(), Failure> {
    if writes.is_empty() {
        return Ok(());
    }
    let open = sqlx::query("SELECT EXISTS (SELECT 1 FROM mobo.conflict WHERE project = $1 AND status = 0)").bind(project.sql());
    if !known(tx.row(open).await?, "answer")?.try_get::<bool, _>(0)? {
        return Ok(());
    }
    for some in writes.chunks(limits::POSTGRES_ROWS_MAX) {
        let collections: Vec<i64> = some.iter().map(|write| write.key.collection.sql()).collect();
        let ids: Vec<&str> = some.iter().map(|write| write.key.id.as_str()).collect();
        let fields: Vec<i64> = some.iter().map(|write| write.field.map_or(0, FieldId::sql)).collect();
        let seen: Vec<i64> = some.iter().map(|write| write.seen.0.cast_signed()).collect();
        // Found by their keys, not by the index of open ones, for which the planner would look through all of them for each.
        let update = sqlx::query(
            "UPDATE mobo.conflict c SET status = 1 FROM unnest($2::int8[], $3::text[], $4::int8[], $5::int8[]) AS w(collection, id, field, seen) \
             WHERE c.project = $1 AND c.collection = w.collection AND c.id = w.id AND c.field = w.field AND c.ver <= w.seen AND c.status + 0 = 0",
        );
        tx.run(update.bind(project.sql()).bind(collections).bind(ids).bind(fields).bind(seen)).await?;
    }
    Ok(())
}

async fn policies(tx: &mut Tx, project: ProjectId) -> Result<BTreeMap<(i64, i64), i16>, Failure> {
    let look = sqlx::query("SELECT collection, field, policy FROM mobo.conflict_policy WHERE project = $1").bind(project.sql());
    tx.rows(look).await?.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

fn name<'s>(schema: &'s Schema, write: &ConflictWrite) -> Option<&'s str> {
    let field = write.conflict.field.and_then(|field| schema.get(write.key.collection)?.field_by_id(field))?;
    Some(&field.name)
}

/// A value as JSON; `None` for null.
fn shown(schema: &Schema, write: &ConflictWrite, value: &Value) -> Option<String> {
    let field = write.conflict.field.and_then(|field| schema.get(write.key.collection)?.field_by_id(field));
    let json = match (value, field) {
        (Value::Unknown(item), _) => item_to_json(item),
        (value, Some(field)) => value_to_json(value, field.kind),
        (_, None) => serde_json::Value::Null,
    };
    if json.is_null() { None } else { Some(json.to_string()) }
}
