//! Records from the command line: the same writes and reads as over HTTP.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::EdgeStore;
use mobo_core::author::{Edit, Intent, segment};
use mobo_core::ids::RecordId;
use mobo_core::limits;
use mobo_core::names::nearest;
use mobo_core::query::{ColumnType, Filter, FilterOp, Order, Select, SelectedColumn, columns};
use mobo_core::schema::{Collection, Kind};
use mobo_core::value::Value as FieldValue;
use mobo_gate::backend::BackendError;
use mobo_runtime::control::ControlError;
use serde_json::{Map, Value, json};

use super::{backend_error, store_error};
use crate::node::Edge;
use crate::records::refused;

/// Answers one verb about records.
pub(super) async fn answer(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let store = edge.store().map_err(|error| store_error(&error))?;
    let collection = collection(store, args)?;
    match verb {
        "get" => get(store, &collection, &id(args)?).await,
        "list" => list(store, &collection, args.get("limit").and_then(Value::as_u64).unwrap_or(limits::ROWS_MAX)).await,
        "append" => append(edge, store, &collection, args).await,
        "put" => edit(edge, store, &collection, args, Intent::Put).await,
        "patch" => edit(edge, store, &collection, args, Intent::Patch).await,
        _ => edit(edge, store, &collection, args, Intent::Delete).await,
    }
}

fn collection(store: &EdgeStore, args: &Value) -> Result<Arc<Collection>, ControlError> {
    let name = args.get("collection").and_then(Value::as_str).unwrap_or_default();
    let schema = store.schema();
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

fn id(args: &Value) -> Result<RecordId, ControlError> {
    let text = args.get("id").and_then(Value::as_str).unwrap_or_default();
    RecordId::new(text).map_err(|error| ControlError::usage("bad_id", error.to_string(), "give another id"))
}

fn no_record(collection: &Collection, id: &RecordId) -> ControlError {
    let message = format!("\"{id}\" does not exist in {}", collection.name);
    ControlError::no_such("no_such_record", message, format!("`mobo-edge list {}` shows what there is", collection.name))
}

async fn edit(edge: &Edge, store: &EdgeStore, collection: &Collection, args: &Value, intent: Intent) -> Result<Value, ControlError> {
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
    let written = store.write(collection.id, edits, None, edge.clock.moment()).await;
    let written = written.map_err(|error| backend_error(&refused(error)))?;
    Ok(json!({ "id": id.to_string(), "changed": !written.changed.is_empty(), "ack": "local" }))
}

async fn append(edge: &Edge, store: &EdgeStore, collection: &Collection, args: &Value) -> Result<Value, ControlError> {
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
    let segment = segment(samples, collection, edge.clock.wall()).map_err(|error| backend_error(&BackendError::Edit(error)))?;
    store.append(segment, edge.clock.moment()).await.map_err(|error| backend_error(&refused(error)))?;
    Ok(json!({ "appended": count, "ack": "local" }))
}

fn everything(store: &EdgeStore, collection: &Collection, limit: u64) -> Result<Select, ControlError> {
    let unjoined = || backend_error(&BackendError::Refused("this device has not joined a hub yet".to_owned()));
    let columns = columns(collection);
    let order = columns.first().map(|column| Order { column: column.clone(), descending: collection.kind == Kind::Stream, nulls_first: false });
    Ok(Select {
        project: store.project().ok_or_else(unjoined)?,
        collection: Arc::new(collection.clone()),
        columns: columns.into_iter().map(|column| SelectedColumn { alias: column.name.clone(), column }).collect(),
        filters: Vec::new(),
        order: order.into_iter().collect(),
        limit,
        offset: 0,
        count: false,
    })
}

async fn list(store: &EdgeStore, collection: &Collection, limit: u64) -> Result<Value, ControlError> {
    let page = store.select(everything(store, collection, limit)?).await.map_err(|error| store_error(&error))?;
    Ok(Value::Array(page.rows.into_iter().map(Value::Object).collect()))
}

async fn get(store: &EdgeStore, collection: &Collection, id: &RecordId) -> Result<Value, ControlError> {
    if collection.kind == Kind::Stream {
        let message = format!("\"{}\" is a stream: its samples have no ids", collection.name);
        return Err(ControlError::usage("stream", message, format!("use `mobo-edge list {}`", collection.name)));
    }
    let mut select = everything(store, collection, 1)?;
    let key = columns(collection).into_iter().find(|column| column.kind == ColumnType::Key);
    let op = FilterOp::Eq(FieldValue::Text(id.to_string()));
    select.filters = key.map(|column| Filter { column, op, negated: false }).into_iter().collect();
    let page = store.select(select).await.map_err(|error| store_error(&error))?;
    page.rows.into_iter().next().map(Value::Object).ok_or_else(|| no_record(collection, id))
}
