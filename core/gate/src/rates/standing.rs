//! Where a caller stands, as an answer tells it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue};

use crate::problem::{Problem, Quota};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Where a caller stands in one policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// The word, or the label, that it is known by.
    pub(super) policy: Arc<str>,
    pub(super) quota: u32,
    pub(super) window: Duration,
    pub(super) left: u32,
    pub(super) reset: Duration,
    /// More was asked than there was.
    pub(super) is_over: bool,
}

impl Place {
    /// Seconds until the window is over.
    fn reset_s(&self) -> u64 {
        self.reset.as_secs() + 1
    }
}

/// Where a caller stands after a request, in every policy that counts it: the general one first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Standing(pub(super) Vec<Place>);

impl Standing {
    /// True where any of them was overdrawn.
    pub(super) fn is_over(&self) -> bool {
        self.0.iter().any(|place| place.is_over)
    }

    /// True where nothing is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.iter().any(|place| place.left == 0)
    }

    /// The policies that he has gone over; where he has gone over none, those of which nothing is left.
    fn violated(&self) -> Vec<&Place> {
        let over: Vec<&Place> = self.0.iter().filter(|place| place.is_over).collect();
        if over.is_empty() { self.0.iter().filter(|place| place.left == 0).collect() } else { over }
    }

    /// The names of those policies.
    pub(crate) fn policies(&self) -> Vec<Arc<str>> {
        self.violated().into_iter().map(|place| Arc::clone(&place.policy)).collect()
    }

    /// Says it in the headers of an answer: in the words of the IETF draft all of it, and in those that everybody reads the policy that is used up
    /// first.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let (mut policies, mut limits) = (String::new(), String::new());
        for place in &self.0 {
            let comma = if policies.is_empty() { "" } else { ", " };
            let Place { policy, quota, left, window, .. } = place;
            let _ = write!(policies, "{comma}\"{policy}\";q={quota};w={}", window.as_secs());
            let _ = write!(limits, "{comma}\"{policy}\";r={left};t={}", place.reset_s());
        }
        for (name, text) in [(POLICY, policies), (LIMIT, limits)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        // Whoever has gone over several is told of the one that lasts.
        let first = self.0.iter().min_by_key(|place| (place.left, std::cmp::Reverse(place.reset)));
        if let Some(place) = first {
            headers.insert(X_LIMIT, HeaderValue::from(place.quota));
            headers.insert(X_REMAINING, HeaderValue::from(place.left));
            headers.insert(X_RESET, HeaderValue::from(place.reset_s()));
        }
    }

    /// When to come back: once the last of the policies that he has gone over begins anew.
    fn retry_after_s(&self) -> u64 {
        self.violated().into_iter().map(Place::reset_s).max().unwrap_or(1)
    }

    pub(crate) fn retry_after(&self, headers: &mut HeaderMap) {
        headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after_s()));
    }

    /// What he is told who has asked too often.
    pub(crate) fn problem(&self) -> Problem {
        let last = self.violated().into_iter().max_by_key(|place| place.reset);
        Problem::quota(Quota {
            policies: self.policies(),
            limit: last.map_or(0, |place| place.quota.into()),
            window_s: last.map(|place| place.window.as_secs()),
            retry_after_s: self.retry_after_s(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_every_policy() {
        let place = |policy: &str, (left, reset_s, is_over)| Place {
            policy: policy.into(),
            quota: 10,
            window: Duration::from_secs(60),
            left,
            reset: Duration::from_secs(reset_s),
            is_over,
        };
        let text = |standing: &Standing| {
            let mut headers = HeaderMap::new();
            standing.write(&mut headers);
            standing.retry_after(&mut headers);
            [POLICY, LIMIT, X_LIMIT, X_REMAINING, X_RESET, RETRY_AFTER].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        let two = Standing(vec![place("guest", (7, 30, false)), place("orders:create@guest", (0, 5, true))]);
        let policies = "\"guest\";q=10;w=60, \"orders:create@guest\";q=10;w=60";
        assert_eq!(text(&two), [policies, "\"guest\";r=7;t=31, \"orders:create@guest\";r=0;t=6", "10", "0", "6", "6"]);
        assert_eq!((two.policies(), two.is_over()), (vec!["orders:create@guest".into()], true));
        let both = Standing(vec![place("guest", (0, 30, true)), place("/", (0, 5, true))]);
        assert_eq!((text(&both)[4].as_str(), text(&both)[5].as_str(), both.policies().len()), ("31", "31", 2));
        let suspected = Standing(vec![place("refused", (0, 30, false))]);
        assert_eq!((suspected.is_used_up(), suspected.is_over(), suspected.policies()), (true, false, vec!["refused".into()]));
    }
}
