//! Takes in SQL that was written into the tables of collections (rule R24).
//!
//! A file has nobody to tell of it, and is asked once in a while, which costs one tiny read. A database elsewhere can tell of writes only from
//! inside their transactions, and its way to do so (NOTIFY) makes every commit wait for all others: eleven times fewer of them a second were
//! measured. So the hub looks, at a few dozen tiny reads a second.

use std::sync::Arc;

use mobo_core::limits;
use mobo_core::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, Opened};

/// Works until the hub stops.
pub(crate) async fn run(hub: Arc<Hub>, stopping: CancellationToken) {
    let Ok(opened) = hub.opened() else { return };
    let mut well = true;
    while !stopping.is_cancelled() {
        match step(&hub, &opened).await {
            // There may be more.
            Ok(true) => {
                well = true;
                continue;
            }
            Ok(false) => well = true,
            Err(error) if well => {
                tracing::warn!(%error, "what was written by SQL is not taken in yet; it is tried again");
                well = false;
            }
            Err(_) => {}
        }
        let pause = if well { limits::HUB_INTAKE_LOOK } else { limits::REBUCKET_LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Takes in some of what waits; false when nothing did.
pub(crate) async fn step(hub: &Hub, opened: &Opened) -> Result<bool, StoreError> {
    let Some(report) = opened.store.take_in(opened.batch(Vec::new())?).await? else { return Ok(false) };
    if let Ok(merges) = hub.merges() {
        merges.tell(report.hints);
    }
    Ok(true)
}
