//! Requests to servers of others, over HTTP with or without TLS. Nothing is followed to another address.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Why a server took nothing this time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Trouble {
    /// For metrics.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) detail: String,
}

/// The way to a server.
pub(crate) enum Way {
    /// As it is.
    Plain(Client<HttpConnector, Full<Bytes>>),
    /// With TLS, to servers that this machine trusts.
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Way {
    /// The way to an address; `None` where its scheme is neither http nor https.
    ///
    /// # Errors
    ///
    /// A sentence where the certificates of this machine cannot be read.
    pub(crate) fn to(uri: &Uri) -> Result<Option<Self>, String> {
        match uri.scheme_str() {
            Some("http") => Ok(Some(Self::Plain(Client::builder(TokioExecutor::new()).build_http()))),
            Some("https") => {
                let mut http = HttpConnector::new();
                http.enforce_http(false);
                let tls = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
                    .map_err(|error| format!("the certificates of this machine cannot be read: {error}"))?;
                Ok(Some(Self::Tls(Client::builder(TokioExecutor::new()).build(tls.https_only().enable_http1().wrap_connector(http)))))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Sends a request to the server that people know by this name; gives the status of the answer, and at most so many bytes of it as text.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        (shown, answer_bytes_max): (&str, usize),
    ) -> Result<(StatusCode, String), Trouble> {
        let answer = match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        };
        // The cause says what is wrong; the error itself only where.
        let answer = answer.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Trouble { reason: "unreachable", detail: format!("{shown} cannot be reached: {cause}") }
        })?;
        let status = answer.status();
        let text = Limited::new(answer.into_body(), answer_bytes_max).collect().await;
        Ok((status, text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default()))
    }
}
