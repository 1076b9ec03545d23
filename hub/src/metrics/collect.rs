//! What a hub says of itself only when it is asked.

use std::sync::Arc;

use mobo_core::limits;
use mobo_core::store::{Counts, DeviceRow};
use mobo_runtime::component::BoxFuture;
use mobo_runtime::metrics::{Collect, Exposition, Kind, board};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::node::{Hub, VERSION};

/// A hub, to be asked for its metrics.
pub struct HubMetrics {
    hub: Arc<Hub>,
    /// What the store had to count, and when.
    counted: Mutex<Option<(Instant, Counts)>>,
}

impl std::fmt::Debug for HubMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubMetrics").finish_non_exhaustive()
    }
}

impl HubMetrics {
    /// Those of this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, counted: Mutex::new(None) }
    }

    /// Counting takes the longer the more there is: it is done seldom, however often somebody asks.
    async fn counts(&self) -> Option<Counts> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = &*counted
            && at.elapsed() < limits::METRICS_COUNT_EVERY
        {
            return Some(counts.clone());
        }
        let opened = self.hub.opened().ok()?;
        let counts = super::timed("counts", opened.store.counts(opened.project)).await.ok()?;
        *counted = Some((Instant::now(), counts.clone()));
        Some(counts)
    }

    async fn rows(&self) -> Vec<DeviceRow> {
        match self.hub.opened() {
            Ok(opened) => super::timed("devices", opened.store.devices(opened.project)).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// What the cache of verified keys was asked.
    fn cache(&self, out: &mut Exposition) {
        let counts = self.hub.verified().counts();
        let mut family =
            out.family("mobo_cache_requests_total", Kind::Counter, "Lookups of verified keys, by whether they were remembered.");
        family.sample(&[("cache", "keys"), ("result", "hit")], counts.hits as f64);
        family.sample(&[("cache", "keys"), ("result", "miss")], counts.misses as f64);
        let help = "Values that caches dropped for want of room.";
        out.family("mobo_cache_evicted_total", Kind::Counter, help).sample(&[("cache", "keys")], counts.evicted as f64);
    }

    fn pool(&self, out: &mut Exposition) {
        let Some(pool) = self.hub.opened().ok().and_then(|opened| opened.store.connections()) else { return };
        let mut family = out.family("mobo_db_pool_connections", Kind::Gauge, "Connections to the database.");
        for (state, count) in [("idle", pool.idle), ("used", pool.used), ("max", pool.max)] {
            family.sample(&[("state", state)], f64::from(count));
        }
    }
}

impl Collect for HubMetrics {
    fn collect<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            board::expose(out, &self.hub.board, VERSION);
            self.cache(out);
            self.pool(out);
            super::backup::expose(&self.hub, out);
            let live = self.hub.sessions().map_or(0, |sessions| sessions.live()) as f64;
            let mut peers = out.family("mobo_sync_peers", Kind::Gauge, "Devices that are not revoked, by whether they are connected.");
            peers.sample(&[("state", "live")], live);
            let Some(counts) = self.counts().await else { return };
            peers.sample(&[("state", "away")], (counts.devices as f64 - live).max(0.0));
            out.gauge("mobo_records", "Visible records of tables and documents.", counts.records as f64);
            out.gauge("mobo_sync_conflicts_open", "Decisions in the ledger that nobody has resolved.", counts.conflicts as f64);
            out.gauge("mobo_sync_quarantined_open", "Entries in quarantine that nobody has dealt with.", counts.quarantined as f64);
            let mut heads = out.family("mobo_bucket_head", Kind::Gauge, "Positions used in all buckets together.");
            heads.sample(&[], counts.buckets.iter().map(|bucket| bucket.2.0 as f64).sum());
        })
    }

    fn devices<'a>(&'a self, out: &'a mut Exposition) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let rows = self.rows().await;
            let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
            let live = |row: &DeviceRow| self.hub.sessions().is_some_and(|sessions| sessions.is_live(row.id));
            let mut family = out.family("mobo_device_live", Kind::Gauge, "Whether a device is connected.");
            for (row, id) in rows.iter().zip(&ids) {
                family.sample(&[("device", id), ("name", &row.name)], f64::from(u8::from(live(row))));
            }
            let mut family = out.family("mobo_device_seen_timestamp_seconds", Kind::Gauge, "When a device last said hello, since 1970.");
            for (row, id) in rows.iter().zip(&ids) {
                if let Some(seen) = row.seen {
                    family.sample(&[("device", id), ("name", &row.name)], seen.0 as f64 / 1e6);
                }
            }
        })
    }
}
