//! The hub's time (rule R6): it never goes back, not over a restart, not when the wall clock jumps, not between hubs on one store.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mobo_core::limits;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::time::{Eff, Instant, Wall};
use mobo_runtime::machine::Machine;
use mobo_runtime::tasks::Tasks;

/// How far ahead of its wall clock a restored hub believes devices that they were told of: ten leaps.
pub const TOLD_MAX: Duration = Duration::from_secs(10 * limits::TIME_LEAP.as_secs());

/// The hub's time.
///
/// It is the wall clock, or what monotonic time makes of an earlier reading if that is later; and it stays below a reservation in the store,
/// which is raised ahead of need, so that a hub that crashes starts above everything it has ever said.
///
/// So each start may put it ahead of the wall clock. It goes at half speed until it has given that back: a hub that comes back from an older
/// copy must be above what the lost one said, and can only be if that was never far ahead.
#[derive(Debug)]
pub struct HubTime {
    machine: Arc<dyn Machine>,
    store: Arc<dyn HubStore>,
    origin: RwLock<Origin>,
    last: AtomicI64,
    reserved: AtomicI64,
}

/// Where its elapsed time is counted from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    instant: Instant,
    eff: Eff,
    /// What it gives back of its lead over the wall clock, in µs.
    lead_us: u64,
}

impl Origin {
    /// A lead beyond [`limits::TIME_SLEW_MAX`] is a wall clock that was set back, and stays.
    fn new(eff: Eff, (instant, wall): (Instant, Wall)) -> Self {
        let lead_us = u64::try_from(eff.0.saturating_sub(wall.0)).unwrap_or(0);
        let lead_us = if lead_us > micros(limits::TIME_SLEW_MAX) { 0 } else { lead_us };
        Self { instant, eff, lead_us }
    }

    fn at(&self, now: Instant) -> Eff {
        let elapsed_us = micros(now.since(self.instant));
        self.eff.plus(elapsed_us - self.lead_us.min(elapsed_us / 2))
    }
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
        let origin = RwLock::new(Origin::new(begin, (machine.now(), machine.wall())));
        Ok(Self { origin, machine, store, last, reserved })
    }

    /// Now. Never less than before, never beyond the reservation.
    #[must_use]
    pub fn now(&self) -> Eff {
        let elapsed = if mobo_core::protect!("time.elapses", true) { self.elapsed().0 } else { i64::MIN };
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
        self.reserve_from(self.elapsed()).await
    }

    /// Goes on from above all that a lost hub may have said: it was never further ahead of the wall clock than this leaps. For a new timeline.
    ///
    /// # Errors
    ///
    /// The store's; then it goes on as before.
    pub async fn leap(&self) -> Result<(), StoreError> {
        let leap_us = if mobo_core::protect!("time.leaps", true) { micros(limits::TIME_LEAP) } else { 0 };
        self.go_on_from(self.now().plus(leap_us)).await
    }

    /// Goes on from above `written`, which the hub said before it was restored. Otherwise whatever is written into that record until then would
    /// lose to it: for years, where the lost hub's wall clock was years ahead.
    ///
    /// # Errors
    ///
    /// The store's; then it goes on as before.
    pub async fn reach(&self, written: Eff) -> Result<(), StoreError> {
        let is_ahead = written >= self.now();
        if mobo_core::protect!("time.reaches", is_ahead) { self.go_on_from(written.plus(1)).await } else { Ok(()) }
    }

    /// Goes on from the latest of what devices say that a hub of this store told them before it was restored, so that these decisions stand (rule
    /// R7). A hub that is restored again and again leaps each time, and may be put back behind more than one leap. Nobody vouches for what a
    /// device says, so that it is believed up to [`TOLD_MAX`] ahead of the wall clock, or of where this hub stood when it found out: its wall clock
    /// may have been set back since its copy was made, and a lost hub, too, had gone on from where it was.
    ///
    /// # Errors
    ///
    /// The store's; then it goes on as before.
    pub async fn recall(&self, found_out: Eff, told: impl IntoIterator<Item = Eff>) -> Result<(), StoreError> {
        let latest = found_out.max(Eff(self.machine.wall().0)).plus(micros(TOLD_MAX));
        let told = told.into_iter().filter(|told| *told <= latest).max();
        match told.filter(|told| *told > self.now()) {
            Some(told) => self.go_on_from(told).await,
            None => Ok(()),
        }
    }

    async fn go_on_from(&self, eff: Eff) -> Result<(), StoreError> {
        self.reserve_from(eff).await?;
        self.lift(eff);
        Ok(())
    }

    fn elapsed(&self) -> Eff {
        self.origin.read().unwrap_or_else(PoisonError::into_inner).at(self.machine.now())
    }

    async fn reserve_from(&self, now: Eff) -> Result<(), StoreError> {
        let ahead = now.max(Eff(self.machine.wall().0));
        let wanted = ahead.plus(micros(limits::TIME_RESERVE));
        let reserved = self.store.reserve_time(wanted).await?;
        self.reserved.fetch_max(reserved.0, Ordering::AcqRel);
        if mobo_core::protect!("time.shared", reserved > wanted) {
            // Another hub of this store is ahead, or this one was while its wall clock was.
            self.lift(reserved.before(micros(limits::TIME_RESERVE)));
        }
        Ok(())
    }

    /// Counts on from `eff`, where that is later.
    fn lift(&self, eff: Eff) {
        let (instant, wall) = (self.machine.now(), self.machine.wall());
        let mut origin = self.origin.write().unwrap_or_else(PoisonError::into_inner);
        if origin.at(instant) < eff {
            *origin = Origin::new(eff, (instant, wall));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// What time it is `elapsed_s` after a start that far `ahead_s` of the wall clock, seen from the start.
    #[track_caller]
    fn check(ahead_s: i64, elapsed_s: u64, want_s: i64) {
        let origin = Origin::new(Eff(ahead_s * SECOND), (Instant(7), Wall(0)));
        let now = origin.at(Instant(7 + elapsed_s * 1_000_000_000));
        assert_eq!(now, Eff(want_s * SECOND), "{elapsed_s} s after a start {ahead_s} s ahead");
    }

    /// What broke: a hub that had been restored three times was ahead of its wall clock by three leaps, and was put back to when it was not. It
    /// decided anew what it had decided then, and a device's next write was earlier than the rows that the device gave back after that (rule R7).
    /// And so did one whose wall clock had been years ahead once, and was right again: it believed nobody what was near its own time.
    #[tokio::test]
    async fn r7_what_devices_were_told_is_not_in_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn HubStore> = Arc::new(mobo_adapters::sqlite::SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        let machine = Arc::new(mobo_runtime::clock::Clock::start().unwrap());
        let opened = crate::node::assemble(store, &mobo_core::trust::KeyPair::from_secret(&[7; 32]), machine).await.unwrap();
        let (begin, time) = (opened.time.now(), opened.time);
        let leaps = |count: u64| begin.plus(count * micros(limits::TIME_LEAP));
        let year = 365 * 86_400_000_000;
        let ahead = |count: u64| leaps(count).plus(year);
        let cases = [
            (begin, vec![], begin),
            (begin, vec![leaps(3), leaps(1)], leaps(3)),
            (begin, vec![leaps(2)], leaps(3)),
            (begin, vec![ahead(0), leaps(4)], leaps(4)),
            (ahead(0), vec![ahead(11), ahead(2)], ahead(2)),
        ];
        for (found_out, told, want) in cases {
            time.recall(found_out, told.clone()).await.unwrap();
            let now = time.now();
            assert!(now >= want && now < want.plus(30_000_000), "{told:?}: {now:?}, and not {want:?}");
        }
    }

    #[test]
    fn r6_a_start_ahead_of_the_wall_clock_is_given_back_at_half_speed() {
        check(0, 60, 60);
        check(10, 0, 10);
        check(10, 8, 14);
        check(10, 20, 20);
        check(10, 100, 100);
        // A wall clock that was set back, or is slow: no reason to slow down.
        check(4_000, 100, 4_100);
        check(-4_000, 100, -3_900);
    }
}
