//! POST to a stream.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_RANGE;
use axum::response::{IntoResponse, Response};
use mobo_core::author::segment;

use super::insert::keep;
use super::{Call, range, written};
use crate::prefer::Return;
use crate::problem::Problem;

pub(super) async fn append(call: &Call<'_>, body: &mut Body) -> Result<Response, Problem> {
    if call.prefer.returns == Return::Representation {
        return Err(Problem::unsupported("return=representation for samples").hint("nothing was written; send return=minimal"));
    }
    let (_held, mut rows) = call.rows(body).await?;
    rows.iter_mut().for_each(|row| keep(row, call.query.fields.as_deref()));
    let count = rows.len() as u64;
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, range::content_range(0, 0, call.prefer.count.then_some(count)));
    if count > 0 {
        let segment = segment(rows, &call.collection, call.gate.backend().now()).map_err(Problem::from)?;
        let level = call.guard.append(Arc::clone(&call.collection), segment, call.prefer.patience()).await?;
        headers.extend(written::ack(Some(level)));
    }
    Ok(response)
}
