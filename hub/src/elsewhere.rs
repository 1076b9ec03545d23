//! Keeps up with what other hubs of the same store change for the devices that are connected here: rights that were given or taken away, and
//! buckets that somebody else has merged into.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::ids::{BucketId, DeviceId, Position};
use mobo_core::limits;
use mobo_core::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::node::{Hub, Opened};

/// What was seen the last time.
#[derive(Debug, Default)]
struct Seen {
    rights: BTreeMap<DeviceId, u64>,
    heads: BTreeMap<BucketId, Position>,
}

/// Works until the hub stops.
pub(crate) async fn run(hub: Arc<Hub>, stopping: CancellationToken) {
    let Ok(opened) = hub.opened() else { return };
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(limits::ELSEWHERE_LOOK) => {}
            () = stopping.cancelled() => return,
        }
        if let Err(error) = look(&hub, &opened, &mut seen).await {
            tracing::debug!(%error, "cannot look at what other hubs of this store have changed");
        }
    }
}

async fn look(hub: &Hub, opened: &Opened, seen: &mut Seen) -> Result<(), StoreError> {
    let (Some(sessions), Ok(merges)) = (hub.sessions(), hub.merges()) else { return Ok(()) };
    let (devices, buckets) = sessions.watched();
    if devices.is_empty() {
        return Ok(());
    }
    let asked = opened.store.elsewhere(opened.project, devices.iter().copied().collect(), buckets.into_iter().collect());
    let Some(found) = asked.await? else { return Ok(()) };
    let rights: BTreeMap<DeviceId, u64> = found.rights.into_iter().collect();
    for device in devices {
        // Of one that is seen for the first time, nobody knows what happened before.
        if rights.get(&device) != seen.rights.get(&device) || !rights.contains_key(&device) {
            sessions.rights_changed(Some(device));
        }
    }
    let mut hints = found.heads;
    let heads = hints.iter().map(|hint| (hint.bucket, hint.head)).collect();
    // Whoever has read so far already does nothing.
    hints.retain(|hint| seen.heads.get(&hint.bucket) != Some(&hint.head));
    merges.tell(hints);
    *seen = Seen { rights, heads };
    Ok(())
}
