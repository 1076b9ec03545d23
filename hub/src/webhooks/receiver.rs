//! One address that webhooks go to.

use std::sync::Arc;

use http_body_util::Full;
use hyper::{Request, Uri};
use mobo_core::limits;
use mobo_gate::PusherApp;

use crate::outgoing::{Trouble, Way};

/// A receiver.
pub(super) struct Receiver {
    uri: Uri,
    /// The address without its path and query: people put secrets there.
    shown: String,
    app: Arc<PusherApp>,
    way: Way,
}

impl Receiver {
    /// The receiver at a URL, told of this app.
    pub(super) fn at(url: &str, app: Arc<PusherApp>) -> Result<Self, String> {
        // It is not repeated: it may hold a secret.
        let wrong = || "pusher.webhook_urls holds what is no address such as https://example.com/hooks".to_owned();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("pusher.webhook_urls holds a user or a password: leave that out. What proves a webhook is its signature".to_owned());
        }
        let way = Way::to(&uri)?.ok_or_else(wrong)?;
        let shown = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        Ok(Self { uri, shown, app, way })
    }

    /// Where it is, as everybody may read it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// It has not answered in time.
    pub(super) fn silent(&self) -> Trouble {
        Trouble { reason: "timeout", detail: format!("{} does not answer within {} s", self.shown, limits::WEBHOOK_TIMEOUT.as_secs()) }
    }

    /// Sends a webhook once. Whatever is no success is tried again, as at Pusher: somebody may mend it.
    pub(super) async fn post(&self, body: &str) -> Result<(), Trouble> {
        let request = Request::post(self.uri.clone())
            .header("content-type", "application/json")
            .header("x-pusher-key", &self.app.key)
            .header("x-pusher-signature", self.app.sign_webhook(body.as_bytes()))
            .body(Full::from(body.to_owned()));
        let request = request.map_err(|error| Trouble { reason: "request", detail: error.to_string() })?;
        let (status, _) = self.way.send(request, (&self.shown, limits::PUBLISH_ANSWER_BYTES_MAX)).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(Trouble { reason: "refused", detail: format!("{} answers {status}", self.shown) })
    }
}
