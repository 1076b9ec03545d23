//! Simulated machines: their clocks, their randomness, and the one way to run what waits.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use mobo_core::ids::BootId;
use mobo_core::store::StoreError;
use mobo_core::time::{Instant, Moment, Mono, Wall, WallQuality};
use mobo_runtime::machine::Machine;

use crate::seed::Rng;

/// When the simulated world begins: 2026-06-01, in µs since 1970.
pub(super) const BEGIN_US: i64 = 1_780_272_000_000_000;

/// The time of the world in µs, seen by all its machines.
pub(super) type WorldTime = Arc<AtomicU64>;

/// One machine.
#[derive(Debug)]
pub(super) struct SimMachine {
    time: WorldTime,
    rng: Mutex<Rng>,
    booted: AtomicU64,
    boot: AtomicU64,
    /// How far its wall clock is off, in µs.
    off_us: AtomicI64,
    /// True: it has no clock that outlives a boot, and starts in 1970 each time.
    no_clock: bool,
    /// How much faster its clocks go, in parts of a million.
    drift_ppm: i64,
}

impl SimMachine {
    pub(super) fn new(time: WorldTime, mut rng: Rng, (no_clock, drift_ppm): (bool, i64)) -> Self {
        let boot = AtomicU64::new(rng.next_u64());
        let booted = AtomicU64::new(time.load(Ordering::Relaxed));
        Self { time, rng: Mutex::new(rng), booted, boot, off_us: AtomicI64::new(0), no_clock, drift_ppm }
    }

    fn elapsed_us(&self) -> u64 {
        let elapsed = self.time.load(Ordering::Relaxed) - self.booted.load(Ordering::Relaxed);
        elapsed.saturating_add_signed(i64::try_from(elapsed).unwrap_or(0) / 1_000_000 * self.drift_ppm)
    }

    /// The machine starts again: its monotonic clock is at zero, and without a battery it is 1970.
    pub(super) fn reboot(&self) {
        self.booted.store(self.time.load(Ordering::Relaxed), Ordering::Relaxed);
        self.boot.store(self.draw(), Ordering::Relaxed);
        if self.no_clock {
            self.off_us.store(-BEGIN_US - i64::try_from(self.time.load(Ordering::Relaxed)).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Sets the wall clock off by so much more.
    pub(super) fn jump(&self, by_us: i64) {
        self.off_us.fetch_add(by_us, Ordering::Relaxed);
    }

    fn draw(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

impl Machine for SimMachine {
    fn now(&self) -> Instant {
        Instant(self.time.load(Ordering::Relaxed) * 1_000)
    }

    fn moment(&self) -> Moment {
        let wall = self.wall();
        let quality = if wall.0 < BEGIN_US - 400 * 86_400_000_000 { WallQuality::None } else { WallQuality::Set };
        let boot = BootId(self.boot.load(Ordering::Relaxed).to_le_bytes());
        Moment { boot, mono: Mono(self.elapsed_us()), wall, quality }
    }

    fn wall(&self) -> Wall {
        let world = BEGIN_US + i64::try_from(self.time.load(Ordering::Relaxed)).unwrap_or(0);
        Wall(world + self.off_us.load(Ordering::Relaxed))
    }

    fn boot(&self) -> BootId {
        BootId(self.boot.load(Ordering::Relaxed).to_le_bytes())
    }

    fn random(&self) -> Result<[u8; 32], StoreError> {
        let mut bytes = [0; 32];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        Ok(bytes)
    }
}

/// Runs a future to its end; `turn` does what it may wait for, and says false when there was nothing to do.
///
/// # Panics
///
/// When it waits for something that nobody does.
pub(super) fn wait<F: Future>(future: F, mut turn: impl FnMut() -> bool) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        assert!(turn(), "a future waits for something that nobody does");
    }
}

/// Looks once whether a future is ready.
pub(super) fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Waits for all of them at once: what they ask of one writer shares a commit.
pub(super) async fn all<T>(mut futures: Vec<mobo_core::future::BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
