//! Refused entries, one at a time: what is in them, and what becomes of them.

use mobo_core::document::DocumentOp;
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{Chain, FieldId, RecordKey};
use mobo_core::json::value_to_json;
use mobo_core::merge::prepare::{Content, prepare_entry};
use mobo_core::message::Code;
use mobo_core::schema::Schema;
use mobo_core::store::{QuarantinedEntry, StoreError};
use mobo_core::table::TableOp;
use mobo_core::table::extra::item_to_json;
use mobo_core::value::Value as FieldValue;
use serde_json::{Map, Value, json};

use super::Desk;
use super::ledger::message_number;
use crate::admin::{AdminError, show_time};
use crate::ingest::refused;

impl Desk {
    /// `quarantine show`, `retry` and `drop`.
    pub(super) async fn decide(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        if let Some(name) = args.get("n").and_then(Value::as_str) {
            return self.decide_message(verb, name).await;
        }
        let n = args.get("n").and_then(Value::as_u64).unwrap_or_default();
        match verb {
            "quarantine show" => self.show_refused(n).await,
            "quarantine retry" => {
                let blocks = self.0.quarantined(n).await?.blocks;
                Ok(match self.0.retry_quarantined(n).await? {
                    None => json!({ "n": n, "status": "retried", "now_try": blocks }),
                    Some(again) => json!({ "n": n, "status": "open", "code": again.code.name(), "detail": again.detail }),
                })
            }
            _ => {
                self.0.drop_quarantined(n).await?;
                Ok(json!({ "n": n, "status": "dropped" }))
            }
        }
    }

    /// The same of a message of a sensor.
    async fn decide_message(&self, verb: &str, name: &str) -> Result<Value, AdminError> {
        let (inbox, n) = (self.0.inbox()?, message_number(name).unwrap_or_default());
        let found = refused::one(&*inbox.desk, n).await?;
        let found = found.ok_or_else(|| AdminError::NoSuch { what: "quarantine", name: name.to_owned(), near: None })?;
        match verb {
            "quarantine show" => Ok(found.show()),
            "quarantine retry" => {
                let rules = mobo_runtime::ingest::rules(&self.0.config).map_err(|fault| AdminError::Usage(fault.reason))?;
                let rows = found.rows(&rules).map_err(|error| AdminError::Usage(error.to_string()))?;
                Ok(match refused::retry(&inbox, n, rows).await {
                    Ok(rows) => json!({ "n": name, "status": "retried", "rows": rows }),
                    Err(StoreError::Refused(why)) => json!({ "n": name, "status": "open", "code": "message", "detail": why }),
                    Err(error) => return Err(error.into()),
                })
            }
            _ => {
                refused::let_go(&*inbox.desk, n).await?;
                Ok(json!({ "n": name, "status": "dropped" }))
            }
        }
    }

    async fn show_refused(&self, n: u64) -> Result<Value, AdminError> {
        let (entry, schema) = (self.0.quarantined(n).await?, self.0.schema()?);
        let opened = self.0.opened()?;
        let device = opened.store.device(opened.project, entry.row.lane.device).await?;
        let row = &entry.row;
        let collection = row.record.as_ref().and_then(|(collection, _)| schema.get(*collection)).map(|found| found.name.clone());
        Ok(json!({
            "n": row.n, "status": entry.status.word(), "settled": entry.settled.map(show_time),
            "device": row.lane.device.to_string(), "name": device.map(|device| device.name),
            "incarnation": row.lane.incarnation.to_string(), "lane": row.lane.lane.number(), "seq": row.seq.get(),
            "code": Code(row.code).name(), "detail": row.detail, "collection": collection,
            "id": row.record.as_ref().map(|(_, id)| id), "at": show_time(row.at),
            "blocked_by": entry.blocked_by, "blocks": entry.blocks, "bytes": entry.payload.len(), "does": does(&entry, &schema),
        }))
    }
}

/// What an entry would do, as far as it can be read.
fn does(refused: &QuarantinedEntry, schema: &Schema) -> Value {
    let entry = Entry { header: refused.header.clone(), payload: Payload::Present(refused.payload.clone()) };
    match prepare_entry(refused.row.seq, entry, Chain([0; 32])).content {
        Content::Table(ops) => Value::Array(ops.iter().map(|op| row(op, schema)).collect()),
        Content::Document(ops) => Value::Array(ops.iter().map(|op| document(op, schema)).collect()),
        Content::Stream => json!("samples"),
        Content::Lost => json!("its payload is lost"),
        Content::Poison(refusal) => json!(format!("it cannot be read: {}", refusal.detail)),
    }
}

fn named(key: &RecordKey, action: &str, schema: &Schema) -> Map<String, Value> {
    let collection = schema.get(key.collection).map_or_else(|| key.collection.to_string(), |found| found.name.clone());
    Map::from_iter([
        ("collection".to_owned(), json!(collection)),
        ("id".to_owned(), json!(key.id.as_str())),
        (action.to_owned(), Value::Null),
    ])
}

fn row(op: &TableOp, schema: &Schema) -> Value {
    let action = mobo_core::table::Action::name(op.action);
    let collection = schema.get(op.key.collection);
    let field = |id: &FieldId| collection.and_then(|collection| collection.field_by_id(*id));
    let name = |id: &FieldId| field(id).map_or_else(|| id.to_string(), |field| field.name.clone());
    let mut fields = Map::new();
    for (id, item) in &op.fields {
        let value = FieldValue::decode(item, field(id).map(|field| field.kind));
        let shown = match (value, field(id)) {
            (Ok(FieldValue::Unknown(item)), _) => item_to_json(&item),
            (Ok(value), Some(field)) => value_to_json(&value, field.kind),
            (Ok(_), None) | (Err(_), _) => json!("not a value of its field"),
        };
        fields.insert(name(id), shown);
    }
    for (id, delta) in &op.deltas {
        fields.insert(name(id), json!({ "$inc": delta.to_string() }));
    }
    let mut shown = named(&op.key, action, schema);
    shown.insert(action.to_owned(), Value::Object(fields));
    Value::Object(shown)
}

fn document(op: &DocumentOp, schema: &Schema) -> Value {
    let action = mobo_core::table::Action::name(op.action);
    let mut shown = named(&op.key, action, schema);
    shown.insert(
        action.to_owned(),
        json!(format!("{} changes of {} bytes", op.changes.len(), op.changes.iter().map(Vec::len).sum::<usize>())),
    );
    Value::Object(shown)
}
