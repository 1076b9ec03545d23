//! The device's own operations that no delivered row holds yet, and what is shown while they are on their way (rule R14).

use std::collections::BTreeMap;
use std::rc::Rc;

use mobo_core::author::RecordOp;
use mobo_core::cbor::Malformed;
use mobo_core::document;
use mobo_core::engine::Author;
use mobo_core::entry::{Entry, Header, Payload};
use mobo_core::ids::{DeviceId, Incarnation, Lane, Ordinal, RecordKey, Seq};
use mobo_core::life::Life;
use mobo_core::overlay::{self, Pending};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use mobo_core::table;
use rusqlite::Connection;

use super::fault::{Try, all};
use super::meta::Log;
use super::outbox::{self, seq_sql};
use super::rows::key_of;
use crate::sqlite::error::known;

/// Where an own entry is.
pub(super) type EntryAt = (Incarnation, Lane, Seq);

/// The operations of one entry, by record, with their index in the entry.
pub(super) type OpsByRecord = BTreeMap<RecordKey, Vec<(u32, RecordOp)>>;

/// Own entries that are decoded once for all the records that they touch.
#[derive(Debug, Default)]
pub(super) struct Decoded(BTreeMap<EntryAt, Read>);

/// What an entry does, and the life that it was written in.
#[derive(Clone, Debug, Default)]
struct Read {
    ops: Rc<OpsByRecord>,
    life: Option<Life>,
}

/// Entries that are kept decoded at the same time; more are decoded again.
const DECODED_MAX: usize = 64;

impl Decoded {
    /// The operations of an entry; none when it cannot be read or its payload is lost: the hub will say what became of it.
    pub(super) fn ops(&mut self, conn: &Connection, at: EntryAt) -> Try<Rc<OpsByRecord>> {
        Ok(self.read(conn, at)?.ops)
    }

    fn read(&mut self, conn: &Connection, at: EntryAt) -> Try<Read> {
        if let Some(read) = self.0.get(&at) {
            return Ok(read.clone());
        }
        let row = outbox::entry(conn, at.0, at.1, at.2)?;
        let read = row.and_then(|row| read(&row.entry).ok()).unwrap_or_default();
        if self.0.len() >= DECODED_MAX {
            self.0.clear();
        }
        self.0.insert(at, read.clone());
        Ok(read)
    }
}

fn read(entry: &Entry) -> Result<Read, Malformed> {
    Ok(Read { ops: Rc::new(decode(entry)?), life: Header::decode(&entry.header)?.life })
}

/// The operations of an entry, by record.
pub(super) fn decode(entry: &Entry) -> Result<OpsByRecord, Malformed> {
    let Payload::Present(payload) = &entry.payload else { return Ok(OpsByRecord::new()) };
    let mut by_record = OpsByRecord::new();
    let mut put = |index: usize, key: RecordKey, op| by_record.entry(key).or_default().push((u32::try_from(index).unwrap_or(u32::MAX), op));
    match Header::decode(&entry.header)?.kind() {
        Some(Kind::Table) => {
            for (index, op) in table::op::decode_payload(payload)?.into_iter().enumerate() {
                put(index, op.key.clone(), RecordOp::Table(op));
            }
        }
        Some(Kind::Document) => {
            for (index, op) in document::op::decode_payload(payload)?.into_iter().enumerate() {
                put(index, op.key.clone(), RecordOp::Document(op));
            }
        }
        Some(Kind::Stream) | None => {}
    }
    Ok(by_record)
}

/// True if anything is laid over a record.
pub(super) fn is_over(conn: &Connection, key: &RecordKey) -> Try<bool> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM mobo_overlay WHERE collection = ?1 AND id = ?2")?;
    Ok(statement.exists((key.collection.sql(), key.id.as_str()))?)
}

/// The entries laid over a record, in the order in which they were sealed.
pub(super) fn of_record(conn: &Connection, key: &RecordKey) -> Try<Vec<EntryAt>> {
    let sql = "SELECT v.incarnation, v.lane, v.seq FROM mobo_overlay v
               LEFT JOIN mobo_outbox o ON o.incarnation = v.incarnation AND o.lane = v.lane AND o.seq = v.seq
               WHERE v.collection = ?1 AND v.id = ?2 ORDER BY o.rowid";
    let mut statement = conn.prepare_cached(sql)?;
    all(statement.query((key.collection.sql(), key.id.as_str()))?, entry_at)
}

/// CROSS keeps the planner from looking through all that the log keeps, which is in the order asked for: what is laid over records is less.
const ENTRIES: &str = "SELECT DISTINCT v.incarnation, v.lane, v.seq, o.rowid FROM mobo_overlay v
    CROSS JOIN mobo_outbox o ON o.incarnation = v.incarnation AND o.lane = v.lane AND o.seq = v.seq ORDER BY o.rowid";
/// The same, and those that were sealed later than another one.
const AFTER: &str = "SELECT DISTINCT v.incarnation, v.lane, v.seq, o.rowid FROM mobo_overlay v
    CROSS JOIN mobo_outbox o ON o.incarnation = v.incarnation AND o.lane = v.lane AND o.seq = v.seq
    WHERE o.rowid > (SELECT rowid FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3) ORDER BY o.rowid";

/// The entries that are laid over any record and were sealed later than this one, in the order in which they were sealed.
pub(super) fn after(conn: &Connection, at: EntryAt) -> Try<Vec<EntryAt>> {
    let mut statement = conn.prepare_cached(AFTER)?;
    all(statement.query((at.0.sql(), at.1.number(), seq_sql(at.2)))?, entry_at)
}

/// The entries laid over any record that the hub has refused and that are to be written again, as far as it has merged their lanes.
pub(super) fn refused(conn: &Connection, own_merged: &[(Lane, Incarnation, Seq)]) -> Try<Vec<EntryAt>> {
    let sql = "SELECT DISTINCT v.incarnation, v.lane, v.seq FROM mobo_overlay v
               JOIN mobo_outbox o ON o.incarnation = v.incarnation AND o.lane = v.lane AND o.seq = v.seq
               WHERE o.state = 2 AND v.incarnation = ?1 AND v.lane = ?2 AND v.seq <= ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = Vec::new();
    for (lane, incarnation, seq) in own_merged {
        found.extend(all(statement.query((incarnation.sql(), lane.number(), seq_sql(*seq)))?, entry_at)?);
    }
    Ok(found)
}

/// All entries that are laid over any record, in the order in which they were sealed.
pub(super) fn entries(conn: &Connection) -> Try<Vec<EntryAt>> {
    let mut statement = conn.prepare_cached(ENTRIES)?;
    all(statement.query([])?, entry_at)
}

/// The records that an entry is laid over.
pub(super) fn of_entry(conn: &Connection, at: EntryAt) -> Try<Vec<RecordKey>> {
    let sql = "SELECT collection, id FROM mobo_overlay WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    all(statement.query((at.0.sql(), at.1.number(), seq_sql(at.2)))?, key_of)
}

/// Every record that has something laid over it.
pub(super) fn records(conn: &Connection) -> Try<Vec<RecordKey>> {
    let mut statement = conn.prepare_cached("SELECT DISTINCT collection, id FROM mobo_overlay")?;
    all(statement.query([])?, key_of)
}

/// The records of one collection that have something laid over them.
pub(super) fn records_of(conn: &Connection, collection: &Collection) -> Try<Vec<RecordKey>> {
    let mut statement = conn.prepare_cached("SELECT DISTINCT collection, id FROM mobo_overlay WHERE collection = ?1")?;
    all(statement.query([collection.id.sql()])?, key_of)
}

/// Those among them that are not shown.
pub(super) fn hidden_of(conn: &Connection, log: &Log, collection: &Collection) -> Try<Vec<RecordKey>> {
    let hidden = if collection.kind == Kind::Document { "mobo_document h" } else { "mobo_hidden h" };
    let shown = if collection.kind == Kind::Document { "AND h.visible = 0" } else { "" };
    let sql = format!(
        "SELECT h.collection, h.id FROM {hidden} WHERE h.project = ?1 AND h.collection = ?2 {shown} AND h.bucket IS NULL
         AND EXISTS (SELECT 1 FROM mobo_overlay v WHERE v.collection = h.collection AND v.id = h.id)"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    all(statement.query((log.project.sql(), collection.id.sql()))?, key_of)
}

pub(super) fn put(conn: &Connection, key: &RecordKey, at: EntryAt) -> Try<()> {
    let sql = "INSERT OR IGNORE INTO mobo_overlay (collection, id, incarnation, lane, seq) VALUES (?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(sql)?.execute((key.collection.sql(), key.id.as_str(), at.0.sql(), at.1.number(), seq_sql(at.2)))?;
    Ok(())
}

/// Drops what an entry lays over any record.
pub(super) fn drop_entry(conn: &Connection, at: EntryAt) -> Try<()> {
    let sql = "DELETE FROM mobo_overlay WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    conn.prepare_cached(sql)?.execute((at.0.sql(), at.1.number(), seq_sql(at.2)))?;
    Ok(())
}

/// Drops what a delivered row holds: this record's entries up to `own_merged`, but not those that the hub has refused: they are to be
/// written again. Says whether anything is left.
pub(super) fn drop_merged(conn: &Connection, key: &RecordKey, own_merged: &[(Lane, Incarnation, Seq)], refused: &mut Refused) -> Try<bool> {
    let sql = "SELECT incarnation, lane, seq FROM mobo_overlay WHERE collection = ?1 AND id = ?2";
    let (collection, id) = (key.collection.sql(), key.id.as_str());
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for at in all(conn.prepare_cached(sql)?.query((collection, id))?, entry_at)? {
        let is_gone = is_merged(&at, own_merged) && !refused.holds(conn, at)?;
        if is_gone { gone.push(at) } else { left.push(at) }
    }
    if left.is_empty() && !gone.is_empty() {
        conn.prepare_cached("DELETE FROM mobo_overlay WHERE collection = ?1 AND id = ?2")?.execute((collection, id))?;
        return Ok(false);
    }
    let sql = "DELETE FROM mobo_overlay WHERE collection = ?1 AND id = ?2 AND incarnation = ?3 AND lane = ?4 AND seq = ?5";
    for (incarnation, lane, seq) in gone {
        conn.prepare_cached(sql)?.execute((collection, id, incarnation.sql(), lane.number(), seq_sql(seq)))?;
    }
    Ok(!left.is_empty())
}

/// True if an entry is merged as far as this says.
pub(super) fn is_merged(at: &EntryAt, own_merged: &[(Lane, Incarnation, Seq)]) -> bool {
    own_merged.iter().any(|(lane, incarnation, seq)| (*incarnation, *lane) == (at.0, at.1) && at.2 <= *seq)
}

/// Which entries the hub has refused, each looked up once: what is said of one stands behind all of its payload.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<EntryAt, bool>);

impl Refused {
    /// True for a refused entry.
    pub(super) fn holds(&mut self, conn: &Connection, at: EntryAt) -> Try<bool> {
        if let Some(known) = self.0.get(&at) {
            return Ok(*known);
        }
        let is_refused = outbox::is_rejected(conn, at)?;
        self.0.insert(at, is_refused);
        Ok(is_refused)
    }

    /// Takes note of one that is to be written again.
    pub(super) fn add(&mut self, at: EntryAt) {
        self.0.insert(at, true);
    }
}

/// The author that local operations are shown under: later than anything delivered, and later than what its own earlier logs wrote.
pub(super) fn author(device: DeviceId, incarnation: Incarnation, logs_later: u32) -> Author {
    Author { device, incarnation, ordinal: Ordinal(u32::MAX - logs_later), ancestors: std::collections::BTreeSet::new() }
}

/// The author of what is written now.
pub(super) fn writing(log: &Log) -> Author {
    author(log.device, Life::counting_log(log.life, (log.device, log.incarnation)), 0)
}

/// What is shown: the base with the record's own pending entries laid over it, in the order in which they were sealed.
pub(super) fn lay(
    (conn, decoded): (&Connection, &mut Decoded),
    (device, current): (DeviceId, Incarnation),
    (collection, key): (&Collection, &RecordKey),
    base: &RecordState,
    entries: &[EntryAt],
) -> Try<RecordState> {
    // Entries of an earlier log were sealed before those of a later one.
    let mut logs: Vec<Incarnation> = entries.iter().map(|at| at.0).collect();
    logs.dedup();
    if logs.last() != Some(&current) {
        logs.push(current);
    }
    let mut laid: Option<RecordState> = None;
    for (nth, log) in logs.iter().enumerate() {
        let later = u32::try_from(logs.len() - 1 - nth).unwrap_or(u32::MAX);
        let mut lives: Vec<(Option<Life>, Vec<Pending>)> = Vec::new();
        for at in entries.iter().filter(|at| at.0 == *log) {
            let read = decoded.read(conn, *at)?;
            let pending = Pending { seq: at.2, ops: read.ops.get(key).cloned().unwrap_or_default() };
            match lives.last_mut().filter(|(life, _)| *life == read.life) {
                Some((_, of_life)) => of_life.push(pending),
                None => lives.push((read.life, vec![pending])),
            }
        }
        for (life, pending) in lives {
            let author = author(device, Life::counting_log(life, (device, *log)), later);
            laid = Some(overlay::lay(collection, laid.as_ref().unwrap_or(base), &pending, &author));
        }
    }
    Ok(laid.unwrap_or_else(|| base.clone()))
}

/// The records with an entry laid over them that is merged as far as this says.
pub(super) fn merged(conn: &Connection, own_merged: &[(Lane, Incarnation, Seq)]) -> Try<Vec<RecordKey>> {
    let sql = "SELECT DISTINCT collection, id FROM mobo_overlay WHERE incarnation = ?1 AND lane = ?2 AND seq <= ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = Vec::new();
    for (lane, incarnation, seq) in own_merged {
        found.extend(all(statement.query((incarnation.sql(), lane.number(), seq_sql(*seq)))?, key_of)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

pub(super) fn entry_at(row: &rusqlite::Row<'_>) -> Try<EntryAt> {
    let incarnation = known(Incarnation::from_sql(row.get(0)?), "incarnation")?;
    Ok((incarnation, known(Lane::from_number(row.get(1)?), "lane")?, known(outbox::seq(row.get(2)?), "position")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::open::{Role, plan_of};

    /// A device keeps what it has sent until it is safe: 100,000 entries, of which a few are laid over records.
    #[test]
    fn what_is_laid_over_records_is_found_without_a_look_through_the_log() {
        for sql in [ENTRIES, AFTER] {
            let steps = plan_of(Role::Edge, sql);
            let by_name = |step: &String| step.starts_with("SEARCH o USING") && step.ends_with("(incarnation=? AND lane=? AND seq=?)");
            assert!(steps.iter().any(by_name), "{steps:?}");
        }
    }
}
