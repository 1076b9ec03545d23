//! `/livez`, `/readyz` and the front page: for probes, and for people who look.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::limits;
use serde_json::json;
use tokio::time::timeout;

use crate::backend::Readiness;
use crate::gate::Gate;

/// What this node is, and where to look.
pub(crate) async fn root(State(gate): State<Gate>) -> Response {
    let about = json!({
        "name": "mobo",
        "node": gate.backend().node().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "records": "/rest/v1/{collection}",
        "openapi": "/openapi.json",
        "health": "/readyz?verbose",
    });
    Json(about).into_response()
}

/// 200 as long as anything answers: it depends on nothing, so that nobody restarts a node because its database is away.
pub(crate) async fn live() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// 200 when the parts that requests depend on work, 503 when one does not. `?verbose` has a line for each, `?exclude=name` leaves one out.
pub(crate) async fn ready(State(gate): State<Gate>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let excluded = |name: &str| query.split('&').any(|part| part.strip_prefix("exclude=") == Some(name));
    let late = || vec![Readiness::of("node", Err("its parts did not answer in time".to_owned()))];
    let mut parts = timeout(limits::CHECK_TIMEOUT, gate.backend().readiness()).await.unwrap_or_else(|_| late());
    parts.retain(|part| !excluded(&part.name));
    let is_ready = parts.iter().all(|part| part.state.is_ok());
    let plain = |text: &str| text.replace('\n', " ");
    let shown = |part: &Readiness| match (&part.state, &part.note) {
        (Ok(()), None) => format!("[+]{} ok\n", part.name),
        (Ok(()), Some(note)) => format!("[+]{} ok, but {}\n", part.name, plain(note)),
        (Err(why), _) => format!("[-]{} failed: {}\n", part.name, plain(why)),
    };
    let lines: String = parts.iter().filter(|part| has("verbose") || part.state.is_err()).map(shown).collect();
    if is_ready {
        return text(StatusCode::OK, if has("verbose") { lines + "ready\n" } else { "ok\n".to_owned() });
    }
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, lines + "not ready\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("15"));
    response
}

fn text(status: StatusCode, body: String) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}
