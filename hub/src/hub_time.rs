//! The hub's time (rule R6): it never goes back, not over a restart, not when the wall clock jumps, not between hubs on one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::time::{Eff, Instant};
use mobo_runtime::machine::Machine;
use mobo_runtime::tasks::Tasks;

/// The hub's time.
///
/// It is the wall clock, or what monotonic time makes of an earlier reading if that is later; and it stays below a reservation in the store,
/// which is raised ahead of need, so that a hub that crashes starts above everything it has ever said.
#[derive(Debug)]
pub struct HubTime {
    machine: Arc<dyn Machine>,
    store: Arc<dyn HubStore>,
    origin: (Instant, Eff),
    last: AtomicI64,
    reserved: AtomicI64,
}

impl HubTime {
    /// Starts above `stored`, the reservation that earlier hubs have left.
    ///
    /// # Errors
    ///
    /// When the store cannot take the first reservation.
    pub async fn start(machine: Arc<dyn Machine>, store: Arc<dyn HubStore>, stored: Eff) -> Result<Self, StoreError> {
        let begin = Eff(machine.wall().0);
        let begin = if mobo_core::protect!("time.begins-above", begin < stored) { stored } else { begin };
        let reserved = store.reserve_time(begin.plus(micros(limits::TIME_RESERVE))).await?;
        let (last, reserved) = (AtomicI64::new(begin.0), AtomicI64::new(reserved.0));
        Ok(Self { origin: (machine.now(), begin), machine, store, last, reserved })
    }

    /// Now. Never less than before, never beyond the reservation.
    #[must_use]
    pub fn now(&self) -> Eff {
        let (instant, eff) = self.origin;
        let elapsed = eff.plus(micros(self.machine.now().since(instant)));
        let elapsed = if mobo_core::protect!("time.elapses", true) { elapsed.0 } else { i64::MIN };
        let now = self.machine.wall().0.max(elapsed).min(self.reserved.load(Ordering::Acquire));
        Eff(self.last.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// The machine that it is told on.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        self.machine.as_ref()
    }

    /// Keeps the reservation ahead, until the part stops. A store that is away leaves time standing still at the reservation, which is right:
    /// nothing can be merged meanwhile.
    pub fn keep_ahead(self: &Arc<Self>, tasks: &Tasks) {
        let (time, stopping) = (Arc::clone(self), tasks.stopping());
        tasks.spawn("time reservation", async move {
            let mut every = tokio::time::interval(limits::TIME_RESERVE_EVERY);
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = every.tick() => {}
                }
                if let Err(error) = time.reserve().await {
                    tracing::warn!(%error, "cannot reserve time in the store");
                }
            }
        });
    }

    /// Raises the reservation ahead of now.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn reserve(&self) -> Result<(), StoreError> {
        let (instant, eff) = self.origin;
        let ahead = eff.plus(micros(self.machine.now().since(instant))).max(Eff(self.machine.wall().0));
        let reserved = self.store.reserve_time(ahead.plus(micros(limits::TIME_RESERVE))).await?;
        self.reserved.fetch_max(reserved.0, Ordering::AcqRel);
        Ok(())
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
