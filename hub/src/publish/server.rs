//! The external server, over its HTTP API.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mobo_core::limits;
use mobo_core::time::Wall;
use mobo_gate::PusherApp;
use serde_json::{Value as Json, json};

use super::events::Event;

/// Why the server took nothing this time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Trouble {
    /// For metrics.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) detail: String,
}

/// An app on a server.
pub(super) struct Server {
    base: String,
    path: String,
    app: PusherApp,
    way: Way,
}

enum Way {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Server {
    /// The app of this id on the server at a URL.
    pub(super) fn at(url: &str, id: &str, app: PusherApp) -> Result<Self, String> {
        let base = url.trim_end_matches('/').to_owned();
        if base.contains('@') {
            // It is not repeated: it may hold a password.
            return Err(
                "publish.url holds a user or a password, which everybody can read who sees the settings: leave that out. What proves that \
                        this hub may publish belongs in publish.secret"
                    .to_owned(),
            );
        }
        let wrong = || format!("\"{url}\" is no address such as http://127.0.0.1:6001 or https://soketi.example.com");
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let is_bare = uri.host().is_some_and(|host| !host.is_empty()) && ["", "/"].contains(&uri.path()) && uri.query().is_none();
        let plain_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let way = match uri.scheme_str() {
            Some("http") if is_bare => Way::Plain(Client::builder(TokioExecutor::new()).build_http()),
            Some("https") if is_bare => {
                let mut http = HttpConnector::new();
                http.enforce_http(false);
                let tls = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
                    .map_err(|error| format!("the certificates of this machine cannot be read: {error}"))?;
                Way::Tls(Client::builder(TokioExecutor::new()).build(tls.https_only().enable_http1().wrap_connector(http)))
            }
            _ => return Err(wrong()),
        };
        if !plain_id {
            return Err(format!("\"{id}\" is no id of an app: it has letters, digits, - and _"));
        }
        Ok(Self { base, path: format!("/apps/{id}/batch_events"), app, way })
    }

    /// Its address.
    pub(super) fn shown(&self) -> &str {
        &self.base
    }

    /// Sends events; false where this server says that it will never take them.
    pub(super) async fn send(&self, batch: &[Event], now: Wall) -> Result<bool, Trouble> {
        let events: Vec<&Json> = batch.iter().map(|event| &event.body).collect();
        let body = json!({ "batch": events }).to_string();
        let query = self.app.sign_request(("POST", &self.path), body.as_bytes(), now.0.div_euclid(1_000_000));
        let request = Request::post(format!("{}{}?{query}", self.base, self.path)).header("content-type", "application/json");
        let request = request.body(Full::from(body)).map_err(|error| Trouble { reason: "request", detail: error.to_string() })?;
        let answer = match &self.way {
            Way::Plain(client) => client.request(request).await,
            Way::Tls(client) => client.request(request).await,
        };
        // The cause says what is wrong; the error itself only where.
        let away = |error: hyper_util::client::legacy::Error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Trouble { reason: "unreachable", detail: format!("{} cannot be reached: {cause}", self.base) }
        };
        let answer = answer.map_err(away)?;
        let status = answer.status();
        let text = Limited::new(answer.into_body(), limits::PUBLISH_ANSWER_BYTES_MAX).collect().await;
        let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        match status {
            status if status.is_success() => Ok(true),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                tracing::warn!(server = self.base, %status, text, "the server does not take some events; they are given up");
                Ok(false)
            }
            // A wrong secret, or a limit: somebody mends it, or it passes.
            status => Err(Trouble { reason: "refused", detail: format!("{} answers {status}: {text}", self.base) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What broke: a password in the address was taken, shown at boot and written into the log.
    #[test]
    fn an_address_is_bare() {
        let at = |url: &str| Server::at(url, "1", PusherApp::new("1", "key", "secret")).map(|server| server.shown().to_owned());
        assert_eq!(at("http://127.0.0.1:6001/"), Ok("http://127.0.0.1:6001".to_owned()));
        assert_eq!(at("https://soketi.example.com"), Ok("https://soketi.example.com".to_owned()));
        for secret in ["http://ann:s3cret@127.0.0.1:6001", "https://s3cret@soketi.example.com", "http://ann:s3cret@[::1", "ann:s3cret@host"]
        {
            let why = at(secret).unwrap_err();
            assert!(why.contains("publish.secret") && !why.contains("s3cret"), "{why}");
        }
        for bad in ["", "soketi.example.com", "ftp://soketi.example.com", "http://soketi.example.com/apps", "http://a/?b=c"] {
            assert!(at(bad).unwrap_err().contains("is no address"), "{bad}");
        }
    }
}
