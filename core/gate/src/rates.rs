//! How often a caller may ask: by address, by key, and more seldom where secrets are tried; and by label, as an operator has written it down.
//!
//! Whoever shows nothing is counted by address; whoever shows a key or a token, by that. What is refused for its credential counts against the
//! address besides, in a window of its own: when that is used up, whoever shows something there is looked at before anything is done, and only
//! those whose credential holds are heard. A program on this machine that shows nothing is not counted: it is the device itself.
//!
//! Besides that general quota at most two rules by label count a request ([`mobo_core::rates`]): the one of what it does, and the one of where.

mod asker;
mod standing;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use mobo_core::limits;
use mobo_core::rates::{Act, Rules};
#[cfg(any(test, feature = "graphql"))]
use mobo_core::rights::Action;
use tokio::time::Instant;

use crate::access;
use crate::gate::Peer;
use asker::{Asker, Who};
use standing::Place;
pub(crate) use standing::Standing;

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
    /// The rule at this place.
    Rule(usize),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    until: Instant,
    used: u32,
    quota: u32,
}

/// Counts of all callers within bounds of memory.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    rates: Rates,
    rules: Rules,
    hasher: RandomState,
    windows: Mutex<BTreeMap<Counted, Window>>,
}

impl Counts {
    pub(crate) fn new(rates: Rates, rules: Rules) -> Self {
        Self { rates, rules, ..Self::default() }
    }

    /// Counts a request; gives where its caller stands, or nothing for one who is not counted.
    ///
    /// # Errors
    ///
    /// 429 for one who has asked too often.
    pub(crate) fn admit(&self, parts: &Parts, now: Instant) -> Result<Option<Standing>, Box<Standing>> {
        let Some(asker) = Asker::of(parts) else { return Ok(None) };
        let decoded = asker::segments(parts.uri.path());
        let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
        let act = asker::act(&parts.method, &segments);
        let at = Who::At(network(asker.address));
        let general = match asker.shown {
            _ if act == Some(Act::Trial) => self.counted(Policy::Auth, at),
            Some(shown) => self.counted(Policy::Key, Who::Shown(shown)),
            None => self.counted(Policy::Guest, at),
        };
        let audience = asker.audience();
        let who = if act == Some(Act::Trial) { at } else { asker.who() };
        let by_act = act.and_then(|act| self.rules.of_act(act, audience));
        let by_path = self.rules.of_path(parts.method.as_str(), &segments, audience);
        let rules = by_act.into_iter().chain(by_path).map(|place| self.counted(Policy::Rule(place), who));
        let standing = self.stand(std::iter::once(general).chain(rules), (1, now));
        if standing.is_over() { Err(Box::new(standing)) } else { Ok(Some(standing)) }
    }

    /// Counts what somebody does to a collection that the head of his request does not say.
    ///
    /// # Errors
    ///
    /// 429 for one who does it too often.
    #[cfg(any(test, feature = "graphql"))]
    pub(crate) fn act(&self, parts: &Parts, (collection, action): (&str, Action), now: Instant) -> Result<(), Box<Standing>> {
        let Some(asker) = Asker::of(parts) else { return Ok(()) };
        let audience = asker.audience();
        let Some(place) = self.rules.of_act(Act::To(collection, action), audience) else { return Ok(()) };
        let standing = self.stand([self.counted(Policy::Rule(place), asker.who())], (1, now));
        if standing.is_over() { Err(Box::new(standing)) } else { Ok(()) }
    }

    /// Where an address stands from which something is shown, if so many credentials from there were not good that this one is looked at before
    /// anything else is done.
    pub(crate) fn suspected(&self, parts: &Parts, now: Instant) -> Option<Standing> {
        let refused = self.counted(Policy::Refused, Who::At(network(suspect(parts)?)));
        let is_known = self.windows.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&refused);
        let standing = is_known.then(|| self.stand([refused], (0, now)));
        standing.filter(Standing::is_used_up)
    }

    /// Counts a credential that was not good against the address that it came from.
    pub(crate) fn refused(&self, address: IpAddr, now: Instant) {
        self.stand([self.counted(Policy::Refused, Who::At(network(address)))], (1, now));
    }

    /// Counts messages of somebody to rooms that he is not in.
    ///
    /// # Errors
    ///
    /// 429 for one who says too much.
    pub(crate) fn talk(&self, name: &str, messages: usize, now: Instant) -> Result<(), Box<Standing>> {
        let talker = self.counted(Policy::Talk, Who::Shown(name.as_bytes()));
        let standing = self.stand([talker], (u32::try_from(messages).unwrap_or(u32::MAX), now));
        if standing.is_over() { Err(Box::new(standing)) } else { Ok(()) }
    }

    fn counted(&self, policy: Policy, who: Who<'_>) -> Counted {
        Counted { policy, who: self.hasher.hash_one(who) }
    }

    /// The name of a policy, what it allows, and in which time.
    fn bounds(&self, policy: Policy) -> (Arc<str>, u32, Duration) {
        let (name, quota) = match policy {
            Policy::Guest => ("guest", self.rates.guest),
            Policy::Key => ("key", self.rates.key),
            Policy::Auth => ("auth", self.rates.auth),
            Policy::Refused => ("refused", self.rates.auth),
            Policy::Talk => ("talk", limits::RATE_TALK),
            Policy::Rule(place) => match self.rules.all().get(place) {
                Some(rule) => return (Arc::clone(&rule.name), rule.requests, rule.window),
                None => ("none", u32::MAX),
            },
        };
        (name.into(), quota, limits::RATE_WINDOW)
    }

    /// Counts a request in each of these policies.
    fn stand(&self, counted: impl IntoIterator<Item = Counted>, (by, now): (u32, Instant)) -> Standing {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        Standing(counted.into_iter().map(|caller| self.count(&mut windows, caller, (by, now))).collect())
    }

    fn count(&self, windows: &mut BTreeMap<Counted, Window>, caller: Counted, (by, now): (u32, Instant)) -> Place {
        if windows.len() >= limits::RATE_CALLERS_MAX && !windows.contains_key(&caller) {
            make_room(windows, now);
        }
        let (policy, quota, length) = self.bounds(caller.policy);
        let fresh = Window { until: now + length, used: 0, quota };
        let window = windows.entry(caller).or_insert(fresh);
        if window.until <= now {
            *window = fresh;
        }
        window.used = window.used.saturating_add(by);
        let (left, reset) = (quota.saturating_sub(window.used), window.until.saturating_duration_since(now));
        Place { policy, quota, window: length, left, reset, is_over: window.used > quota }
    }
}

/// Forgets windows that are over. In a flood of callers those who have asked least are forgotten, some at a time so that not each of the flood
/// costs a look at all; never one who is being held back, as long as there are others.
fn make_room(windows: &mut BTreeMap<Counted, Window>, now: Instant) {
    windows.retain(|_, window| window.until > now);
    if windows.len() >= limits::RATE_CALLERS_MAX {
        let mut free: Vec<(u32, Counted)> =
            windows.iter().filter(|(_, window)| window.used < window.quota).map(|(caller, window)| (window.used, *caller)).collect();
        free.sort_unstable();
        for (_, caller) in free.iter().take(limits::RATE_CALLERS_MAX / 16) {
            windows.remove(caller);
        }
        if free.is_empty() {
            let first = windows.iter().min_by_key(|(_, window)| window.until).map(|(caller, _)| *caller);
            first.map(|caller| windows.remove(&caller));
        }
    }
}

/// The address of a caller who shows something that may turn out not to be good.
pub(crate) fn suspect(parts: &Parts) -> Option<IpAddr> {
    let is_shown = [access::APIKEY, AUTHORIZATION].iter().any(|name| parts.headers.contains_key(name));
    address(parts).filter(|_| is_shown)
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

#[cfg(test)]
mod tests {
    use axum::http::{Method, Request};

    use super::*;

    fn parts(peer: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::get("/rest/v1/a").extension(Peer(peer.parse().unwrap()));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap().into_parts().0
    }

    #[test]
    fn each_caller_has_a_quota_that_comes_back() {
        let counts = Counts::new(Rates { guest: 2, key: 3, auth: 2 }, Rules::default());
        let now = Instant::now();
        let left = |parts: &Parts, now| {
            let violated = |over: Box<Standing>| over.policies().concat();
            counts.admit(parts, now).map(|standing| standing.map(|standing| standing.0[0].left)).map_err(violated)
        };
        let (guest, other) = (parts("192.0.2.1:1", &[]), parts("192.0.2.2:1", &[]));
        assert_eq!(
            [left(&guest, now), left(&guest, now), left(&guest, now), left(&other, now)],
            [Ok(Some(1)), Ok(Some(0)), Err("guest".to_owned()), Ok(Some(1))]
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
        let suspected = |peer: &str, now| counts.suspected(&key(peer, "z"), now).map(|standing| standing.policies().concat());
        assert_eq!(suspected("192.0.2.7:1", now).as_deref(), Some("refused"));
        assert_eq!(suspected("192.0.2.8:1", now), None);
        assert_eq!(suspected("192.0.2.7:1", now + limits::RATE_WINDOW), None);
        assert!(counts.suspected(&parts("192.0.2.7:1", &[]), now).is_none(), "nobody looks at what is not shown");
        // The device itself.
        let here = parts("127.0.0.1:1", &[("host", "localhost")]);
        assert_eq!(vec![left(&here, now), left(&here, now), left(&here, now)], vec![Ok(None); 3]);
    }

    #[test]
    fn a_flood_of_callers_takes_no_more_than_its_room() {
        let counts = Counts::new(Rates { guest: 1, key: 3, auth: 2 }, Rules::default());
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

    /// Asks again and again as somebody; gives how many were let through, and what held the others.
    #[track_caller]
    fn asks(counts: &Counts, (method, path): (Method, &str), (peer, headers): (&str, &[(&str, &str)]), now: Instant) -> (usize, String) {
        let request = Request::builder().method(method).uri(path).extension(Peer(peer.parse().unwrap()));
        let parts = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap().into_parts().0;
        let heard = (0..9).take_while(|_| counts.admit(&parts, now).is_ok()).count();
        let violated = counts.admit(&parts, now).err().map(|over| over.policies().join(" ")).unwrap_or_default();
        (heard, violated)
    }

    #[test]
    fn rules_by_label_count_beside_the_quota() {
        let rules = "orders:create@guest=2/1s, *:create=4/1s, /rest/v1/notes=3/10s, *:auth=1/1s";
        let counts = Counts::new(Rates { guest: 1_000, key: 1_000, auth: 5 }, Rules::parse(rules).unwrap());
        let now = Instant::now();
        let (guest, other) = (("192.0.2.1:1", [].as_slice()), ("192.0.2.2:1", [].as_slice()));
        let user: &[(&str, &str)] = &[("authorization", "Bearer ey.a.b")];
        let public: &[(&str, &str)] = &[("apikey", "mobo_pub_a")];
        let held = |count, policy: &str| (count, policy.to_owned());
        let post = |path| (Method::POST, path);
        assert_eq!(asks(&counts, post("/rest/v1/orders"), guest, now), held(2, "orders:create@guest"));
        assert_eq!(asks(&counts, post("/rest/v1/%6frders"), guest, now), held(0, "orders:create@guest"), "however it is spelled");
        assert_eq!(asks(&counts, post("/rest/v1/orders"), other, now), held(2, "orders:create@guest"));
        assert_eq!(asks(&counts, post("/rest/v1/orders"), ("192.0.2.2:1", public), now), held(0, "orders:create@guest"), "one address");
        assert_eq!(asks(&counts, post("/rest/v1/orders"), ("192.0.2.1:1", user), now), held(4, "*:create"));
        assert_eq!(asks(&counts, post("/rest/v1/orders"), ("192.0.2.9:1", user), now), held(0, "*:create"), "by what is shown");
        assert_eq!(asks(&counts, (Method::GET, "/rest/v1/notes"), guest, now), held(3, "/rest/v1/notes"));
        assert_eq!(asks(&counts, (Method::GET, "/rest/v1/orders"), guest, now), held(9, ""), "nobody counts reading");
        assert_eq!(asks(&counts, post("/auth/v1/token"), ("192.0.2.3:1", user), now), held(1, "*:auth"));
        // Every window comes back by itself.
        let later = now + Duration::from_secs(1);
        assert_eq!(asks(&counts, post("/rest/v1/orders"), guest, later), held(2, "orders:create@guest"));
        assert_eq!(asks(&counts, (Method::GET, "/rest/v1/notes"), guest, later), held(0, "/rest/v1/notes"));
        // What a body says is counted with what heads say.
        let act = |peer: &str, now| counts.act(&parts(peer, &[]), ("orders", Action::Create), now).map_err(|over| over.policies().concat());
        assert_eq!(act("192.0.2.1:1", later), Err("orders:create@guest".to_owned()));
        assert_eq!([act("192.0.2.8:1", later), act("192.0.2.8:1", later)], [Ok(()), Ok(())]);
    }

    #[test]
    fn who_is_held_back_by_a_small_quota_is_not_forgotten_for_a_large_one() {
        let rules = Rules::parse("/rest/v1/a=2/1h").unwrap();
        let counts = Counts::new(Rates { guest: 1_000, key: 1_000, auth: 2 }, rules);
        let now = Instant::now();
        assert_eq!(asks(&counts, (Method::GET, "/rest/v1/a"), ("192.0.2.1:1", &[]), now).0, 2);
        for n in 0..limits::RATE_CALLERS_MAX {
            (0..3).for_each(|_| drop(counts.admit(&parts("192.0.2.2:1", &[("apikey", &n.to_string())]), now)));
        }
        assert_eq!(asks(&counts, (Method::GET, "/rest/v1/a"), ("192.0.2.1:1", &[]), now), (0, "/rest/v1/a".to_owned()));
        assert!(counts.windows.lock().unwrap().len() <= limits::RATE_CALLERS_MAX);
    }
}
