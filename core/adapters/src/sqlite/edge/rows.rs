//! The rows of records, through statements that a job prepares once for each collection.

use std::collections::BTreeMap;

use mobo_core::ids::{BucketId, CollectionId, Mac, Position, ProjectId, RecordId, RecordKey, StateHash, Ver};
use mobo_core::merge::Place;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::table::row;
use rusqlite::{CachedStatement, Connection, Row};

use super::apply::own::OwnRow;
use super::decided;
use super::fault::{Try, first};
use super::members::Spot;
use crate::sqlite::error::{Failure, known};
use crate::sqlite::records::{NewRecord, RecordReader, RecordWriter, Shape};
use crate::sqlite::table::quoted;

/// What a record's row says besides its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) ver: Ver,
    pub(super) mac: Option<Mac>,
    pub(super) state_hash: StateHash,
    pub(super) home: Option<Spot>,
    pub(super) visible: bool,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRow<'r> {
    pub(super) state: &'r RecordState,
    pub(super) ver: Ver,
    pub(super) mac: Option<Mac>,
    pub(super) state_hash: StateHash,
    pub(super) home: Option<Spot>,
}

/// The rows of all collections, for one job.
pub(super) struct Rows<'c> {
    conn: &'c Connection,
    project: ProjectId,
    schema: &'c Schema,
    tables: BTreeMap<CollectionId, Table<'c>>,
}

/// One collection's statements, each prepared when it is first needed: a connection that only reads never prepares what writes.
struct Table<'c> {
    collection: &'c Collection,
    reader: Option<RecordReader<'c>>,
    writer: Option<RecordWriter<'c>>,
    meta: Option<Meta<'c>>,
}

/// Reads what rows say besides their states.
enum Meta<'c> {
    /// The row of a table, and its hidden row.
    Row(CachedStatement<'c>, CachedStatement<'c>),
    Document(CachedStatement<'c>),
}

impl<'c> Meta<'c> {
    fn of(conn: &'c Connection, collection: &Collection) -> Try<Self> {
        if collection.kind == Kind::Document {
            let sql = "SELECT ver, mac, state_hash, bucket, position, visible FROM mobo_document
                       WHERE project = ?1 AND collection = ?2 AND id = ?3";
            return Ok(Self::Document(conn.prepare_cached(sql)?));
        }
        let row = format!("SELECT _mobo, mobo_ver, _bucket, _position, 1 FROM {} WHERE id = ?1", quoted(&collection.name));
        let hidden = "SELECT row, ver, bucket, position, 0 FROM mobo_hidden WHERE project = ?1 AND collection = ?2 AND id = ?3";
        Ok(Self::Row(conn.prepare_cached(&row)?, conn.prepare_cached(hidden)?))
    }
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("project", &self.project).finish_non_exhaustive()
    }
}

impl<'c> Rows<'c> {
    pub(super) fn new(conn: &'c Connection, project: ProjectId, schema: &'c Schema) -> Self {
        Self { conn, project, schema, tables: BTreeMap::new() }
    }

    /// What is known of a record; `None` when it is not here.
    pub(super) fn kept(&mut self, key: &RecordKey) -> Try<Option<Kept>> {
        let (conn, project) = (self.conn, self.project.sql());
        let (of, id) = (key.collection.sql(), key.id.as_str());
        let table = self.table(key)?;
        // Without loading documents and states.
        match made(&mut table.meta, || Meta::of(conn, table.collection))? {
            Meta::Document(document) => first(document.query((project, of, id))?, document_row),
            Meta::Row(row, hidden) => match first(row.query([id])?, meta_row)? {
                Some(kept) => Ok(Some(kept)),
                None => first(hidden.query((project, of, id))?, meta_row),
            },
        }
    }

    /// A record as it is shown, or what is wrong with its row; `None` when it is not here.
    pub(super) fn read(&mut self, key: &RecordKey) -> Try<Option<(Result<RecordState, String>, Kept)>> {
        let (conn, project) = (self.conn, self.project);
        let table = self.table(key)?;
        let reader = made(&mut table.reader, || RecordReader::new(conn, project, table.collection))?;
        let Some(stored) = reader.read(&key.id)? else { return Ok(None) };
        let (ver, mac, state_hash) = (stored.ver, stored.mac, stored.state_hash);
        Ok(Some((stored.state, Kept { ver, mac, state_hash, home: stored.home, visible: stored.visible })))
    }

    /// Writes a record where it belongs now; `kept` is where it was.
    pub(super) fn write(&mut self, key: &RecordKey, kept: Option<&Kept>, row: &NewRow<'_>) -> Try<()> {
        let columns = row.state.project(self.table(key)?.collection);
        self.writer(key)?.write(&NewRecord {
            id: &key.id,
            before: match kept {
                None => Place::Absent,
                Some(kept) if kept.visible => Place::Visible,
                Some(_) => Place::Hidden,
            },
            state: row.state,
            state_hash: row.state_hash,
            ver: row.ver,
            mac: row.mac,
            columns: columns.as_deref(),
            home: row.home,
        })
    }

    /// Takes a row for delivered that shows what one put of this device made: only what it says besides its columns changes. `mobo` is what it
    /// says so far. False where nothing was done: it has to be written.
    pub(super) fn restamp(&mut self, key: &RecordKey, mobo: &[u8], own: &OwnRow, spot: Spot) -> Try<bool> {
        match row::restamped(mobo, &own.stamp, &own.meta) {
            Some(mobo) => self.writer(key)?.restamp(&key.id, own.meta.ver, &mobo, spot),
            None => Ok(false),
        }
    }

    /// True if the columns say what the state says. A record that is not visible must have no row.
    pub(super) fn shows(&mut self, key: &RecordKey, state: &RecordState, ver: Ver) -> Try<bool> {
        let shape = Shape::new(self.table(key)?.collection);
        let mut statement = self.conn.prepare_cached(&shape.select("WHERE id = ?1"))?;
        let mut rows = statement.query([key.id.as_str()])?;
        match rows.next()? {
            Some(row) => shape.shows(row, state, ver),
            None => Ok(state.project(self.table(key)?.collection).is_none()),
        }
    }

    pub(super) fn remove(&mut self, key: &RecordKey) -> Try<()> {
        decided::forget(self.conn, key)?;
        self.writer(key)?.remove(&key.id)
    }

    /// Changes only the first bucket of a record.
    pub(super) fn set_home(&mut self, key: &RecordKey, home: Option<Spot>) -> Try<()> {
        let collection = self.table(key)?.collection;
        let (bucket, position) = (home.map(|home| home.0.sql()), home.map(|home| home.1.0.cast_signed()));
        let (project, of, id) = (self.project.sql(), key.collection.sql(), key.id.as_str());
        if collection.kind == Kind::Document {
            let sql = "UPDATE mobo_document SET bucket = ?4, position = ?5 WHERE project = ?1 AND collection = ?2 AND id = ?3";
            self.conn.prepare_cached(sql)?.execute((project, of, id, bucket, position))?;
            return Ok(());
        }
        let sql = format!("UPDATE {} SET _bucket = ?2, _position = ?3 WHERE id = ?1", quoted(&collection.name));
        if self.conn.prepare_cached(&sql)?.execute((id, bucket, position))? == 0 {
            let sql = "UPDATE mobo_hidden SET bucket = ?4, position = ?5 WHERE project = ?1 AND collection = ?2 AND id = ?3";
            self.conn.prepare_cached(sql)?.execute((project, of, id, bucket, position))?;
        }
        Ok(())
    }

    pub(super) fn collection(&self, id: CollectionId) -> Option<&'c Collection> {
        self.schema.get(id).filter(|collection| collection.kind != Kind::Stream)
    }

    fn table(&mut self, key: &RecordKey) -> Try<&mut Table<'c>> {
        use std::collections::btree_map::Entry;
        match self.tables.entry(key.collection) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let unknown = || Failure::refused(format!("no collection has the id {}", key.collection));
                let collection = self.schema.get(key.collection).ok_or_else(unknown)?;
                Ok(entry.insert(Table { collection, reader: None, writer: None, meta: None }))
            }
        }
    }

    fn writer(&mut self, key: &RecordKey) -> Try<&mut RecordWriter<'c>> {
        let (conn, project) = (self.conn, self.project);
        let table = self.table(key)?;
        made(&mut table.writer, || RecordWriter::new(conn, project, table.collection))
    }
}

/// What is there, or is made now.
fn made<T>(place: &mut Option<T>, make: impl FnOnce() -> Try<T>) -> Try<&mut T> {
    let made = match place.take() {
        Some(made) => made,
        None => make()?,
    };
    Ok(place.insert(made))
}

/// A row of a table: `_mobo`, version, bucket, position, whether it is visible. One that cannot be read has the hash of nothing.
pub(super) fn meta_row(row: &Row<'_>) -> Try<Kept> {
    let meta = row::decode_meta(row.get_ref(0)?.as_bytes().unwrap_or_default()).ok();
    let bucket = row.get::<_, Option<i64>>(2)?.and_then(BucketId::from_sql);
    let position = row.get::<_, Option<i64>>(3)?.map(|position| Position(position.cast_unsigned()));
    Ok(Kept {
        ver: meta.map_or(Ver(row.get::<_, i64>(1)?.cast_unsigned()), |meta| meta.ver),
        mac: meta.and_then(|meta| meta.mac),
        state_hash: meta.map_or(StateHash([0; 32]), |meta| meta.state_hash),
        home: bucket.zip(position),
        visible: row.get(4)?,
    })
}

fn document_row(row: &Row<'_>) -> Try<Kept> {
    let bucket = row.get::<_, Option<i64>>(3)?.and_then(BucketId::from_sql);
    let position = row.get::<_, Option<i64>>(4)?.map(|position| Position(position.cast_unsigned()));
    Ok(Kept {
        ver: Ver(row.get::<_, i64>(0)?.cast_unsigned()),
        mac: row.get::<_, Option<[u8; 16]>>(1)?.map(Mac),
        state_hash: StateHash(row.get(2)?),
        home: bucket.zip(position),
        visible: row.get(5)?,
    })
}

/// The key of a record in two columns.
pub(super) fn key_of(row: &Row<'_>) -> Try<RecordKey> {
    let collection = known(CollectionId::from_sql(row.get(0)?), "collection")?;
    Ok(RecordKey { collection, id: known(RecordId::new(row.get::<_, String>(1)?).ok(), "record id")? })
}
