//! What every node counts of the requests to its API.

use std::time::Duration;

use super::{Counters, Durations, Gauge, Metric};

static REQUESTS: Counters<3> =
    Counters::new("mobo_http_requests_total", ["method", "route", "status"], "Requests that were answered, by route as it is declared.");
static DURATION: Durations<2> =
    Durations::new("mobo_http_request_duration_seconds", ["method", "route"], "From a request's head to the head of its answer.");
static IN_FLIGHT: Gauge = Gauge::new("mobo_http_requests_in_flight", "Requests in work.");
static AUTH_ATTEMPTS: Counters<1> = Counters::new("mobo_auth_attempts_total", ["method"], "Credentials that were shown to the API.");
static AUTH_FAILURES: Counters<2> =
    Counters::new("mobo_auth_failures_total", ["method", "reason"], "Credentials that were not good, or that nobody could look up.");
static LIMITED: Counters<1> = Counters::new(
    "mobo_ratelimit_rejected_total",
    ["policy"],
    "Requests that were refused because somebody asked too often, by the policy or rule.",
);

/// All of them, for the node's list.
pub static ALL: &[&dyn Metric] = &[&REQUESTS, &DURATION, &IN_FLIGHT, &AUTH_ATTEMPTS, &AUTH_FAILURES, &LIMITED];

/// The methods that have a series of their own: a caller may write anything there.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"];

/// A request has begun.
pub fn came() {
    IN_FLIGHT.add(1);
}

/// A request is over, answered or not.
pub fn left() {
    IN_FLIGHT.add(-1);
}

/// A request was answered.
pub fn answered((method, route, status): (&str, &str, u16), took: Duration) {
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
    REQUESTS.add([method, route, &status.to_string()], 1);
    DURATION.observe([method, route], took);
}

/// Somebody asked too often for this policy.
pub fn limited(policy: &str) {
    LIMITED.add([policy], 1);
}

/// A caller showed a credential; `failure` says why it was not good.
pub fn authenticated(method: &str, failure: Option<&str>) {
    AUTH_ATTEMPTS.add([method], 1);
    failure.into_iter().for_each(|reason| AUTH_FAILURES.add([method, reason], 1));
}
