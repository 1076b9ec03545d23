//! Who decides about many at once: when a whole fleet comes back, a hub that takes them all serves none. So many are looked at together, so
//! many wait, and the others are told when to come back, each at a time of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mobo_core::limits;
use mobo_core::message::{Code, PeerError};
use mobo_runtime::entropy;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error;

/// The waiting room of a hub's door.
#[derive(Debug)]
pub struct Herd {
    at_work: Semaphore,
    waiting: AtomicUsize,
    /// Turned away since nobody waited.
    turned: AtomicUsize,
    /// How long one admission takes, lately.
    takes: Mutex<Duration>,
}

impl Default for Herd {
    fn default() -> Self {
        let takes = Duration::from_secs(1) * u32::try_from(limits::ADMISSIONS_MAX).unwrap_or(1) / limits::ADMISSIONS_PER_S_MIN;
        Self {
            at_work: Semaphore::new(limits::ADMISSIONS_MAX),
            waiting: AtomicUsize::new(0),
            turned: AtomicUsize::new(0),
            takes: Mutex::new(takes),
        }
    }
}

/// The right to be looked at now.
#[derive(Debug)]
pub(super) struct Place<'h> {
    herd: &'h Herd,
    began: Instant,
    _permit: Option<SemaphorePermit<'h>>,
}

impl Herd {
    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// The answer to whoever would wait too long.
    pub(super) async fn enter(&self) -> Result<Place<'_>, PeerError> {
        let waiting = Waiting::new(self);
        if waiting.ahead > self.in_time() {
            let entropy = entropy::bytes().map_or(0, u64::from_le_bytes);
            return Err(self.turn_away(entropy));
        }
        // It is never closed.
        let permit = self.at_work.acquire().await.ok();
        drop(waiting);
        Ok(Place { herd: self, began: Instant::now(), _permit: permit })
    }

    /// How many may wait, so that the last one has its turn in time.
    fn in_time(&self) -> usize {
        let rounds = limits::ADMISSION_WAIT.as_nanos() / self.takes().as_nanos().max(1);
        usize::try_from(rounds).unwrap_or(usize::MAX).saturating_mul(limits::ADMISSIONS_MAX).max(limits::ADMISSIONS_MAX)
    }

    /// Spreads all who were turned away so far over the time that they will take.
    fn turn_away(&self, entropy: u64) -> PeerError {
        let turned = self.turned.fetch_add(1, Ordering::Relaxed) + 1;
        let rounds = u32::try_from(turned.div_ceil(limits::ADMISSIONS_MAX)).unwrap_or(u32::MAX);
        let spread = self.takes().saturating_mul(rounds).clamp(limits::ADMISSION_WAIT, limits::ADMISSION_SPREAD_MAX);
        let part = (u128::from(entropy) * spread.as_millis()) >> 64;
        let retry_after = limits::ADMISSION_WAIT / 2 + Duration::from_millis(u64::try_from(part).unwrap_or(0));
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        let detail = format!("many devices come back at once, and this hub takes them in turn: try again in {retry_after_ms} ms");
        PeerError { retry_after_ms, ..error(Code::BUSY, &detail) }
    }

    fn takes(&self) -> Duration {
        *self.takes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut takes = self.herd.takes.lock().unwrap_or_else(PoisonError::into_inner);
        *takes = (*takes * 7 + self.began.elapsed()) / 8;
    }
}

/// Counts one that waits, for as long as it does.
struct Waiting<'h> {
    herd: &'h Herd,
    ahead: usize,
}

impl<'h> Waiting<'h> {
    fn new(herd: &'h Herd) -> Self {
        Self { herd, ahead: herd.waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.herd.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.herd.turned.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    // faults: N-11, H-18
    #[tokio::test]
    async fn who_would_wait_too_long_is_told_when_to_come_back() {
        let herd = Arc::new(Herd::default());
        let all = herd.in_time() + limits::ADMISSIONS_MAX + 200;
        let (release, gate) = tokio::sync::watch::channel(false);
        let (tell, mut told) = mpsc::channel(all);
        for _ in 0..all {
            let (herd, mut gate, tell) = (Arc::clone(&herd), gate.clone(), tell.clone());
            tokio::spawn(async move {
                let place = herd.enter().await;
                let turned = place.as_ref().err().map(|error| (error.code, error.retry_after_ms));
                if place.is_ok() {
                    gate.wait_for(|open| *open).await.unwrap();
                }
                drop(place);
                tell.send(turned).await.unwrap();
            });
        }
        // Those who are turned away hear of it while the others still wait.
        let mut pauses = Vec::new();
        while pauses.len() < 199 {
            let (code, retry_after_ms) = told.recv().await.unwrap().expect("nobody is through yet");
            assert_eq!(code, Code::BUSY);
            pauses.push(retry_after_ms);
        }
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= 2_000 && *most <= 66_000, "{least} to {most} ms");
        assert!(most - least > 1_000, "they do not come back together: {least} to {most} ms");
        release.send(true).unwrap();
        drop(tell);
        let (mut in_turn, mut turned) = (0, pauses.len());
        while let Some(end) = told.recv().await {
            if end.is_some() { turned += 1 } else { in_turn += 1 }
        }
        assert_eq!(in_turn + turned, all);
        assert_eq!((herd.waiting.load(Ordering::Relaxed), herd.turned.load(Ordering::Relaxed)), (0, 0), "it recovers by itself");
        assert!(herd.enter().await.is_ok());
    }
}
