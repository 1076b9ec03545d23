//! Records as rows: read and written through statements that are prepared once for a whole batch.
//!
//! A visible row is in its collection's table, a hidden one in `mobo_hidden`; a document is in `mobo_document`, with a projected row while
//! it is visible.

mod shape;
mod write;

use mobo_core::document::Document;
use mobo_core::ids::{BucketId, Mac, Position, ProjectId, RecordId, RecordKey, StateHash, Ver};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use rusqlite::{CachedStatement, Connection, Row};

pub(crate) use shape::Shape;
pub(crate) use write::{NewRecord, RecordWriter};

use super::error::{Failure, known};

/// A record as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    /// Its state, or what is wrong with its row: it does not fit its own hash.
    pub(crate) state: Result<RecordState, String>,
    /// The canonical bytes of a row's state; `None` of a document, and of what is damaged.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Its version.
    pub(crate) ver: Ver,
    /// The hash that was written with it; all zero where even that cannot be read.
    pub(crate) state_hash: StateHash,
    /// The hub's MAC; on devices.
    pub(crate) mac: Option<Mac>,
    /// True if it has a row in its collection's table.
    pub(crate) visible: bool,
    /// Its first bucket and its place there.
    pub(crate) home: Option<(BucketId, Position)>,
}

/// A record as it is delivered.
#[derive(Clone, Debug)]
pub(crate) struct Deliverable {
    /// Its epoch and the bytes of its state, or what is wrong with its row.
    pub(crate) state: Result<(u32, Vec<u8>), String>,
    /// Its version.
    pub(crate) ver: Ver,
    /// The hash of the state, recomputed from the row.
    pub(crate) state_hash: StateHash,
}

impl From<StoredRecord> for Deliverable {
    fn from(stored: StoredRecord) -> Self {
        let StoredRecord { state, bytes, ver, state_hash, .. } = stored;
        Self { state: state.map(|state| bytes.map_or_else(|| state.encode(), |bytes| (0, bytes))), ver, state_hash }
    }
}

/// Reads the records of one collection.
pub(crate) struct RecordReader<'c> {
    project: ProjectId,
    collection: &'c Collection,
    shape: Shape<'c>,
    /// The row of a table.
    row: Option<CachedStatement<'c>>,
    /// Its hidden row, or the document.
    other: CachedStatement<'c>,
}

const HIDDEN: &str = "SELECT row, ver, bucket, position FROM mobo_hidden WHERE project = ?1 AND collection = ?2 AND id = ?3";
const DOCUMENT: &str = "SELECT doc, ver, bucket, position, epoch, state_hash, mac, visible FROM mobo_document \
                        WHERE project = ?1 AND collection = ?2 AND id = ?3";

impl<'c> RecordReader<'c> {
    /// A reader of `collection`, which is no stream.
    pub(crate) fn new(connection: &'c Connection, project: ProjectId, collection: &'c Collection) -> Result<Self, Failure> {
        let shape = Shape::new(collection);
        let (row, other) = match collection.kind {
            Kind::Table => (Some(connection.prepare_cached(&shape.select("WHERE id = ?1"))?), HIDDEN),
            Kind::Document => (None, DOCUMENT),
            Kind::Stream => return Err(Failure::refused(format!("\"{}\" is a stream: it has no records", collection.name))),
        };
        Ok(Self { project, collection, shape, row, other: connection.prepare_cached(other)? })
    }

    /// The record; `None` when it was never written.
    pub(crate) fn read(&mut self, id: &RecordId) -> Result<Option<StoredRecord>, Failure> {
        if let Some(statement) = &mut self.row {
            let mut rows = statement.query([id.as_str()])?;
            if let Some(row) = rows.next()? {
                return Ok(Some(self.shape.visible(row)?));
            }
        }
        self.other(id)
    }

    /// The same, as it is delivered.
    pub(crate) fn deliverable(&mut self, id: &RecordId) -> Result<Option<Deliverable>, Failure> {
        if let Some(statement) = &mut self.row {
            let mut rows = statement.query([id.as_str()])?;
            if let Some(row) = rows.next()? {
                return Ok(Some(self.shape.deliverable(row)?));
            }
        }
        Ok(self.other(id)?.map(Deliverable::from))
    }

    fn other(&mut self, id: &RecordId) -> Result<Option<StoredRecord>, Failure> {
        let mut rows = self.other.query((self.project.sql(), self.collection.id.sql(), id.as_str()))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let stored = match self.collection.kind {
            Kind::Table => self.shape.hidden(row)?,
            Kind::Document | Kind::Stream => document(row, &RecordKey { collection: self.collection.id, id: id.clone() })?,
        };
        Ok(Some(stored))
    }
}

/// Reads the hidden rows of a table.
pub(crate) struct HiddenReader<'c> {
    of_collection: (i64, i64),
    shape: Shape<'c>,
    statement: CachedStatement<'c>,
    /// False where there were none when it was made.
    any: bool,
}

impl<'c> HiddenReader<'c> {
    /// A reader of `collection`, which is a table, for records that nobody hides while it reads.
    pub(crate) fn new(connection: &'c Connection, project: ProjectId, collection: &'c Collection) -> Result<Self, Failure> {
        let of_collection = (project.sql(), collection.id.sql());
        let any = connection.prepare_cached("SELECT 1 FROM mobo_hidden WHERE project = ?1 AND collection = ?2")?.exists(of_collection)?;
        Ok(Self { of_collection, shape: Shape::new(collection), statement: connection.prepare_cached(HIDDEN)?, any })
    }

    /// The record; `None` when it is not among the hidden.
    pub(crate) fn read(&mut self, id: &RecordId) -> Result<Option<StoredRecord>, Failure> {
        if !self.any {
            return Ok(None);
        }
        let mut rows = self.statement.query((self.of_collection.0, self.of_collection.1, id.as_str()))?;
        rows.next()?.map(|row| self.shape.hidden(row)).transpose()
    }
}

/// A row of [`DOCUMENT`], or of a scan that begins with the same columns.
pub(crate) fn document(row: &Row<'_>, key: &RecordKey) -> Result<StoredRecord, Failure> {
    let epoch = known(u32::try_from(row.get::<_, i64>(4)?).ok(), "epoch")?;
    let state_hash = known(StateHash::from_slice(row.get_ref(5)?.as_bytes().unwrap_or_default()), "state hash")?;
    let state = match Document::load(key.clone(), epoch, row.get(0)?).map(RecordState::Document) {
        Ok(state) if state.state_hash() == state_hash => Ok(state),
        Ok(_) => Err("the document does not fit its hash".to_owned()),
        Err(refusal) => Err(refusal.to_string()),
    };
    let mac = row.get::<_, Option<Vec<u8>>>(6)?.and_then(|mac| Mac::from_slice(&mac));
    let visible = row.get::<_, i64>(7)? != 0;
    Ok(StoredRecord { state, bytes: None, ver: Ver(number(row, 1)?), state_hash, mac, visible, home: home(row, (2, 3))? })
}

/// An unsigned number in a column.
pub(crate) fn number(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    known(u64::try_from(row.get::<_, i64>(column)?).ok(), "number")
}

/// A bucket and a position in two columns, where they are not null.
fn home(row: &Row<'_>, (bucket, position): (usize, usize)) -> Result<Option<(BucketId, Position)>, Failure> {
    let Some(bucket) = row.get::<_, Option<i64>>(bucket)? else { return Ok(None) };
    Ok(Some((known(BucketId::from_sql(bucket), "bucket")?, Position(number(row, position)?))))
}
