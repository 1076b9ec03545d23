//! POST to a table or to documents.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::RecordId;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::written::Done;
use super::{Call, written};
use crate::backend::{WriteDone, WriteRequest};
use crate::prefer::{Resolution, Return};
use crate::problem::Problem;

pub(super) async fn insert(call: &Call<'_>, body: &mut Body) -> Result<Response, Problem> {
    let (_held, rows) = call.rows(body).await?;
    written::check_rows(call, rows.len())?;
    let intent = match call.prefer.resolution {
        Resolution::None => Intent::Insert,
        Resolution::Merge => Intent::Merge,
        Resolution::Ignore => Intent::Ensure,
    };
    let edits = rows.into_iter().map(|row| edit(row, intent, call.query.fields.as_deref())).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<RecordId> = edits.iter().map(|edit| edit.id.clone()).collect();
    let mut done = write(call, edits).await?;
    if intent != Intent::Ensure {
        // What the request is about is said also of rows that were like that already.
        done.changed = ids;
    }
    let rows = match call.prefer.returns {
        Return::Representation => written::rows(call, &done.changed).await?,
        Return::Minimal | Return::HeadersOnly => Vec::new(),
    };
    written::respond(call, &done, rows, (StatusCode::CREATED, StatusCode::CREATED))
}

/// Writes edits, if there are any.
pub(super) async fn write(call: &Call<'_>, edits: Vec<Edit>) -> Result<Done, Problem> {
    if edits.is_empty() {
        return Ok(Done::default());
    }
    let collection = Arc::clone(&call.collection);
    let WriteDone { changed, level } =
        call.guard.write(WriteRequest { collection, edits, author: None, patience: call.prefer.patience(), bounds: None }).await?;
    Ok(Done { changed, level: Some(level) })
}

/// A row as an edit that makes a record, with a new key where it has none.
///
/// # Errors
///
/// 400 for a key that is none.
pub(crate) fn edit(mut row: Map<String, Json>, intent: Intent, fields: Option<&[String]>) -> Result<Edit, Problem> {
    keep(&mut row, fields);
    let id = match row.remove("id") {
        Some(given) => id(&given)?,
        None => RecordId::new(Uuid::now_v7().to_string()).map_err(|bad| Problem::bad_value(bad.to_string()))?,
    };
    Ok(Edit { id, intent, fields: row })
}

/// Drops the fields that `columns=` does not name.
pub(super) fn keep(row: &mut Map<String, Json>, fields: Option<&[String]>) {
    if let Some(fields) = fields {
        row.retain(|name, _| fields.contains(name));
    }
}

/// A record's key as a caller writes it: text, or an integer for its digits.
///
/// # Errors
///
/// 400 for anything else.
pub(super) fn id(given: &Json) -> Result<RecordId, Problem> {
    let text = match given {
        Json::String(text) => text.clone(),
        Json::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Json::Null => {
            let message = "null value in column \"id\" violates not-null constraint";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "23502", "Missing value", message)
                .hint("leave id out, and one is made")
                .field("id"));
        }
        Json::Number(_) | Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
            return Err(Problem::bad_value("id: takes text, or an integer for its digits").field("id"));
        }
    };
    RecordId::new(text).map_err(|bad| Problem::bad_value(format!("id: {bad}")).field("id"))
}
