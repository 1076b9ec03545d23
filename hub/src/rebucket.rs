//! Places records by rules that have changed: in the background, a batch at a time, on from where it was after any end of the hub (rule R3).

use std::sync::Arc;

use mobo_core::limits;
use mobo_core::store::{RebucketBatch, Rebucketed, StoreError};
use mobo_runtime::machine;
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, Opened};

/// Works until the hub stops: at once when rules change, and now and then in case that another hub of the same store has left something.
pub(crate) async fn run(hub: Arc<Hub>, stopping: CancellationToken) {
    let Ok(opened) = hub.opened() else { return };
    let mut schema = opened.schema.subscribe();
    while !stopping.is_cancelled() {
        match step(&opened).await {
            Ok(Some(step)) => {
                tell(&hub, &step);
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "records were not placed by their collection's new rules; it is tried again"),
        }
        tokio::select! {
            changed = schema.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(limits::REBUCKET_LOOK) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn step(opened: &Opened) -> Result<Option<Rebucketed>, StoreError> {
    let batch = RebucketBatch {
        project: opened.project,
        schema: Arc::clone(&opened.schema.borrow()),
        timeline: opened.history.era().timeline.timeline,
        now: opened.time.now(),
        entropy: machine::random(opened.time.machine())?,
        records_max: limits::REBUCKET_RECORDS_MAX,
    };
    opened.store.rebucket(batch).await
}

fn tell(hub: &Hub, step: &Rebucketed) {
    let (done, moved) = (step.progress.done, step.progress.moved);
    tracing::debug!(collection = %step.progress.collection, done, moved, "records were placed by new rules");
    if let Ok(merges) = hub.merges() {
        merges.tell(step.hints.clone());
    }
    if step.finished {
        tracing::info!(collection = %step.progress.collection, done, moved, "all records are placed by their collection's new rules");
        // What the old rules gave to devices by their claims is theirs no more.
        if let Some(sessions) = hub.sessions() {
            sessions.rights_changed(None);
        }
    }
}
