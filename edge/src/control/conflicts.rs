//! What merges decided about the records of this device, and what somebody here decides about that.

use mobo_adapters::sqlite::edge::EdgeStore;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::RecordKey;
use mobo_core::limits;
use mobo_core::message::Decision;
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};
use mobo_runtime::control::ControlError;
use serde_json::{Map, Value, json};

use super::records::{collection, id};
use super::{backend_error, store_error};
use crate::node::Edge;
use crate::records::refused;

/// Answers one verb about conflicts.
pub(super) async fn answer(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let store = edge.store().map_err(|error| store_error(&error))?;
    let schema = edge.schema();
    if verb == "conflict list" {
        let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(limits::LIST_ROWS);
        let found = store.decisions(None, limit).await.map_err(|error| store_error(&error))?;
        return Ok(Value::Array(found.iter().map(|decision| shown(&schema, decision)).collect()));
    }
    let collection = collection(edge, args)?;
    let key = RecordKey { collection: collection.id, id: id(args)? };
    let found = store.decisions(Some(key.clone()), limits::LIST_ROWS).await.map_err(|error| store_error(&error))?;
    if verb == "conflict show" {
        return match found.is_empty() {
            true => Err(no_conflict(&format!("{}/{}", collection.name, key.id))),
            false => Ok(Value::Array(found.iter().map(|decision| shown(&schema, decision)).collect())),
        };
    }
    resolve(&store, &collection, (key, found), args).await
}

/// Writes a field as it is to stay, knowingly: that settles what was decided about it, here at once and at the hub when it comes there.
async fn resolve(
    store: &EdgeStore,
    collection: &Collection,
    (key, found): (RecordKey, Vec<Decision>),
    args: &Value,
) -> Result<Value, ControlError> {
    let name = args.get("field").and_then(Value::as_str).unwrap_or_default();
    let field = collection.live_fields().find(|field| field.name == name);
    let field = field.ok_or_else(|| {
        let message = format!("{} has no field \"{name}\"", collection.name);
        ControlError::usage("no_such_field", message, "`mobo-edge conflict show` names the fields")
    })?;
    let found: Vec<&Decision> = found.iter().filter(|decision| decision.field == field.id.get()).collect();
    let Some(latest) = found.first() else {
        return Err(no_conflict(&format!("field \"{name}\" of {}/{}", collection.name, key.id)));
    };
    if collection.kind != Kind::Table || field.kind == FieldType::Counter {
        let message = format!("\"{}\" is a {}: a device cannot settle what was decided about it", collection.name, collection.kind.name());
        let advice = format!("on the hub: mobo-hub conflict resolve {} {} {name}", collection.name, key.id);
        return Err(ControlError::usage("at_the_hub", message, advice));
    }
    let value = match args.get("value").filter(|value| !value.is_null()) {
        Some(value) => value.clone(),
        None if args.get("loser") == Some(&json!(true)) => value_of(latest.loser.as_deref(), "lost", field)?,
        None => current(store, collection, (&key, field)).await?,
    };
    let edit = Edit { id: key.id.clone(), intent: Intent::Patch, fields: Map::from_iter([(field.name.clone(), value.clone())]) };
    let written = store.write(collection.id, vec![edit], None).await.map_err(|error| backend_error(&refused(error)))?;
    if written.changed.is_empty() {
        return Err(ControlError::usage("hidden", "the record is deleted: nothing was written", "make it again with `mobo-edge put`"));
    }
    let resolved = store.settle_decisions(key, field.id.get()).await.map_err(|error| store_error(&error))?;
    Ok(json!({ "resolved": resolved, "value": value, "ack": "local" }))
}

/// The value that readers of this device see.
async fn current(store: &EdgeStore, collection: &Collection, (key, field): (&RecordKey, &Field)) -> Result<Value, ControlError> {
    let record = store.record(key.clone()).await.map_err(|error| store_error(&error))?;
    let row = record.and_then(|record| record.state.project(collection));
    let at = collection.fields.iter().position(|one| one.id == field.id);
    let value = row.zip(at).and_then(|(row, at)| row.into_iter().nth(at));
    Ok(value.map_or(Value::Null, |value| mobo_core::json::value_to_json(&value, field.kind)))
}

fn value_of(text: Option<&str>, what: &str, field: &Field) -> Result<Value, ControlError> {
    let value = text.and_then(|text| serde_json::from_str(text).ok());
    value.ok_or_else(|| {
        let message = format!("the value of \"{}\" that {what} was too long to be told here, or was none", field.name);
        ControlError::usage("not_told", message, "write what is to stay: --value JSON")
    })
}

fn shown(schema: &Schema, decision: &Decision) -> Value {
    let collection = schema.get(decision.collection);
    let field = collection.and_then(|collection| collection.fields.iter().find(|field| field.id.get() == decision.field));
    let value = |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let kind = match decision.kind {
        1 => "concurrent",
        2 => "hidden_by_delete",
        _ => "time_uncertain",
    };
    json!({
        "collection": collection.map(|collection| &collection.name), "id": decision.id.as_str(), "field": field.map(|field| &field.name),
        "kind": kind, "winner": value(&decision.winner), "loser": value(&decision.loser),
        "winner_device": decision.winner_stamp.device.to_string(), "loser_device": decision.loser_stamp.device.to_string(),
        "at": mobo_core::rfc3339::format(decision.at.0),
    })
}

fn no_conflict(of: &str) -> ControlError {
    let message = format!("nothing is open about {of}");
    ControlError::no_such("no_such_conflict", message, "`mobo-edge conflict list` shows what is, as the hub said last")
}
