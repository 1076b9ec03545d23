//! Writing records.

use std::fmt::Write as _;

use mobo_core::ids::{BucketId, Mac, Position, ProjectId, RecordId, StateHash, Ver};
use mobo_core::merge::Place;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use mobo_core::table::TableState;
use mobo_core::table::extra::extra;
use mobo_core::table::row::{self, RowMeta};
use mobo_core::value::Value;
use rusqlite::{CachedStatement, Connection};

use crate::sqlite::columns::Bound;
use crate::sqlite::error::Failure;
use crate::sqlite::live::LiveLog;
use crate::sqlite::table::quoted;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'r> {
    /// Which.
    pub(crate) id: &'r RecordId,
    /// Where its row was before.
    pub(crate) before: Place,
    /// Its state.
    pub(crate) state: &'r RecordState,
    /// The hash of it.
    pub(crate) state_hash: StateHash,
    /// Its version.
    pub(crate) ver: Ver,
    /// The hub's MAC; on devices.
    pub(crate) mac: Option<Mac>,
    /// Its columns, in the order of the collection's fields; `None` when it is hidden.
    pub(crate) columns: Option<&'r [Value]>,
    /// Its first bucket and its place there.
    pub(crate) home: Option<(BucketId, Position)>,
}

/// Writes the records of one collection.
pub(crate) struct RecordWriter<'c> {
    connection: &'c Connection,
    collection: &'c Collection,
    of_collection: (i64, i64),
    put_row: CachedStatement<'c>,
    drop_row: CachedStatement<'c>,
    restamp: Option<CachedStatement<'c>>,
    /// The hidden row, or the document.
    put_other: CachedStatement<'c>,
    drop_other: CachedStatement<'c>,
    /// Where somebody follows the collection.
    live: Option<LiveLog<'c>>,
}

const PUT_HIDDEN: &str = "INSERT INTO mobo_hidden(project, collection, id, ver, row, bucket, position) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (project, collection, id) DO UPDATE SET ver = excluded.ver, row = excluded.row, bucket = excluded.bucket, \
     position = excluded.position";
const DROP_HIDDEN: &str = "DELETE FROM mobo_hidden WHERE project = ?1 AND collection = ?2 AND id = ?3";
const PUT_DOCUMENT: &str = "INSERT INTO mobo_document(project, collection, id, ver, doc, bucket, position, epoch, state_hash, visible, mac) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
     ON CONFLICT (project, collection, id) DO UPDATE SET ver = excluded.ver, doc = excluded.doc, bucket = excluded.bucket, \
     position = excluded.position, epoch = excluded.epoch, state_hash = excluded.state_hash, visible = excluded.visible, mac = excluded.mac";
const DROP_DOCUMENT: &str = "DELETE FROM mobo_document WHERE project = ?1 AND collection = ?2 AND id = ?3";

impl<'c> RecordWriter<'c> {
    /// A writer of `collection`, which is no stream.
    pub(crate) fn new(connection: &'c Connection, project: ProjectId, collection: &'c Collection) -> Result<Self, Failure> {
        let (put_other, drop_other) = match collection.kind {
            Kind::Table => (PUT_HIDDEN, DROP_HIDDEN),
            Kind::Document => (PUT_DOCUMENT, DROP_DOCUMENT),
            Kind::Stream => return Err(Failure::refused(format!("\"{}\" is a stream: it has no records", collection.name))),
        };
        let drop_row = format!("DELETE FROM {} WHERE id = ?1", quoted(&collection.name));
        Ok(Self {
            connection,
            collection,
            of_collection: (project.sql(), collection.id.sql()),
            put_row: connection.prepare_cached(&upsert(collection))?,
            drop_row: connection.prepare_cached(&drop_row)?,
            restamp: None,
            put_other: connection.prepare_cached(put_other)?,
            drop_other: connection.prepare_cached(drop_other)?,
            live: LiveLog::of(connection, collection)?,
        })
    }

    /// Writes a record where it belongs now, and takes it away from where it was.
    pub(crate) fn write(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        let Some(live) = &mut self.live else { return self.put(record) };
        let before = live.shown(record.id)?;
        self.put(record)?;
        self.live.as_mut().map_or(Ok(()), |live| live.changed(before, record.columns.map(|columns| (record.id, columns))))
    }

    /// Changes what a row says besides its columns: version, `_mobo` and place. False where somebody follows the collection, who hears of whole
    /// rows.
    pub(crate) fn restamp(&mut self, id: &RecordId, ver: Ver, mobo: &[u8], (bucket, at): (BucketId, Position)) -> Result<bool, Failure> {
        if self.live.is_some() {
            return Ok(false);
        }
        let statement = match &mut self.restamp {
            Some(statement) => statement,
            none => {
                let table = quoted(&self.collection.name);
                let sql = format!("UPDATE {table} SET mobo_ver = ?2, _mobo = ?3, _bucket = ?4, _position = ?5 WHERE id = ?1");
                none.insert(self.connection.prepare_cached(&sql)?)
            }
        };
        Ok(statement.execute((id.as_str(), ver.0.cast_signed(), mobo, bucket.sql(), at.0.cast_signed()))? == 1)
    }

    fn put(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        let meta = RowMeta { ver: record.ver, mac: record.mac, state_hash: record.state_hash };
        match (record.state, record.columns) {
            (RecordState::Table(state), Some(columns)) => {
                let mobo = row::encode(state, &meta, self.collection);
                self.put_row(record, columns, (&mobo, extra(state, self.collection)), record.home)?;
                if record.before == Place::Hidden {
                    self.drop_other.execute((self.of_collection.0, self.of_collection.1, record.id.as_str()))?;
                }
            }
            (RecordState::Table(state), None) => {
                self.drop_row_if(record)?;
                self.put_hidden(record, &row::encode_inline(state, &meta))?;
            }
            (RecordState::Document(document), columns) => {
                self.put_document(record, (document.epoch, &document.saved))?;
                match columns {
                    Some(columns) => {
                        // The document is the state; its projected row says only of which version it is.
                        let mobo = row::encode_inline(&TableState::default(), &meta);
                        self.put_row(record, columns, (&mobo, None), None)?;
                    }
                    None => self.drop_row_if(record)?,
                }
            }
        }
        Ok(())
    }

    /// Removes every trace of a record.
    pub(crate) fn remove(&mut self, id: &RecordId) -> Result<(), Failure> {
        if let Some(live) = &mut self.live {
            let before = live.shown(id)?;
            live.changed(before, None)?;
        }
        self.drop_row.execute([id.as_str()])?;
        self.drop_other.execute((self.of_collection.0, self.of_collection.1, id.as_str()))?;
        Ok(())
    }

    fn drop_row_if(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        if record.before == Place::Visible {
            self.drop_row.execute([record.id.as_str()])?;
        }
        Ok(())
    }

    fn put_row(
        &mut self,
        record: &NewRecord<'_>,
        columns: &[Value],
        (mobo, extra): (&[u8], Option<String>),
        home: Option<(BucketId, Position)>,
    ) -> Result<(), Failure> {
        let statement = &mut self.put_row;
        statement.raw_bind_parameter(1, record.id.as_str())?;
        statement.raw_bind_parameter(2, record.ver.0.cast_signed())?;
        statement.raw_bind_parameter(3, extra)?;
        statement.raw_bind_parameter(4, mobo)?;
        statement.raw_bind_parameter(5, home.map(|home| home.0.sql()))?;
        statement.raw_bind_parameter(6, home.map(|home| home.1.0.cast_signed()))?;
        let places = FIRST_FIELD..FIRST_FIELD + self.collection.fields.len();
        for (place, value) in places.zip(columns.iter().chain(std::iter::repeat(&Value::Null))) {
            statement.raw_bind_parameter(place, Bound(value))?;
        }
        statement.raw_execute()?;
        Ok(())
    }

    fn put_hidden(&mut self, record: &NewRecord<'_>, row: &[u8]) -> Result<(), Failure> {
        bind_other(&mut self.put_other, self.of_collection, record, row)?;
        self.put_other.raw_execute()?;
        Ok(())
    }

    fn put_document(&mut self, record: &NewRecord<'_>, (epoch, saved): (u32, &[u8])) -> Result<(), Failure> {
        let statement = &mut self.put_other;
        bind_other(statement, self.of_collection, record, saved)?;
        statement.raw_bind_parameter(8, epoch)?;
        statement.raw_bind_parameter(9, record.state_hash.as_bytes())?;
        statement.raw_bind_parameter(10, record.columns.is_some())?;
        statement.raw_bind_parameter(11, record.mac.as_ref().map(|mac| mac.as_bytes()))?;
        statement.raw_execute()?;
        Ok(())
    }
}

/// Parameters before the fields in [`upsert`], and one.
const FIRST_FIELD: usize = 7;

fn upsert(collection: &Collection) -> String {
    let (mut names, mut marks, mut updates) = (String::new(), String::new(), String::new());
    for (field, place) in collection.fields.iter().zip(FIRST_FIELD..) {
        let name = quoted(&field.name);
        let _ = write!(names, ", {name}");
        let _ = write!(marks, ", ?{place}");
        let _ = write!(updates, ", {name} = excluded.{name}");
    }
    format!(
        "INSERT INTO {}(id, mobo_ver, _extra, _mobo, _bucket, _position{names}) VALUES (?1, ?2, ?3, ?4, ?5, ?6{marks}) \
         ON CONFLICT (id) DO UPDATE SET mobo_ver = excluded.mobo_ver, _extra = excluded._extra, _mobo = excluded._mobo, \
         _bucket = excluded._bucket, _position = excluded._position{updates}",
        quoted(&collection.name)
    )
}

/// The parameters that hidden rows and documents share.
fn bind_other(statement: &mut CachedStatement<'_>, of_collection: (i64, i64), record: &NewRecord<'_>, bytes: &[u8]) -> Result<(), Failure> {
    statement.raw_bind_parameter(1, of_collection.0)?;
    statement.raw_bind_parameter(2, of_collection.1)?;
    statement.raw_bind_parameter(3, record.id.as_str())?;
    statement.raw_bind_parameter(4, record.ver.0.cast_signed())?;
    statement.raw_bind_parameter(5, bytes)?;
    statement.raw_bind_parameter(6, record.home.map(|home| home.0.sql()))?;
    statement.raw_bind_parameter(7, record.home.map(|home| home.1.0.cast_signed()))?;
    Ok(())
}
