//! Who asks and what for, as the rules of [`mobo_core::rates`] see it: before anything is looked up.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use mobo_core::rates::{Act, Audience};
use mobo_core::rights::Action;
use percent_encoding::percent_decode_str;

use super::{address, network};
use crate::access;
use crate::key::{self, KeyKind};

/// Who asks.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) address: IpAddr,
    /// What is shown, good or not: the user's token, or else the key. As it is read later on, so that nobody is two callers by two spellings.
    pub(super) shown: Option<&'a [u8]>,
    audience: Audience,
}

impl<'a> Asker<'a> {
    /// Who makes a request; `None` for one who is not counted: a program on this machine that shows nothing.
    pub(super) fn of(parts: &'a Parts) -> Option<Self> {
        let address = address(parts)?;
        let (key, token) = shown(&parts.headers);
        let is_public = |key: &[u8]| key.starts_with(KeyKind::Public.prefix().as_bytes());
        let audience = if token.is_some() || key.is_some_and(|key| !is_public(key)) { Audience::Auth } else { Audience::Guest };
        let shown = token.or(key);
        (shown.is_some() || !access::is_from_here(parts)).then_some(Self { address, shown, audience })
    }

    /// Whether more is shown than anybody can read.
    pub(super) const fn audience(&self) -> Audience {
        self.audience
    }

    /// The caller as rules count him.
    pub(super) fn who(&self) -> Who<'_> {
        match (self.shown, self.audience) {
            (Some(shown), Audience::Auth) => Who::Shown(shown),
            (_, Audience::Guest) | (None, Audience::Auth) => Who::At(network(self.address)),
        }
    }
}

/// What a caller is known by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Who<'a> {
    /// His network.
    At(u128),
    /// What he shows.
    Shown(&'a [u8]),
}

/// The key and the user's token of a request, good or not. What [`access`] passes over is not there: clients of Supabase put the key into both.
fn shown(headers: &HeaderMap) -> (Option<&[u8]>, Option<&[u8]>) {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes().trim_ascii());
    let apikey = text(&access::APIKEY).filter(|key| *key != access::LOCAL.as_bytes());
    let bearer = text(&AUTHORIZATION).map(bearer).filter(|token| *token != access::LOCAL.as_bytes());
    let is_key = |token: &[u8]| str::from_utf8(token).is_ok_and(|token| key::kind_of(token).is_some());
    let token = bearer.filter(|token| !is_key(token) && Some(*token) != apikey);
    (apikey.or(bearer.filter(|_| token.is_none())), token)
}

fn bearer(value: &[u8]) -> &[u8] {
    let space = value.iter().position(|byte| *byte == b' ');
    match space.and_then(|space| value.split_at_checked(space)) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer") => token.trim_ascii(),
        _ => value,
    }
}

/// The parts of a path as a route reads them: `/rest/v1/%6frders` is no way around a rule.
pub(super) fn segments(path: &str) -> Vec<Cow<'_, str>> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| percent_decode_str(part).decode_utf8_lossy()).collect()
}

/// What a request does, as far as its head says. What GraphQL does is in its body.
pub(super) fn act<'s>(method: &Method, segments: &[&'s str]) -> Option<Act<'s>> {
    match segments {
        ["auth", "v1", "token" | "signup" | "verify" | "setup"] => Some(Act::Trial),
        ["rest", "v1", collection] => Some(Act::To(collection, action(method)?)),
        ["rest", "v1", collection, _, "history"] => Some(Act::To(collection, Action::Read)),
        _ => None,
    }
}

fn action(method: &Method) -> Option<Action> {
    match method.as_str() {
        "GET" | "HEAD" => Some(Action::Read),
        "POST" | "PUT" => Some(Action::Create),
        "PATCH" => Some(Action::Update),
        "DELETE" => Some(Action::Delete),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::gate::Peer;

    #[test]
    fn an_audience_is_who_shows_more_than_anybody_can_read() {
        for (headers, want) in [
            (&[][..], Some(Audience::Guest)),
            (&[("apikey", "mobo_pub_abc")], Some(Audience::Guest)),
            (&[("apikey", "mobo_pub_abc"), ("authorization", "Bearer mobo_pub_abc")], Some(Audience::Guest)),
            // What is passed over makes nobody more.
            (&[("apikey", "mobo_pub_abc"), ("authorization", "Bearer mobo_sec_abc")], Some(Audience::Guest)),
            (&[("apikey", "mobo_pub_abc"), ("authorization", "bearer  local")], Some(Audience::Guest)),
            (&[("apikey", "local")], Some(Audience::Guest)),
            (&[("apikey", "mobo_pub_abc"), ("authorization", "Bearer ey.a.b")], Some(Audience::Auth)),
            (&[("apikey", "mobo_sec_abc")], Some(Audience::Auth)),
            (&[("host", "localhost")], None),
            (&[("host", "localhost"), ("apikey", "local")], None),
        ] {
            let peer: std::net::SocketAddr = if want.is_some() { "192.0.2.1:1" } else { "127.0.0.1:1" }.parse().unwrap();
            let request = headers.iter().fold(Request::get("/").extension(Peer(peer)), |r, (name, value)| r.header(*name, *value));
            let parts = request.body(()).unwrap().into_parts().0;
            assert_eq!(Asker::of(&parts).map(|asker| asker.audience()), want, "{headers:?}");
        }
    }

    #[test]
    fn a_head_says_what_is_done() {
        let to = |name, action| Some(Act::To(name, action));
        for (method, path, want) in [
            (Method::GET, "/rest/v1/orders", to("orders", Action::Read)),
            (Method::HEAD, "/rest/v1/%6Frders", to("orders", Action::Read)),
            (Method::POST, "/rest/v1/orders", to("orders", Action::Create)),
            (Method::PUT, "//rest/v1/orders", to("orders", Action::Create)),
            (Method::PATCH, "/rest/v1/orders", to("orders", Action::Update)),
            (Method::DELETE, "/rest/v1/orders", to("orders", Action::Delete)),
            (Method::GET, "/rest/v1/orders/7/history", to("orders", Action::Read)),
            (Method::OPTIONS, "/rest/v1/orders", None),
            (Method::POST, "/rest/v1/rpc/orders", None),
            (Method::POST, "/graphql/v1", None),
            (Method::POST, "/auth/v1/token", Some(Act::Trial)),
            (Method::GET, "/auth/v1/user", None),
        ] {
            let decoded = segments(path);
            let parts: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
            assert_eq!(act(&method, &parts), want, "{method} {path}");
        }
    }

    #[test]
    fn nobody_is_two_callers_by_two_spellings() {
        let key = |value: &'static str| {
            let parts = Request::get("/").header("authorization", value).body(()).unwrap().into_parts().0;
            let (key, token) = shown(&parts.headers);
            token.or(key).map(<[u8]>::to_vec)
        };
        let spellings = ["Bearer ey.a.b", "bearer ey.a.b", "BEARER   ey.a.b  "];
        assert!(spellings.map(key).iter().all(|shown| shown.as_deref() == Some(b"ey.a.b")));
    }
}
