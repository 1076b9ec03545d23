//! What happens around every request: an id, CORS, the guard against panics, and the body of problems.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_LENGTH, HeaderName, ORIGIN, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use uuid::Uuid;

use crate::gate::Gate;
use crate::problem::Problem;
use crate::rates::{self, Standing};
use crate::timing::{SERVER_TIMING, Timing};
use crate::watch::{Ended, Watching};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const RECOVERING: HeaderName = HeaderName::from_static("mobo-recovering");
const REQUEST_ID_BYTES_MAX: usize = 128;
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, PUT, DELETE, OPTIONS");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, ETag, Link, Location, Mobo-Ack, Mobo-Recovering, Preference-Applied, \
     Proxy-Status, Range-Unit, RateLimit, RateLimit-Policy, Retry-After, Server, Server-Timing, Transfer-Encoding, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, \
     X-Request-Id",
);

/// Answers a request, whatever happens inside.
pub(crate) async fn around(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let watching = Watching::begin(gate.settings().watch.clone());
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let id = RequestId::of(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let trace = trace(request.headers());
    let from_page = request.headers().contains_key(ORIGIN);
    let (mut head, body) = request.into_parts();
    let timing = Timing::begin(&gate);
    timing.put(&mut head);
    let mut standing = None;
    let mut response = match preflight(&head) {
        Some(answer) => answer,
        None => match gate.counts().admit(&head, Instant::now()) {
            Err(over) => {
                let problem = gate.limited(&over);
                standing = Some((*over, true));
                problem.into_response()
            }
            Ok(counted) => {
                standing = counted.map(|standing| (standing, false));
                let answered = caught(heard(&gate, Request::from_parts(head, body), next)).await;
                let (answer, over) = answered.unwrap_or_else(|panic| {
                    tracing::error!(request = %id.uuid, trace, %method, path, panic, "a handler panicked");
                    (Problem::panicked().into_response(), None)
                });
                standing = over.map(|over| (over, true)).or(standing);
                answer
            }
        },
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if problem.status().is_server_error() {
            tracing::warn!(request = %id.uuid, trace, %method, path, ?problem, "a request failed");
        }
        let allow = response.headers_mut().remove(ALLOW);
        response = problem.render(&id.uuid.to_string());
        if let Some(allow) = allow {
            response.headers_mut().entry(ALLOW).or_insert(allow);
        }
        if method == Method::HEAD {
            response = without_body(response);
        }
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.shown);
    headers.extend(timing.header().map(|said| (SERVER_TIMING, said)));
    if let Some((standing, is_over)) = standing {
        standing.write(headers);
        if is_over {
            standing.retry_after(headers);
        }
    }
    if gate.backend().recovering() {
        headers.insert(RECOVERING, HeaderValue::from_static("true"));
    }
    if from_page {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    watching.end(&Ended { method: method.as_str(), route: route.as_deref().unwrap_or("none"), status: response.status().as_u16() });
    response
}

/// The answer of a handler. From where too many credentials were not good, only those that are good are heard: the others are told where
/// they stand.
async fn heard(gate: &Gate, request: Request, next: Next) -> (Response, Option<Standing>) {
    let (head, body) = request.into_parts();
    if let Some(standing) = gate.counts().suspected(&head, Instant::now())
        && !gate.is_good(&head).await
    {
        return (gate.limited(&standing).into_response(), Some(standing));
    }
    let suspect = rates::suspect(&head);
    let answer = next.run(Request::from_parts(head, body)).await;
    // Not so one that is good, and may not do this.
    if let Some(address) = suspect.filter(|_| answer.extensions().get::<Problem>().is_some_and(Problem::is_unproven)) {
        gate.counts().refused(address, Instant::now());
    }
    (answer, None)
}

/// How a request is known: by the caller's own id, and by ours where that is none that an instance can be named by.
struct RequestId {
    shown: HeaderValue,
    uuid: Uuid,
}

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).filter(|value| {
            let text = value.as_bytes();
            !text.is_empty() && text.len() <= REQUEST_ID_BYTES_MAX && text.iter().all(u8::is_ascii_graphic)
        });
        let uuid = given.and_then(|value| Uuid::try_parse_ascii(value.as_bytes()).ok()).unwrap_or_else(Uuid::now_v7);
        let ours = || HeaderValue::try_from(uuid.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { shown: given.cloned().unwrap_or_else(ours), uuid }
    }
}

/// The id of the caller's trace (W3C `traceparent`), for the log; empty where it sends none that is well-formed.
fn trace(headers: &HeaderMap) -> String {
    let text = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match parts.as_slice() {
        [version, trace, span, flags, ..]
            if is_hex(version, 2)
                && *version != "ff"
                && is_hex(trace, 32)
                && is_hex(span, 16)
                && is_hex(flags, 2)
                && trace.bytes().any(|byte| byte != b'0') =>
        {
            (*trace).to_owned()
        }
        _ => String::new(),
    }
}

/// Any page may ask, none is told anything that its visitor's cookies would open: there are no cookies. What a page may do is decided by
/// its key.
fn preflight(head: &Parts) -> Option<Response> {
    let headers = &head.headers;
    let asks = head.method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !asks {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer.insert(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    Some(response)
}

/// Keeps the length that a GET would have.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = axum::body::HttpBody::size_hint(&body).exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// The future's output, or what it said when it panicked. It is dropped then, and nothing of it is used again.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    let polled = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(words(&*panic))),
    });
    polled.await
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
