//! What the caller can read: rows as an array or as CSV, or the one row there is.

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use mobo_core::query::Page;
use serde_json::{Map, Value as Json};

use crate::csv;
use crate::problem::Problem;

/// Headers of most answers.
const HEADERS: usize = 16;

/// The shape of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Accept {
    /// Exactly one row, not in an array.
    pub(super) singular: bool,
    /// Without the members that are null.
    nulls_stripped: bool,
    /// As CSV.
    csv: bool,
}

impl Accept {
    /// The first shape of `Accept` that there is.
    ///
    /// # Errors
    ///
    /// 406 when there is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all(ACCEPT).iter().peekable();
        if given.peek().is_none() {
            return Ok(Self::default());
        }
        let texts: Vec<&str> = given.filter_map(|value| value.to_str().ok()).collect();
        texts.iter().flat_map(|text| text.split(',')).find_map(shape).ok_or_else(|| {
            let message = format!("none of these can be given here: {}", texts.join(", ").escape_default());
            Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST107", "Not acceptable", message)
                .hint("accept application/json, text/csv, or application/vnd.pgrst.object+json for one row")
        })
    }

    /// The rows as a body. `names` are those of their columns, in order.
    ///
    /// # Errors
    ///
    /// 406 when there should be one row and there are none or several.
    pub(super) fn body<'n>(self, page: Page, names: impl IntoIterator<Item = &'n str>) -> Result<Response, Problem> {
        let mut rows = page.rows;
        if self.csv {
            let mut response = Response::new(Body::from(csv::write(names, &rows)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
            return Ok(response);
        }
        if self.nulls_stripped {
            rows.iter_mut().for_each(|row| row.retain(|_, value| !value.is_null()));
        }
        if !self.singular {
            return Ok(self.json(&rows));
        }
        match <[Map<String, Json>; 1]>::try_from(rows) {
            Ok([row]) => Ok(self.json(&row)),
            Err(rows) => Err(Problem::not_singular(rows.len())),
        }
    }

    fn json(self, rows: &impl serde::Serialize) -> Response {
        // Maps of text to JSON are always JSON.
        let mut response = Response::new(Body::from(serde_json::to_vec(rows).unwrap_or_default()));
        // All that an answer ever gets: otherwise they are moved as they come, again and again.
        response.headers_mut().reserve(HEADERS);
        let name = match (self.singular, self.nulls_stripped) {
            (false, false) => "application/json; charset=utf-8",
            (true, false) => "application/vnd.pgrst.object+json; charset=utf-8",
            (false, true) => "application/vnd.pgrst.array+json; nulls=stripped; charset=utf-8",
            (true, true) => "application/vnd.pgrst.object+json; nulls=stripped; charset=utf-8",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(name));
        response
    }
}

fn shape(range: &str) -> Option<Accept> {
    let mut words = range.split(';').map(|word| word.trim().to_ascii_lowercase());
    let name = words.next().unwrap_or_default();
    let nulls_stripped = words.any(|word| word == "nulls=stripped");
    match name.as_str() {
        "*/*" | "application/*" | "application/json" => Some(Accept::default()),
        "application/vnd.pgrst.array+json" => Some(Accept { singular: false, nulls_stripped, csv: false }),
        "application/vnd.pgrst.object+json" => Some(Accept { singular: true, nulls_stripped, csv: false }),
        "text/csv" | "text/*" => Some(Accept { csv: true, ..Accept::default() }),
        _ => None,
    }
}
