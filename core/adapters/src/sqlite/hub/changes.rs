//! Who wrote each change of a document, and when.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::cbor::Reader;
use mobo_core::document::{Actor, ChangeId};
use mobo_core::ids::{ProjectId, RecordKey};
use mobo_core::merge::{ChangeWrite, Rivals};
use mobo_core::stamp::Stamp;
use rusqlite::{Connection, OptionalExtension};

use super::write::encode;
use crate::sqlite::error::Failure;
use crate::sqlite::records::number;

/// Keeps the stamps of new changes; a stamp that stands, stands.
pub(super) fn write(connection: &Connection, project: ProjectId, changes: &[ChangeWrite]) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO mobo_change(project, collection, id, actor, seq, stamp) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    )?;
    for ChangeWrite { key, change, stamp } in changes {
        let (collection, id) = (key.collection.sql(), key.id.as_str());
        statement.execute((project.sql(), collection, id, change.actor.0, change.seq.cast_signed(), encode(stamp)))?;
    }
    Ok(())
}

/// The stamps of some changes, as far as they are known.
pub(super) fn rivals(connection: &Connection, project: ProjectId, wanted: &BTreeSet<(RecordKey, ChangeId)>) -> Result<Rivals, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT stamp FROM mobo_change WHERE project = ?1 AND collection = ?2 AND id = ?3 AND actor = ?4 AND seq = ?5")?;
    let mut found = Rivals::new();
    for (key, change) in wanted {
        let at = (project.sql(), key.collection.sql(), key.id.as_str(), change.actor.0, change.seq.cast_signed());
        let stamp: Option<Vec<u8>> = statement.query_row(at, |row| row.get(0)).optional()?;
        if let Some(stamp) = stamp {
            found.insert((key.clone(), *change), decode(&stamp)?);
        }
    }
    Ok(found)
}

/// The stamps of all changes of a record.
pub(super) fn of(connection: &Connection, project: ProjectId, key: &RecordKey) -> Result<BTreeMap<ChangeId, Stamp>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT actor, seq, stamp FROM mobo_change WHERE project = ?1 AND collection = ?2 AND id = ?3")?;
    let mut rows = statement.query((project.sql(), key.collection.sql(), key.id.as_str()))?;
    let mut changes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let change = ChangeId { actor: Actor(row.get(0)?), seq: number(row, 1)? };
        changes.insert(change, decode(&row.get::<_, Vec<u8>>(2)?)?);
    }
    Ok(changes)
}

/// A stamp that was kept.
pub(super) fn decode(stamp: &[u8]) -> Result<Stamp, Failure> {
    Ok(Stamp::decode(&mut Reader::new(stamp))?)
}
