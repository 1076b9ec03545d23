//! Requests that become WebSockets (RFC 6455, section 4.2): the gate shakes hands, and somebody else speaks.

use std::future::Future;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
#[cfg(feature = "graphql")]
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ring::digest;

use crate::gate::Peer;
use crate::problem::Problem;

/// What every accepted key is hashed with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A connection that has been upgraded.
pub type Stream = TokioIo<Upgraded>;

/// A route at `path` whose requests become WebSockets. `taken` gets each connection and who is at its other end, runs beside the gate, and
/// does as it likes with it; `None` in place of it refuses, because nobody is there to take it.
pub fn websocket<F, T>(path: &str, taken: F) -> Router
where
    F: Fn() -> Option<T> + Clone + Send + Sync + 'static,
    T: Take,
{
    Router::new().route(path, get(async move |request: Request| answer(request, taken())))
}

/// Who takes upgraded connections.
pub trait Take: Send + 'static {
    /// Takes one; `peer` is who it is, for people.
    fn take(self, stream: Stream, peer: String) -> impl Future<Output = ()> + Send;
}

fn answer<T: Take>(request: Request, taken: Option<T>) -> Response {
    let peer = request.extensions().get::<Peer>().map_or_else(|| "a stranger".to_owned(), |peer| peer.0.to_string());
    if accept(request.headers()).is_some() && taken.is_none() {
        return Problem::busy("the part that takes WebSocket sessions does not run").into_response();
    }
    let switched = switch(request, async move |stream| {
        if let Some(taken) = taken {
            taken.take(stream, peer).await;
        }
    });
    switched.unwrap_or_else(|problem| problem.hint("devices come here with the address ws://host:port of this hub").into_response())
}

/// Answers a request for a WebSocket; `speak` gets the connection, and runs beside the gate.
///
/// # Errors
///
/// 426 for a request that is none.
pub(crate) fn switch<F>(request: Request, speak: impl FnOnce(Stream) -> F + Send + 'static) -> Result<Response, Problem>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(accept) = accept(request.headers()) else {
        let message = "only WebSocket sessions of version 13 are taken here";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "MB426", "Upgrade Required", message));
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => speak(TokioIo::new(stream)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// True for a request that wants a WebSocket, whether it is well-formed or not.
#[cfg(feature = "graphql")]
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    names(headers, UPGRADE, "websocket")
}

/// True if a header that is a list has that word in it.
fn names(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// A protocol that the client would speak on the WebSocket.
#[cfg(feature = "graphql")]
pub(crate) fn speaks(headers: &HeaderMap, protocol: &str) -> bool {
    names(headers, SEC_WEBSOCKET_PROTOCOL, protocol)
}

/// The answer to a client's key; `None` where it does not ask for a WebSocket.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    if !(names(headers, UPGRADE, "websocket") && names(headers, CONNECTION, "upgrade") && names(headers, SEC_WEBSOCKET_VERSION, "13")) {
        return None;
    }
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    HeaderValue::try_from(base64(hash.as_ref())).ok()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4_usize {
            let digit = (word >> (18 - 6 * place)) & 0x3f;
            let digit = DIGITS.get(digit as usize).copied().map_or('=', char::from);
            text.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_the_standard_says() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let whole = [
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        // The example of RFC 6455, section 1.3.
        assert_eq!(accept(&headers(&whole)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for missing in 0..whole.len() {
            let mut some = whole.to_vec();
            some.remove(missing);
            assert_eq!(accept(&headers(&some)), None);
        }
        assert_eq!([base64(b"f"), base64(b"fo"), base64(b"foo")], ["Zg==", "Zm8=", "Zm9v"]);
    }
}
