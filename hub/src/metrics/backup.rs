//! What backups count.

use mobo_runtime::metrics::{Counter, Counters, Exposition, Kind, Metric};

use crate::backup::{BackupFailure, Shipped, Swept};
use crate::node::Hub;

static SHIPPED: Counter = Counter::new("mobo_backup_manifests_total", "Manifests that were written: so often something new became safe.");
static BYTES: Counter = Counter::new("mobo_backup_bytes_total", "Bytes of objects that went to the vault.");
static FAILURES: Counter = Counter::new("mobo_backup_failures_total", "Shipments that did not come about.");
static DRILLS: Counters<1> =
    Counters::new("mobo_backup_drills_total", ["result"], "Restores into scratch space, by whether they were good.");
static PRUNED: Counter = Counter::new("mobo_backup_pruned_objects_total", "Objects that pruning has removed.");

/// All of them.
pub static ALL: &[&dyn Metric] = &[&SHIPPED, &BYTES, &FAILURES, &DRILLS, &PRUNED];

/// Counts a shipment.
pub fn shipped(shipped: &Result<Option<Shipped>, BackupFailure>) {
    match shipped {
        Ok(Some(shipped)) => {
            SHIPPED.add(1);
            BYTES.add(shipped.bytes());
        }
        Ok(None) => {}
        Err(_) => FAILURES.add(1),
    }
}

/// Counts a drill.
pub fn drilled(ok: bool) {
    DRILLS.add([if ok { "good" } else { "failed" }], 1);
}

/// Counts what pruning has removed.
pub fn pruned(swept: &Swept) {
    PRUNED.add(swept.removed);
}

/// How backups are now; nothing where there are none.
pub(super) fn expose(hub: &Hub, out: &mut Exposition) {
    let (report, proven) = (hub.backups.report(), hub.backups.proven());
    if report.place.is_none() && report.problem.is_none() {
        return;
    }
    out.family(
        "mobo_backup_cpu_seconds_total",
        Kind::Counter,
        "Time of processors that shipping took: its tasks, and what store and folder did for it.",
    )
    .sample(&[], hub.backups.shipping.spent().as_secs_f64());
    let mut gauge = |name: &'static str, help: &'static str, value: f64| out.family(name, Kind::Gauge, help).sample(&[], value);
    gauge("mobo_backup_stalled", "1 while nothing new becomes safe.", f64::from(u8::from(report.problem.is_some())));
    if let Some(last) = report.last {
        gauge("mobo_backup_last_success_timestamp_seconds", "When the newest manifest was taken, since 1970.", last.taken_us as f64 / 1e6);
    }
    if let Some(good_us) = proven.good_us {
        gauge(
            "mobo_backup_last_drill_timestamp_seconds",
            "When a backup was last restored for trial, and well, since 1970.",
            good_us as f64 / 1e6,
        );
    }
}
