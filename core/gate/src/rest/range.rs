//! Which rows: `limit` and `offset`, the `Range` header, and what `Content-Range` says of the answer.

use axum::http::header::RANGE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use mobo_core::limits;
use mobo_core::query::Query;

use crate::problem::Problem;

/// Rows to pass over, and rows to give at most.
///
/// # Errors
///
/// 416 for a range that ends before it begins.
pub(super) fn window(headers: &HeaderMap, query: &Query) -> Result<(u64, u64), Problem> {
    let (from, to) = header(headers)?;
    let offset = query.offset.unwrap_or(0).max(from);
    let end = query.limit.map(|limit| query.offset.unwrap_or(0).saturating_add(limit));
    let limit = [end, to].into_iter().flatten().min().map_or(limits::ROWS_MAX, |end| end.saturating_sub(offset));
    // An SQL offset is a signed number.
    Ok((offset.min(i64::MAX.unsigned_abs()), limit.min(limits::ROWS_MAX)))
}

/// `0-9` and `10-`; the end is the first row that is not wanted. A range of bytes, or in another unit, is not for us.
fn header(headers: &HeaderMap) -> Result<(u64, Option<u64>), Problem> {
    let unit = headers.get(super::RANGE_UNIT).is_none_or(|unit| unit == "items");
    let Some(text) = headers.get(RANGE).filter(|_| unit).and_then(|value| value.to_str().ok()) else { return Ok((0, None)) };
    let text = text.strip_prefix("items=").unwrap_or(text);
    let Some((from, to)) = text.split_once('-') else { return Ok((0, None)) };
    let (Ok(from), Ok(to)) = (from.parse::<u64>(), if to.is_empty() { Ok(None) } else { to.parse::<u64>().map(Some) }) else {
        return Ok((0, None));
    };
    if to.is_some_and(|to| to < from) {
        return Err(Problem::range(format!("Range: {text} ends before it begins")));
    }
    Ok((from, to.map(|to| to.saturating_add(1))))
}

/// Status and `Content-Range` of an answer with `rows` rows from `offset` on.
///
/// # Errors
///
/// 416 when it begins behind the last row that there is.
pub(super) fn status(offset: u64, rows: usize, total: Option<u64>) -> Result<(StatusCode, HeaderValue), Problem> {
    let rows = rows as u64;
    if let Some(total) = total.filter(|total| offset > *total) {
        return Err(Problem::range("the range begins behind the last row")
            .details(format!("An offset of {offset} was requested, but there are only {total} rows.")));
    }
    let status = match total {
        Some(total) if rows < total => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    };
    Ok((status, content_range(offset, rows, total)))
}

/// `0-14/20`, or with `*` for what is not there or was not asked.
pub(super) fn content_range(offset: u64, rows: u64, total: Option<u64>) -> HeaderValue {
    let part = if rows == 0 { "*".to_owned() } else { format!("{offset}-{}", offset.saturating_add(rows - 1)) };
    let total = total.map_or("*".to_owned(), |total| total.to_string());
    HeaderValue::try_from(format!("{part}/{total}")).unwrap_or_else(|_| HeaderValue::from_static("*/*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, limit: Option<u64>, offset: Option<u64>, want: Option<(u64, u64)>) {
        let mut headers = HeaderMap::new();
        if !range.is_empty() {
            headers.insert(RANGE, HeaderValue::try_from(range).unwrap());
        }
        let query = Query { limit, offset, ..Query::default() };
        assert_eq!(window(&headers, &query).ok(), want, "{range} {limit:?} {offset:?}");
    }

    #[test]
    fn windows_are_where_everything_overlaps() {
        check("", None, None, Some((0, 1_000)));
        check("", Some(5), Some(10), Some((10, 5)));
        check("", Some(0), None, Some((0, 0)));
        check("", Some(u64::MAX), Some(u64::MAX), Some((i64::MAX.unsigned_abs(), 0)));
        check("", Some(2_000), None, Some((0, 1_000)));
        check("0-9", None, None, Some((0, 10)));
        check("items=10-", None, None, Some((10, 1_000)));
        check("5-9", Some(3), Some(4), Some((5, 2)));
        check("0-18446744073709551615", None, None, Some((0, 1_000)));
        check("9-5", None, None, None);
        for foreign in ["bytes=0-5", "x", "-5", "1-x"] {
            check(foreign, None, None, Some((0, 1_000)));
        }
    }

    #[test]
    fn answers_say_which_rows_they_hold() {
        let shown = |offset, rows, total| status(offset, rows, total).map(|(status, range)| format!("{} {range:?}", status.as_u16())).ok();
        assert_eq!(shown(0, 3, None).unwrap(), "200 \"0-2/*\"");
        assert_eq!(shown(0, 3, Some(3)).unwrap(), "200 \"0-2/3\"");
        assert_eq!(shown(2, 3, Some(9)).unwrap(), "206 \"2-4/9\"");
        assert_eq!(shown(0, 0, None).unwrap(), "200 \"*/*\"");
        assert_eq!(shown(0, 0, Some(0)).unwrap(), "200 \"*/0\"");
        assert_eq!(shown(10, 0, Some(9)), None);
    }
}
