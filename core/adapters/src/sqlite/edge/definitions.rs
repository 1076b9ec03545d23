//! The collections that the device knows, and their tables: extended, never shrunk.

use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::cbor::{Malformed, Reader};
use mobo_core::ids::{CollectionId, Mac, ProjectId, RecordKey};
use mobo_core::message::{Definition, SchemaUpdate};
use mobo_core::schema::{Collection, Kind, Schema};
use rusqlite::Connection;

use super::fault::{Try, all};
use super::intake;
use super::meta::{self, Log};
use super::rows::{NewRow, Rows, key_of};
use crate::sqlite::error::Failure;
use crate::sqlite::table::{self, quoted};

/// The stored schema, read once and again after each change. Jobs that are taken back change nothing here: the count in the database says
/// which reading is right.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<(i64, Arc<Schema>)>>);

impl Cached {
    pub(super) fn get(&self, conn: &Connection) -> Try<Arc<Schema>> {
        let changes = meta::get::<i64>(conn, meta::SCHEMA_CHANGES)?.unwrap_or_default();
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, schema)) = &*cached
            && *at == changes
        {
            return Ok(Arc::clone(schema));
        }
        let schema = Arc::new(read(conn)?);
        *cached = Some((changes, Arc::clone(&schema)));
        Ok(schema)
    }

    /// Before a change: a count of one that is taken back will be used again.
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

pub(super) fn read(conn: &Connection) -> Try<Schema> {
    let rev = meta::get::<i64>(conn, meta::SCHEMA_REV)?.unwrap_or_default().cast_unsigned();
    let mut statement = conn.prepare_cached("SELECT kind, definition FROM mobo_collection ORDER BY id")?;
    let definitions = all(statement.query([])?, |row| Ok((row.get::<_, u8>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut collections = Vec::with_capacity(definitions.len());
    for (kind, definition) in definitions {
        if Kind::from_code(kind).is_some() {
            collections.push(Collection::decode(&mut Reader::new(&definition))?);
        }
    }
    Ok(Schema::new(rev, collections))
}

/// Takes in definitions: tables are made or extended, and rows that had a field's values before the field was known show them now.
/// One that this version cannot use is kept as it is, for the version that can.
pub(super) fn put(conn: &Connection, cached: &Cached, update: &SchemaUpdate) -> Try<()> {
    cached.forget();
    let Some(log) = Log::read(conn)? else { return Err(Failure::refused("this device has not joined a hub yet")) };
    let known = read(conn)?;
    for definition in &update.definitions {
        let Ok(label) = label(&definition.bytes) else { continue };
        let old = known.get(label.id);
        match (&definition.collection, old) {
            (Some(new), Some(old)) if new.rev < old.rev => continue,
            (Some(new), Some(old)) if new == old => {}
            (Some(new), Some(old)) => extend(conn, log.project, old, new)?,
            (Some(new), None) => {
                table::create(conn, new)?;
                intake::install(conn, new)?;
            }
            (None, _) => {}
        }
        store(conn, log.project, &label, definition)?;
    }
    if !update.more {
        let rev = meta::get::<i64>(conn, meta::SCHEMA_REV)?.unwrap_or_default().max(update.rev.cast_signed());
        meta::set(conn, meta::SCHEMA_REV, rev)?;
    }
    meta::add(conn, meta::SCHEMA_CHANGES, 1)
}

fn extend(conn: &Connection, project: ProjectId, old: &Collection, new: &Collection) -> Try<()> {
    let keys = odd_rows(conn, old)?;
    intake::remove(conn, old)?;
    table::extend(conn, old, new)?;
    intake::install(conn, new)?;
    let schema = Schema::new(0, [new.clone()]);
    let mut rows = Rows::new(conn, project, &schema);
    for key in keys {
        // Values that had no column are inside `_mobo`, so the row reads the same with the new definition.
        let Some((Ok(state), kept)) = rows.read(&key)? else { continue };
        let row = NewRow { state: &state, ver: kept.ver, mac: kept.mac, state_hash: kept.state_hash, home: kept.home };
        rows.write(&key, Some(&kept), &row)?;
    }
    Ok(())
}

/// The rows that may show more by a new definition: those with unknown fields, and every document.
fn odd_rows(conn: &Connection, collection: &Collection) -> Try<Vec<RecordKey>> {
    let condition = match collection.kind {
        Kind::Table => "_extra IS NOT NULL",
        Kind::Document => "1",
        Kind::Stream => return Ok(Vec::new()),
    };
    let sql = format!("SELECT {}, id FROM {} WHERE {condition}", collection.id.sql(), quoted(&collection.name));
    all(conn.prepare(&sql)?.query([])?, key_of)
}

/// What every definition says, whatever its kind.
struct Label {
    id: CollectionId,
    name: String,
    kind: u8,
    rev: u64,
}

fn label(bytes: &[u8]) -> Result<Label, Malformed> {
    let (mut id, mut name, mut kind, mut rev) = (None, None, None, 0);
    Reader::new(bytes).each_key(|key, reader| {
        match key {
            0 => id = CollectionId::new(reader.u64()?),
            1 => name = Some(reader.text()?.to_owned()),
            2 => kind = Some(reader.u8()?),
            3 => rev = reader.u63()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (id, name, kind) {
        (Some(id), Some(name), Some(kind)) => Ok(Label { id, name, kind, rev }),
        _ => Err(Malformed::what("definition")),
    }
}

fn store(conn: &Connection, project: ProjectId, label: &Label, definition: &Definition) -> Try<()> {
    let sql = "INSERT INTO mobo_collection (project, id, name, kind, rev, definition, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (project, id) DO UPDATE SET name = excluded.name, rev = excluded.rev, definition = excluded.definition,
                 mac = excluded.mac";
    conn.prepare_cached(sql)?.execute((
        project.sql(),
        label.id.sql(),
        &label.name,
        label.kind,
        label.rev.cast_signed(),
        &definition.bytes,
        definition.mac.as_bytes(),
    ))?;
    Ok(())
}

/// The definitions as they were delivered, to be offered to a hub that has lost them (rule R18).
pub(super) fn delivered(conn: &Connection) -> Try<Vec<Definition>> {
    let mut statement = conn.prepare_cached("SELECT definition, mac FROM mobo_collection WHERE mac IS NOT NULL ORDER BY id")?;
    all(statement.query([])?, |row| {
        let bytes: Vec<u8> = row.get(0)?;
        let collection = Collection::decode(&mut Reader::new(&bytes)).ok();
        Ok(Definition { bytes, collection, mac: Mac(row.get(1)?) })
    })
}
