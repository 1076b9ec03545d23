//! How often a caller may ask: by address, by key, and more seldom where secrets are tried.
//!
//! Whoever shows nothing is counted by address; whoever shows a key or a token, by that. What is refused for its credential counts against the
//! address besides, in a window of its own: when that is used up, whoever shows something there is looked at before anything is done, and only
//! those whose credential holds are heard. A program on this machine that shows nothing is not counted: it is the device itself.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HeaderName, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use mobo_core::limits;
use tokio::time::Instant;

use crate::access;
use crate::gate::Peer;
use crate::problem::{Problem, Quota};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Requests that one caller may make in a window of [`limits::RATE_WINDOW`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rates {
    /// Of one address that shows nothing.
    pub guest: u32,
    /// With one key or token.
    pub key: u32,
    /// Of one address where passwords, links and refresh tokens are tried; and as many with credentials that are not good.
    pub auth: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { guest: limits::RATE_GUEST, key: limits::RATE_KEY, auth: limits::RATE_AUTH }
    }
}

/// Who is counted, and under which policy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Counted {
    policy: Policy,
    /// A keyed hash of the address or of what is shown: no secret is kept.
    who: u64,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Policy {
    Guest,
    Key,
    Auth,
    /// Credentials that were not good.
    Refused,
    /// Messages to rooms of one who is not in them.
    Talk,
}

impl Policy {
    const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Key => "key",
            Self::Auth => "auth",
            Self::Refused => "refused",
            Self::Talk => "talk",
        }
    }
}

/// Where a caller stands after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standing {
    policy: &'static str,
    quota: u32,
    left: u32,
    reset: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    until: Instant,
    used: u32,
}

/// What somebody is told who has asked too often, and where he stands.
pub(crate) type Over = Box<(Problem, Standing)>;

/// Counts of all callers within bounds of memory.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    rates: Rates,
    hasher: RandomState,
    windows: Mutex<BTreeMap<Counted, Window>>,
}

impl Counts {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, ..Self::default() }
    }

    /// Counts a request; gives where its caller stands, or nothing for one who is not counted.
    ///
    /// # Errors
    ///
    /// 429 for one who has asked too often.
    pub(crate) fn admit(&self, parts: &Parts, now: Instant) -> Result<Option<Standing>, Over> {
        let Some(address) = address(parts) else { return Ok(None) };
        let shown = shown(&parts.headers);
        if shown.is_none() && access::is_from_here(parts) {
            return Ok(None);
        }
        let caller = match &shown {
            _ if is_trial(parts.uri.path()) => self.counted(Policy::Auth, address),
            Some(shown) => Counted { policy: Policy::Key, who: self.hasher.hash_one(shown) },
            None => self.counted(Policy::Guest, address),
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = self.count(&mut windows, caller, 1, now);
        let is_over = windows.get(&caller).is_some_and(|window| window.used > standing.quota);
        if is_over { Err(Box::new((problem(&standing), standing))) } else { Ok(Some(standing)) }
    }

    /// Where an address stands from which something is shown, if so many credentials from there were not good that this one is looked at before
    /// anything else is done.
    pub(crate) fn suspected(&self, parts: &Parts, now: Instant) -> Option<Standing> {
        let refused = self.counted(Policy::Refused, suspect(parts)?);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = windows.contains_key(&refused).then(|| self.count(&mut windows, refused, 0, now));
        standing.filter(|standing| standing.left == 0)
    }

    /// Counts a credential that was not good against the address that it came from.
    pub(crate) fn refused(&self, address: IpAddr, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&mut windows, self.counted(Policy::Refused, address), 1, now);
    }

    /// Counts messages of somebody to rooms that he is not in.
    ///
    /// # Errors
    ///
    /// 429 for one who says too much.
    pub(crate) fn talk(&self, name: &str, messages: usize, now: Instant) -> Result<(), Problem> {
        let talker = Counted { policy: Policy::Talk, who: self.hasher.hash_one(name) };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = self.count(&mut windows, talker, u32::try_from(messages).unwrap_or(u32::MAX), now);
        let is_over = windows.get(&talker).is_some_and(|window| window.used > standing.quota);
        if is_over { Err(problem(&standing)) } else { Ok(()) }
    }

    fn counted(&self, policy: Policy, address: IpAddr) -> Counted {
        Counted { policy, who: self.hasher.hash_one(network(address)) }
    }

    fn count(&self, windows: &mut BTreeMap<Counted, Window>, caller: Counted, by: u32, now: Instant) -> Standing {
        if windows.len() >= limits::RATE_CALLERS_MAX && !windows.contains_key(&caller) {
            windows.retain(|_, window| window.until > now);
            if windows.len() >= limits::RATE_CALLERS_MAX {
                // A flood of callers: whoever has asked least is forgotten, never one who is being held back.
                let least = windows.iter().min_by_key(|(_, window)| window.used).map(|(caller, _)| *caller);
                least.map(|caller| windows.remove(&caller));
            }
        }
        let quota = match caller.policy {
            Policy::Guest => self.rates.guest,
            Policy::Key => self.rates.key,
            Policy::Auth | Policy::Refused => self.rates.auth,
            Policy::Talk => limits::RATE_TALK,
        };
        let fresh = Window { until: now + limits::RATE_WINDOW, used: 0 };
        let window = windows.entry(caller).or_insert(fresh);
        if window.until <= now {
            *window = fresh;
        }
        window.used = window.used.saturating_add(by);
        let (left, reset) = (quota.saturating_sub(window.used), window.until.saturating_duration_since(now));
        Standing { policy: caller.policy.name(), quota, left, reset }
    }
}

impl Standing {
    /// Seconds until the window is over.
    fn reset_s(&self) -> u64 {
        self.reset.as_secs() + 1
    }

    /// Says it in the headers of an answer: in the words of the IETF draft, and in those that everybody reads.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let reset = self.reset_s();
        let texts = [
            (POLICY, format!("\"{}\";q={};w={}", self.policy, self.quota, limits::RATE_WINDOW.as_secs())),
            (LIMIT, format!("\"{}\";r={};t={reset}", self.policy, self.left)),
        ];
        for (name, text) in texts {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        headers.insert(X_LIMIT, HeaderValue::from(self.quota));
        headers.insert(X_REMAINING, HeaderValue::from(self.left));
        headers.insert(X_RESET, HeaderValue::from(reset));
    }

    /// When to come back.
    pub(crate) fn retry_after(&self, headers: &mut HeaderMap) {
        headers.insert(RETRY_AFTER, HeaderValue::from(self.reset_s()));
    }
}

/// The address of a caller who shows something that may turn out not to be good.
pub(crate) fn suspect(parts: &Parts) -> Option<IpAddr> {
    shown(&parts.headers).and_then(|_| address(parts))
}

/// True for the paths where passwords, links and refresh tokens are tried.
fn is_trial(path: &str) -> bool {
    ["/auth/v1/token", "/auth/v1/signup", "/auth/v1/verify", "/auth/v1/setup"].contains(&path)
}

pub(crate) fn problem(standing: &Standing) -> Problem {
    Problem::quota(Quota {
        policy: standing.policy,
        limit: standing.quota.into(),
        window_s: Some(limits::RATE_WINDOW.as_secs()),
        retry_after_s: standing.reset_s(),
    })
}

pub(crate) fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_canonical())
}

/// One customer of a provider has many addresses of IPv6, but one network of them.
pub(crate) fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

fn shown(headers: &HeaderMap) -> Option<Vec<&[u8]>> {
    let values: Vec<&[u8]> =
        ["apikey", AUTHORIZATION.as_str()].iter().filter_map(|name| headers.get(*name)).map(HeaderValue::as_bytes).collect();
    (!values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(peer: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::get("/rest/v1/a").extension(Peer(peer.parse().unwrap()));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap().into_parts().0
    }

    #[test]
    fn each_caller_has_a_quota_that_comes_back() {
        let counts = Counts::new(Rates { guest: 2, key: 3, auth: 2 });
        let now = Instant::now();
        let left = |parts: &Parts, now| {
            counts.admit(parts, now).map(|standing| standing.map(|standing| standing.left)).map_err(|error| error.1.policy)
        };
        let (guest, other) = (parts("192.0.2.1:1", &[]), parts("192.0.2.2:1", &[]));
        assert_eq!(
            [left(&guest, now), left(&guest, now), left(&guest, now), left(&other, now)],
            [Ok(Some(1)), Ok(Some(0)), Err("guest"), Ok(Some(1))]
        );
        assert_eq!(left(&guest, now + limits::RATE_WINDOW), Ok(Some(1)));
        // One network of IPv6 is one caller.
        assert_eq!(left(&parts("[2001:db8::1]:1", &[]), now), Ok(Some(1)));
        assert_eq!(left(&parts("[2001:db8::2]:1", &[]), now), Ok(Some(0)));
        assert_eq!(left(&parts("[2001:db8:0:1::2]:1", &[]), now), Ok(Some(1)));
        // A key counts by itself, wherever it comes from; where many were bad, the next is looked at first.
        let key = |peer: &str, key: &str| parts(peer, &[("apikey", key)]);
        assert_eq!(left(&key("192.0.2.1:1", "k"), now), Ok(Some(2)));
        assert_eq!(left(&key("192.0.2.9:1", "k"), now), Ok(Some(1)));
        for bad in ["x", "y"] {
            counts.refused(suspect(&key("192.0.2.7:1", bad)).unwrap(), now);
        }
        assert_eq!(left(&key("192.0.2.7:1", "z"), now), Ok(Some(2)));
        let suspected = |peer: &str, now| counts.suspected(&key(peer, "z"), now).map(|standing| standing.policy);
        assert_eq!(suspected("192.0.2.7:1", now), Some("refused"));
        assert_eq!(suspected("192.0.2.8:1", now), None);
        assert_eq!(suspected("192.0.2.7:1", now + limits::RATE_WINDOW), None);
        assert!(counts.suspected(&parts("192.0.2.7:1", &[]), now).is_none(), "nobody looks at what is not shown");
        // The device itself.
        let here = parts("127.0.0.1:1", &[("host", "localhost")]);
        assert_eq!([left(&here, now), left(&here, now), left(&here, now)], [Ok(None); 3]);
    }

    #[test]
    fn a_flood_of_callers_takes_no_more_than_its_room() {
        let counts = Counts::new(Rates { guest: 1, key: 3, auth: 2 });
        let now = Instant::now();
        let held = parts("192.0.2.1:1", &[]);
        for _ in 0..3 {
            let _ = counts.admit(&held, now);
        }
        for n in 0..limits::RATE_CALLERS_MAX + 10 {
            let _ = counts.admit(&parts("198.51.100.1:1", &[("apikey", &n.to_string())]), now);
        }
        assert!(counts.windows.lock().unwrap().len() <= limits::RATE_CALLERS_MAX);
        assert!(counts.admit(&held, now).is_err(), "who is held back stays so");
    }
}
