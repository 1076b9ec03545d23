//! A project's collections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::cbor::{Reader, Writer};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::schema::{Collection, Schema};
use mobo_core::store::StoreError;
use rusqlite::{Connection, OptionalExtension};

use crate::sqlite::error::Failure;
use crate::sqlite::{intake, table};

/// The schemas that were read last. What is in force is what the snapshot says: this only spares decoding it again.
#[derive(Debug, Default)]
pub(super) struct Schemas(Mutex<BTreeMap<ProjectId, Arc<Schema>>>);

impl Schemas {
    /// The collections of a project as `connection` sees them.
    pub(super) fn of(&self, connection: &Connection, project: ProjectId) -> Result<Arc<Schema>, Failure> {
        let rev = rev(connection, project)?;
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&project).cloned();
        if let Some(schema) = cached.filter(|schema| schema.rev == rev) {
            return Ok(schema);
        }
        let schema = Arc::new(load(connection, project, rev)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(project, Arc::clone(&schema));
        Ok(schema)
    }
}

/// Makes a collection and its table.
pub(super) fn create(connection: &Connection, project: ProjectId, collection: &Collection) -> Result<Schema, Failure> {
    let name = &collection.name;
    let before = load(connection, project, rev(connection, project)?)?;
    if before.by_name(name).is_some() || before.get(collection.id).is_some() {
        return Err(Failure::refused(format!("there is a collection \"{name}\" already")));
    }
    if before.iter().count() >= limits::COLLECTIONS_MAX {
        return Err(Failure::refused(format!("a project has at most {} collections", limits::COLLECTIONS_MAX)));
    }
    let taken = "SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE";
    if connection.query_row(taken, [name], |_| Ok(())).optional()?.is_some() {
        return Err(Failure::refused(format!("the database has a table \"{name}\" of somebody else's: choose another name")));
    }
    table::create(connection, collection)?;
    intake::install(connection, collection)?;
    let mut definition = Writer::new();
    collection.encode(&mut definition);
    let sql = "INSERT INTO mobo_collection(project, id, name, kind, rev, definition) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (kind, rev) = (collection.kind.code(), collection.rev.cast_signed());
    connection.execute(sql, (project.sql(), collection.id.sql(), name, kind, rev, definition.into_bytes()))?;
    let sql = "UPDATE mobo_project SET schema_rev = schema_rev + 1 WHERE id = ?1 RETURNING schema_rev";
    let rev: Option<i64> = connection.query_row(sql, [project.sql()], |row| row.get(0)).optional()?;
    let rev = rev.ok_or_else(|| Failure::refused(format!("there is no project {project}")))?;
    load(connection, project, rev.cast_unsigned())
}

/// Replaces a collection's definition by a later one, and extends its table.
pub(super) fn alter(connection: &Connection, project: ProjectId, altered: &Collection) -> Result<Schema, Failure> {
    let before = load(connection, project, rev(connection, project)?)?;
    let old = before.get(altered.id).ok_or_else(|| Failure::refused(format!("no collection has the id {}", altered.id)))?;
    if altered.rev != old.rev + 1 {
        return Err(Failure(StoreError::Contended(format!("\"{}\" was changed meanwhile: look at it, and try again", old.name))));
    }
    // What was written by SQL is named by the labels before. Nobody writes now.
    let waits = connection.prepare_cached("SELECT 1 FROM mobo_intake WHERE collection = ?1")?.exists([old.id.sql()])?;
    if waits {
        return Err(Failure(StoreError::Contended("SQL waits to be taken in: try again in a moment".to_owned())));
    }
    intake::remove(connection, old)?;
    table::extend(connection, old, altered)?;
    intake::install(connection, altered)?;
    let sql = "UPDATE mobo_collection SET rev = ?3, definition = ?4 WHERE project = ?1 AND id = ?2";
    connection.execute(sql, (project.sql(), altered.id.sql(), altered.rev.cast_signed(), altered.to_cbor()))?;
    connection.execute("UPDATE mobo_project SET schema_rev = schema_rev + 1 WHERE id = ?1", [project.sql()])?;
    load(connection, project, before.rev + 1)
}

pub(super) fn rev(connection: &Connection, project: ProjectId) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached("SELECT schema_rev FROM mobo_project WHERE id = ?1")?;
    let rev: Option<i64> = statement.query_row([project.sql()], |row| row.get(0)).optional()?;
    Ok(rev.unwrap_or_default().cast_unsigned())
}

pub(super) fn load(connection: &Connection, project: ProjectId, rev: u64) -> Result<Schema, Failure> {
    let mut statement = connection.prepare_cached("SELECT definition FROM mobo_collection WHERE project = ?1")?;
    let mut rows = statement.query([project.sql()])?;
    let mut schema = Schema::new(rev, []);
    while let Some(row) = rows.next()? {
        let definition: Vec<u8> = row.get(0)?;
        let mut reader = Reader::new(&definition);
        schema.insert(Collection::decode(&mut reader)?);
        reader.end()?;
    }
    Ok(schema)
}
