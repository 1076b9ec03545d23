//! Bounds that a caller has gone over, as a problem tells of them.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use serde_json::{Map, Value as Json};

use super::Problem;

/// A bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Quota {
    /// Its name; several where several were gone over at once. The figures are those of the one that lasts longest.
    pub(crate) policies: Vec<Arc<str>>,
    /// So many, at a time or in a window.
    pub(crate) limit: u64,
    pub(crate) window_s: Option<u64>,
    /// When there may be room again.
    pub(crate) retry_after_s: u64,
}

impl Quota {
    /// The members of the problem: `violated-policies` is the draft's, and the others say what it was.
    pub(super) fn tell(&self, members: &mut Map<String, Json>) {
        members.insert("violated-policies".to_owned(), self.policies.iter().map(|policy| Json::from(&**policy)).collect::<Vec<_>>().into());
        members.insert("limit".to_owned(), self.limit.into());
        members.extend(self.window_s.map(|window_s| ("window_s".to_owned(), window_s.into())));
        members.insert("retry_after_s".to_owned(), self.retry_after_s.into());
    }
}

impl Problem {
    /// Somebody asks too often.
    pub(crate) fn quota(quota: Quota) -> Self {
        let Quota { policies, limit, window_s, .. } = &quota;
        let policies = policies.join("\" and \"");
        let message = format!("too many requests: the limit of \"{policies}\" is {limit} in {} s", window_s.unwrap_or_default());
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "MB429", "Quota exceeded", message);
        problem.hint("wait as long as Retry-After says").over(quota)
    }

    /// A caller who takes more than his part: so many at a time.
    pub(crate) fn crowd(policy: &'static str, limit: usize, why: &str) -> Self {
        let quota = Quota { policies: vec![policy.into()], limit: limit as u64, window_s: None, retry_after_s: 1 };
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "MB429", "Too many", why).over(quota);
        problem.hint("close some, then try again").header(RETRY_AFTER, "1")
    }

    fn over(mut self, quota: Quota) -> Self {
        self.0.quota = Some(quota);
        self
    }
}
