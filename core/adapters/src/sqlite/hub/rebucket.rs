//! Rules that change, and the records that are placed anew by them: one batch of them is one transaction (rule R3).

use std::sync::Arc;

use mobo_core::cbor::Writer;
use mobo_core::ids::{CollectionId, ProjectId, RecordId, RecordKey};
use mobo_core::merge::{Applied, Context, Rivals};
use mobo_core::schema::{Collection, Kind, Schema, check_collection};
use mobo_core::store::{MergeBatch, RebucketBatch, Rebucketed, Rebucketing, told_before};
use rusqlite::{Connection, OptionalExtension, Row};

use super::schema::Schemas;
use super::{intake, merge, schema, write};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::number;
use crate::sqlite::table::quoted;

/// Changes the rules of a collection, and notes that its records are to be placed anew.
pub(super) fn alter(connection: &Connection, project: ProjectId, id: CollectionId, rules: Vec<String>) -> Result<Schema, Failure> {
    let before = schema::load(connection, project, schema::rev(connection, project)?)?;
    let old = before.get(id).ok_or_else(|| Failure::refused(format!("no collection has the id {id}")))?;
    if old.rules == rules {
        return Ok(before);
    }
    let new = Collection { rules, rev: old.rev + 1, ..old.clone() };
    check_collection(&new).map_err(|error| Failure::refused(error.to_string()))?;
    let mut definition = Writer::new();
    new.encode(&mut definition);
    let sql = "UPDATE mobo_collection SET rev = ?3, definition = ?4 WHERE project = ?1 AND id = ?2";
    connection.execute(sql, (project.sql(), id.sql(), new.rev.cast_signed(), definition.into_bytes()))?;
    let total: u64 = match new.kind {
        Kind::Table | Kind::Document => count(connection, project, &new)?,
        // Samples are in no bucket.
        Kind::Stream => 0,
    };
    if total > 0 {
        // What another change of rules had begun begins again; records may be placed by either.
        let mut rules = before_of(connection, project, id)?;
        rules.extend(old.rules.iter().filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>());
        let rules = serde_json::Value::from(rules).to_string();
        let sql = "INSERT INTO mobo_rebucket(project, collection, rules, after, done, moved, total) VALUES (?1, ?2, ?3, '', 0, 0, ?4) \
                   ON CONFLICT (project, collection) DO UPDATE \
                   SET rules = excluded.rules, after = '', done = 0, moved = 0, total = excluded.total";
        connection.execute(sql, (project.sql(), id.sql(), rules, total.cast_signed()))?;
    }
    let sql = "UPDATE mobo_project SET schema_rev = schema_rev + 1 WHERE id = ?1";
    connection.execute(sql, [project.sql()])?;
    schema::load(connection, project, before.rev + 1)
}

fn beside(kind: Kind) -> &'static str {
    if kind == Kind::Document { "mobo_document" } else { "mobo_hidden" }
}

fn count(connection: &Connection, project: ProjectId, collection: &Collection) -> Result<u64, Failure> {
    let table = match collection.kind {
        // Every document is in the other table.
        Kind::Document | Kind::Stream => String::new(),
        Kind::Table => format!("(SELECT count(*) FROM {}) + ", quoted(&collection.name)),
    };
    let sql = format!("SELECT {table}(SELECT count(*) FROM {} WHERE project = ?1 AND collection = ?2)", beside(collection.kind));
    Ok(connection.query_row(&sql, (project.sql(), collection.id.sql()), |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// The rules that an earlier change, which is still under way, began with.
fn before_of(connection: &Connection, project: ProjectId, id: CollectionId) -> Result<Vec<String>, Failure> {
    let moving = under_way(connection, project)?;
    Ok(moving.into_iter().find(|moving| moving.collection == id).map(|moving| moving.rules).unwrap_or_default())
}

/// How far each collection is whose rules were changed.
pub(super) fn under_way(connection: &Connection, project: ProjectId) -> Result<Vec<Rebucketing>, Failure> {
    let sql = "SELECT collection, done, moved, total, rules FROM mobo_rebucket WHERE project = ?1 ORDER BY collection";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([project.sql()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(progress(row)?);
    }
    Ok(found)
}

fn progress(row: &Row<'_>) -> Result<Rebucketing, Failure> {
    let collection = known(CollectionId::from_sql(row.get(0)?), "collection")?;
    let rules = known(serde_json::from_str(&row.get::<_, String>(4)?).ok(), "list of rules")?;
    Ok(Rebucketing { collection, rules, done: number(row, 1)?, moved: number(row, 2)?, total: number(row, 3)? })
}

/// Visits the next records of the first collection that has any left. What SQL has written is taken in first: it is placed by the rules, too.
pub(super) fn step(connection: &Connection, schemas: &Schemas, batch: &RebucketBatch) -> Result<Option<Rebucketed>, Failure> {
    let RebucketBatch { project, timeline, now, entropy, .. } = *batch;
    let own = MergeBatch { project, schema: Arc::clone(&batch.schema), timeline, now, entropy, recovering: false, submissions: Vec::new() };
    let taken = intake::take(connection, schemas, &own)?.unwrap_or_default();
    let mut step = visit(connection, &*schemas.of(connection, project)?, batch)?;
    step.iter_mut().for_each(|step| told_before(&mut step.hints, taken.hints.clone()));
    Ok(step)
}

fn visit(connection: &Connection, schema: &Schema, batch: &RebucketBatch) -> Result<Option<Rebucketed>, Failure> {
    let project = batch.project;
    let sql = "SELECT collection, done, moved, total, rules, after FROM mobo_rebucket WHERE project = ?1 ORDER BY collection LIMIT 1";
    let found = connection.prepare_cached(sql)?.query_row([project.sql()], |row| Ok((progress(row), row.get::<_, String>(5)?)));
    let Some((progress, after)) = found.optional()? else { return Ok(None) };
    let mut progress = progress?;
    let collection = known(schema.get(progress.collection), "collection whose rules were changed")?;
    let keys = next(connection, project, collection, (&after, batch.records_max))?;
    let finished = keys.len() < batch.records_max;
    let last = keys.last().map(|key| key.id.to_string());
    progress.done += keys.len() as u64;
    let keys = keys.into_iter().collect();
    let read = merge::read_records(connection, project, schema, &keys)?;
    let context = Context { project, schema, timeline: batch.timeline, now: batch.now, entropy: batch.entropy, recovering: false };
    let applied = Applied::rebucket(context, read.records);
    progress.moved += applied.touched() as u64;
    let mut hints = Vec::new();
    if !applied.is_empty() {
        let buckets = merge::read_buckets(connection, project, applied.wants())?;
        let placed = applied.place(buckets, Rivals::new());
        write::write(connection, project, (schema, batch.now), &placed.writes)?;
        hints = placed.hints;
    }
    if finished {
        let sql = "DELETE FROM mobo_rebucket WHERE project = ?1 AND collection = ?2";
        connection.prepare_cached(sql)?.execute((project.sql(), progress.collection.sql()))?;
    } else {
        let sql = "UPDATE mobo_rebucket SET after = ?3, done = ?4, moved = ?5 WHERE project = ?1 AND collection = ?2";
        let (done, moved) = (progress.done.cast_signed(), progress.moved.cast_signed());
        connection.prepare_cached(sql)?.execute((project.sql(), progress.collection.sql(), last, done, moved))?;
    }
    Ok(Some(Rebucketed { progress, finished, hints }))
}

/// The next records of a collection by id, visible or not.
fn next(
    connection: &Connection,
    project: ProjectId,
    collection: &Collection,
    (after, limit): (&str, usize),
) -> Result<Vec<RecordKey>, Failure> {
    let table = match collection.kind {
        Kind::Document | Kind::Stream => String::new(),
        Kind::Table => format!("SELECT id FROM {} WHERE id > ?3 UNION ALL ", quoted(&collection.name)),
    };
    let beside = beside(collection.kind);
    let sql = format!("{table}SELECT id FROM {beside} WHERE project = ?1 AND collection = ?2 AND id > ?3 ORDER BY id LIMIT ?4");
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((project.sql(), collection.id.sql(), after, limit))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let id = known(RecordId::new(row.get::<_, String>(0)?).ok(), "record id")?;
        keys.push(RecordKey { collection: collection.id, id });
    }
    Ok(keys)
}
