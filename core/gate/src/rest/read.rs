//! GET and HEAD.

use axum::http::header::CONTENT_RANGE;
use axum::response::Response;

use super::{Call, Window, range};
use crate::problem::Problem;

pub(super) async fn read(call: &Call<'_>) -> Result<Response, Problem> {
    let (offset, limit) = range::window(&call.parts.headers, &call.query)?;
    let window = Window { columns: call.wanted(), filter: call.query.filter.clone(), limit, offset, count: call.prefer.count };
    let page = call.select(window).await?;
    let (status, content_range) = range::status(offset, page.rows.len(), page.total)?;
    let mut response = call.accept.body(page)?;
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_RANGE, content_range);
    Ok(response)
}
