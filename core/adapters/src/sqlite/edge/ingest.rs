//! Messages of plain sensors: what a batch of them says is sealed, and what cannot be taken is kept aside, in one transaction. Only what is
//! durable then is acknowledged to the broker.
//!
//! A broker repeats what it has no acknowledgement for. Such a repeat is marked, and bears the packet id of its first delivery: it is known
//! again by both its packet id and its hash. An entry of that memory goes as soon as the broker has shown that it knows the acknowledgement.

use mobo_core::author::segment;
use mobo_core::ids::{CollectionId, Nonce};
use mobo_core::ingest::{self, Arrival, BadMessage, Parts, RefusedMessage, Row, Tally};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::store::StoreError;
use mobo_core::time::Moment;
use rusqlite::Connection;

use super::answers::{WriteError, Written};
use super::fault::{Try, all, first};
use super::room::{self, Room};
use super::{EdgeStore, Inner, stream, write};
use crate::sqlite::error::Failure;

/// What became of a batch; all of it is durable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ingested {
    /// Figures.
    pub tally: Tally,
    /// What was sealed.
    pub written: Vec<Written>,
}

impl EdgeStore {
    /// Takes messages in: what they say, what is kept aside, and the memory of their deliveries are durable together, or nothing is.
    /// Deliveries up to `forget` are known to the broker.
    ///
    /// # Errors
    ///
    /// A [`StoreError`]: nothing was taken, and nothing may be acknowledged.
    pub async fn ingest(&self, arrivals: Vec<Arrival>, forget: u64) -> Result<Ingested, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let (schema, room) = (inner.schema.get(conn)?, inner.room());
            let mut desk = Desk { conn, schema: &schema, room: &room, seal: &|| inner.sources.seal(), done: Ingested::default() };
            desk.take(arrivals, forget)?;
            Ok(desk.done)
        };
        self.commit(work, |inner, done: &Ingested| done.written.iter().for_each(|one| super::tell_written(inner, one))).await
    }

    /// Forgets all deliveries: a broker without a session for this device repeats none.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn forget_deliveries(&self) -> Result<(), StoreError> {
        self.commit(|conn, _| Ok(conn.execute("DELETE FROM mobo_ingest_taken", []).map(drop)?), |_, ()| {}).await
    }

    /// Messages that were kept aside, newest first, behind a number.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn refused_messages(&self, after: Option<u64>, limit: u32) -> Result<Vec<RefusedMessage>, StoreError> {
        self.read(move |conn, _| {
            let sql = format!("SELECT {COLUMNS} FROM mobo_ingest_refused WHERE n < ?1 ORDER BY n DESC LIMIT ?2");
            let after = after.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX));
            all(conn.prepare_cached(&sql)?.query((after, limit))?, refused_message)
        })
        .await
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn refused_message(&self, n: u64) -> Result<Option<RefusedMessage>, StoreError> {
        self.read(move |conn, _| {
            let sql = format!("SELECT {COLUMNS} FROM mobo_ingest_refused WHERE n = ?1");
            first(conn.prepare_cached(&sql)?.query([n.cast_signed()])?, refused_message)
        })
        .await
    }

    /// How many messages are kept aside.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn refused_messages_count(&self) -> Result<u64, StoreError> {
        let count = |conn: &Connection| conn.query_row("SELECT count(*) FROM mobo_ingest_refused", [], |row| row.get::<_, i64>(0));
        self.read(move |conn, _| Ok(count(conn)?.cast_unsigned())).await
    }

    /// Lets one of them go; false when there is none.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn drop_refused_message(&self, n: u64) -> Result<bool, StoreError> {
        self.commit(move |conn, _| Ok(conn.execute("DELETE FROM mobo_ingest_refused WHERE n = ?1", [n.cast_signed()])? > 0), |_, _| {})
            .await
    }

    /// Takes one of them in by what its rules make of it now; then it is no longer kept aside.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: it stays.
    pub async fn retry_refused_message(&self, n: u64, rows: Vec<Row>) -> Result<u64, WriteError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let (schema, room) = (inner.schema.get(conn)?, inner.room());
            let mut desk = Desk { conn, schema: &schema, room: &room, seal: &|| inner.sources.seal(), done: Ingested::default() };
            let written = match desk.fitted(rows) {
                Ok(parts) => desk.write_all(parts)?,
                Err(BadMessage(why)) => Err(WriteError::Store(StoreError::Refused(why))),
            };
            if written.is_ok() {
                conn.execute("DELETE FROM mobo_ingest_refused WHERE n = ?1", [n.cast_signed()])?;
            }
            Ok(written.map(|()| desk.done))
        };
        let tell = |inner: &Inner, done: &Result<Ingested, WriteError>| {
            done.iter().flat_map(|done| &done.written).for_each(|one| super::tell_written(inner, one));
        };
        self.commit(work, tell).await?.map(|done| done.tally.rows)
    }
}

const COLUMNS: &str = "n, topic, payload, bytes, why, at_us";

fn refused_message(row: &rusqlite::Row<'_>) -> Try<RefusedMessage> {
    Ok(RefusedMessage {
        n: row.get::<_, i64>(0)?.cast_unsigned(),
        topic: row.get(1)?,
        payload: row.get(2)?,
        bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        why: row.get(4)?,
        at_us: row.get(5)?,
    })
}

struct Desk<'a> {
    conn: &'a Connection,
    schema: &'a Schema,
    room: &'a Room,
    seal: &'a dyn Fn() -> (Moment, Nonce),
    done: Ingested,
}

impl Desk<'_> {
    fn take(&mut self, arrivals: Vec<Arrival>, forget: u64) -> Try<()> {
        self.conn.prepare_cached("DELETE FROM mobo_ingest_taken WHERE n <= ?1")?.execute([forget.cast_signed()])?;
        let (mut together, mut alone) = (Parts::default(), Vec::new());
        for mut arrival in arrivals {
            if self.is_known(&arrival)? {
                self.done.tally.repeats += 1;
                continue;
            }
            let rows = std::mem::replace(&mut arrival.rows, Ok(Vec::new()));
            if self.is_stale(&arrival, rows.as_deref().unwrap_or_default())? {
                self.done.tally.repeats += 1;
                continue;
            }
            match rows.and_then(|rows| self.fitted(rows)) {
                Ok(parts) => alone.push((arrival, parts)),
                Err(BadMessage(why)) => self.keep_aside(&arrival, &why)?,
            }
        }
        alone.iter().for_each(|(_, parts)| together.add(parts.clone()));
        if self.in_savepoint(|desk| desk.write_all(together))?.is_err() {
            // One of them is to blame: each by itself, so that it does not take the others with it.
            for (arrival, parts) in alone {
                match self.in_savepoint(|desk| desk.write_all(parts))? {
                    Ok(()) => {}
                    Err(WriteError::Store(error)) => return Err(error.into()),
                    Err(error) => self.keep_aside(&arrival, &error.to_string())?,
                }
            }
        }
        self.done.tally.remembered = last_remembered(self.conn)?;
        Ok(())
    }

    /// Runs `work`, and takes back what it did unless it did all of it.
    fn in_savepoint(&mut self, work: impl FnOnce(&mut Self) -> Try<Result<(), WriteError>>) -> Try<Result<(), WriteError>> {
        let before = self.done.clone();
        self.conn.execute_batch("SAVEPOINT ingest")?;
        let done = work(self)?;
        if done.is_err() {
            self.conn.execute_batch("ROLLBACK TO ingest")?;
            self.done = before;
        }
        self.conn.execute_batch("RELEASE ingest")?;
        Ok(done)
    }

    /// True for a repeat of what was taken; anything else is remembered from now on.
    fn is_known(&self, arrival: &Arrival) -> Try<bool> {
        let Some(delivery) = arrival.delivery else { return Ok(false) };
        let hash = ingest::mark(&arrival.topic, &arrival.payload);
        if delivery.is_repeat && mobo_core::protect!("ingest.repeat", true) {
            let sql = "SELECT 1 FROM mobo_ingest_taken WHERE packet = ?1 AND hash = ?2";
            if self.conn.prepare_cached(sql)?.exists((delivery.packet, hash))? {
                return Ok(true);
            }
        }
        // A packet id that is used for another message was acknowledged for the one before.
        self.conn.prepare_cached("DELETE FROM mobo_ingest_taken WHERE packet = ?1")?.execute([delivery.packet])?;
        self.conn.prepare_cached("INSERT INTO mobo_ingest_taken(packet, hash) VALUES (?1, ?2)")?.execute((delivery.packet, hash))?;
        Ok(false)
    }

    /// True for a message that the broker has kept and that says of records what its topic said last: somebody may have changed them since.
    /// What a topic says is remembered from now on.
    fn is_stale(&self, arrival: &Arrival, rows: &[Row]) -> Try<bool> {
        let Some(said) = arrival.said(rows, self.schema) else { return Ok(false) };
        if arrival.is_retained && mobo_core::protect!("ingest.retained", true) {
            let sql = "SELECT 1 FROM mobo_ingest_said WHERE topic = ?1 AND hash = ?2";
            if self.conn.prepare_cached(sql)?.exists((&arrival.topic, said))? {
                return Ok(true);
            }
        }
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO mobo_ingest_said(topic, hash) VALUES (?1, ?2)")?
            .execute((&arrival.topic, said))?;
        let oldest = self.conn.last_insert_rowid() - i64::try_from(limits::INGEST_TOPICS_MAX).unwrap_or(i64::MAX);
        self.conn.prepare_cached("DELETE FROM mobo_ingest_said WHERE n <= ?1")?.execute([oldest])?;
        Ok(false)
    }

    fn fitted(&self, rows: Vec<Row>) -> Result<Parts, BadMessage> {
        Parts::of(rows, self.schema, (self.seal)().0.wall)
    }

    fn write_all(&mut self, parts: Parts) -> Try<Result<(), WriteError>> {
        for (id, rows) in parts.samples {
            let collection = self.known(id)?;
            let count = rows.len() as u64;
            let (moment, nonce) = (self.seal)();
            let segment = match segment(rows, collection, moment.wall) {
                Ok(segment) => segment,
                Err(error) => return Ok(Err(error.into())),
            };
            room::for_samples(self.conn, self.schema, (self.room, id), || (self.seal)())?;
            match stream::append(self.conn, self.schema, &segment, (moment, nonce)) {
                Ok(written) => self.wrote(written, count),
                Err(WriteError::Store(error)) => return Err(error.into()),
                Err(error) => return Ok(Err(error)),
            }
        }
        for (id, edits) in parts.edits {
            room::for_records(self.conn, self.room)?;
            match write::write(self.conn, self.schema, (id, &edits, None), (self.seal)()) {
                Ok(written) => self.wrote(written, edits.len() as u64),
                Err(WriteError::Store(error)) => return Err(error.into()),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    fn known(&self, id: CollectionId) -> Try<&Collection> {
        let found = self.schema.get(id).filter(|found| found.kind == Kind::Stream);
        found.ok_or_else(|| Failure::refused("a stream went while samples were taken"))
    }

    fn wrote(&mut self, written: Written, rows: u64) {
        self.done.tally.rows += rows;
        self.done.written.push(written);
    }

    fn keep_aside(&mut self, arrival: &Arrival, why: &str) -> Try<()> {
        let kept = RefusedMessage::kept(&arrival.payload);
        let sql = "INSERT INTO mobo_ingest_refused(topic, payload, bytes, why, at_us) VALUES (?1, ?2, ?3, ?4, ?5)";
        let bytes = i64::try_from(arrival.payload.len()).unwrap_or(i64::MAX);
        self.conn.prepare_cached(sql)?.execute((&arrival.topic, kept, bytes, why, (self.seal)().0.wall.0))?;
        let oldest = self.conn.last_insert_rowid() - i64::try_from(limits::INGEST_REFUSED_MAX).unwrap_or(i64::MAX);
        self.conn.prepare_cached("DELETE FROM mobo_ingest_refused WHERE n <= ?1")?.execute([oldest])?;
        self.done.tally.refused += 1;
        Ok(())
    }
}

/// The last number that the memory of deliveries has given.
fn last_remembered(conn: &Connection) -> Try<u64> {
    let mut statement = conn.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'mobo_ingest_taken'")?;
    let last: Option<i64> = first(statement.query([])?, |row| Ok(row.get(0)?))?;
    Ok(last.unwrap_or_default().cast_unsigned())
}
