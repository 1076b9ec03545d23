//! ETags: of one record's state, never of what a request shows of it.

use std::sync::Arc;

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use mobo_core::author::VERSION_KEY;
use mobo_core::ids::RecordId;
use mobo_core::query::{ColumnType, Condition, Filter, Op, Operand, Select};
use mobo_core::rights::Action;
use mobo_core::schema::Kind;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};

use super::Call;
use crate::problem::Problem;
use crate::timing::Stage;

/// The record that the filters name by its key, where they name one.
pub(super) fn pinned(call: &Call<'_>) -> Option<RecordId> {
    let Filter::And(parts) = &call.query.filter else { return None };
    parts.iter().find_map(|part| {
        let Filter::Is(condition) = part else { return None };
        let Op::Eq(Value::Text(id)) = &condition.op else { return None };
        let is_key = condition.operand.column.kind == ColumnType::Key && call.collection.kind != Kind::Stream;
        if is_key { RecordId::new(id.clone()).ok() } else { None }
    })
}

/// The tag of the record that the request is about, where it is about one that is there for this caller.
pub(super) async fn shown(call: &Call<'_>) -> Result<Option<String>, Problem> {
    let Some(id) = pinned(call) else { return Ok(None) };
    let Ok(granted) = call.guard.granted(&call.collection, Action::Read) else { return Ok(None) };
    let Some(tag) = call.timing.during(Stage::Db, call.gate.backend().tag(Arc::clone(&call.collection), id.clone())).await? else {
        return Ok(None);
    };
    if granted.rows.is_all() {
        return Ok(Some(tag));
    }
    // The store knows of rows that a policy hides.
    let key = Operand::from(call.key());
    let filter = Filter::Is(Condition { operand: key, op: Op::Eq(Value::Text(id.to_string())) });
    let (project, collection) = (call.gate.backend().project(), Arc::clone(&call.collection));
    let (columns, order) = (vec![call.key().into()], Vec::new());
    let select = Select { project, collection, columns, filter, order, limit: 1, offset: 0, count: false, embeds: Vec::new() };
    Ok((!call.guard.select(select).await?.rows.is_empty()).then_some(tag))
}

/// The tag as a header has it.
pub(super) fn header(tag: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// True when a list of tags names this one, or any.
pub(super) fn names(given: &HeaderValue, tag: &str) -> bool {
    let given = given.to_str().unwrap_or_default();
    given.split(',').map(str::trim).any(|each| each == "*" || each.strip_prefix("W/").unwrap_or(each).trim_matches('"') == tag)
}

/// What a write must find, where it says so: its record as it was when `If-Match` was read. The store looks again when it writes.
///
/// # Errors
///
/// 412 when the record is another by now, or is not there; 400 where the request does not name one record.
pub(super) async fn expected(call: &Call<'_>) -> Result<Option<String>, Problem> {
    let Some(given) = call.parts.headers.get(IF_MATCH) else { return Ok(None) };
    if pinned(call).is_none() {
        return Err(Problem::parse("If-Match goes with a filter that names one record").hint("add id=eq.…"));
    }
    match shown(call).await? {
        Some(tag) if names(given, &tag) => Ok(Some(tag)),
        _ => Err(Problem::stale("the record is not as If-Match says")),
    }
}

/// Whether a write must find no record, which is what `If-None-Match: *` says.
///
/// # Errors
///
/// 412 when a record is there that it names; 400 where the request does not name one record.
pub(super) async fn must_be_new(call: &Call<'_>) -> Result<bool, Problem> {
    let given: Vec<&HeaderValue> = call.parts.headers.get_all(IF_NONE_MATCH).iter().collect();
    if given.is_empty() {
        return Ok(false);
    }
    if pinned(call).is_none() {
        return Err(Problem::parse("If-None-Match goes with a filter that names one record").hint("add id=eq.…"));
    }
    if shown(call).await?.is_some_and(|tag| given.iter().any(|given| names(given, &tag))) {
        return Err(Problem::stale("the record is there, and If-None-Match says that it must not be"));
    }
    let is_any = |given: &HeaderValue| given.to_str().unwrap_or_default().split(',').any(|each| each.trim() == "*");
    Ok(given.into_iter().any(is_any))
}

/// False for a request that says what must be there.
pub(super) fn is_unconditional(headers: &HeaderMap) -> bool {
    !headers.contains_key(IF_MATCH) && !headers.contains_key(IF_NONE_MATCH)
}

/// An insert names no record in its address that a version could be of; what it means by one is not guessed.
pub(super) fn of_an_insert() -> Problem {
    Problem::parse("If-Match and If-None-Match go with GET, PUT, PATCH and DELETE of one record")
        .hint("send PUT with ?id=eq.7: with `If-None-Match: *` it only makes, with If-Match it only replaces what you have read")
}

/// Tells the store what a write must find.
pub(super) fn expect(fields: &mut Map<String, Json>, tag: Option<&String>) {
    if let Some(tag) = tag {
        fields.insert(VERSION_KEY.to_owned(), Json::from(tag.as_str()));
    }
}
