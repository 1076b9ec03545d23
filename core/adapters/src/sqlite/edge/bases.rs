//! The delivered states of records that have own entries laid over them (rule R14).

use mobo_core::document::Document;
use mobo_core::ids::{Mac, RecordKey, StateHash, Ver};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use mobo_core::table::row::{self, RowMeta};
use mobo_core::value::Value;
use rusqlite::Connection;

use super::fault::{Try, damaged, first};
use super::rows::NewRow;

/// A row of `mobo_base`.
#[derive(Debug)]
pub(super) struct BaseRow {
    /// A `_mobo` column with every value inline, or a saved document; `None`: the record did not exist.
    bytes: Option<Vec<u8>>,
    epoch: u32,
    pub(super) ver: Ver,
    /// `None`: the record did not exist.
    pub(super) state_hash: Option<StateHash>,
    pub(super) mac: Option<Mac>,
}

impl BaseRow {
    /// Of a record that was never delivered.
    pub(super) const fn absent() -> Self {
        Self { bytes: None, epoch: 0, ver: Ver(0), state_hash: None, mac: None }
    }

    /// Of a record as it was delivered.
    pub(super) fn of(row: &NewRow<'_>) -> Self {
        let NewRow { state, ver, mac, state_hash, home: _ } = *row;
        let meta = RowMeta { ver, mac, state_hash };
        let (epoch, bytes) = match state {
            RecordState::Table(state) => (0, row::encode_inline(state, &meta)),
            RecordState::Document(document) => (document.epoch, document.saved.clone()),
        };
        Self { bytes: Some(bytes), epoch, ver, state_hash: Some(state_hash), mac }
    }

    /// The state; `None` when the record did not exist.
    pub(super) fn state(&self, collection: &Collection, key: &RecordKey) -> Try<Option<RecordState>> {
        let Some(bytes) = &self.bytes else { return Ok(None) };
        Ok(Some(match collection.kind {
            Kind::Table => RecordState::Table(row::decode(bytes, collection, |_| Value::Null)?.0),
            Kind::Document => {
                let document = Document::load(key.clone(), self.epoch, bytes.clone());
                RecordState::Document(document.map_err(|refusal| damaged(&refusal.to_string()))?)
            }
            Kind::Stream => return Ok(None),
        }))
    }
}

/// A record as it was delivered before own entries were laid over it, and empty where it was not; `None` in a stream, which has no records.
pub(super) fn delivered(conn: &Connection, collection: &Collection, key: &RecordKey) -> Try<Option<RecordState>> {
    let delivered = match row(conn, key)? {
        Some(base) => base.state(collection, key)?,
        None => None,
    };
    Ok(delivered.or_else(|| RecordState::empty(collection, key)))
}

pub(super) fn row(conn: &Connection, key: &RecordKey) -> Try<Option<BaseRow>> {
    let sql = "SELECT row, epoch, ver, state_hash, mac FROM mobo_base WHERE collection = ?1 AND id = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    first(statement.query((key.collection.sql(), key.id.as_str()))?, |row| {
        Ok(BaseRow {
            bytes: row.get(0)?,
            epoch: row.get(1)?,
            ver: Ver(row.get::<_, i64>(2)?.cast_unsigned()),
            state_hash: row.get::<_, Option<[u8; 32]>>(3)?.map(StateHash),
            mac: row.get::<_, Option<[u8; 16]>>(4)?.map(Mac),
        })
    })
}

pub(super) fn put(conn: &Connection, key: &RecordKey, base: &BaseRow) -> Try<()> {
    let sql = "INSERT INTO mobo_base (collection, id, row, epoch, ver, state_hash, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (collection, id) DO UPDATE SET row = excluded.row, epoch = excluded.epoch, ver = excluded.ver,
                 state_hash = excluded.state_hash, mac = excluded.mac";
    conn.prepare_cached(sql)?.execute((
        key.collection.sql(),
        key.id.as_str(),
        &base.bytes,
        base.epoch,
        base.ver.0.cast_signed(),
        base.state_hash.map(|hash| hash.0),
        base.mac.map(|mac| mac.0),
    ))?;
    Ok(())
}

pub(super) fn remove(conn: &Connection, key: &RecordKey) -> Try<()> {
    let sql = "DELETE FROM mobo_base WHERE collection = ?1 AND id = ?2";
    conn.prepare_cached(sql)?.execute((key.collection.sql(), key.id.as_str()))?;
    Ok(())
}
