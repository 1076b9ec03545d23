//! Rules that change, and the records that are placed anew by them: one batch of them is one transaction (rule R3).

use std::sync::Arc;

use mobo_core::cbor::Writer;
use mobo_core::ids::{CollectionId, ProjectId, RecordId, RecordKey};
use mobo_core::merge::{Applied, Context, Placed, Rivals};
use mobo_core::schema::{Collection, Kind, Schema, check_collection};
use mobo_core::store::{MergeBatch, RebucketBatch, Rebucketed, Rebucketing, told_before};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::Inner;
use super::error::{Failure, known};
use super::intake;
use super::merge;
use super::schemas;
use super::session::{Purpose, SCHEMA_LOCK, Tx};
use super::table::table;

/// Changes the rules of a collection, and notes that its records are to be placed anew.
///
/// It waits for the merges that began before it, and others wait for it: when it is committed, nobody places a record by the old rules any
/// more, so that a record which was not there to be visited needs no visit.
pub(super) async fn alter(tx: &mut Tx, project: ProjectId, id: CollectionId, rules: Vec<String>) -> Result<Schema, Failure> {
    tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK)).await?;
    let before = schemas::locked(tx, project).await?;
    let old = before.get(id).ok_or_else(|| Failure::refused(format!("no collection has the id {id}")))?;
    if old.rules == rules {
        return Ok(before);
    }
    let new = Collection { rules, rev: old.rev + 1, ..old.clone() };
    check_collection(&new).map_err(|error| Failure::refused(error.to_string()))?;
    let mut definition = Writer::new();
    new.encode(&mut definition);
    let update = sqlx::query("UPDATE mobo.collection SET rev = $3, definition = $4 WHERE project = $1 AND id = $2");
    tx.run(update.bind(project.sql()).bind(id.sql()).bind(new.rev.cast_signed()).bind(definition.into_bytes())).await?;
    let total = match new.kind {
        Kind::Table | Kind::Document => count(tx, project, &new).await?,
        // Samples are in no bucket.
        Kind::Stream => 0,
    };
    if total > 0 {
        // What another change of rules had begun begins again; records may be placed by either.
        let moving = under_way(tx, project).await?.into_iter().find(|moving| moving.collection == id);
        let mut rules = moving.map(|moving| moving.rules).unwrap_or_default();
        rules.extend(old.rules.iter().filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>());
        let note = sqlx::query(
            "INSERT INTO mobo.rebucket(project, collection, rules, after, done, moved, total) VALUES ($1, $2, $3::text::jsonb, '', 0, 0, $4) \
             ON CONFLICT (project, collection) DO UPDATE \
             SET rules = excluded.rules, after = '', done = 0, moved = 0, total = excluded.total",
        );
        let rules = serde_json::Value::from(rules).to_string();
        tx.run(note.bind(project.sql()).bind(id.sql()).bind(rules).bind(total)).await?;
    }
    let rev = before.rev + 1;
    tx.run(sqlx::query("UPDATE mobo.project SET schema_rev = $2 WHERE id = $1").bind(project.sql()).bind(rev.cast_signed())).await?;
    let mut schema = before;
    schema.rev = rev;
    schema.insert(new);
    Ok(schema)
}

/// Where the ids of a collection's records are.
fn ids(collection: &Collection) -> String {
    match collection.kind {
        Kind::Document | Kind::Stream => "SELECT id FROM mobo.document WHERE project = $1 AND collection = $2".to_owned(),
        Kind::Table => {
            let name = table(collection);
            format!("SELECT id FROM {name} UNION ALL SELECT id FROM mobo.hidden WHERE project = $1 AND collection = $2")
        }
    }
}

async fn count(tx: &mut Tx, project: ProjectId, collection: &Collection) -> Result<i64, Failure> {
    let sql = format!("SELECT count(*) FROM ({}) AS records", ids(collection));
    let row = tx.row(sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(collection.id.sql())).await?;
    Ok(known(row, "count")?.try_get(0)?)
}

/// How far each collection is whose rules were changed.
pub(super) async fn under_way(tx: &mut Tx, project: ProjectId) -> Result<Vec<Rebucketing>, Failure> {
    let look = sqlx::query("SELECT collection, done, moved, total, rules::text FROM mobo.rebucket WHERE project = $1 ORDER BY collection");
    tx.rows(look.bind(project.sql())).await?.iter().map(progress).collect()
}

fn progress(row: &PgRow) -> Result<Rebucketing, Failure> {
    let number = |index| Ok::<_, Failure>(row.try_get::<i64, _>(index)?.cast_unsigned());
    let collection = known(CollectionId::from_sql(row.try_get(0)?), "collection")?;
    let rules = serde_json::from_str(&row.try_get::<String, _>(4)?).map_err(|error| Failure::damaged(format!("rules: {error}")))?;
    Ok(Rebucketing { collection, rules, done: number(1)?, moved: number(2)?, total: number(3)? })
}

/// Visits the next records of the first collection that has any left and that no other hub is at. What SQL has written into one of them is
/// taken in first: it is placed by the rules, too.
pub(super) async fn step(store: &Inner, batch: &RebucketBatch) -> Result<Option<Rebucketed>, Failure> {
    let mut before = Vec::new();
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::Merge).await?;
        match once(&mut tx, store, batch).await {
            Ok(Step::Done(step)) => {
                let mut step = tx.finish(Ok(step)).await?;
                step.iter_mut().for_each(|step| told_before(&mut step.hints, std::mem::take(&mut before)));
                return Ok(step);
            }
            Ok(Step::Waiting) => {
                tx.rollback().await?;
                let (project, timeline, now) = (batch.project, batch.timeline, batch.now);
                let (schema, entropy) = (Arc::clone(&batch.schema), batch.entropy);
                let own = MergeBatch { project, schema, timeline, now, entropy, recovering: false, submissions: Vec::new() };
                let report = intake::take_in(store, &own).await?;
                before.extend(report.into_iter().flat_map(|report| report.hints));
            }
            Err(failure) => return tx.finish(Err(failure)).await,
        }
    }
}

enum Step {
    Done(Option<Rebucketed>),
    /// SQL was written into one of the records, and must be taken in first.
    Waiting,
}

async fn once(tx: &mut Tx, store: &Inner, batch: &RebucketBatch) -> Result<Step, Failure> {
    let project = batch.project;
    let look = sqlx::query(
        "SELECT collection, done, moved, total, rules::text, after FROM mobo.rebucket WHERE project = $1 ORDER BY collection LIMIT 1 \
         FOR UPDATE SKIP LOCKED",
    );
    let Some(row) = tx.row(look.bind(project.sql())).await? else { return Ok(Step::Done(None)) };
    let (mut progress, after) = (progress(&row)?, row.try_get::<String, _>(5)?);
    let schema = schemas::current(tx, &store.known, project).await?;
    let collection = known(schema.get(progress.collection), "collection whose rules were changed")?;
    let keys = next(tx, project, collection, (&after, batch.records_max)).await?;
    let finished = keys.len() < batch.records_max;
    let last = keys.last().map(|key| key.id.to_string());
    progress.done += keys.len() as u64;
    let wants = keys.into_iter().collect();
    let (stored, _) = merge::lock_and_read_records(tx, &store.known, (project, &schema), &wants).await?;
    if intake::touches(tx, &wants).await? {
        return Ok(Step::Waiting);
    }
    let (timeline, now, entropy) = (batch.timeline, batch.now, batch.entropy);
    let context = Context { project, schema: &schema, timeline, now, entropy, recovering: false };
    let applied = Applied::rebucket(context, stored);
    progress.moved += applied.touched() as u64;
    let mut moved = Vec::new();
    if !applied.is_empty() {
        let states = merge::lock_and_read_buckets(tx, &store.known, project, &applied.wants()).await?;
        let Placed { writes, hints, .. } = applied.place(states, Rivals::new());
        merge::write(tx, (project, batch.now), &schema, &writes).await?;
        moved = hints;
    }
    note(tx, project, &progress, (!finished).then_some(last).flatten()).await?;
    Ok(Step::Done(Some(Rebucketed { progress, finished, hints: moved })))
}

/// Notes up to which record a collection is done; `None`: to the end.
async fn note(tx: &mut Tx, project: ProjectId, progress: &Rebucketing, after: Option<String>) -> Result<(), Failure> {
    let Some(after) = after else {
        let end = sqlx::query("DELETE FROM mobo.rebucket WHERE project = $1 AND collection = $2");
        return tx.run(end.bind(project.sql()).bind(progress.collection.sql())).await.map(|_| ());
    };
    let note = sqlx::query("UPDATE mobo.rebucket SET after = $3, done = $4, moved = $5 WHERE project = $1 AND collection = $2");
    let note = note.bind(project.sql()).bind(progress.collection.sql()).bind(after);
    tx.run(note.bind(progress.done.cast_signed()).bind(progress.moved.cast_signed())).await.map(|_| ())
}

/// The next records of a collection by id, visible or not.
async fn next(tx: &mut Tx, project: ProjectId, collection: &Collection, (after, limit): (&str, usize)) -> Result<Vec<RecordKey>, Failure> {
    let sql = format!("SELECT id FROM ({}) AS records WHERE id > $3 ORDER BY id LIMIT $4", ids(collection));
    let look = sqlx::query(AssertSqlSafe(sql)).bind(project.sql()).bind(collection.id.sql()).bind(after);
    let rows = tx.rows(look.bind(i64::try_from(limit).unwrap_or(i64::MAX))).await?;
    let key = |row: &PgRow| {
        let id = known(RecordId::new(row.try_get::<String, _>(0)?).ok(), "record id")?;
        Ok(RecordKey { collection: collection.id, id })
    };
    rows.iter().map(key).collect()
}
