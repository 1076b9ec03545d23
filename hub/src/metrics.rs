//! What a hub counts and measures. Where something is done, one line there counts it here.

pub mod backup;
mod collect;

use std::time::Duration;

use mobo_core::merge::Outcome;
use mobo_core::schema::Schema;
use mobo_core::session::CloseReason;
use mobo_core::session::hub::{Input, Refusal};
use mobo_core::store::{MergeReport, StoreError};
use mobo_gate::watch::{Ended, Watch};
use mobo_runtime::metrics::{Counter, Counters, Durations, Metric, http};
use tokio::time::Instant;

pub use collect::HubMetrics;

static SESSIONS: Counter = Counter::new("mobo_sync_sessions_total", "Sessions of devices that were let in.");
static SESSIONS_ENDED: Counters<1> = Counters::new("mobo_sync_sessions_ended_total", ["reason"], "Links of devices that ended, by why.");
static TURNED_AWAY: Counters<1> = Counters::new("mobo_sync_refused_total", ["code"], "Devices that were turned away at the door.");
static RECEIVED: Counter = Counter::new("mobo_sync_changes_received_total", "Entries of devices that were merged or quarantined.");
static SENT: Counter = Counter::new("mobo_sync_changes_sent_total", "Records that were read for devices to deliver.");
static CONFLICTS: Counters<1> =
    Counters::new("mobo_sync_conflicts_total", ["collection"], "Decisions of merges that went into the ledger.");
static QUARANTINED: Counters<1> = Counters::new("mobo_sync_quarantined_total", ["code"], "Entries that went to quarantine.");
static DAMAGED: Counter =
    Counter::new("mobo_store_damaged_records_total", "Records that do not fit their own hash and were not delivered.");
static STORE_DURATION: Durations<1> =
    Durations::new("mobo_store_operation_duration_seconds", ["operation"], "How long the store takes, from the call to the answer.");
static STORE_FAILURES: Counters<2> =
    Counters::new("mobo_store_failures_total", ["operation", "reason"], "What the store could not do, by what its caller does next.");
static ACQUIRE_TIMEOUTS: Counter =
    Counter::new("mobo_db_pool_acquire_timeouts_total", "Waits for a connection to the database that were given up.");

/// All of them but those of the API.
pub static ALL: &[&dyn Metric] = &[
    &SESSIONS,
    &SESSIONS_ENDED,
    &TURNED_AWAY,
    &RECEIVED,
    &SENT,
    &CONFLICTS,
    &QUARANTINED,
    &DAMAGED,
    &STORE_DURATION,
    &STORE_FAILURES,
    &ACQUIRE_TIMEOUTS,
];

/// Counts and measures the requests of the gate.
#[derive(Clone, Copy, Debug)]
pub struct Requests;

impl Watch for Requests {
    fn came(&self) {
        http::came();
    }

    fn left(&self) {
        http::left();
    }

    fn answered(&self, request: &Ended<'_>, took: Duration) {
        http::answered((request.method, request.route, request.status), took);
    }

    fn authenticated(&self, method: &'static str, failure: Option<&'static str>) {
        http::authenticated(method, failure);
    }

    fn limited(&self, policy: &str) {
        http::limited(policy);
    }
}

/// Measures what the store is asked, and counts what it could not do.
///
/// # Errors
///
/// As the store's answer.
pub async fn timed<T>(operation: &'static str, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let began = Instant::now();
    let answer = answer.await;
    STORE_DURATION.observe([operation], began.elapsed());
    if let Err(error) = &answer {
        STORE_FAILURES.add([operation, word(error)], 1);
    }
    answer
}

const fn word(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Contended(_) => "contended",
        StoreError::Full(_) => "full",
        StoreError::Poisoned(_) => "poisoned",
        StoreError::Damaged(_) => "damaged",
        StoreError::BadValue(_) | StoreError::Refused(_) => "refused",
    }
}

/// Counts what a batch has decided.
pub fn merged(schema: &Schema, report: &MergeReport) {
    for (collection, conflicts) in &report.conflicts {
        let name = schema.get(*collection).map_or("unknown", |collection| collection.name.as_str());
        CONFLICTS.add([name], *conflicts);
    }
}

/// Counts what a session hears.
pub fn heard(input: &Input) {
    if let Input::Admitted(Ok(_)) = input {
        SESSIONS.add(1);
    }
    if let Input::Admitted(Err(Refusal::Error(error))) | Input::Enrolled(Err(error)) = input {
        TURNED_AWAY.add([error.code.name()], 1);
    }
    if let Input::Merged(_, Outcome::Merged(merged)) = input {
        RECEIVED.add(merged.effs.len() as u64);
        merged.rejects.iter().for_each(|reject| QUARANTINED.add([reject.code.name()], 1));
    }
    if let Input::Page(page) = input {
        SENT.add(page.buckets.iter().map(|bucket| bucket.items.len() as u64).sum());
        DAMAGED.add(page.buckets.iter().map(|bucket| bucket.damaged.len() as u64).sum());
    }
}

/// Counts the end of a link.
pub fn ended(reason: &CloseReason) {
    let word = match reason {
        CloseReason::Stopped => "stopped",
        CloseReason::PeerLeft => "left",
        CloseReason::Silent => "silent",
        CloseReason::Refenced => "refenced",
        CloseReason::Refused(_) => "refused",
        CloseReason::Violation(_) => "violation",
        CloseReason::Store(_) => "store",
    };
    SESSIONS_ENDED.add([word], 1);
}

/// A connection to the database was waited for in vain.
pub fn waited_in_vain() {
    ACQUIRE_TIMEOUTS.add(1);
}
