//! What merges decided about the records of this device, as its hub tells it with them: for people, in `mobo_conflicts` and here.

use mobo_core::cbor::{Reader, Writer};
use mobo_core::ids::{CollectionId, RecordId, RecordKey};
use mobo_core::message::Decision;
use mobo_core::schema::Schema;
use mobo_core::stamp::Stamp;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use rusqlite::{Connection, Row};

use super::EdgeStore;
use super::fault::{Try, all};
use crate::sqlite::error::known;

const COLUMNS: &str = "collection, id, field, kind, loser_stamp, loser, winner_stamp, winner, at_us";

impl EdgeStore {
    /// Open decisions, newest first: of one record, or of all.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn decisions(&self, of: Option<RecordKey>, limit: u32) -> Result<Vec<Decision>, StoreError> {
        self.read(move |conn, _| open(conn, of.as_ref(), limit)).await
    }

    /// How many decisions are open.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn decisions_count(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM mobo_decision WHERE status = 0";
        self.read(move |conn, _| Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())).await
    }

    /// Lists the decisions about a field no more, because somebody has written over them who knew of them; what the hub says of the record
    /// next holds again. Gives their number.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn settle_decisions(&self, key: RecordKey, field: u64) -> Result<u64, StoreError> {
        let work = move |conn: &Connection, _: &super::Inner| {
            let sql = "UPDATE mobo_decision SET status = 1 WHERE collection = ?1 AND id = ?2 AND field = ?3 AND status = 0";
            Ok(conn.prepare_cached(sql)?.execute((key.collection.sql(), key.id.as_str(), field.cast_signed()))? as u64)
        };
        self.commit(work, |_, _| {}).await
    }
}

/// Takes in what a batch says of its records, in place of what was said before.
pub(super) fn replace(conn: &Connection, schema: &Schema, keys: &[RecordKey], told: &[Decision]) -> Try<()> {
    if conn.prepare_cached("SELECT 1 FROM mobo_decision LIMIT 1")?.exists([])? {
        keys.iter().try_for_each(|key| forget(conn, key))?;
    }
    let mut put = conn.prepare_cached(
        "INSERT OR REPLACE INTO mobo_decision(collection, id, field, kind, loser_stamp, loser, winner_stamp, winner, at_us, name) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let named = |decision: &Decision| {
        let fields = &schema.get(decision.collection)?.fields;
        fields.iter().find(|field| field.id.get() == decision.field).map(|field| field.name.clone())
    };
    for decision in told {
        put.execute((
            decision.collection.sql(),
            decision.id.as_str(),
            decision.field.cast_signed(),
            decision.kind,
            encode(&decision.loser_stamp),
            &decision.loser,
            encode(&decision.winner_stamp),
            &decision.winner,
            decision.at.0,
            named(decision),
        ))?;
    }
    Ok(())
}

/// Forgets what was decided about a record that is not held any more.
pub(super) fn forget(conn: &Connection, key: &RecordKey) -> Try<()> {
    let sql = "DELETE FROM mobo_decision WHERE collection = ?1 AND id = ?2";
    conn.prepare_cached(sql)?.execute((key.collection.sql(), key.id.as_str()))?;
    Ok(())
}

/// Lists again what was settled by a write that the hub has refused.
pub(super) fn reopen(conn: &Connection, keys: &[RecordKey]) -> Try<()> {
    let sql = "UPDATE mobo_decision SET status = 0 WHERE collection = ?1 AND id = ?2 AND status = 1";
    for key in keys {
        conn.prepare_cached(sql)?.execute((key.collection.sql(), key.id.as_str()))?;
    }
    Ok(())
}

fn open(conn: &Connection, of: Option<&RecordKey>, limit: u32) -> Try<Vec<Decision>> {
    const ORDER: &str = "status = 0 ORDER BY at_us DESC, collection, id, field, loser_stamp LIMIT ?1";
    let Some(key) = of else {
        let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_decision WHERE {ORDER}"))?;
        return all(statement.query([limit])?, decision);
    };
    let mut statement =
        conn.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_decision WHERE collection = ?2 AND id = ?3 AND {ORDER}"))?;
    all(statement.query((limit, key.collection.sql(), key.id.as_str()))?, decision)
}

fn decision(row: &Row<'_>) -> Try<Decision> {
    let stamp = |column: usize| -> Try<Stamp> {
        let bytes: Vec<u8> = row.get(column)?;
        known(Stamp::decode(&mut Reader::new(&bytes)).ok(), "stamp of a decision")
    };
    Ok(Decision {
        collection: known(CollectionId::from_sql(row.get(0)?), "collection")?,
        id: known(RecordId::new(row.get::<_, String>(1)?).ok(), "record id")?,
        field: row.get::<_, i64>(2)?.cast_unsigned(),
        kind: row.get(3)?,
        loser_stamp: stamp(4)?,
        loser: row.get(5)?,
        winner_stamp: stamp(6)?,
        winner: row.get(7)?,
        at: Eff(row.get(8)?),
    })
}

fn encode(stamp: &Stamp) -> Vec<u8> {
    let mut writer = Writer::new();
    stamp.encode(&mut writer);
    writer.into_bytes()
}
