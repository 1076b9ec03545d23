//! Projects and their collections.

use std::sync::Arc;

use mobo_core::cbor::{Reader, Writer};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema, check_collection};
use mobo_core::store::StoreError;
use sqlx::{AssertSqlSafe, Row};

use super::error::{Failure, known};
use super::known::Known;
use super::live::FOLLOWS;
use super::session::{SCHEMA_LOCK, Tx};
use super::table;

/// The schema as this transaction sees it.
pub(super) async fn current(tx: &mut Tx, remembered: &Known, project: ProjectId) -> Result<Arc<Schema>, Failure> {
    let sql = format!("SELECT schema_rev, {FOLLOWS} FROM mobo.project WHERE id = $1");
    let row = tx.row(sqlx::query(AssertSqlSafe(sql)).bind(project.sql())).await?;
    let row = row.ok_or_else(|| Failure::refused(format!("there is no project {project}")))?;
    tx.live.read(&row, 1)?;
    let rev = known(u64::try_from(row.try_get::<i64, _>(0)?).ok(), "schema revision")?;
    if let Some(schema) = remembered.schema(project, rev) {
        return Ok(schema);
    }
    let schema = Arc::new(read(tx, project, rev).await?);
    remembered.keep_schema(project, &schema);
    Ok(schema)
}

/// The schema, locked against changes until this transaction ends.
pub(super) async fn locked(tx: &mut Tx, project: ProjectId) -> Result<Schema, Failure> {
    let rev = rev(tx, project, "SELECT schema_rev FROM mobo.project WHERE id = $1 FOR UPDATE").await?;
    read(tx, project, rev).await
}

/// Makes a collection and its table, and gives the schema with it.
pub(super) async fn create(tx: &mut Tx, project: ProjectId, collection: &Collection) -> Result<Schema, Failure> {
    check_collection(collection).map_err(|error| Failure::refused(error.to_string()))?;
    // One at a time: whoever comes second sees the name taken.
    let rev = rev(tx, project, "SELECT schema_rev FROM mobo.project WHERE id = $1 FOR UPDATE").await? + 1;
    let mut schema = read(tx, project, rev).await?;
    if schema.by_name(&collection.name).is_some() || schema.get(collection.id).is_some() {
        return Err(Failure::refused(format!("there is a collection \"{}\" already", collection.name)));
    }
    if schema.iter().count() >= limits::COLLECTIONS_MAX {
        return Err(Failure::refused(format!("a project has at most {} collections", limits::COLLECTIONS_MAX)));
    }
    let mut definition = Writer::new();
    collection.encode(&mut definition);
    let insert = sqlx::query("INSERT INTO mobo.collection(project, id, name, kind, rev, definition) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(project.sql())
        .bind(collection.id.sql())
        .bind(&collection.name)
        .bind(i16::from(collection.kind.code()))
        .bind(collection.rev.cast_signed())
        .bind(definition.into_bytes());
    tx.run(insert).await?;
    tx.script(table::create(collection)).await.map_err(|failure| name_taken(failure, collection))?;
    tx.run(sqlx::query("UPDATE mobo.project SET schema_rev = $2 WHERE id = $1").bind(project.sql()).bind(rev.cast_signed())).await?;
    schema.insert(collection.clone());
    Ok(schema)
}

/// Replaces a collection's definition by a later one, and extends its table. Merges wait for it, and it for them.
pub(super) async fn alter(tx: &mut Tx, project: ProjectId, altered: Collection) -> Result<Schema, Failure> {
    tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK)).await?;
    let mut schema = locked(tx, project).await?;
    let old = schema.get(altered.id).ok_or_else(|| Failure::refused(format!("no collection has the id {}", altered.id)))?;
    if altered.rev != old.rev + 1 || old.kind != altered.kind {
        let why = format!("\"{}\" was changed meanwhile: look at it, and try again", old.name);
        return Err(Failure::Store(StoreError::Contended(why)));
    }
    tx.script(table::extend(old, &altered)).await.map_err(|failure| name_taken(failure, &altered))?;
    // What was written by SQL is named by the labels before. Nobody writes now: the table is locked.
    let waits = sqlx::query("SELECT EXISTS (SELECT 1 FROM mobo.intake WHERE collection = $1)").bind(altered.id.sql());
    if known(tx.row(waits).await?, "answer")?.try_get(0)? {
        let why = "SQL waits to be taken in: try again in a moment".to_owned();
        return Err(Failure::Store(StoreError::Contended(why)));
    }
    let update = sqlx::query("UPDATE mobo.collection SET rev = $3, definition = $4 WHERE project = $1 AND id = $2");
    let update = update.bind(project.sql()).bind(altered.id.sql()).bind(altered.rev.cast_signed());
    tx.run(update.bind(altered.to_cbor())).await?;
    schema.rev += 1;
    tx.run(sqlx::query("UPDATE mobo.project SET schema_rev = $2 WHERE id = $1").bind(project.sql()).bind(schema.rev.cast_signed())).await?;
    schema.insert(altered);
    Ok(schema)
}

/// What Postgres says of a name that it has already, or keeps for itself, as a sentence for the operator.
pub(super) fn name_taken(failure: Failure, collection: &Collection) -> Failure {
    match failure.code().as_deref() {
        Some("42P07" | "42710") => Failure::refused(format!(
            "the database has something named \"{}\" in schema public that is not a collection: rename it, or name the collection otherwise",
            collection.name
        )),
        Some("42701") => Failure::refused("a field has the name of a column that every table of Postgres has: name it otherwise"),
        _ => failure,
    }
}

async fn rev(tx: &mut Tx, project: ProjectId, sql: &'static str) -> Result<u64, Failure> {
    let row = tx.row(sqlx::query(sql).bind(project.sql())).await?;
    let row = row.ok_or_else(|| Failure::refused(format!("there is no project {project}")))?;
    known(u64::try_from(row.try_get::<i64, _>(0)?).ok(), "schema revision")
}

async fn read(tx: &mut Tx, project: ProjectId, rev: u64) -> Result<Schema, Failure> {
    let rows =
        tx.rows(sqlx::query("SELECT kind, definition FROM mobo.collection WHERE project = $1 ORDER BY id").bind(project.sql())).await?;
    let mut collections = Vec::with_capacity(rows.len());
    for row in rows {
        // A kind of a later version: kept, and not used.
        if u8::try_from(row.try_get::<i16, _>(0)?).ok().and_then(Kind::from_code).is_none() {
            continue;
        }
        let definition: Vec<u8> = row.try_get(1)?;
        collections.push(Collection::decode(&mut Reader::new(&definition))?);
    }
    Ok(Schema::new(rev, collections))
}
