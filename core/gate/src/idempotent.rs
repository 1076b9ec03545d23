//! `Idempotency-Key`: the same write twice is done once, and answered twice.
//!
//! A key is its caller's, and the write that it names ends whether the caller waits for it or not. Answers are kept for
//! [`limits::IDEMPOTENCY_TTL`], within bounds of number and size, until the node ends: a write whose records have ids of their writer is safe to
//! repeat even then.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use mobo_core::limits;
use ring::digest::{Context, SHA256};
use tokio::time::Instant;

use crate::backend::Principal;
use crate::gate::Peer;
use crate::problem::Problem;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

type Hash = [u8; 32];

/// A key as its owner has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name(Hash);

/// What is known of writes that carry a key.
#[derive(Debug, Default)]
pub(crate) struct Writes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    known: BTreeMap<Hash, Known>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    print: Hash,
    until: Instant,
    /// `None` while the first one is in work.
    answer: Option<Answer>,
}

/// An answer to give again.
#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A write that carries a key, and is in work now. Dropped before it is answered, its key is free again.
#[derive(Debug)]
pub(crate) struct Begun<'w> {
    writes: &'w Writes,
    name: Hash,
}

/// The key of a request that writes, in the form of the IETF draft (quoted) or bare.
///
/// # Errors
///
/// 400 for an empty or a very long one.
pub(crate) fn key(parts: &Parts) -> Result<Option<&str>, Problem> {
    let writes = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let Some(given) = parts.headers.get(KEY).filter(|_| writes) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if text.is_empty() || text.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        let max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        return Err(Problem::new(StatusCode::BAD_REQUEST, "MB400", "Bad key", format!("Idempotency-Key: it is 1 to {max} letters")));
    }
    Ok(Some(text))
}

impl Name {
    /// The key of this caller, whatever it shows: another token of the same user is the same caller. Who has neither a name nor a key is known by
    /// the address.
    pub(crate) fn of(who: &Principal, parts: &Parts, key: &str) -> Self {
        let address = || parts.extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_string()).unwrap_or_default();
        let (user, shown) = (who.user.clone().unwrap_or_default(), who.key.clone().unwrap_or_default());
        let from = if user.is_empty() && shown.is_empty() { address() } else { String::new() };
        let project = who.project.to_string();
        Self(hash(&[&project, who.role.name(), &user, &shown, &from, key].map(str::as_bytes)))
    }
}

/// Does a write in a task of its own: it goes on when its caller goes away, since by then it may be committed, and its key must know.
///
/// # Errors
///
/// Those of the write, and 503 while the node stops.
pub(crate) async fn apart(write: impl Future<Output = Result<Response, Problem>> + Send + 'static) -> Result<Response, Problem> {
    match tokio::spawn(write).await {
        Ok(written) => written,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Problem::busy("it stops")),
        },
    }
}

impl Writes {
    /// Begins a write, or gives the answer that it had.
    ///
    /// # Errors
    ///
    /// 409 while the first one is in work, 422 when it was another request.
    pub(crate) fn begin(&self, parts: &Parts, Name(name): Name, body: &[u8], now: Instant) -> Result<Result<Begun<'_>, Response>, Problem> {
        let print = print(parts, body);
        let mut kept = self.kept();
        match kept.known.get(&name).filter(|known| known.until > now) {
            Some(known) if known.print != print => {
                let message = "this Idempotency-Key was used for another request";
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "MB422", "Key used twice", message)
                    .hint("make a new key for each write"))
            }
            Some(Known { answer: None, .. }) => {
                let message = "the first request with this Idempotency-Key is in work";
                Err(Problem::new(StatusCode::CONFLICT, "MB409", "In work", message).hint("wait a moment, and ask again"))
            }
            Some(Known { answer: Some(answer), .. }) => Ok(Err(answer.replay())),
            None => {
                kept.remove(&name);
                kept.make_room(now);
                kept.known.insert(name, Known { print, until: now + limits::IDEMPOTENCY_TTL, answer: None });
                Ok(Ok(Begun { writes: self, name }))
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun<'_> {
    /// Keeps the answer, unless it says that nothing is decided yet, and gives it on.
    pub(crate) async fn end(self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        // Bodies of answers to writes are whole already.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let is_final = !parts.status.is_server_error() && parts.status != StatusCode::TOO_MANY_REQUESTS;
        if is_final && body.len() <= limits::IDEMPOTENCY_ANSWER_BYTES_MAX {
            let answer = Answer { status: parts.status, headers: parts.headers.clone(), body: body.clone() };
            let mut kept = self.writes.kept();
            kept.bytes += answer.body.len();
            if let Some(known) = kept.known.get_mut(&self.name) {
                known.answer = Some(answer);
            }
        }
        Response::from_parts(parts, Body::from(body))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut kept = self.writes.kept();
        if kept.known.get(&self.name).is_some_and(|known| known.answer.is_none()) {
            kept.known.remove(&self.name);
        }
    }
}

impl Kept {
    fn remove(&mut self, name: &Hash) {
        if let Some(Known { answer: Some(answer), .. }) = self.known.remove(name) {
            self.bytes = self.bytes.saturating_sub(answer.body.len());
        }
    }

    /// Forgets what is over, then what is oldest, until another one fits.
    fn make_room(&mut self, now: Instant) {
        if self.known.len() < limits::IDEMPOTENCY_KEYS_MAX && self.bytes < limits::IDEMPOTENCY_BYTES_MAX {
            return;
        }
        let over: Vec<Hash> = self.known.iter().filter(|(_, known)| known.until <= now).map(|(name, _)| *name).collect();
        over.iter().for_each(|name| self.remove(name));
        while self.known.len() >= limits::IDEMPOTENCY_KEYS_MAX || self.bytes >= limits::IDEMPOTENCY_BYTES_MAX {
            let done = self.known.iter().filter(|(_, known)| known.answer.is_some());
            let Some(oldest) = done.min_by_key(|(_, known)| known.until).map(|(name, _)| *name) else { return };
            self.remove(&oldest);
        }
    }
}

impl Answer {
    fn replay(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

fn print(parts: &Parts, body: &[u8]) -> Hash {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    hash(&[parts.method.as_str().as_bytes(), target.as_bytes(), body])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use mobo_core::ids::ProjectId;
    use mobo_core::rights::Role;

    use super::*;

    #[test]
    fn a_key_is_its_callers() {
        let name = |user: Option<&str>, key: Option<&str>, (peer, token): (&str, &str)| {
            let who = Principal {
                user: user.map(str::to_owned),
                key: key.map(str::to_owned),
                ..Principal::of_role(ProjectId::new(1).unwrap(), Role::Anon)
            };
            let request = Request::post("/rest/v1/a").extension(Peer(peer.parse().unwrap())).header("authorization", token);
            Name::of(&who, &request.body(()).unwrap().into_parts().0, "k").0
        };
        let (here, there) = (("192.0.2.1:1", "Bearer a"), ("192.0.2.2:1", "Bearer b"));
        assert_eq!(name(Some("ann"), None, here), name(Some("ann"), None, there), "the same user, with the next token");
        assert_ne!(name(Some("ann"), None, here), name(Some("bob"), None, here));
        assert_ne!(name(Some("ann"), None, here), name(None, Some("ann"), here));
        assert_eq!(name(None, Some("app"), here), name(None, Some("app"), there));
        assert_ne!(name(None, None, here), name(None, None, there), "nobody is known by the address");
    }
}
