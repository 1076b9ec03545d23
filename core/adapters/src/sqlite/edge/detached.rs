//! Records that are here only for own edits which the hub does not have yet (replication.md D5): their bucket was taken away from this
//! device, or somebody moved them to one that it does not hold. They go with the last of these edits, and stand in no table of the database:
//! what a record shows says which buckets it is in.

use std::collections::BTreeSet;

use mobo_core::buckets;
use mobo_core::ids::RecordKey;
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use rusqlite::Connection;

use super::bases;
use super::fault::Try;
use super::members;
use super::meta::Log;
use super::overlays;
use super::rows::Rows;

/// All of them, or as many as a list shows. Costs little where many records wait and their collections have no rules.
pub(super) fn records(conn: &Connection, schema: &Schema) -> Try<Vec<RecordKey>> {
    let Some(log) = Log::read(conn)? else { return Ok(Vec::new()) };
    let (held, mut rows, mut detached) = (held(conn)?, Rows::new(conn, log.project, schema), Vec::new());
    for collection in schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        // Whatever it shows is in a bucket that is here.
        let is_everywhere = collection.rules.is_empty() && held.contains(buckets::ALL);
        let keys = if is_everywhere { overlays::hidden_of(conn, &log, collection)? } else { overlays::records_of(conn, collection)? };
        for key in keys {
            if is_one((conn, &held), &mut rows, collection, &key)? {
                detached.push(key);
            }
            if detached.len() >= limits::LIST_ROWS as usize {
                return Ok(detached);
            }
        }
    }
    Ok(detached)
}

/// True for a record with own edits laid over it that no bucket of this device holds, and that it does not show in one either: a record that
/// was made here is on its way, not detached.
pub(super) fn is_detached(conn: &Connection, schema: &Schema, key: &RecordKey) -> Try<bool> {
    let (Some(log), Some(collection)) = (Log::read(conn)?, schema.get(key.collection)) else { return Ok(false) };
    is_one((conn, &held(conn)?), &mut Rows::new(conn, log.project, schema), collection, key)
}

/// The buckets that are here.
fn held(conn: &Connection) -> Try<BTreeSet<String>> {
    Ok(members::buckets(conn)?.into_iter().map(|bucket| bucket.grant.key).collect())
}

fn is_one((conn, held): (&Connection, &BTreeSet<String>), rows: &mut Rows<'_>, collection: &Collection, key: &RecordKey) -> Try<bool> {
    let Some((Ok(state), kept)) = rows.read(key)? else { return Ok(false) };
    if kept.home.is_some() {
        return Ok(false);
    }
    let base = bases::row(conn, key)?;
    let columns = match state.project(collection) {
        Some(columns) => Some(columns),
        // Deleted here: it is where it was.
        None => base.as_ref().map(|base| base.state(collection, key)).transpose()?.flatten().and_then(|state| state.project(collection)),
    };
    let Some(columns) = columns else { return Ok(base.is_some_and(|base| base.state_hash.is_some())) };
    Ok(!buckets::keys_in(collection, key, &columns).iter().any(|bucket| held.contains(bucket)))
}
