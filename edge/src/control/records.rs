//! Records from the command line: the same writes and reads as over HTTP.

use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::sqlite::edge::EdgeStore;
use mobo_core::author::{Edit, Intent, segment};
use mobo_core::ids::RecordId;
use mobo_core::level::{AckLevel, Patience};
use mobo_core::limits;
use mobo_core::names::nearest;
use mobo_core::query::{ColumnType, Filter, Op, Order, Select, columns};
use mobo_core::schema::{Collection, Kind};
use mobo_core::value::Value as FieldValue;
use mobo_gate::backend::BackendError;
use mobo_runtime::control::ControlError;
use serde_json::{Map, Value, json};

use super::{backend_error, store_error};
use crate::node::Edge;
use crate::records::refused;

/// Answers one verb about records.
pub(crate) async fn answer(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let collection = collection(edge, args)?;
    match verb {
        "get" => get(edge, &collection, &id(args)?).await,
        "list" => list(edge, &collection, args.get("limit").and_then(Value::as_u64).unwrap_or(limits::ROWS_MAX)).await,
        "append" => append(edge, &collection, args).await,
        "put" => edit(edge, &collection, args, Intent::Put).await,
        "patch" => edit(edge, &collection, args, Intent::Patch).await,
        _ => edit(edge, &collection, args, Intent::Delete).await,
    }
}

/// The collection that the arguments name.
pub(super) fn collection(edge: &Edge, args: &Value) -> Result<Arc<Collection>, ControlError> {
    let name = args.get("collection").and_then(Value::as_str).unwrap_or_default();
    let schema = edge.schema();
    if let Some(found) = schema.by_name(name) {
        return Ok(Arc::new(found.clone()));
    }
    let near = nearest(name, schema.iter().map(|collection| collection.name.as_str()));
    let hint = match near {
        Some(near) => format!("perhaps you meant \"{near}\""),
        None => "make it on the hub with `mobo-hub collection create`; a device learns of it when it is connected".to_owned(),
    };
    Err(ControlError::no_such("no_such_collection", format!("this device knows no collection \"{name}\""), hint))
}

/// The record's id.
pub(super) fn id(args: &Value) -> Result<RecordId, ControlError> {
    let text = args.get("id").and_then(Value::as_str).unwrap_or_default();
    RecordId::new(text).map_err(|error| ControlError::usage("bad_id", error.to_string(), "give another id"))
}

fn no_record(collection: &Collection, id: &RecordId) -> ControlError {
    let message = format!("\"{id}\" does not exist in {}", collection.name);
    ControlError::no_such("no_such_record", message, format!("`mobo-edge list {}` shows what there is", collection.name))
}

fn open(edge: &Edge) -> Result<Arc<EdgeStore>, ControlError> {
    edge.store().map_err(|error| store_error(&error))
}

async fn edit(edge: &Edge, collection: &Collection, args: &Value, intent: Intent) -> Result<Value, ControlError> {
    let store = open(edge)?;
    let id = id(args)?;
    let fields = match args.get("value") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => {
            let message = "a record is a JSON object of its fields";
            return Err(ControlError::usage("not_an_object", message, "write it like '{\"title\": \"Pump 7\"}'"));
        }
    };
    let known = store.record(mobo_core::ids::RecordKey { collection: collection.id, id: id.clone() }).await;
    let visible = known.map_err(|error| store_error(&error))?.is_some_and(|record| record.state.project(collection).is_some());
    if !visible && intent != Intent::Put {
        return Err(no_record(collection, &id));
    }
    let edits = vec![Edit { id: id.clone(), intent, fields }];
    let written = store.write(collection.id, edits, None).await;
    let written = written.map_err(|error| backend_error(&refused(error)))?;
    let ack = edge.waiting_room.level(&store, written.entry, patience(args)?).await.map_err(|error| backend_error(&error))?;
    Ok(json!({ "id": id.to_string(), "changed": !written.changed.is_empty(), "ack": ack.name() }))
}

async fn append(edge: &Edge, collection: &Collection, args: &Value) -> Result<Value, ControlError> {
    let object = |item: &Value| item.as_object().cloned();
    let samples = match args.get("value") {
        Some(Value::Array(items)) => items.iter().map(object).collect::<Option<Vec<_>>>(),
        Some(item) => object(item).map(|sample| vec![sample]),
        None => None,
    };
    let samples = samples.filter(|samples| !samples.is_empty()).ok_or_else(|| {
        let message = "a sample is a JSON object of its fields";
        ControlError::usage("not_an_object", message, "write it like '{\"celsius\": 21.5}', or an array of such objects")
    })?;
    let count = samples.len();
    let is_loose = args.get("loose") == Some(&Value::Bool(true));
    let strict = |mut sample: Map<String, Value>| {
        if is_loose {
            mobo_core::ingest::fit_values(&mut sample, collection);
        }
        sample
    };
    let samples = samples.into_iter().map(strict).collect();
    let segment = segment(samples, collection, edge.clock.wall()).map_err(|error| backend_error(&BackendError::Edit(error)))?;
    let store = open(edge)?;
    let written = store.append(segment).await.map_err(|error| backend_error(&refused(error)))?;
    let ack = edge.waiting_room.level(&store, written.entry, patience(args)?).await.map_err(|error| backend_error(&error))?;
    Ok(json!({ "appended": count, "ack": ack.name() }))
}

/// What the caller waits for: `wait`, a level, and `timeout_ms`.
fn patience(args: &Value) -> Result<Option<Patience>, ControlError> {
    let Some(word) = args.get("wait").and_then(Value::as_str) else { return Ok(None) };
    let level = word.parse::<AckLevel>().map_err(|error| ControlError::usage("level", error.to_string(), "wait for local, hub or safe"))?;
    let timeout = args.get("timeout_ms").and_then(Value::as_u64).map(Duration::from_millis);
    Ok(Some(Patience::new(level, timeout)))
}

fn everything(edge: &Edge, collection: &Collection, limit: u64) -> Result<Select, ControlError> {
    let unjoined = || backend_error(&BackendError::Refused("this device has not joined a hub yet".to_owned()));
    let order = columns(collection).first().map(|column| Order {
        operand: column.clone().into(),
        through: None,
        descending: collection.kind == Kind::Stream,
        nulls_first: false,
    });
    let all = Select::all(edge.project().ok_or_else(unjoined)?, Arc::new(collection.clone()));
    Ok(Select { order: order.into_iter().collect(), limit, ..all })
}

async fn list(edge: &Edge, collection: &Collection, limit: u64) -> Result<Value, ControlError> {
    let page = open(edge)?.select(everything(edge, collection, limit)?).await.map_err(|error| store_error(&error))?;
    Ok(Value::Array(page.rows.into_iter().map(Value::Object).collect()))
}

async fn get(edge: &Edge, collection: &Collection, id: &RecordId) -> Result<Value, ControlError> {
    if collection.kind == Kind::Stream {
        let message = format!("\"{}\" is a stream: its samples have no ids", collection.name);
        return Err(ControlError::usage("stream", message, format!("use `mobo-edge list {}`", collection.name)));
    }
    let mut select = everything(edge, collection, 1)?;
    let key = columns(collection).into_iter().find(|column| column.kind == ColumnType::Key);
    let op = Op::Eq(FieldValue::Text(id.to_string()));
    select.filter = key.map_or_else(Filter::none, |column| Filter::is(column, op));
    let page = open(edge)?.select(select).await.map_err(|error| store_error(&error))?;
    let mut row = page.rows.into_iter().next().ok_or_else(|| no_record(collection, id))?;
    let key = mobo_core::ids::RecordKey { collection: collection.id, id: id.clone() };
    if open(edge)?.record(key).await.map_err(|error| store_error(&error))?.is_some_and(|record| record.detached) {
        // Here only until the hub has decided about the edits that were made of it here.
        row.insert("_detached".to_owned(), Value::Bool(true));
    }
    Ok(Value::Object(row))
}
