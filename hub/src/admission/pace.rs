//! How much one device may write. A device that was broken into, or whose program runs in circles, signs what it sends like any other: it could
//! leave records, deletions and histories without end. It may write as much in an hour as no honest one does, at any speed; then it is let in
//! for a minute's worth at a time, and the operator hears of it. What it has written stays with it and goes on later.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mobo_core::ids::DeviceId;
use mobo_core::limits;
use mobo_core::message::{Code, PeerError};
use mobo_core::time::Instant;

use super::error;

const HOUR_MS: i128 = 3_600_000;
const MINUTES: i128 = 60;

/// What each device may still write.
#[derive(Debug)]
pub struct Paces {
    /// Operations; 0: there is no bound.
    per_hour: i128,
    devices: Mutex<BTreeMap<DeviceId, Pace>>,
}

/// One device's. All of them may write an hour's worth at once when the hub starts.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Operations times the milliseconds of an hour; below zero after a push that was more than was left.
    left: i128,
    at: Instant,
    /// True from the alarm on, until half of its hour is there again.
    told: bool,
}

impl Paces {
    /// So many operations in an hour for each device; 0: no bound.
    #[must_use]
    pub fn new(per_hour: u64) -> Self {
        Self { per_hour: per_hour.into(), devices: Mutex::default() }
    }

    /// Whether a device may come in.
    ///
    /// # Errors
    ///
    /// When to come back.
    pub(super) fn look(&self, device: DeviceId, now: Instant) -> Result<(), PeerError> {
        self.spend(device, 0, now)
    }

    /// Takes what a push costs from what is left; a push is taken whole while anything is.
    ///
    /// # Errors
    ///
    /// When to come back.
    pub(crate) fn spend(&self, device: DeviceId, cost: u64, now: Instant) -> Result<(), PeerError> {
        if self.per_hour == 0 {
            return Ok(());
        }
        let full = self.per_hour * HOUR_MS;
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() > limits::SESSIONS_MAX {
            devices.retain(|_, pace| pace.now(now, self.per_hour).left < full);
        }
        let pace = devices.entry(device).or_insert(Pace { left: full, at: now, told: false });
        *pace = pace.now(now, self.per_hour);
        if mobo_core::protect!("pace.spent", pace.left <= 0) {
            if !std::mem::replace(&mut pace.told, true) {
                let (per_hour, device) = (self.per_hour, device.to_string());
                tracing::error!(
                    target: "alarm",
                    device,
                    per_hour,
                    "a device writes more than it may in an hour: it goes on at that pace. Find out what runs on it; if it was broken into, \
                     `mobo-hub device revoke` it; if it may write more, set device.writes_per_hour"
                );
            }
            return Err(self.wait(pace.left));
        }
        pace.left -= i128::from(cost) * HOUR_MS;
        Ok(())
    }

    /// Until a minute's worth is there.
    fn wait(&self, left: i128) -> PeerError {
        let missing = self.per_hour * HOUR_MS / MINUTES - left;
        let ms = u32::try_from((missing / self.per_hour).max(1)).unwrap_or(u32::MAX);
        let retry_after_ms = ms.min(u32::try_from(limits::RETRY_AFTER_MAX.as_millis()).unwrap_or(u32::MAX));
        let detail = format!(
            "this device has written more than the {} operations that it may in an hour: nothing is lost, and it goes on in {} s",
            self.per_hour,
            retry_after_ms.div_ceil(1_000)
        );
        PeerError { retry_after_ms, ..error(Code::BUSY, &detail) }
    }
}

impl Pace {
    fn now(self, now: Instant, per_hour: i128) -> Self {
        let gained = i128::try_from(now.since(self.at).as_millis()).unwrap_or(i128::MAX).saturating_mul(per_hour);
        if gained == 0 {
            return self;
        }
        let left = self.left.saturating_add(gained).min(per_hour * HOUR_MS);
        Self { left, at: now, told: self.told && left < per_hour * HOUR_MS / 2 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Spends at these seconds, and how long it has to wait where it has to.
    #[track_caller]
    fn check(per_hour: u64, spends: &[(u64, u64, Option<u64>)]) {
        let (paces, device) = (Paces::new(per_hour), DeviceId([1; 16]));
        for (nth, (at_s, cost, wait_s)) in spends.iter().enumerate() {
            let now = Instant(0).after(Duration::from_secs(*at_s));
            let done = paces.spend(device, *cost, now);
            assert_eq!(done.err().map(|wait| u64::from(wait.retry_after_ms) / 1_000), *wait_s, "spend {nth}");
        }
        paces.spend(DeviceId([2; 16]), 1, Instant(0)).unwrap();
    }

    #[test]
    fn a_device_writes_an_hours_worth_at_once_and_then_a_minutes_at_a_time() {
        check(0, &[(0, u64::MAX, None), (0, u64::MAX, None)]);
        check(3_600, &[(0, 3_600, None), (0, 1, Some(60)), (59, 0, None), (59, 59, None), (59, 1, Some(60)), (5_000, 3_600, None)]);
        check(3_600, &[(0, 3_599, None), (0, 7_201, None), (0, 0, Some(3_600)), (7_199, 0, Some(61)), (7_201, 0, None)]);
        check(3_600, &[(0, 3_600, None), (100_000, 3_600, None), (100_000, 1, Some(60))]);
    }
}
