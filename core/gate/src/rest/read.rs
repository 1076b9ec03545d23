//! GET and HEAD.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_RANGE, ETAG, IF_NONE_MATCH, LINK};
use axum::response::{IntoResponse, Response};
use mobo_core::schema::Kind;

use super::{Call, Window, cursor, range, version};
use crate::problem::Problem;
use crate::timing::Stage;

pub(super) async fn read(call: &Call<'_>) -> Result<Response, Problem> {
    // A record's tag says nothing of those that are shown with it.
    let pinned = version::pinned(call).filter(|_| call.query.embeds.is_empty());
    let headers = &call.parts.headers;
    if pinned.is_some()
        && let Some(given) = headers.get(IF_NONE_MATCH)
        && let Some(tag) = version::shown(call).await?
        && version::names(given, &tag)
    {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, version::header(&tag))]).into_response());
    }
    let (offset, limit) = range::window(headers, &call.query)?;
    let total = cursor::total(&call.query.order, &call.key());
    // A sample has no key of its own that a cursor could name, and it names no values of other rows.
    let own_order = call.query.order.iter().all(|order| order.through.is_none());
    let has_cursor = call.collection.kind != Kind::Stream && !call.accept.singular && limit > 0 && own_order;
    let (mut columns, mut filter) = (call.wanted(), call.query.filter.clone());
    // Of one record there is no next page.
    let is_page = has_cursor && !(pinned.is_some() && limit > 1);
    let marks = is_page.then(|| cursor::Marks::ask(&mut columns, &total, &call.query.embeds));
    if let Some(after) = &call.query.after {
        if !has_cursor || offset > 0 {
            return Err(Problem::parse(
                "after: it goes with records in an order of their own columns, without an offset, and with a limit above 0",
            ));
        }
        filter = filter.and(cursor::behind(after, &total)?);
    }
    let select = call.query(Window { columns, filter, limit, offset, count: call.prefer.count });
    let (mut page, tag) = match pinned {
        Some(id) => call.guard.select_with_tag(select, id).await?,
        None => (call.guard.select(select).await?, None),
    };
    let is_full = page.rows.len() as u64 == limit;
    let last = marks.and_then(|marks| marks.take(&mut page.rows, &total, is_full));
    call.timing.enter(Stage::Response);
    let (status, content_range) = range::status(offset, page.rows.len(), page.total)?;
    let mut response = call.accept.body(page, call.names())?;
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, content_range);
    if let Some(last) = last {
        headers.extend(cursor::link(call.parts.uri.path(), call.parts.uri.query(), &last).map(|link| (LINK, link)));
    }
    headers.extend(tag.map(|tag| (ETAG, version::header(&tag))));
    Ok(response)
}
