//! The gate as its callers see it, over a small store in memory that authors and merges with the real core.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod access;
mod bad_input;
mod grammar;
#[cfg(feature = "graphql")]
mod graphql;
#[cfg(feature = "graphql")]
mod graphql_socket;
mod memory;
mod node;
mod records;
mod rooms;
mod rules;
mod samples;
mod socket;
mod watching;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use mobo_gate::{Gate, NodeKind, Peer, Settings};
use serde_json::Value as Json;

use memory::Memory;

/// Names and values of headers.
type Headers<'h> = &'h [(&'h str, &'h str)];
/// Status, code and some words of a problem.
type Wrong<'w> = (u16, &'w str, &'w str);

/// A gate over an empty store, and the store.
struct World {
    gate: Gate,
    memory: Arc<Memory>,
}

impl World {
    fn new(node: NodeKind) -> Self {
        Self::with(node, Settings::default())
    }

    fn with(node: NodeKind, settings: Settings) -> Self {
        let memory = Arc::new(Memory::new(node));
        Self { gate: Gate::new(Arc::clone(&memory) as _, settings), memory }
    }

    /// Sends a request such as `GET /rest/v1/work_orders` from this machine.
    async fn ask(&self, line: &str, headers: Headers<'_>, body: impl Into<Body>) -> Answer {
        self.ask_from("127.0.0.1:50000", line, headers, body).await
    }

    async fn ask_from(&self, peer: &str, line: &str, headers: Headers<'_>, body: impl Into<Body>) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri).extension(Peer(peer.parse::<SocketAddr>().unwrap()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = TowerToHyperService::new(self.gate.router()).call(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Answer { status: parts.status.as_u16(), headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// Sends JSON and expects a status.
    #[track_caller]
    fn send(&self, line: &str, body: Json, status: u16) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        async move {
            let answer = self.ask(line, &[("content-type", "application/json")], body.to_string()).await;
            assert_eq!(answer.status, status, "{place}: {line} {body}: {}", answer.text);
            answer
        }
    }

    /// The rows at a path.
    async fn rows(&self, path: &str) -> Json {
        let answer = self.ask(&format!("GET {path}"), &[], "").await;
        assert!(matches!(answer.status, 200 | 206), "{path}: {}", answer.text);
        answer.json()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks status, code and some words of a problem, and that it is a whole one.
    #[track_caller]
    fn is_problem(&self, name: &str, status: u16, code: &str, words: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{name}: {}", self.text);
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["status"]), (&Json::from(code), &Json::from(status)), "{name}: {}", self.text);
        assert!(self.text.contains(words), "{name}: no \"{words}\" in {}", self.text);
        assert!(problem["instance"].as_str().unwrap().starts_with("urn:uuid:"), "{name}: {}", self.text);
        for member in ["type", "title", "detail", "message", "hint"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{name}: no {member} in {}", self.text);
        }
        assert!(problem.get("details").is_some(), "{name}: {}", self.text);
        assert_eq!(self.header("proxy-status"), format!("mobo; error={code}"), "{name}");
        assert_ne!(self.header("x-request-id"), "", "{name}");
    }
}
