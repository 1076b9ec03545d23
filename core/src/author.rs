//! Authoring: what an API call means, as operations against the record that its writer sees.
//!
//! Both nodes author through here, with the record locked, so that a plain number on a counter is the difference to what is really there.

use std::borrow::Cow;
mod samples;

use std::collections::BTreeMap;

pub use samples::segment;
use serde_json::{Map, Value as Json};

use crate::cbor::Reader;
use crate::document::{DocumentOp, edit};
use crate::ids::{DeviceId, FieldId, Incarnation, RecordId, RecordKey, StateHash, Ver};
use crate::json;
use crate::limits;
use crate::record::RecordState;
use crate::schema::{Collection, Field, FieldType};
use crate::table::{Action, TableOp, TableState};
use crate::value::Value;

/// Among the fields of an edit: the [`tag`] of the record as its author saw it. The edit is refused when the record is another by then. No
/// field has a name like it.
pub const VERSION_KEY: &str = "mobo_ver";

/// What an ETag holds: it is another one whenever anything of the record is.
#[must_use]
pub fn tag(state: &RecordState) -> String {
    tag_of(&state.state_hash())
}

/// The [`tag`] of the state of this hash.
#[must_use]
pub fn tag_of(hash: &StateHash) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    hash.0.iter().take(12).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What a caller wants done to one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The record.
    pub id: RecordId,
    /// What to do.
    pub intent: Intent,
    /// Field values by name, as the caller wrote them; empty for a delete.
    pub fields: Map<String, Json>,
}

/// How an edit treats a record that exists, or does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intent {
    /// Make it; it must not be there.
    Insert,
    /// Make it, or replace what is there.
    Put,
    /// Make it, or change the fields that are given in what is there.
    Merge,
    /// Make it; nothing happens when it is there.
    Ensure,
    /// Change some fields; nothing happens when it is not there.
    Patch,
    /// Remove it; nothing happens when it is not there.
    Delete,
}

/// Why an edit cannot be done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EditError {
    /// An insert of a record that is there.
    #[error("\"{id}\" exists already in {collection}")]
    Exists {
        /// The collection.
        collection: String,
        /// The record.
        id: RecordId,
    },
    /// A field that the collection does not have.
    #[error("{collection} has no field \"{field}\"{}", near.as_ref().map(|near| format!("; perhaps you meant \"{near}\"")).unwrap_or_default())]
    UnknownField {
        /// The collection.
        collection: String,
        /// What was written.
        field: String,
        /// A field with a similar name.
        near: Option<String>,
    },
    /// A value that its field cannot hold.
    #[error("field \"{field}\": {why}")]
    BadValue {
        /// The field.
        field: String,
        /// What is wrong, and what would do.
        why: String,
    },
    /// More than one entry takes; the sentence says to split it.
    #[error("{0}")]
    TooLarge(String),
    /// The record is another than its author saw.
    #[error("\"{id}\" of {collection} has been changed meanwhile")]
    Stale {
        /// The collection.
        collection: String,
        /// The record.
        id: RecordId,
    },
    /// No policy opens this to its author; the sentence says what was asked.
    #[error("{0}")]
    Denied(String),
    /// The engine refused.
    #[error("{0}")]
    Refused(String),
}

/// An operation of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordOp {
    /// On a row.
    Table(TableOp),
    /// On a document.
    Document(DocumentOp),
}

/// Who authors, and what that author sees.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The collection.
    pub collection: &'a Collection,
    /// The node that seals.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
    /// The version of the record that it sees; `Ver(0)` for none.
    pub base_ver: Ver,
}

/// The operation that an edit makes on a record as its writer sees it; `None` when it changes nothing.
///
/// # Errors
///
/// [`EditError`], by what the caller should change.
pub fn author(writer: &Writer<'_>, state: &RecordState, edit: &Edit) -> Result<Option<RecordOp>, EditError> {
    let visible = state.is_visible(writer.collection);
    let edit = &*expected(writer, state, edit, visible)?;
    let intent = match (edit.intent, visible) {
        (Intent::Insert, true) => {
            return Err(EditError::Exists { collection: writer.collection.name.clone(), id: edit.id.clone() });
        }
        (Intent::Patch | Intent::Delete, false) | (Intent::Ensure, true) => return Ok(None),
        (Intent::Merge, true) => Intent::Patch,
        (Intent::Merge | Intent::Ensure, false) => Intent::Insert,
        (intent, _) => intent,
    };
    let edit = if intent == edit.intent { Cow::Borrowed(edit) } else { Cow::Owned(Edit { intent, ..edit.clone() }) };
    for name in edit.fields.keys() {
        if writer.collection.field(name).is_none() {
            let near = crate::names::nearest(name, writer.collection.live_fields().map(|field| field.name.as_str()));
            let (collection, field) = (writer.collection.name.clone(), name.clone());
            return Err(EditError::UnknownField { collection, field, near: near.map(str::to_owned) });
        }
    }
    match state {
        RecordState::Table(state) => table(writer, state, &edit).map(|op| Some(RecordOp::Table(op))),
        RecordState::Document(state) => Ok(edit::author(writer, state, &edit)?.map(RecordOp::Document)),
    }
}

/// The edit without what it expects, once that is so.
fn expected<'e>(writer: &Writer<'_>, state: &RecordState, edit: &'e Edit, visible: bool) -> Result<Cow<'e, Edit>, EditError> {
    let Some(wanted) = edit.fields.get(VERSION_KEY) else { return Ok(Cow::Borrowed(edit)) };
    if !visible || wanted.as_str() != Some(&tag(state)) {
        return Err(EditError::Stale { collection: writer.collection.name.clone(), id: edit.id.clone() });
    }
    let mut edit = edit.clone();
    edit.fields.remove(VERSION_KEY);
    Ok(Cow::Owned(edit))
}

/// What an edit does, on the wire, when it makes or replaces its record; [`author`] turns a merge into a patch where the record is there.
#[must_use]
pub fn action(intent: Intent) -> Action {
    match intent {
        Intent::Insert | Intent::Put | Intent::Merge | Intent::Ensure => Action::Put,
        Intent::Patch => Action::Patch,
        Intent::Delete => Action::Delete,
    }
}

fn table(writer: &Writer<'_>, state: &TableState, edit: &Edit) -> Result<TableOp, EditError> {
    let mut op = TableOp {
        key: RecordKey { collection: writer.collection.id, id: edit.id.clone() },
        action: action(edit.intent),
        before_us: 0,
        base_ver: writer.base_ver,
        fields: BTreeMap::new(),
        deltas: BTreeMap::new(),
    };
    if op.action == Action::Delete {
        // Takes from every counter what this author saw, so that a revived row starts with what it had not seen (R9).
        for field in writer.collection.fields.iter().filter(|field| field.kind == FieldType::Counter) {
            add(&mut op.deltas, field.id, -seen(state, field.id));
        }
        return Ok(op);
    }
    for field in writer.collection.live_fields() {
        let given = edit.fields.get(&field.name);
        match (field.kind, given) {
            (FieldType::Counter, given) => {
                let delta = increment(state, field, given)?;
                add(&mut op.deltas, field.id, delta);
            }
            (kind, Some(given)) => {
                let value = json::value_from_json(given, kind).map_err(|why| bad(field, why))?;
                op.fields.insert(field.id, value.to_cbor());
            }
            // A put writes every field that its author declares (R9).
            (_, None) if op.action == Action::Put => {
                op.fields.insert(field.id, Value::Null.to_cbor());
            }
            (_, None) => {}
        }
    }
    Ok(op)
}

fn add(deltas: &mut BTreeMap<FieldId, i128>, field: FieldId, delta: i128) {
    if delta != 0 {
        deltas.insert(field, delta);
    }
}

fn seen(state: &TableState, field: FieldId) -> i128 {
    state.counters.get(&field).map_or(0, |tallies| tallies.values().fold(0, |sum, tally| sum.saturating_add(tally.sum)))
}

/// `{"$inc": n}`, or a plain number: the first increment of a new row, the difference to what is seen on a visible one (R10).
fn increment(state: &TableState, field: &Field, given: Option<&Json>) -> Result<i128, EditError> {
    let Some(given) = given else { return Ok(0) };
    match parse_counter(given).map_err(|why| bad(field, why))? {
        CounterEdit::Add(delta) => Ok(i128::from(delta)),
        CounterEdit::Set(number) if state.is_visible() => Ok(i128::from(number) - seen(state, field.id)),
        CounterEdit::Set(number) => Ok(i128::from(number)),
    }
}

/// What a caller wrote for a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CounterEdit {
    /// `{"$inc": n}`
    Add(i64),
    /// `n`; null is 0.
    Set(i64),
}

/// Reads what a caller wrote for a counter.
///
/// # Errors
///
/// A sentence that says what would do.
pub fn parse_counter(given: &Json) -> Result<CounterEdit, json::JsonError> {
    let integer = json::integer;
    let parsed = match given {
        Json::Null => Some(CounterEdit::Set(0)),
        Json::Object(object) if object.len() == 1 => object.get("$inc").and_then(integer).map(CounterEdit::Add),
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => integer(given).map(CounterEdit::Set),
    };
    parsed.ok_or_else(|| json::JsonError("a counter takes {\"$inc\": n} or an integer".to_owned()))
}

/// Who an entry of records says that it is from; `None` where it says nothing.
#[must_use]
pub fn of_payload(payload: &[u8]) -> Option<String> {
    let (mut reader, mut author) = (Reader::new(payload), None);
    let read = reader.each_key(|key, reader| match key {
        1 => {
            author = Some(reader.text()?.to_owned());
            Ok(())
        }
        _ => reader.skip(),
    });
    read.ok().and(author)
}

fn bad(field: &Field, why: json::JsonError) -> EditError {
    EditError::BadValue { field: field.name.clone(), why: why.0 }
}

/// Checks that a payload fits into one entry.
///
/// # Errors
///
/// [`EditError::TooLarge`].
pub fn check_size(payload: Vec<u8>) -> Result<Vec<u8>, EditError> {
    if payload.len() <= limits::ENTRY_PAYLOAD_BYTES_MAX {
        return Ok(payload);
    }
    let (kib, max) = (payload.len() / 1024, limits::ENTRY_PAYLOAD_BYTES_MAX / 1024);
    Err(EditError::TooLarge(format!("this write takes {kib} KiB, and one write has at most {max} KiB: split it into several")))
}
