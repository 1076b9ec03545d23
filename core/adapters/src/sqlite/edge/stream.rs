//! Samples: sealed on their stream's lane, and rows at once.

use mobo_core::entry::Entry;
use mobo_core::ids::{LaneKey, Nonce, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::rfc3339;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stream::{self, Segment};
use mobo_core::time::{Eff, Moment};
use rusqlite::Connection;

use super::answers::{WriteError, Written};
use super::fault::Try;
use super::meta::Log;
use super::outbox::{self, seq_sql};
use super::write::{header, wrong_kind};
use crate::sqlite::samples::SampleWriter;
use crate::sqlite::table::quoted;

/// Seals samples. Their rows bear the times of this device's clock until the hub has decided (rule R5).
pub(super) fn append(
    conn: &Connection,
    schema: &Schema,
    segment: &Segment,
    (moment, nonce): (Moment, Nonce),
) -> Result<Written, WriteError> {
    let collection = schema.get(segment.collection).ok_or(WriteError::UnknownCollection(segment.collection))?;
    if collection.kind != Kind::Stream {
        return Err(wrong_kind(collection, "put records into it"));
    }
    let log = Log::read(conn)?.ok_or(WriteError::NotJoined)?;
    seal(conn, (&log, collection), segment, (moment, nonce))
}

/// Seals samples of a stream that there is.
pub(super) fn seal(
    conn: &Connection,
    (log, collection): (&Log, &Collection),
    segment: &Segment,
    (moment, nonce): (Moment, Nonce),
) -> Result<Written, WriteError> {
    let payload = segment.encode(collection)?;
    if payload.len() > limits::ENTRY_PAYLOAD_BYTES_MAX {
        return Err(WriteError::TooLarge { bytes: payload.len(), ops: segment.before_us.len() });
    }
    let entry = Entry::seal(&header(collection, log, moment, nonce), payload);
    let at = outbox::append(conn, log, collection.lane, &entry, moment.wall.0)?;
    let mut samples = SampleWriter::new(conn, collection)?;
    samples.write(&log.lane(at.incarnation, at.lane), at.seq, Eff(moment.wall.0), segment)?;
    Ok(Written { entry: Some(at), changed: Vec::<RecordKey>::new() })
}

/// Gives the samples of an entry the times that the hub has decided.
pub(super) fn retime(conn: &Connection, schema: &Schema, (lane, seq): (LaneKey, Seq), payload: &[u8], eff: Eff) -> Try<()> {
    let Some(collection) = stream::peek_collection(payload).ok().and_then(|id| schema.get(id)) else { return Ok(()) };
    let Ok(segment) = Segment::decode(payload, collection) else { return Ok(()) };
    let sql = format!(
        "UPDATE {} SET at = ?6 WHERE device = ?1 AND _incarnation = ?2 AND _lane = ?3 AND _seq = ?4 AND _index = ?5",
        quoted(&collection.name)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let device = lane.device.to_string();
    for (index, before_us) in (0_i64..).zip(&segment.before_us) {
        let at = rfc3339::format(eff.before(*before_us).0);
        statement.execute((&device, lane.incarnation.sql(), lane.lane.number(), seq_sql(seq), index, at))?;
    }
    Ok(())
}

/// The rows of an entry's samples go.
pub(super) fn drop_samples(conn: &Connection, collection: &Collection, (lane, seq): (LaneKey, Seq)) -> Try<()> {
    let sql = format!("DELETE FROM {} WHERE device = ?1 AND _incarnation = ?2 AND _lane = ?3 AND _seq = ?4", quoted(&collection.name));
    conn.prepare_cached(&sql)?.execute((lane.device.to_string(), lane.incarnation.sql(), lane.lane.number(), seq_sql(seq)))?;
    Ok(())
}

/// Gives the samples of an entry that was authored again to its new log.
pub(super) fn move_samples(conn: &Connection, schema: &Schema, payload: &[u8], (from, to): ((LaneKey, Seq), (LaneKey, Seq))) -> Try<()> {
    let Some(collection) = stream::peek_collection(payload).ok().and_then(|id| schema.get(id)) else { return Ok(()) };
    let sql = format!(
        "UPDATE {} SET _incarnation = ?5, _seq = ?6 WHERE device = ?1 AND _incarnation = ?2 AND _lane = ?3 AND _seq = ?4",
        quoted(&collection.name)
    );
    let (old, new) = (from.0, to.0);
    let was = (old.device.to_string(), old.incarnation.sql(), old.lane.number(), seq_sql(from.1));
    conn.prepare_cached(&sql)?.execute((was.0, was.1, was.2, was.3, new.incarnation.sql(), seq_sql(to.1)))?;
    Ok(())
}
