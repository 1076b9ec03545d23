//! The external server, over its HTTP API.

use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use mobo_core::limits;
use mobo_core::time::Wall;
use mobo_gate::PusherApp;
use serde_json::{Value as Json, json};

use super::events::Event;
use crate::outgoing::{Trouble, Way};

/// An app on a server.
pub(super) struct Server {
    base: String,
    path: String,
    app: PusherApp,
    way: Way,
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
        let way = Way::to(&uri)?.filter(|_| is_bare).ok_or_else(wrong)?;
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
        let (status, text) = self.way.send(request, (&self.base, limits::PUBLISH_ANSWER_BYTES_MAX)).await?;
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
