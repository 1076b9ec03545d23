//! Request bodies: read within bounds of bytes and time, and only once it is known that the caller may send one.

use std::ops::Deref;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use mobo_core::query::Column;
use mobo_core::{json, limits};
use serde_json::{Map, Value as Json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::csv;
use crate::gate::Gate;
use crate::problem::Problem;

/// A whole body. Its room is free again when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body.
///
/// # Errors
///
/// 413 over the limit, 408 when it does not arrive in time, 503 when other bodies fill the memory, 400 when it breaks off.
pub(crate) async fn read(gate: &Gate, headers: &HeaderMap, body: &mut Body) -> Result<Held, Problem> {
    read_within(gate, headers, body, gate.settings().body_bytes_max).await
}

/// Reads a body of one for whom little is kept: a form, or what somebody sends who is nobody yet.
///
/// # Errors
///
/// As [`read`], at [`limits::HTTP_SMALL_BODY_BYTES_MAX`].
pub(crate) async fn read_small(gate: &Gate, headers: &HeaderMap, body: &mut Body) -> Result<Held, Problem> {
    read_within(gate, headers, body, limits::HTTP_SMALL_BODY_BYTES_MAX.min(gate.settings().body_bytes_max)).await
}

async fn read_within(gate: &Gate, headers: &HeaderMap, body: &mut Body, bytes_max: usize) -> Result<Held, Problem> {
    if declared(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let deadline = Instant::now() + gate.settings().read_timeout;
    let (mut bytes, mut room): (_, Option<OwnedSemaphorePermit>) = (Vec::new(), None);
    while let Some(part) = next(body, deadline).await? {
        if bytes.len() + part.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        let permit = gate.hold(part.len())?;
        match &mut room {
            Some(room) => room.merge(permit),
            None => room = Some(permit),
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Held { bytes, _room: room })
}

/// Reads and drops what is left of a refused request's body, so that its sender, who may be writing still, comes to read why. A sender who
/// waits to be asked, and one who has announced a flood, is not listened to: the connection ends after the answer.
pub(crate) async fn discard(gate: &Gate, headers: &HeaderMap, body: &mut Body) {
    if headers.contains_key(EXPECT) || declared(headers).is_some_and(|bytes| bytes > limits::HTTP_DISCARD_BYTES_MAX as u64) {
        return;
    }
    let deadline = Instant::now() + gate.settings().read_timeout;
    let mut left = limits::HTTP_DISCARD_BYTES_MAX;
    while let Ok(Some(part)) = next(body, deadline).await {
        let Some(less) = left.checked_sub(part.len()) else { return };
        left = less;
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::too_large(format!("a request body has at most {bytes_max} bytes"))
        .hint("send the rows in several requests; nothing was written")
}

/// The next bytes; `None` at the end.
async fn next(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, Problem> {
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Problem::timeout()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Problem::bad_body(format!("the body breaks off: {error}"))),
            Ok(Some(Ok(frame))) => {
                if let Ok(part) = frame.into_data() {
                    return Ok(Some(part));
                }
            }
        }
    }
}

/// The rows of a request, in the order in which they were written.
pub(crate) type Rows = Vec<Map<String, Json>>;

/// How a body spells its rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spelling {
    /// One object, or an array of them.
    Json,
    /// An object on each line.
    Lines,
    /// A line of names, and a line for each row.
    Csv,
    /// One row, as a page sends it.
    Form,
}

impl Spelling {
    /// What the content type says; without one, JSON.
    ///
    /// # Errors
    ///
    /// 415 for any other, and for a compressed body.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported =
            |message: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "PGRST107", "Unsupported content type", message);
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(unsupported("a compressed body is not supported".to_owned()).hint("send it as it is, without content-encoding"));
        }
        let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(Self::Json) };
        let given = given.to_str().unwrap_or_default();
        let name = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "application/json" | "application/vnd.pgrst.object+json" | "application/vnd.pgrst.array+json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Lines),
            "text/csv" => Ok(Self::Csv),
            "application/x-www-form-urlencoded" => Ok(Self::Form),
            _ => {
                let message = format!("the content type \"{}\" is not supported", given.escape_default());
                Err(unsupported(message)
                    .hint("send `content-type: application/json`, `application/x-ndjson` or `text/csv`; curl needs -H for it"))
            }
        }
    }

    /// The rows of a body, for a table with these columns.
    ///
    /// # Errors
    ///
    /// 400 with the place where it is not what it should be; 413 for more rows than one write takes.
    pub(crate) fn rows(self, bytes: &[u8], columns: &[Column]) -> Result<Rows, Problem> {
        let values: Vec<Json> = match self {
            Self::Csv => csv::read(bytes, columns)?.into_iter().map(Json::Object).collect(),
            Self::Form => csv::read_form(bytes, columns)?.into_iter().map(Json::Object).collect(),
            Self::Json => match parse(bytes, 0)? {
                Json::Array(values) => values,
                value @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => vec![value],
            },
            Self::Lines => {
                let lines = (0..).zip(bytes.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
                // One line more than fits is enough to know.
                lines.take(limits::ROWS_PER_WRITE_MAX + 1).map(|(before, line)| parse(line, before)).collect::<Result<_, _>>()?
            }
        };
        if values.len() > limits::ROWS_PER_WRITE_MAX {
            let message = format!("one request writes at most {} rows", limits::ROWS_PER_WRITE_MAX);
            return Err(Problem::too_large(message).hint("send the rows in several requests; nothing was written"));
        }
        let object = |(n, value)| match value {
            Json::Object(row) => Ok(row),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                Err(Problem::bad_body(format!("row {n} is not an object")).hint("send {\"field\": value, …}, or an array of such objects"))
            }
        };
        (1..).zip(values).map(object).collect()
    }
}

/// `lines_before` is the number of lines in front of `bytes`.
fn parse(bytes: &[u8], lines_before: usize) -> Result<Json, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::bad_body("the body is empty").hint("send an object, or an array of objects, as JSON"));
    }
    json::read(bytes).map_err(|error| {
        let (line, column) = (lines_before + error.line(), error.column());
        let place = format!(" at line {} column {column}", error.line());
        let what = error.to_string();
        let what = what.strip_suffix(&place).unwrap_or(&what);
        Problem::bad_body(format!("the body is not JSON: {what} at line {line} column {column}"))
    })
}
