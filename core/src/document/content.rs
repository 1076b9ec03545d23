//! What a loaded document says: its fields as values.

use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef, Value as Found, ValueRef};
use serde_json::Value as Json;

use super::actor::Actor;
use super::genesis;
use crate::ids::{FieldId, RecordKey};
use crate::limits;
use crate::schema::{Collection, Field, FieldType};
use crate::value::{Value, canonical_json};

/// The root key of the flag of deletion; the others are decimal field ids.
pub(super) const DELETED: &str = "0";

/// An operation: its counter and its author.
pub(super) type OpId = (u64, Actor);

/// The row of a record; `None` when it is not visible: nobody has written it, or a delete hides it.
pub(super) fn row(doc: &Automerge, collection: &Collection, key: &RecordKey) -> Option<Vec<Value>> {
    let visible = is_written(doc, collection, key) && !is_deleted(doc);
    visible.then(|| collection.fields.iter().map(|field| value(doc, key, field)).collect())
}

/// True if any change but the genesis is there.
pub(super) fn is_written(doc: &Automerge, collection: &Collection, key: &RecordKey) -> bool {
    // Nothing builds on a change but another author's, and all of those are at or below a head.
    doc.get_heads().iter().any(|head| {
        let Some(meta) = doc.get_change_meta_by_hash(head) else { return true };
        let actor = Actor::from_automerge(&meta.actor);
        let declared = |field: &Field| genesis::is_container(field.kind) && actor == Some(Actor::of_genesis(key, field.id));
        if meta.seq != 1 || meta.max_op != 1 || !meta.deps.is_empty() {
            return true;
        }
        let is_genesis = collection.fields.iter().any(declared)
            || doc.get_change_by_hash(head).is_some_and(|change| genesis::field_of(key, &change).is_some());
        !is_genesis
    })
}

/// True if a delete hides the record. It wins over everything that its author had not seen, other flags included.
pub(super) fn is_deleted(doc: &Automerge) -> bool {
    at_key(doc, DELETED).iter().any(|(scalar, _)| *scalar == ScalarValue::Boolean(true))
}

/// The scalars at a root key, with their operations; the last one is what the key reads as.
pub(super) fn at_key(doc: &Automerge, key: &str) -> Vec<(ScalarValue, OpId)> {
    let all = doc.get_all(ROOT, key).unwrap_or_default();
    all.into_iter().filter_map(|(found, id)| Some((scalar(found)?, op_id(&id)?))).collect()
}

fn scalar(found: Found<'_>) -> Option<ScalarValue> {
    match found {
        Found::Scalar(scalar) => Some(scalar.into_owned()),
        Found::Object(_) => None,
    }
}

/// The identity of an operation as we compare it; `None` for the root and for a foreign actor.
pub(super) fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some((*counter, Actor::from_automerge(actor)?)),
    }
}

/// The container of a field, whether it is there or not. The genesis is its only author, whatever else stands at the key.
pub(super) fn container(key: &RecordKey, field: FieldId) -> ObjId {
    ObjId::Id(1, Actor::of_genesis(key, field).to_automerge(), 0)
}

/// The value of a field. A container that is not there yet reads as an empty one; a register of another type as null.
pub(super) fn value(doc: &Automerge, key: &RecordKey, field: &Field) -> Value {
    match field.kind {
        FieldType::Text => Value::text(&text(doc, key, field.id)).unwrap_or(Value::Null),
        FieldType::List => list(doc, key, field.id).unwrap_or(Value::Null),
        FieldType::Counter => Value::Int(counter(doc, key, field.id)),
        FieldType::Int | FieldType::Float | FieldType::Bool | FieldType::Timestamp | FieldType::Json | FieldType::Bytes => {
            let last = at_key(doc, &field.id.get().to_string()).pop();
            last.map_or(Value::Null, |(scalar, _)| register(&scalar, Some(field.kind)))
        }
    }
}

/// The characters of a text.
pub(super) fn text(doc: &Automerge, key: &RecordKey, field: FieldId) -> String {
    let object = container(key, field);
    match doc.object_type(&object) {
        Ok(ObjType::Text) => doc.text(&object).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The elements of a list.
pub(super) fn elements(doc: &Automerge, key: &RecordKey, field: FieldId) -> Vec<ScalarValue> {
    let object = container(key, field);
    match doc.object_type(&object) {
        Ok(ObjType::List) => doc.list_range(&object, ..).filter_map(|item| element(&item.value)).collect(),
        _ => Vec::new(),
    }
}

fn list(doc: &Automerge, key: &RecordKey, field: FieldId) -> Option<Value> {
    let elements = elements(doc, key, field);
    let items: Vec<Json> = elements.iter().map(element_json).collect();
    if items.len() > limits::LIST_LEN_MAX { None } else { Value::json(&Json::Array(items).to_string()) }
}

/// The sum of a counter.
pub(super) fn counter(doc: &Automerge, key: &RecordKey, field: FieldId) -> i64 {
    let own = (1, Actor::of_genesis(key, field));
    let all = at_key(doc, &field.get().to_string());
    all.iter().find(|(_, id)| *id == own).and_then(|(scalar, _)| scalar.as_i64()).unwrap_or(0)
}

/// The value that a register holds for a field of type `kind`, null where it is of another type; without a type, the value that it most
/// plainly is. A timestamp is an Int, JSON the Bytes of its canonical text; Timestamp and Str are kept for types to come.
pub(super) fn register(scalar: &ScalarValue, kind: Option<FieldType>) -> Value {
    let is = |wanted| kind.is_none_or(|kind| kind == wanted);
    let value = match scalar {
        ScalarValue::Boolean(value) if is(FieldType::Bool) => Some(Value::Bool(*value)),
        ScalarValue::Int(us) if kind == Some(FieldType::Timestamp) => Value::timestamp(*us),
        ScalarValue::Int(number) if is(FieldType::Int) => Some(Value::Int(*number)),
        ScalarValue::F64(number) if is(FieldType::Float) => Value::float(*number),
        ScalarValue::Bytes(bytes) if kind == Some(FieldType::Json) => json(bytes),
        ScalarValue::Bytes(bytes) if is(FieldType::Bytes) => Value::bytes(bytes),
        ScalarValue::Timestamp(us) if kind.is_none() => Value::timestamp(*us),
        ScalarValue::Str(text) if kind.is_none() => Value::text(text),
        ScalarValue::Boolean(_)
        | ScalarValue::Int(_)
        | ScalarValue::F64(_)
        | ScalarValue::Timestamp(_)
        | ScalarValue::Bytes(_)
        | ScalarValue::Str(_)
        | ScalarValue::Null
        | ScalarValue::Uint(_)
        | ScalarValue::Counter(_)
        | ScalarValue::Unknown { .. } => None,
    };
    value.unwrap_or(Value::Null)
}

fn json(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    canonical_json(text).filter(|canonical| canonical == text).map(Value::Json)
}

/// The register that holds a value; `None` for the value of a container.
pub(super) fn from_register(value: Value, kind: FieldType) -> Option<ScalarValue> {
    match (kind, value) {
        (FieldType::Text | FieldType::List | FieldType::Counter, _) => None,
        (_, Value::Null) => Some(ScalarValue::Null),
        (_, Value::Bool(value)) => Some(ScalarValue::Boolean(value)),
        (_, Value::Int(number) | Value::Timestamp(number)) => Some(ScalarValue::Int(number)),
        (_, Value::Float(number)) => Some(ScalarValue::F64(number)),
        (_, Value::Bytes(bytes)) => Some(ScalarValue::Bytes(bytes)),
        (_, Value::Json(text)) => Some(ScalarValue::Bytes(text.into_bytes())),
        (_, Value::Text(_) | Value::Unknown(_)) => None,
    }
}

/// True for what a register may hold: what has one encoding and a place in SQL (rule R13).
pub(super) fn is_register(scalar: &ScalarValue) -> bool {
    match scalar {
        ScalarValue::Null | ScalarValue::Boolean(_) | ScalarValue::Int(_) => true,
        ScalarValue::F64(number) => is_plain(*number),
        ScalarValue::Timestamp(us) => Value::timestamp(*us).is_some(),
        ScalarValue::Bytes(bytes) => Value::bytes(bytes).is_some(),
        ScalarValue::Str(text) => Value::text(text).is_some(),
        ScalarValue::Counter(_) | ScalarValue::Uint(_) | ScalarValue::Unknown { .. } => false,
    }
}

/// True for what a list may hold: JSON scalars, and arrays and objects as one opaque value each, the bytes of their canonical text.
pub(super) fn is_element(scalar: &ScalarValue) -> bool {
    match scalar {
        ScalarValue::Null | ScalarValue::Boolean(_) | ScalarValue::Int(_) => true,
        ScalarValue::F64(number) => is_plain(*number),
        ScalarValue::Str(text) => Value::text(text).is_some(),
        ScalarValue::Bytes(bytes) => nested(bytes).is_some(),
        ScalarValue::Counter(_) | ScalarValue::Uint(_) | ScalarValue::Timestamp(_) | ScalarValue::Unknown { .. } => false,
    }
}

fn is_plain(number: f64) -> bool {
    number.is_finite() && number.to_bits() != f64::to_bits(-0.0)
}

fn nested(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_nested = text.starts_with(['[', '{']) && canonical_json(text)?.as_str() == text;
    is_nested.then_some(text)
}

fn element(value: &ValueRef<'_>) -> Option<ScalarValue> {
    match value {
        ValueRef::Object(_) => None,
        ValueRef::Scalar(scalar) => Some(match scalar {
            ScalarValueRef::Null => ScalarValue::Null,
            ScalarValueRef::Boolean(value) => ScalarValue::Boolean(*value),
            ScalarValueRef::Int(number) => ScalarValue::Int(*number),
            ScalarValueRef::F64(number) => ScalarValue::F64(*number),
            ScalarValueRef::Str(text) => ScalarValue::Str(text.as_ref().into()),
            ScalarValueRef::Bytes(bytes) => ScalarValue::Bytes(bytes.to_vec()),
            ScalarValueRef::Uint(_) | ScalarValueRef::Counter(_) | ScalarValueRef::Timestamp(_) | ScalarValueRef::Unknown { .. } => {
                return None;
            }
        }),
    }
}

fn element_json(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Boolean(value) => Json::Bool(*value),
        ScalarValue::Int(number) => Json::from(*number),
        ScalarValue::F64(number) => Json::from(*number),
        ScalarValue::Str(text) => Json::from(text.as_str()),
        ScalarValue::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or(Json::Null),
        ScalarValue::Null | ScalarValue::Uint(_) | ScalarValue::Counter(_) | ScalarValue::Timestamp(_) | ScalarValue::Unknown { .. } => {
            Json::Null
        }
    }
}

/// The element that stands for an item of a JSON array; `None` for what no list may hold.
pub(super) fn from_item(item: &Json) -> Option<ScalarValue> {
    let scalar = match item {
        Json::Null => ScalarValue::Null,
        Json::Bool(value) => ScalarValue::Boolean(*value),
        Json::Number(number) => {
            crate::json::integer(item).map_or_else(|| number.as_f64().map(ScalarValue::F64), |n| Some(ScalarValue::Int(n)))?
        }
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Array(_) | Json::Object(_) => ScalarValue::Bytes(canonical_json(&item.to_string())?.into_bytes()),
    };
    is_element(&scalar).then_some(scalar)
}
