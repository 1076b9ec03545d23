//! Who calls. A key is read from `apikey:` or `Authorization: Bearer`; without one, a call from this machine itself is [`Caller::Local`].

mod guard;
mod related;

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, ORIGIN, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};

use crate::auth::token::Token;
use crate::backend::{Caller, Credential, Principal};
use crate::gate::{Gate, Peer};
use crate::key::{self, ApiKey, KeyKind};
use crate::problem::Problem;
use crate::timing::{Stage, Timing};

pub(crate) use guard::{Guard, action_of, no_column};

pub(crate) const APIKEY: HeaderName = HeaderName::from_static("apikey");
/// What clients that insist on a key send to the device that they run on: it is no key.
pub(crate) const LOCAL: &str = "local";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Set by proxies: the call was made elsewhere.
const PROXIED: [HeaderName; 4] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
];

/// Who the caller is; `None` for one who shows nothing and is nobody here.
///
/// # Errors
///
/// 401 for a credential that is not good: it is never passed over.
pub(crate) async fn principal(gate: &Gate, parts: &Parts) -> Result<Option<Principal>, Problem> {
    let credential = credential(parts);
    let method = match &credential {
        Ok(Credential { caller: Caller::User { .. }, .. }) => "token",
        _ => "key",
    };
    let principal = match credential {
        Ok(credential) => Timing::of(gate, parts).during(Stage::Jwt, prove(gate, credential)).await,
        Err(problem) => Err(problem),
    };
    if let Some(watch) = &gate.settings().watch
        && (parts.headers.contains_key(APIKEY) || parts.headers.contains_key(AUTHORIZATION))
    {
        let failure = principal.as_ref().err().map(|problem| if problem.status().is_server_error() { "unavailable" } else { "refused" });
        watch.authenticated(method, failure);
    }
    principal
}

async fn prove(gate: &Gate, credential: Credential) -> Result<Option<Principal>, Problem> {
    let shown = !matches!(credential.caller, Caller::Local | Caller::Stranger);
    let principal = gate.backend().authenticate(credential).await?;
    if shown && principal.is_none() {
        return Err(Problem::unauthorized("this key is not known here, has ended, or was revoked")
            .hint("`mobo-hub key list` shows the keys, `mobo-hub key create` makes one"));
    }
    Ok(principal)
}

/// What the caller shows.
///
/// # Errors
///
/// 401 for what is not well-formed, and for a secret key from a browser.
fn credential(parts: &Parts) -> Result<Credential, Problem> {
    let Some(Peer(peer)) = parts.extensions.get::<Peer>().copied() else {
        return Err(Problem::unauthorized("this node does not know where the call comes from"));
    };
    let caller = match shown(&parts.headers)? {
        (key, Some(token)) => Caller::User { token, key: key.map(|key| key.hash()) },
        (Some(key), None) => Caller::Key(key.hash()),
        (None, None) if peer.ip().to_canonical().is_loopback() && is_local(parts) => Caller::Local,
        (None, None) => Caller::Stranger,
    };
    Ok(Credential { caller, peer })
}

/// The key and the user's token of a request.
fn shown(headers: &HeaderMap) -> Result<(Option<ApiKey>, Option<Token>), Problem> {
    let apikey = text(headers, &APIKEY)?.filter(|key| *key != LOCAL);
    let bearer = match text(headers, &AUTHORIZATION)? {
        Some(value) => Some(bearer(value)?).filter(|token| *token != LOCAL),
        None => None,
    };
    // Clients of Supabase put the key into both: a bearer that is a key, of ours or not, is no user.
    let user = bearer.filter(|token| key::kind_of(token).is_none() && Some(*token) != apikey);
    let token = match user {
        Some(text) => Some(Token::parse(text).ok_or_else(|| {
            Problem::unauthorized("the bearer token is neither a mobo key nor a JSON web token")
                .hint("send a key, or what /auth/v1/token gave")
        })?),
        None => None,
    };
    let key = match apikey.or(bearer.filter(|_| token.is_none())) {
        Some(text) => Some(ApiKey::parse(text).map_err(|bad| Problem::unauthorized(bad.to_string()))?),
        None => None,
    };
    let is_browser = headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    if is_browser && key.as_ref().is_some_and(|key| key.kind() == KeyKind::Secret) {
        return Err(Problem::unauthorized("a secret key was sent from a browser, where everybody can read it")
            .hint("use a key of role anon there, and keep mobo_sec_ keys on servers; revoke this one if it was ever published"));
    }
    Ok((key, token))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(Problem::unauthorized(format!("the header {name} was sent twice"))),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Problem::unauthorized(format!("the header {name} is not plain text"))),
        },
        (None, _) => Ok(None),
    }
}

fn bearer(value: &str) -> Result<&str, Problem> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        return Ok(token.trim());
    }
    Err(Problem::unauthorized("the header authorization is not of the form `Bearer <key>`"))
}

/// True for a call that a program on this machine has made.
pub(crate) fn is_from_here(parts: &Parts) -> bool {
    let Some(Peer(peer)) = parts.extensions.get::<Peer>() else { return false };
    peer.ip().to_canonical().is_loopback() && is_local(parts)
}

/// True for a call that only a program on this machine can have made, given that it came in through loopback.
///
/// Not so for what a proxy passes on, for a page of another site that runs in a browser here, and for a name that a foreign DNS server
/// points at 127.0.0.1.
fn is_local(parts: &Parts) -> bool {
    let headers = &parts.headers;
    if PROXIED.iter().any(|name| headers.contains_key(name)) {
        return false;
    }
    let to_loopback = match (headers.get(HOST), parts.uri.host()) {
        (_, Some(host)) => is_loopback_name(host),
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Uri>().ok()).is_some_and(|uri| uri_is_loopback(&uri)),
        (None, None) => true,
    };
    let from_here = match headers.get(ORIGIN) {
        Some(origin) => origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()).is_some_and(|uri| uri_is_loopback(&uri)),
        None => headers.get(SEC_FETCH_SITE).is_none_or(|site| site != "cross-site"),
    };
    to_loopback && from_here
}

fn uri_is_loopback(uri: &Uri) -> bool {
    uri.host().is_some_and(is_loopback_name)
}

fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[track_caller]
    fn check(headers: &[(&str, &str)], want: bool) {
        let request = headers.iter().fold(Request::get("/rest/v1/a"), |request, (name, value)| request.header(*name, *value));
        assert_eq!(is_local(&request.body(()).unwrap().into_parts().0), want, "{headers:?}");
    }

    #[test]
    fn only_programs_on_this_machine_are_local() {
        check(&[], true);
        for host in ["localhost", "LOCALHOST:8001", "127.0.0.1:8001", "127.1.2.3", "[::1]:8001", "[::ffff:127.0.0.1]"] {
            check(&[("host", host)], true);
        }
        for host in
            ["evil.example", "evil.example:8001", "localhost.evil.example", "10.0.0.1", "[fe80::1]", "", "a b", "127.0.0.1.evil.example"]
        {
            check(&[("host", host)], false);
        }
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173"] {
            check(&[("host", "localhost"), ("origin", origin), ("sec-fetch-site", "cross-site")], true);
        }
        for origin in ["http://evil.example", "null", "", "http://localhost.evil.example", "file://"] {
            check(&[("host", "localhost"), ("origin", origin)], false);
        }
        check(&[("host", "localhost"), ("sec-fetch-site", "cross-site")], false);
        check(&[("host", "localhost"), ("sec-fetch-site", "none")], true);
        for proxied in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"] {
            check(&[("host", "localhost"), (proxied, "10.0.0.9")], false);
        }
    }
}
