//! A client of a node's HTTP API. It keeps connections alive, and never repeats a request behind the caller's back.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A client of one node; clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    /// The header that says who asks.
    shows: Option<(&'static str, String)>,
    inner: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of `address` (`127.0.0.1:8000`), which shows `key` where there is one.
    pub(crate) fn new(address: &str, key: Option<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let inner = legacy::Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Self { base: format!("http://{address}"), shows: key.map(|key| ("apikey", key)), inner }
    }

    /// A client of another product, which shows `token`.
    pub(crate) fn with_token(address: &str, token: &str) -> Self {
        Self { shows: Some(("authorization", token.to_owned())), ..Self::new(address, None) }
    }

    /// Sends a request, with a JSON body or without one, and gives status and body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method.clone()).uri(format!("{}{path}", self.base));
        if let Some((header, value)) = &self.shows {
            request = request.header(*header, value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let answer = self.inner.request(request).await.with_context(|| format!("{method} {path} got no answer"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.with_context(|| format!("{method} {path} got half an answer"))?;
        Ok((status, body.to_bytes()))
    }

    /// Sends a write, which must succeed.
    pub(crate) async fn write(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        let (status, answer) = self.send(method.clone(), path, Some(body.to_string())).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }

    /// Reads JSON, which must be there.
    pub(crate) async fn read(&self, path: &str) -> anyhow::Result<Value> {
        let (status, answer) = self.send(Method::GET, path, None).await?;
        if !status.is_success() {
            bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}
