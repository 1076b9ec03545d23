//! How the row of a record lies in its collection's table.

use std::collections::BTreeMap;

use mobo_core::ids::{BucketId, FieldId, Position, RecordId, RecordKey, StateHash, Ver};
use mobo_core::record::RecordState;
use mobo_core::schema::Collection;
use mobo_core::table::TableState;
use mobo_core::table::row::{self, RowMeta};
use mobo_core::value::Value;
use rusqlite::Row;

use super::{Deliverable, StoredRecord, home, number};
use crate::sqlite::columns;
use crate::sqlite::error::{Failure, known};
use crate::sqlite::table::quoted;

/// Columns before the fields: `id, mobo_ver, _bucket, _position, _mobo`.
const HEAD: usize = 5;

/// Where the columns of a collection are in a row of [`Shape::select`].
pub(crate) struct Shape<'c> {
    collection: &'c Collection,
    /// Where the first of these columns is.
    first: usize,
    places: BTreeMap<FieldId, usize>,
}

impl<'c> Shape<'c> {
    /// The shape of a collection's rows.
    pub(crate) fn new(collection: &'c Collection) -> Self {
        Self::at(collection, 0)
    }

    /// The same, in rows that have other columns in front.
    pub(crate) fn at(collection: &'c Collection, first: usize) -> Self {
        let places = collection.fields.iter().enumerate().map(|(index, field)| (field.id, first + HEAD + index)).collect();
        Self { collection, first, places }
    }

    /// The column behind the last field.
    pub(crate) fn end(&self) -> usize {
        self.first + HEAD + self.collection.fields.len()
    }

    /// Reads whole rows.
    pub(crate) fn select(&self, condition: &str) -> String {
        let fields: String = self.collection.fields.iter().map(|field| format!(", {}", quoted(&field.name))).collect();
        format!("SELECT id, mobo_ver, _bucket, _position, _mobo{fields} FROM {} {condition}", quoted(&self.collection.name))
    }

    /// The key of a row.
    pub(crate) fn id(row: &Row<'_>) -> Result<RecordId, Failure> {
        known(RecordId::new(row.get::<_, String>(0)?).ok(), "record id")
    }

    /// The record of a row.
    pub(crate) fn key(&self, row: &Row<'_>) -> Result<RecordKey, Failure> {
        let id = known(RecordId::new(row.get::<_, String>(self.first)?).ok(), "record id")?;
        Ok(RecordKey { collection: self.collection.id, id })
    }

    /// The position of a row in its first bucket.
    pub(crate) fn position(&self, row: &Row<'_>) -> Result<u64, Failure> {
        number(row, self.first + 3)
    }

    /// A row of a table.
    pub(crate) fn visible(&self, row: &Row<'_>) -> Result<StoredRecord, Failure> {
        let mut odd = false;
        let read = row::decode(row.get_ref(self.first + 4)?.as_bytes().unwrap_or_default(), self.collection, |field| {
            let value = self.value(row, field);
            odd |= value.is_none();
            value.unwrap_or(Value::Null)
        });
        let (state, meta) = match read {
            Ok(_) if odd => (Err("a column holds a value that its type cannot hold".to_owned()), None),
            Ok((state, meta)) => (intact(state, &meta), Some(meta)),
            Err(error) => (Err(error.to_string()), None),
        };
        let ver = meta.map_or(Ver(number(row, self.first + 1)?), |meta| meta.ver);
        Ok(stored(state, (ver, meta), true, home(row, (self.first + 2, self.first + 3))?))
    }

    /// A row of a table as it is delivered.
    pub(crate) fn deliverable(&self, row: &Row<'_>) -> Result<Deliverable, Failure> {
        let read = row::delivered(row.get_ref(self.first + 4)?.as_bytes().unwrap_or_default(), |field, writer| {
            let place = self.places.get(&field).zip(self.collection.field_by_id(field));
            let column = place.and_then(|(place, field)| Some((row.get_ref(*place).ok()?, field.kind)));
            column.is_some_and(|(stored, kind)| columns::encode(stored, kind, writer))
        });
        Ok(match read {
            Ok((bytes, meta)) => Deliverable { state: Ok((0, bytes)), ver: meta.ver, state_hash: meta.state_hash },
            Err(error) => {
                let ver = Ver(number(row, self.first + 1)?);
                Deliverable { state: Err(error.to_string()), ver, state_hash: StateHash([0; 32]) }
            }
        })
    }

    /// A row of `mobo_hidden`: `row, ver, bucket, position`.
    pub(crate) fn hidden(&self, row: &Row<'_>) -> Result<StoredRecord, Failure> {
        let (state, meta) = match row::decode(row.get_ref(0)?.as_bytes().unwrap_or_default(), self.collection, |_| Value::Null) {
            Ok((state, meta)) => (intact(state, &meta), Some(meta)),
            Err(error) => (Err(error.to_string()), None),
        };
        Ok(stored(state, (Ver(number(row, 1)?), meta), false, home(row, (2, 3))?))
    }

    /// True if a row shows exactly what the state of its record says, in every column.
    pub(crate) fn shows(&self, row: &Row<'_>, record: &RecordState, ver: Ver) -> Result<bool, Failure> {
        let Some(want) = record.project(self.collection) else { return Ok(false) };
        let shown = |value: &Value| if matches!(value, Value::Unknown(_)) { Value::Null } else { value.clone() };
        let same = self.collection.fields.iter().zip(&want).all(|(field, want)| self.value(row, field.id) == Some(shown(want)));
        Ok(same && number(row, self.first + 1)? == ver.0)
    }

    fn value(&self, row: &Row<'_>, field: FieldId) -> Option<Value> {
        let kind = self.collection.field_by_id(field)?.kind;
        columns::value(row.get_ref(*self.places.get(&field)?).ok()?, kind)
    }
}

/// A row, and its canonical bytes.
type Intact = Result<(RecordState, Vec<u8>), String>;

fn intact(state: TableState, meta: &RowMeta) -> Intact {
    let bytes = row::intact_bytes(&state, meta).ok_or_else(|| "the row does not fit its hash".to_owned())?;
    Ok((RecordState::Table(state), bytes))
}

fn stored(read: Intact, (ver, meta): (Ver, Option<RowMeta>), visible: bool, home: Option<(BucketId, Position)>) -> StoredRecord {
    let state_hash = meta.map_or(StateHash([0; 32]), |meta| meta.state_hash);
    let (state, bytes) = match read {
        Ok((state, bytes)) => (Ok(state), Some(bytes)),
        Err(why) => (Err(why), None),
    };
    StoredRecord { state, bytes, ver, state_hash, mac: meta.and_then(|meta| meta.mac), visible, home }
}
