//! What a device counts and measures. Where something is done, one line there counts it here.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::session::device::{Effect, Input};
use mobo_core::time::Wall;
use mobo_gate::watch::{Ended, Watch};
use mobo_runtime::clock::Clock;
use mobo_runtime::component::BoxFuture;
use mobo_runtime::metrics::{Collect, Counter, Counters, Exposition, Gauge, Kind, Metric, board, http};
use mobo_runtime::motherboard::BoardHandle;

use crate::node::{Edge, VERSION};
use crate::uplink::LinkState;

static SESSIONS: Counter = Counter::new("mobo_sync_sessions_total", "Sessions that the hub admitted.");
static SENT: Counter = Counter::new("mobo_sync_changes_sent_total", "Entries that were pushed to the hub, each time that they were.");
static RECEIVED: Counter = Counter::new("mobo_sync_changes_received_total", "Records that the hub delivered.");
static REJECTED: Counters<1> = Counters::new("mobo_sync_rejected_total", ["code"], "Entries of this device that the hub refused.");
/// Seconds since 1970; 0 before the first.
static LAST_SUCCESS: Gauge =
    Gauge::new("mobo_sync_last_success_timestamp_seconds", "When the hub last acknowledged something, or agreed with this device.");

/// All of them but those of the API.
pub static ALL: &[&dyn Metric] = &[&SESSIONS, &SENT, &RECEIVED, &REJECTED, &LAST_SUCCESS];

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

/// Counts what a session is told.
pub fn heard(input: &Input) {
    if let Input::Entries(_, Some(push)) = input {
        SENT.add(push.entries.len() as u64);
    }
    if let Input::Admitted(_) = input {
        SESSIONS.add(1);
    }
}

/// Counts what a session asks for, at this time.
pub fn asked(effect: &Effect, wall: Wall) {
    if let Effect::Acked(_) | Effect::Drained = effect {
        LAST_SUCCESS.set(wall.0 / 1_000_000);
    }
    if let Effect::Apply(batch) = effect {
        RECEIVED.add(batch.items.len() as u64);
    }
    if let Effect::Rejected(reject) = effect {
        REJECTED.add([reject.code.name()], 1);
    }
}

/// A device, to be asked for its metrics.
pub struct EdgeMetrics {
    edge: Arc<Edge>,
    board: BoardHandle,
    clock: Clock,
}

impl std::fmt::Debug for EdgeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeMetrics").finish_non_exhaustive()
    }
}

impl EdgeMetrics {
    /// Those of this device on this board.
    #[must_use]
    pub fn new(edge: Arc<Edge>, board: BoardHandle) -> Self {
        let clock = edge.clock;
        Self { edge, board, clock }
    }
}

impl Collect for EdgeMetrics {
    fn collect<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            board::expose(out, &self.board, VERSION);
            let state = self.edge.link.borrow().state;
            let live = u8::from(state == LinkState::Live);
            let mut peers = out.family("mobo_sync_peers", Kind::Gauge, "Hubs, by whether this device is connected.");
            peers.sample(&[("state", "live")], f64::from(live));
            peers.sample(&[("state", "away")], f64::from(1 - live));
            let Ok(store) = self.edge.store() else { return };
            let Ok(counts) = store.counts().await else { return };
            out.gauge("mobo_sync_pending_changes", "Entries that the hub has not acknowledged.", counts.pending as f64);
            let waited = self.clock.wall().0 / 1_000_000 - LAST_SUCCESS.get();
            let lag = if counts.pending == 0 || LAST_SUCCESS.get() == 0 { 0 } else { waited.max(0) };
            let help = "How long the last success is ago while something is pending; 0 while nothing is.";
            out.gauge("mobo_sync_lag_seconds", help, lag as f64);
        })
    }

    fn devices<'a>(&'a self, _: &'a mut Exposition) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}
