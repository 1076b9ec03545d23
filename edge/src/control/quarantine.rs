//! What the hub refused, and what becomes of it: told, corrected and written again, or let go.

use mobo_adapters::sqlite::edge::{EdgeStore, InboxRow, RefusedEdit};
use mobo_core::limits;
use mobo_core::message::Code;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_runtime::control::ControlError;
use serde_json::{Value, json};

use super::{backend_error, store_error};
use crate::node::Edge;
use crate::records::refused;

/// Answers one verb about refused entries.
pub(super) async fn answer(edge: &Edge, verb: &str, args: &Value) -> Result<Value, ControlError> {
    let store = edge.store().map_err(|error| store_error(&error))?;
    let store: &EdgeStore = &store;
    let schema = edge.schema();
    if verb == "quarantine list" {
        let after = args.get("after").and_then(Value::as_u64);
        let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(limits::LIST_ROWS);
        let rows = store.inbox(after, limit).await.map_err(|error| store_error(&error))?;
        return Ok(Value::Array(rows.iter().map(|row| line(row, &schema)).collect()));
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
            let written = store.retry(n, corrections).await.map_err(|error| backend_error(&refused(error)))?;
            let sealed = written.entry.map(|entry| json!({ "lane": entry.lane.number(), "seq": entry.seq.get() }));
            Ok(json!({ "n": n, "status": "retried", "entry": sealed, "ack": "local" }))
        }
        _ => {
            store.forget_refused(n).await.map_err(|error| decided(&error))?;
            Ok(json!({ "n": n, "status": "dropped" }))
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
