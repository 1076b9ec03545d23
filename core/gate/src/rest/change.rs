//! PATCH and DELETE: first the records that the filters name, then one edit of each, all in one entry.
//!
//! A record that somebody else removes in between is passed over.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::RecordId;
use mobo_core::limits;
use serde_json::{Map, Value as Json};

use super::insert::{id, keep, write};
use super::written::Done;
use super::{Call, Window, version, written};
use crate::prefer::Return;
use crate::problem::Problem;

const STATUS: (StatusCode, StatusCode) = (StatusCode::NO_CONTENT, StatusCode::OK);

pub(super) async fn patch(call: &Call<'_>, body: &mut Body) -> Result<Response, Problem> {
    check_filtered(call, "PATCH")?;
    let (_held, rows) = call.rows(body).await?;
    let Ok([mut fields]) = <[Map<String, Json>; 1]>::try_from(rows) else {
        return Err(Problem::bad_body("PATCH takes one object: the fields to change in every row that the filters let through"));
    };
    keep(&mut fields, call.query.fields.as_deref());
    let same_id = fields.remove("id").map(|given| id(&given)).transpose()?;
    let expected = version::expected(call).await?;
    // What must not be there and was not is not changed, whoever has made it meanwhile.
    let targets = if version::must_be_new(call).await? { Vec::new() } else { targets(call).await? };
    let targets: Vec<RecordId> = targets.into_iter().map(|(id, _)| id).collect();
    if let Some(other) = targets.iter().find(|target| same_id.as_ref().is_some_and(|id| id != *target)) {
        let message = format!("the body gives another id than that of the row \"{other}\"");
        return Err(
            Problem::bad_value(message).hint("the id of a record is for ever; to move a row, insert it anew and delete the old one")
        );
    }
    let is_empty = fields.is_empty();
    version::expect(&mut fields, expected.as_ref());
    let patches = |id: RecordId| Edit { id, intent: Intent::Patch, fields: fields.clone() };
    let edits = if is_empty { Vec::new() } else { targets.iter().cloned().map(patches).collect() };
    // What the request is about is said also of rows that were like that already.
    let done = Done { changed: targets, ..write(call, edits).await? };
    let rows = match call.prefer.returns {
        Return::Representation => written::rows(call, &done.changed).await?,
        Return::Minimal | Return::HeadersOnly => Vec::new(),
    };
    written::respond(call, &done, rows, STATUS)
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Response, Problem> {
    check_filtered(call, "DELETE")?;
    let mut fields = Map::new();
    version::expect(&mut fields, version::expected(call).await?.as_ref());
    let targets = if version::must_be_new(call).await? { Vec::new() } else { targets(call).await? };
    let edits = targets.iter().map(|(id, _)| Edit { id: id.clone(), intent: Intent::Delete, fields: fields.clone() }).collect();
    let done = write(call, edits).await?;
    let changed: std::collections::BTreeSet<&RecordId> = done.changed.iter().collect();
    let rows = targets.into_iter().filter(|(id, _)| changed.contains(id)).map(|(_, row)| row).collect();
    written::respond(call, &done, rows, STATUS)
}

/// A slip of the hand must not change a whole collection.
fn check_filtered(call: &Call<'_>, method: &str) -> Result<(), Problem> {
    if !call.query.filter.is_all() || call.prefer.affected_max.is_some() {
        return Ok(());
    }
    let message = format!("{method} requires a filter");
    Err(Problem::new(StatusCode::BAD_REQUEST, "21000", "No filter", message)
        .hint("add one, such as id=eq.7; to change every row, send `Prefer: handling=strict, max-affected=N`"))
}

/// The records that the request names, each with what the caller wants to see of it.
async fn targets(call: &Call<'_>) -> Result<Vec<(RecordId, Map<String, Json>)>, Problem> {
    let most = limits::ROWS_PER_WRITE_MAX as u64;
    let (limit, offset) = (call.query.limit.unwrap_or(u64::MAX).min(most + 1), call.query.offset.unwrap_or(0));
    let window = Window { columns: written::wanted_with_key(call), filter: call.query.filter.clone(), limit, offset, count: false };
    let page = call.targets(window).await?;
    let rows = page.rows.len();
    if rows as u64 > most {
        return Err(Problem::too_large(format!("one request changes at most {most} rows")).hint("narrow the filter; nothing was written"));
    }
    if let Some(max) = call.prefer.affected_max.filter(|max| rows > *max) {
        let message = format!("the request would change {rows} rows, and max-affected is {max}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "PGRST124", "Too many rows", message).hint("nothing was written"));
    }
    written::check_rows(call, rows)?;
    Ok(page.rows.into_iter().filter_map(|mut row| Some((written::take_key(&mut row)?, row))).collect())
}
