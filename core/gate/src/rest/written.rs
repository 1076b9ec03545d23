//! The answer to a write: nothing, where the row is, or the rows.

use std::collections::BTreeMap;

use axum::http::header::{CONTENT_RANGE, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::ids::RecordId;
use mobo_core::limits;
use mobo_core::query::{Filter, Op, Page, SelectedColumn};
use mobo_core::value::Value;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json};

use super::{Call, Window, range};
use crate::backend::AckLevel;
use crate::prefer::Return;
use crate::problem::Problem;
use crate::timing::Stage;

/// Says how safe a write is.
pub(super) const MOBO_ACK: HeaderName = HeaderName::from_static("mobo-ack");
/// Under which the key of a row is asked for besides what the caller wants; no alias of a caller is like it.
const KEY_ALIAS: &str = "mobo_key";

/// What became of a write.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The records that the answer is about.
    pub(super) changed: Vec<RecordId>,
    /// How safe it is; `None` when there was nothing to write.
    pub(super) level: Option<AckLevel>,
}

/// The columns that the caller wants to see, and the key.
pub(super) fn wanted_with_key(call: &Call<'_>) -> Vec<SelectedColumn> {
    let mut columns = if call.prefer.returns == Return::Representation { call.wanted() } else { Vec::new() };
    columns.push(SelectedColumn { alias: KEY_ALIAS.to_owned(), ..call.key().into() });
    columns
}

/// Takes the key out of a row that was asked for by [`wanted_with_key`].
pub(super) fn take_key(row: &mut Map<String, Json>) -> Option<RecordId> {
    match row.remove(KEY_ALIAS) {
        Some(Json::String(id)) => RecordId::new(id).ok(),
        _ => None,
    }
}

/// Refuses, before anything is written, an answer that would not be of the shape that the caller takes.
///
/// # Errors
///
/// 406 when the caller takes one row only; 413 when an answer cannot hold so many.
pub(super) fn check_rows(call: &Call<'_>, rows: usize) -> Result<(), Problem> {
    if call.prefer.returns != Return::Representation {
        return Ok(());
    }
    if call.accept.singular && rows != 1 {
        return Err(Problem::not_singular(rows));
    }
    if rows as u64 > limits::ROWS_MAX {
        let message = format!("an answer holds at most {} rows, and this one would hold {rows}", limits::ROWS_MAX);
        return Err(Problem::too_large(message).hint("ask for `Prefer: return=minimal`, or write fewer rows; nothing was written"));
    }
    Ok(())
}

/// The rows of these records as they are now, in this order; those that are gone already are left out.
pub(super) async fn rows(call: &Call<'_>, ids: &[RecordId]) -> Result<Vec<Map<String, Json>>, Problem> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let values = ids.iter().map(|id| Value::Text(id.as_str().to_owned())).collect();
    let filter = Filter::is(call.key(), Op::In(values));
    let window = Window { columns: wanted_with_key(call), filter, limit: ids.len() as u64, offset: 0, count: false };
    let page = call.select(window).await?;
    let mut by_key: BTreeMap<RecordId, Map<String, Json>> = BTreeMap::new();
    for mut row in page.rows {
        if let Some(id) = take_key(&mut row) {
            by_key.insert(id, row);
        }
    }
    Ok(ids.iter().filter_map(|id| by_key.remove(id)).collect())
}

/// The answer with these rows, or without any where the caller does not want them. `bare` is the status of an answer without a body, and
/// `full` of one with the rows.
pub(super) fn respond(
    call: &Call<'_>,
    done: &Done,
    rows: Vec<Map<String, Json>>,
    (bare, full): (StatusCode, StatusCode),
) -> Result<Response, Problem> {
    call.timing.enter(Stage::Response);
    let mut response = match call.prefer.returns {
        Return::Minimal | Return::HeadersOnly => bare.into_response(),
        Return::Representation => {
            let mut response = call.accept.body(Page { rows, total: None }, call.names())?;
            *response.status_mut() = full;
            response
        }
    };
    let changed = done.changed.len() as u64;
    let shown = if full == StatusCode::CREATED { 0 } else { changed };
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, range::content_range(0, shown, call.prefer.count.then_some(changed)));
    headers.extend(ack(done.level));
    if let (Return::HeadersOnly, StatusCode::CREATED, [id]) = (call.prefer.returns, full, done.changed.as_slice()) {
        headers.extend(location(call, id));
    }
    Ok(response)
}

/// The header that says how safe a write is.
pub(super) fn ack(level: Option<AckLevel>) -> Option<(HeaderName, HeaderValue)> {
    level.map(|level| (MOBO_ACK, HeaderValue::from_static(level.name())))
}

fn location(call: &Call<'_>, id: &RecordId) -> Option<(HeaderName, HeaderValue)> {
    let id = utf8_percent_encode(id.as_str(), NON_ALPHANUMERIC);
    let value = HeaderValue::try_from(format!("/rest/v1/{}?id=eq.{id}", call.collection.name)).ok()?;
    Some((LOCATION, value))
}
