//! SQL that other programs write into the tables of this device, taken in as what it is: local writes (replication.md D10, rule R24).
//!
//! The triggers keep each record as it was before the first statement that touched it. The intake compares that with what the table says
//! now, authors the difference, seals it, and lays it over the record, as a write through the API does. It runs at the beginning of every
//! job of the writer, under the write lock: no job ever sees a row that was not taken in, and a transaction of somebody else's, committed as
//! a whole, is in one intake as a whole. Where it fits an entry it is in one entry; several small ones that were committed since the last
//! intake share one.

mod rows;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mobo_core::author::RecordOp;
use mobo_core::engine::Author;
use mobo_core::entry::{Entry, Header};
use mobo_core::ids::{Lane, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::schema::{Collection, Schema};
use mobo_core::table::{self, TableOp};
use mobo_core::time::Moment;
use rusqlite::Connection;

use super::Sources;
use super::answers::{Sealed, WriteError};
use super::fault::Try;
use super::meta::Log;
use super::outbox;
use super::overlays;
use super::rows::Rows;
use super::write::{self, Draft};
use crate::sqlite::error::Failure;
use crate::sqlite::intake::scan::{self, RawId, Touched, Written};
pub(super) use crate::sqlite::intake::{install, prepare, remove, waits};
use crate::sqlite::live::LiveLog;
use rows::Taken;

/// What an intake did.
#[derive(Debug, Default)]
pub(super) struct TakenIn {
    /// The records that it changed.
    pub(super) changed: Vec<RecordKey>,
    /// The entries that it sealed.
    pub(super) sealed: Vec<Sealed>,
    /// Rows that could not be taken in, and were taken back.
    pub(super) refused: u64,
}

/// When nothing waited for the last time: nothing that waits now is older.
#[derive(Debug, Default)]
pub(super) struct Since(Mutex<Option<Instant>>);

impl Since {
    /// Nothing waits now.
    pub(super) fn nothing_waits(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago that was; without end after a start.
    fn elapsed_us(&self) -> u64 {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(u64::MAX, |since| u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// Takes in what waits.
pub(super) fn take(conn: &Connection, schema: &Schema, sources: &Sources, since: &Since) -> Try<TakenIn> {
    // Without a log there is no collection, and so no table.
    let Some(log) = Log::writing(conn)? else { return Ok(TakenIn::default()) };
    let mut desk = Desk {
        conn,
        log,
        whose: overlays::writing(&log),
        rows: Rows::new(conn, log.project, schema),
        moment: (sources.moment)(),
        age_us_max: since.elapsed_us(),
        open: BTreeMap::new(),
        done: TakenIn::default(),
    };
    let mut statement = conn.prepare_cached("SELECT collection FROM mobo_intake ORDER BY collection")?;
    let touched: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for collection in schema.iter().filter(|collection| touched.contains(&collection.id.sql())) {
        desk.collection(collection, sources)?;
    }
    for lane in Lane::ALL {
        desk.seal(lane, sources)?;
    }
    conn.prepare_cached("DELETE FROM mobo_intake")?.execute([])?;
    Ok(desk.done)
}

/// An intake at work.
struct Desk<'c> {
    conn: &'c Connection,
    log: Log,
    whose: Author,
    rows: Rows<'c>,
    moment: Moment,
    age_us_max: u64,
    open: BTreeMap<Lane, Open<'c>>,
    done: TakenIn,
}

/// The entry of a lane while it is filled.
#[derive(Default)]
struct Open<'c> {
    drafts: Vec<(&'c Collection, RecordKey, Draft)>,
    ops: Vec<TableOp>,
    bytes: usize,
    /// Where it will be in the log.
    seq: Option<Seq>,
}

impl<'c> Desk<'c> {
    /// Takes in what was written into one table, in the order of the ids.
    fn collection(&mut self, collection: &'c Collection, sources: &Sources) -> Try<()> {
        let mut scan = scan::Scan::new(self.conn, self.log.project, collection)?;
        let is_followed = LiveLog::of(self.conn, collection)?.is_some();
        loop {
            let touched = scan.next(limits::ENTRY_OPS_MAX)?;
            if touched.is_empty() {
                break;
            }
            for written in touched {
                let row = match written {
                    Written::Record(row) => *row,
                    Written::Nameless(id) => {
                        self.refuse(collection, &id, "its id is no text of UTF-8 without control characters")?;
                        continue;
                    }
                };
                if is_followed {
                    // Whoever follows is told what was there before.
                    scan::put_back(self.conn, collection, &RawId::from(&row.key.id))?;
                }
                self.row(collection, row, sources)?;
            }
        }
        scan.finish()
    }

    fn row(&mut self, collection: &'c Collection, row: Touched, sources: &Sources) -> Try<()> {
        let key = row.key.clone();
        match rows::op(collection, &self.log, &row) {
            Ok(Taken::Op(op)) => {
                let op = TableOp { before_us: self.before_us(row.at_us), ..op };
                match Draft::of(self.conn, collection, &key, row.was.map(rows::kept)) {
                    Ok(draft) => self.add(collection, (key, draft, op), sources),
                    Err(error) => self.failed(collection, &key, error),
                }
            }
            // The same as before; in other words, perhaps.
            Ok(Taken::Nothing) => scan::put_back(self.conn, collection, &RawId::from(&key.id)),
            Err(why) => self.refuse(collection, &RawId::from(&key.id), &why),
        }
    }

    /// Puts an operation into the entry that is being filled, and closes that one first where it is full.
    fn add(&mut self, collection: &'c Collection, (key, draft, op): (RecordKey, Draft, TableOp), sources: &Sources) -> Try<()> {
        let bytes = rows::bytes(&op);
        let open = self.open.entry(collection.lane).or_default();
        if open.ops.len() >= limits::ENTRY_OPS_MAX || open.bytes + bytes > limits::ENTRY_PAYLOAD_BYTES_MAX - ROOM {
            self.seal(collection.lane, sources)?;
        }
        if bytes > limits::ENTRY_PAYLOAD_BYTES_MAX - ROOM {
            let why = format!("the write takes {bytes} bytes, and one write has at most {}", limits::ENTRY_PAYLOAD_BYTES_MAX);
            return self.refuse(collection, &RawId::from(&key.id), &why);
        }
        let open = self.open.entry(collection.lane).or_default();
        let seq = match open.seq {
            Some(seq) => seq,
            None => *open.seq.insert(outbox::next(self.conn, self.log.incarnation, collection.lane)?),
        };
        let index = u32::try_from(open.ops.len()).unwrap_or(u32::MAX);
        match draft.with(collection, &key, (index, RecordOp::Table(op.clone())), (seq, &self.whose)) {
            Ok(draft) => {
                open.bytes += bytes;
                open.ops.push(op);
                open.drafts.push((collection, key, draft));
                Ok(())
            }
            Err(error) => self.failed(collection, &key, error),
        }
    }

    fn failed(&mut self, collection: &Collection, key: &RecordKey, error: WriteError) -> Try<()> {
        if let WriteError::Store(error) = error {
            return Err(Failure::from(error));
        }
        self.refuse(collection, &RawId::from(&key.id), &error.to_string())
    }

    /// Seals the entry of a lane, and shows its records with it.
    fn seal(&mut self, lane: Lane, sources: &Sources) -> Try<()> {
        let Some(open) = self.open.remove(&lane) else { return Ok(()) };
        let Some((collection, ..)) = open.drafts.first() else { return Ok(()) };
        let header = Header { provenance: None, ..write::header(collection, &self.log, self.moment, (sources.nonce)()) };
        let entry = Entry::seal(&header, table::op::encode_payload(&open.ops, None));
        let at = outbox::append(self.conn, &self.log, lane, &entry, self.moment.wall.0)?;
        for (_, key, draft) in open.drafts {
            draft.keep((self.conn, &mut self.rows), &key, &at)?;
            self.done.changed.push(key);
        }
        self.done.sealed.push(at);
        Ok(())
    }

    /// Takes a row back to what it was, and says why.
    fn refuse(&mut self, collection: &Collection, id: &RawId, why: &str) -> Try<()> {
        scan::put_back(self.conn, collection, id)?;
        let id = id.lossy();
        tracing::warn!(collection = collection.name, id, why, "a row that was written by SQL cannot be taken in: it is as it was before");
        let sql = "INSERT INTO mobo_intake_refused(collection, id, detail, at_us) VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute((collection.id.sql(), id, why, self.moment.wall.0))?;
        // A program that repeats itself fills nothing.
        let oldest = self.conn.last_insert_rowid() - i64::try_from(limits::INTAKE_REFUSED_MAX).unwrap_or(i64::MAX);
        self.conn.prepare_cached("DELETE FROM mobo_intake_refused WHERE n <= ?1")?.execute([oldest])?;
        self.done.refused += 1;
        Ok(())
    }

    /// How long ago it was written: by the wall clock, which may have been set meanwhile, and not before nothing waited.
    fn before_us(&self, at_us: i64) -> u64 {
        let ago = u64::try_from(self.moment.wall.0.saturating_sub(at_us)).unwrap_or(0);
        ago.min(self.age_us_max)
    }
}

/// Bytes of a payload besides its operations.
const ROOM: usize = 4_096;
