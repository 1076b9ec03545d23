//! When to try again. A device that has lost its hub comes back soon, and its neighbours not in the same moment; what was asked of it, and how
//! long its pauses have become, it knows after a reboot, too.

use std::path::PathBuf;
use std::time::Duration;

use mobo_core::backoff::Backoff;
use mobo_core::limits;
use mobo_core::time::Wall;
use tokio::time::Instant;

/// The pauses of one uplink.
#[derive(Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
    /// When the hub was last there.
    alive: Option<Instant>,
    /// Where the pauses are written down.
    file: Option<PathBuf>,
    /// True if something stands there.
    noted: bool,
}

impl Reconnect {
    /// Goes on from what was written down, if anything was; with the pause that is left of it.
    pub(super) fn open(file: Option<PathBuf>, now: Wall) -> (Self, Duration) {
        let mut backoff = Backoff::default();
        let noted = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).and_then(|text| {
            let (previous_ms, until_us) = text.trim().split_once(' ')?;
            Some((previous_ms.parse::<u64>().ok()?, until_us.parse::<i64>().ok()?))
        });
        let mut left = Duration::ZERO;
        if let Some((previous_ms, until_us)) = noted {
            backoff.resume(Duration::from_millis(previous_ms));
            // A clock that jumped makes nobody wait for longer than a peer may ask for.
            let left_us = u64::try_from(until_us.saturating_sub(now.0)).unwrap_or(0);
            left = Duration::from_micros(left_us).min(limits::RETRY_AFTER_MAX);
        }
        (Self { backoff, alive: None, file, noted: noted.is_some() }, left)
    }

    /// A session has ended that the hub had welcomed, and that had lived for so long.
    pub(super) fn lived(&mut self, life: Duration) {
        self.alive = Some(Instant::now());
        if life >= limits::RECONNECT_SETTLED {
            self.at_once();
        }
    }

    /// Starts again from short pauses.
    pub(super) fn at_once(&mut self) {
        self.backoff.reset();
        if self.noted {
            self.noted = false;
            self.write(None);
        }
    }

    /// The next pause. `retry_after` is what the hub asked for.
    pub(super) fn pause(&mut self, entropy: u64, retry_after: Option<Duration>, now: Wall) -> Duration {
        let soon = self.alive.is_some_and(|alive| alive.elapsed() < limits::RECONNECT_SOON);
        self.backoff.set_max(if soon { limits::RECONNECT_SOON_MAX } else { limits::RECONNECT_MAX });
        let pause = self.backoff.next_pause(entropy, retry_after);
        // Short pauses are not worth a write each; that they have become long is worth one.
        let asked = retry_after.is_some_and(|asked| asked >= limits::RECONNECT_SOON_MAX);
        if asked || (!self.noted && self.backoff.previous() > limits::RECONNECT_SOON_MAX / 2) {
            self.noted = true;
            self.write(Some((self.backoff.previous(), now.0.saturating_add(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX)))));
        }
        pause
    }

    /// Losing it costs the hub a little, so a failure is only noted.
    fn write(&self, noted: Option<(Duration, i64)>) {
        let Some(file) = &self.file else { return };
        let written = match noted {
            Some((previous, until_us)) => std::fs::write(file, format!("{} {until_us}\n", previous.as_millis())),
            None => std::fs::remove_file(file),
        };
        if let Err(error) = written {
            tracing::debug!(file = %file.display(), %error, "the pauses between tries were not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_760_000_000_000_000);
    const MOST: u64 = u64::MAX;

    fn kept() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reconnect");
        (folder, file)
    }

    // faults: N-12
    #[tokio::test(start_paused = true)]
    async fn a_flapping_device_stays_patient_over_its_reboots() {
        let (_folder, file) = kept();
        let (mut first, left) = Reconnect::open(Some(file.clone()), NOW);
        assert_eq!(left, Duration::ZERO);
        for _ in 0..8 {
            // It gets in, and drops at once.
            first.lived(Duration::from_millis(300));
            assert!(first.pause(MOST, None, NOW) <= limits::RECONNECT_SOON_MAX, "a hub that was there is tried again soon");
        }
        let (mut rebooted, left) = Reconnect::open(Some(file.clone()), NOW);
        assert!(left > Duration::from_secs(1), "{left:?}");
        assert!(rebooted.pause(MOST, None, NOW) > limits::RECONNECT_SOON_MAX, "it does not start from short pauses");
        rebooted.lived(limits::RECONNECT_SETTLED);
        assert!(!file.exists());
        assert!(rebooted.pause(MOST, None, NOW) < Duration::from_secs(1));
    }

    // faults: N-11
    #[tokio::test(start_paused = true)]
    async fn what_the_hub_asked_for_holds_after_a_reboot() {
        let (_folder, file) = kept();
        let (mut asked, _) = Reconnect::open(Some(file.clone()), NOW);
        let pause = asked.pause(0, Some(Duration::from_secs(40)), NOW);
        assert!(pause >= Duration::from_secs(40));
        for (later_s, want_s) in [(0, 40), (30, 10), (50, 0), (-1_000_000, 3_600)] {
            let (_, left) = Reconnect::open(Some(file.clone()), Wall(NOW.0 + later_s * 1_000_000));
            assert_eq!(left.as_secs(), want_s, "after {later_s} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_is_long_gone_is_tried_seldom() {
        let (mut reconnect, _) = Reconnect::open(None, NOW);
        reconnect.lived(Duration::from_secs(60));
        let longest = |reconnect: &mut Reconnect| (0..20).map(|_| reconnect.pause(MOST, None, NOW)).max().unwrap();
        assert_eq!(longest(&mut reconnect), limits::RECONNECT_SOON_MAX);
        tokio::time::advance(limits::RECONNECT_SOON).await;
        assert_eq!(longest(&mut reconnect), limits::RECONNECT_MAX);
    }
}
