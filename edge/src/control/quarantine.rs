//! What the hub refused, and messages of sensors that no rule could take, and what becomes of them: told, corrected and written again, or
//! let go. The number of a message begins with `m`.

use mobo_adapters::sqlite::edge::{EdgeStore, InboxRow, RefusedEdit};
use mobo_core::ingest::RefusedMessage;
use mobo_core::limits;
use mobo_core::message::Code;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_runtime::control::ControlError;
use serde_json::{Value, json};

use super::{backend_error, store_error};
use crate::node::Edge;
use crate::records::refused as refused_write;

/// Answers one verb about refused entries.
pub(super) async fn answer(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let store = edge.store().map_err(|error| store_error(&error))?;
    let store: &EdgeStore = &store;
    let schema = edge.schema();
    if verb == "quarantine list" {
        let after = args.get("after").and_then(Value::as_u64);
        let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(limits::LIST_ROWS);
        let rows = store.inbox(after, limit).await.map_err(|error| store_error(&error))?;
        let mut lines: Vec<Value> = rows.iter().map(|row| line(row, &schema)).collect();
        // A page behind a number is one of entries: they are counted apart.
        let left = limit.saturating_sub(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        if after.is_none() && left > 0 {
            let messages = store.refused_messages(None, left).await.map_err(|error| store_error(&error))?;
            lines.extend(messages.iter().map(RefusedMessage::line));
        }
        return Ok(Value::Array(lines));
    }
    if let Some(n) = args.get("n").and_then(Value::as_str) {
        return message(edge, store, verb, n).await;
    }
    let n = args.get("n").and_then(Value::as_u64).unwrap_or_default();
    let row = store.refused(n).await.map_err(|error| store_error(&error))?;
    let row =
        row.ok_or_else(|| ControlError::no_such("no_such", format!("there is no refused entry {n}"), "see `mobo-edge quarantine list`"))?;
    match verb {
        "quarantine show" => Ok(show(&row, &schema)),
        "quarantine retry" => {
            let corrections = match args.get("value") {
                None | Some(Value::Null) => None,
                Some(Value::Object(fields)) => Some(fields.clone()),
                Some(_) => {
                    let message = "a correction is a JSON object of fields";
                    return Err(ControlError::usage("not_an_object", message, "write it like '{\"site\": \"plant-4\"}'"));
                }
            };
            let written = store.retry(n, corrections).await.map_err(|error| backend_error(&refused_write(error)))?;
            let sealed = written.entry.map(|entry| json!({ "lane": entry.lane.number(), "seq": entry.seq.get() }));
            Ok(json!({ "n": n, "status": "retried", "entry": sealed, "ack": "local" }))
        }
        _ => {
            store.forget_refused(n).await.map_err(|error| decided(&error))?;
            Ok(json!({ "n": n, "status": "dropped" }))
        }
    }
}

/// Answers one verb about a message.
async fn message(edge: &Edge, store: &EdgeStore, verb: &str, name: &str) -> Result<Value, ControlError> {
    let n = name.strip_prefix('m').and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    let found = store.refused_message(n).await.map_err(|error| store_error(&error))?;
    let found = found.ok_or_else(|| {
        ControlError::no_such("no_such", format!("there is no message {name} kept aside"), "see `mobo-edge quarantine list`")
    })?;
    match verb {
        "quarantine show" => Ok(found.show()),
        "quarantine retry" => {
            let hint = "correct the rules in mqtt.ingest and boot again, or drop it";
            let refused = |why: String| ControlError::usage("refused", why, hint);
            let rules = mobo_runtime::ingest::rules(&edge.config).map_err(|fault| refused(fault.reason))?;
            let rows = found.rows(&rules).map_err(|error| refused(error.to_string()))?;
            let rows = store.retry_refused_message(n, rows).await.map_err(|error| backend_error(&refused_write(error)))?;
            Ok(json!({ "n": name, "status": "retried", "rows": rows, "ack": "local" }))
        }
        _ => {
            store.drop_refused_message(n).await.map_err(|error| store_error(&error))?;
            Ok(json!({ "n": name, "status": "dropped" }))
        }
    }
}

fn decided(error: &StoreError) -> ControlError {
    if let StoreError::Refused(why) = error {
        return ControlError::usage("refused", why.clone(), "see `mobo-edge quarantine list`");
    }
    store_error(error)
}

/// What a list says of a refused entry.
fn line(row: &InboxRow, schema: &Schema) -> Value {
    let collection = row.record.as_ref().and_then(|key| schema.get(key.collection)).map(|found| found.name.clone());
    json!({
        "n": row.n, "lane": row.lane.number(), "seq": row.seq.get(), "code": Code(row.code).name(), "detail": row.detail,
        "collection": collection, "id": row.record.as_ref().map(|key| key.id.to_string()),
        "at": mobo_core::rfc3339::format(row.at_us), "blocked_by": row.blocked_by,
    })
}

fn show(row: &InboxRow, schema: &Schema) -> Value {
    let edit = |refused: &RefusedEdit| {
        let collection = schema.get(refused.collection).map_or_else(|| refused.collection.to_string(), |found| found.name.clone());
        let action = mobo_core::author::action(refused.edit.intent).name();
        json!({ "collection": collection, "id": refused.edit.id.as_str(), "does": action, "fields": refused.edit.fields })
    };
    let mut shown = line(row, schema);
    if let Value::Object(shown) = &mut shown {
        shown.insert("status".to_owned(), json!(row.status.word()));
        shown.insert("settled".to_owned(), json!(row.settled_us.map(mobo_core::rfc3339::format)));
        shown.insert("edits".to_owned(), json!(row.edits.as_ref().map(|edits| edits.iter().map(edit).collect::<Vec<_>>())));
        let next = row
            .next
            .map(|(incarnation, lane, seq)| json!({ "incarnation": incarnation.to_string(), "lane": lane.number(), "seq": seq.get() }));
        shown.insert("written_again_as".to_owned(), json!(next));
    }
    shown
}
