//! What was done to a record by SQL, as operations.

use std::collections::BTreeMap;

use mobo_core::author::{self, Edit, Intent, RecordOp, Writer};
use mobo_core::ids::Ver;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::table::{Action, TableOp, TableState};

use crate::sqlite::edge::meta::Log;
use crate::sqlite::edge::rows::Kept;
use crate::sqlite::intake::scan::{Touched, increment, shown};
use crate::sqlite::records::StoredRecord;

/// A record as it was read, as a draft of it is made.
pub(super) fn kept(stored: StoredRecord) -> (Result<RecordState, String>, Kept) {
    let StoredRecord { state, ver, state_hash, mac, visible, home, .. } = stored;
    (state, Kept { ver, mac, state_hash, home, visible })
}

/// What was done to a record.
pub(super) enum Taken {
    /// This.
    Op(TableOp),
    /// Nothing that counts.
    Nothing,
}

/// The difference between what was and what is, as its writer meant it; the error says why it cannot be taken in.
pub(super) fn op(collection: &Collection, log: &Log, row: &Touched) -> Result<Taken, String> {
    let empty = TableState::default();
    let (state, ver) = match &row.was {
        None => (&empty, Ver(0)),
        Some(StoredRecord { state: Ok(RecordState::Table(state)), ver, .. }) => (state, *ver),
        Some(StoredRecord { state: Ok(RecordState::Document(_)), .. }) => return Err("it is a document".to_owned()),
        Some(StoredRecord { state: Err(why), .. }) => {
            return Err(format!("the record that it changes is damaged: {why}; run `mobo-edge health check`"));
        }
    };
    let Some((cells, given)) = &row.now else {
        let edit = Edit { id: row.key.id.clone(), intent: Intent::Delete, fields: serde_json::Map::new() };
        let writer = Writer { collection, device: log.device, incarnation: log.incarnation, base_ver: ver };
        let op = author::author(&writer, &RecordState::Table(state.clone()), &edit).map_err(|error| error.to_string())?;
        return Ok(match op {
            Some(RecordOp::Table(op)) => Taken::Op(op),
            Some(RecordOp::Document(_)) | None => Taken::Nothing,
        });
    };
    let is_put = row.whole || !state.is_visible();
    let seen = row.seen(*given, ver).unwrap_or(ver);
    let mut op = TableOp {
        key: row.key.clone(),
        action: if is_put { Action::Put } else { Action::Patch },
        before_us: 0,
        base_ver: seen,
        fields: BTreeMap::new(),
        deltas: BTreeMap::new(),
    };
    for (field, cell) in collection.fields.iter().zip(cells).filter(|(field, _)| !field.retired) {
        let value = cell.as_ref().map_err(|why| format!("field \"{}\" {why}", field.name))?;
        if field.kind == FieldType::Counter {
            let delta = increment(state, field.id, value);
            if delta != 0 {
                op.deltas.insert(field.id, delta);
            }
        } else if is_put || shown(state, field.id) != *value {
            op.fields.insert(field.id, value.to_cbor());
        }
    }
    Ok(if !is_put && op.fields.is_empty() && op.deltas.is_empty() { Taken::Nothing } else { Taken::Op(op) })
}

/// About the bytes of an operation in a payload, never fewer than it takes.
pub(super) fn bytes(op: &TableOp) -> usize {
    let fields: usize = op.fields.values().map(|value| value.len() + 10).sum();
    op.key.id.as_str().len() + fields + op.deltas.len() * 28 + 64
}
