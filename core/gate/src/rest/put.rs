//! PUT: the one record that the address names, made or replaced as a whole.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use mobo_core::author::{Edit, Intent};
use mobo_core::query::Filter;
use serde_json::{Map, Value as Json};

use super::insert::{id, keep, write};
use super::written::Done;
use super::{Call, version, written};
use crate::prefer::Return;
use crate::problem::Problem;

pub(super) async fn put(call: &Call<'_>, body: &mut Body) -> Result<Response, Problem> {
    let alone = matches!(&call.query.filter, Filter::And(parts) if parts.len() == 1);
    let bounded = call.query.limit.is_some() || call.query.offset.is_some() || call.query.after.is_some();
    let (Some(named), true, false) = (version::pinned(call), alone, bounded) else {
        let message = "filters of PUT must be its key and nothing else";
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST105", "Not one key", message).hint("write ?id=eq.7"));
    };
    let (_held, rows) = call.rows(body).await?;
    let Ok([mut fields]) = <[Map<String, Json>; 1]>::try_from(rows) else {
        return Err(Problem::bad_body("PUT takes one object: the whole record"));
    };
    keep(&mut fields, call.query.fields.as_deref());
    if fields.remove("id").map(|given| id(&given)).transpose()?.is_some_and(|given| given != named) {
        return Err(Problem::bad_body("the body gives another id than the address"));
    }
    let was_there = version::shown(call).await?.is_some();
    let expected = version::expected(call).await?;
    version::expect(&mut fields, expected.as_ref());
    let is_new = version::must_be_new(call).await?;
    let intent = if is_new { Intent::Insert } else { Intent::Put };
    let written = write(call, vec![Edit { id: named.clone(), intent, fields }]).await;
    let written = written.map_err(|problem| match problem.code() {
        // Somebody was quicker, or a policy hides it.
        "23505" if is_new => Problem::stale("the record is there, and If-None-Match says that it must not be"),
        _ => problem,
    });
    let done = Done { changed: vec![named], ..written? };
    let rows = match call.prefer.returns {
        Return::Representation => written::rows(call, &done.changed).await?,
        Return::Minimal | Return::HeadersOnly => Vec::new(),
    };
    let status = if was_there { (StatusCode::NO_CONTENT, StatusCode::OK) } else { (StatusCode::CREATED, StatusCode::CREATED) };
    written::respond(call, &done, rows, status)
}
