//! Trying again what the hub refused, as it was or corrected; or letting it go.

use mobo_core::author::{Edit, EditError, Intent};
use mobo_core::entry::{Entry, Header, Payload};
use mobo_core::ids::Nonce;
use mobo_core::schema::{Kind, Schema};
use mobo_core::store::StoreError;
use mobo_core::time::Moment;
use rusqlite::Connection;
use serde_json::{Map, Value as Json};

use super::answers::{WriteError, Written};
use super::counts::{InboxRow, InboxStatus};
use super::fault::Try;
use super::inbox;
use super::meta::Log;
use super::outbox;
use super::refusals::origin_of;
use super::stream;
use super::write;

/// Authors a refused entry anew against what is shown now. Uncorrected it keeps the identity of its first sealing: should the hub's operator
/// have merged that meanwhile, it adds nothing. With `corrections`, fields that take the place of those refused, it is a write of its own.
pub(super) fn retry(
    conn: &Connection,
    schema: &Schema,
    (n, corrections): (u64, Option<&Map<String, Json>>),
    (moment, nonce): (Moment, Nonce),
) -> Result<Written, WriteError> {
    let row = open_row(conn, n)?;
    let written = match (&row.edits, corrections) {
        (Some(edits), _) => {
            let collection = edits.first().map(|edit| edit.collection);
            let collection = collection.filter(|first| edits.iter().all(|edit| edit.collection == *first));
            let collection =
                collection.ok_or_else(|| unclear("it wrote to several collections, which is nothing that this version does"))?;
            let mut edits: Vec<Edit> = edits.iter().map(|edit| edit.edit.clone()).collect();
            if let Some(corrections) = corrections {
                correct(&mut edits, corrections)?;
            }
            let provenance = if corrections.is_none() { inbox::origin(conn, n)? } else { None };
            write::write_again(conn, schema, (collection, &edits, None), (moment, nonce), provenance)?
        }
        (None, Some(_)) => return Err(unclear("only a write to a record can be corrected: retry it as it is, or drop it")),
        (None, None) => samples(conn, schema, &row, (moment, nonce))?,
    };
    let Some(sealed) = &written.entry else {
        return Err(unclear("nothing would change by it any more, or what it changed is not here: correct it, or drop it"));
    };
    inbox::settle(conn, n, (InboxStatus::Retried, moment.wall), Some(sealed))?;
    Ok(written)
}

/// Lets a refused entry go; it stays on record.
pub(super) fn drop(conn: &Connection, n: u64, moment: Moment) -> Try<()> {
    open_row(conn, n)?;
    inbox::settle(conn, n, (InboxStatus::Dropped, moment.wall), None)
}

fn open_row(conn: &Connection, n: u64) -> Result<InboxRow, StoreError> {
    match inbox::one(conn, n)? {
        Some(row) if row.status == InboxStatus::Open => Ok(row),
        Some(row) => Err(StoreError::Refused(format!("refused entry {n} is not open any more: it was {}", row.status.word()))),
        None => Err(StoreError::Refused(format!("there is no refused entry {n}"))),
    }
}

fn unclear(why: &str) -> WriteError {
    WriteError::Edit(EditError::Refused(why.to_owned()))
}

fn correct(edits: &mut [Edit], corrections: &Map<String, Json>) -> Result<(), WriteError> {
    let [edit] = edits else { return Err(unclear("it wrote to several records: retry it as it is, or drop it and write them anew")) };
    if edit.intent == Intent::Delete {
        return Err(unclear("it removed the record, which leaves nothing to correct: retry it as it is, or drop it"));
    }
    edit.fields.extend(corrections.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(())
}

/// Seals refused samples again, as they are.
fn samples(conn: &Connection, schema: &Schema, row: &InboxRow, (moment, nonce): (Moment, Nonce)) -> Result<Written, WriteError> {
    let log = Log::read(conn)?.ok_or(WriteError::NotJoined)?;
    let at = (row.incarnation, row.lane, row.seq);
    let gone = || unclear("what it held is not kept any more: drop it");
    let kept = outbox::entry(conn, at.0, at.1, at.2)?.ok_or_else(gone)?.entry;
    let header = Header::decode(&kept.header).ok().filter(|header| header.kind() == Some(Kind::Stream)).ok_or_else(gone)?;
    let (Payload::Present(payload), Some(origin)) = (&kept.payload, origin_of(at, &kept)) else { return Err(gone()) };
    // The samples keep the times at which they were taken: they are counted back from the moment of their sealing.
    let header = Header { nonce, provenance: Some(origin), ..header };
    let sealed = outbox::append(conn, &log, row.lane, &Entry::seal(&header, payload.clone()), moment.wall.0)?;
    let places = ((log.lane(row.incarnation, row.lane), row.seq), (log.lane(sealed.incarnation, sealed.lane), sealed.seq));
    stream::move_samples(conn, schema, payload, places)?;
    Ok(Written { entry: Some(sealed), changed: Vec::new() })
}
