//! Event streams (the `EventSource` of browsers) on a collection's own address: `GET /rest/v1/todos?status=eq.open` with
//! `Accept: text/event-stream`.
//!
//! A filter makes a live query: a row that comes to fit it is an `insert`, one that does not fit it any more is a `delete`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use mobo_core::limits;
use mobo_core::live::{LiveChange, LivePoint, LiveRow};
use mobo_core::query::Filter;
use mobo_core::rfc3339;
use mobo_core::schema::Collection;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::body::flow;
use super::feed::{Lost, Subscription};
use super::viewer::{View, Viewer};
use super::wanted::Wanted;
use super::{Place, Recheck};
use crate::gate::Gate;
use crate::problem::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// True for a request that wants events.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    wanted.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|name| name.eq_ignore_ascii_case("text/event-stream"))
}

/// Answers with the changes of a collection that fit, from `Last-Event-ID` on, or from now on.
pub(crate) async fn answer(
    gate: &Gate,
    parts: &Parts,
    (collection, filter, select): (Arc<Collection>, Filter, Option<Vec<String>>),
) -> Result<Response, Problem> {
    let place = gate.place_for_subscriber(parts)?;
    let viewer = Viewer::of(gate.clone(), parts);
    let recheck = Recheck::begin(gate);
    let view = View::of(&viewer.guard().await?, &collection, &filter)?;
    let from = match parts.headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
        None => None,
        Some(Ok("")) => None,
        Some(text) => Some(text.ok().and_then(|text| text.parse::<LivePoint>().ok()).unwrap_or(LivePoint { log: 0, n: 0 })),
    };
    let (subscription, resumed) = gate.feed().subscribe(&[collection.id], from).await?;
    let wanted = Wanted { collection, filter, select, view };
    let (writer, body) = flow();
    let stream = Stream { gate: gate.clone(), viewer, recheck, wanted, subscription, writer, _place: place };
    tokio::spawn(stream.run(!resumed));
    let mut response = Response::new(if parts.method == axum::http::Method::HEAD { Body::empty() } else { body });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

struct Stream {
    gate: Gate,
    viewer: Viewer,
    recheck: Recheck,
    wanted: Wanted,
    subscription: Subscription,
    writer: mpsc::Sender<Bytes>,
    _place: Place,
}

/// The reader has gone.
struct Gone;

impl Stream {
    async fn run(mut self, is_lost: bool) {
        // However it ends, the body ends with it.
        let _ = self.speak(is_lost).await;
    }

    async fn speak(&mut self, is_lost: bool) -> Result<(), Gone> {
        let opening = format!("retry: {}\nid: {}\n\n", limits::SSE_RETRY.as_millis(), self.subscription.at());
        self.write(opening).await?;
        if is_lost {
            self.resync(Lost::Expired).await?;
        }
        let mut spoke = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.writer.closed() => return Err(Gone),
                () = self.gate.closed() => return Ok(()),
                () = self.recheck.due() => {
                    self.recheck.take();
                    match self.viewer.guard().await.and_then(|guard| self.wanted.ask_again(&guard)) {
                        Ok(()) => {}
                        Err(problem) if problem.status().is_server_error() => {}
                        Err(problem) => return self.write(refused(&problem)).await,
                    }
                }
                () = sleep_until(spoke + limits::SSE_HEARTBEAT) => {
                    // Nobody is told of an event without data, but its id counts.
                    self.write(format!(":\nid: {}\n\n", self.subscription.at())).await?;
                    spoke = Instant::now();
                }
                changes = self.subscription.next() => match changes {
                    Ok(changes) => {
                        let log = self.subscription.at().log;
                        let text: String = changes.iter().filter_map(|change| self.event(log, change)).collect();
                        if !text.is_empty() {
                            self.write(text).await?;
                            spoke = Instant::now();
                        }
                    }
                    Err(lost) => {
                        self.subscription.restart();
                        self.resync(lost).await?;
                        if lost == Lost::Slow {
                            return Ok(());
                        }
                    }
                },
            }
        }
    }

    async fn write(&self, text: String) -> Result<(), Gone> {
        self.writer.send(Bytes::from(text)).await.map_err(|_| Gone)
    }

    async fn resync(&self, lost: Lost) -> Result<(), Gone> {
        let data = json!({ "reason": lost.word() });
        self.write(format!("id: {}\nevent: resync\ndata: {data}\n\n", self.subscription.at())).await
    }

    /// The event of a change; nothing where it is not for this reader.
    fn event(&self, log: u64, change: &LiveChange) -> Option<String> {
        let seen = self.wanted.seen(change)?;
        let at = rfc3339::format(change.at.0);
        let (record, old) = (seen.new.as_deref(), seen.old.as_deref());
        let event = Event { collection: &self.wanted.collection.name, at: &at, record, old };
        let point = LivePoint { log, n: change.n };
        // It is made of strings and JSON, which can always be spelled.
        let data = serde_json::to_string(&event).ok()?;
        Some(format!("id: {point}\nevent: {}\ndata: {data}\n\n", seen.kind.name()))
    }
}

/// What an event says.
#[derive(Serialize)]
struct Event<'c> {
    collection: &'c str,
    at: &'c str,
    record: Option<&'c LiveRow>,
    old: Option<&'c LiveRow>,
}

fn refused(problem: &Problem) -> String {
    format!("event: refused\ndata: {}\n\n", json!({ "code": problem.code(), "message": problem.message() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_by_their_type() {
        for (accept, want) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.9", true),
            ("*/*", false),
            ("text/*", false),
            ("text/event-streams", false),
        ] {
            assert_eq!(is_asked(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])), want, "{accept}");
        }
    }
}
