//! The clocks of this machine, as `core` wants them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use mobo_core::ids::BootId;
use mobo_core::time::{Instant, Moment, Mono, Wall, WallQuality};

use crate::entropy::{self, NoEntropy};

/// 2026-01-01T00:00:00Z. A wall clock before it was never set: this program is younger.
const WALL_FLOOR_US: i64 = 1_767_225_600_000_000;
/// The kernel's name for this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// systemd-timesyncd keeps this file while the clock is disciplined.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// The one clock of a process. Copies agree with each other.
///
/// Its monotonic part is tokio's, so that it stands still in tests that pause time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    boot: BootId,
}

impl Clock {
    /// Starts counting. Call it once per process and hand out copies.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] when the system does not name its boot and there is no randomness to name it with.
    pub fn start() -> Result<Self, NoEntropy> {
        let boot = match fs::read_to_string(BOOT_ID) {
            Ok(text) => boot_id(&text),
            Err(_) => BootId(entropy::bytes()?),
        };
        Ok(Self { origin: tokio::time::Instant::now(), boot })
    }

    /// Monotonic time since the clock was started.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::default().after(self.origin.elapsed())
    }

    /// The instant of the async runtime for one of `core`: what to sleep until.
    #[must_use]
    pub fn at(&self, instant: Instant) -> tokio::time::Instant {
        let since = instant.since(Instant::default());
        // An instant that tokio cannot name is as good as never.
        self.origin.checked_add(since).unwrap_or_else(|| self.origin + Duration::from_secs(86_400 * 365 * 30))
    }

    /// What a device seals into an entry now (rule R4).
    #[must_use]
    pub fn moment(&self) -> Moment {
        let wall = self.wall();
        Moment { boot: self.boot, mono: mono(), wall, quality: quality(wall, Path::new(SYNCHRONISED)) }
    }

    /// The wall clock, whatever it is worth.
    #[must_use]
    pub fn wall(&self) -> Wall {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Wall(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }

    /// This boot of the machine: it stays the same while the process restarts.
    #[must_use]
    pub const fn boot(&self) -> BootId {
        self.boot
    }
}

fn boot_id(text: &str) -> BootId {
    let hash = blake3::hash(text.trim().as_bytes());
    let mut id = [0; 8];
    id.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    BootId(id)
}

fn mono() -> Mono {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Mono(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
}

fn quality(wall: Wall, synchronised: &Path) -> WallQuality {
    if wall.0 < WALL_FLOOR_US {
        WallQuality::None
    } else if synchronised.exists() {
        WallQuality::Synchronised
    } else {
        WallQuality::Set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_this_program_was_written_is_none() {
        let here = tempfile::tempdir().unwrap();
        let mark = here.path().join("synchronized");
        assert_eq!(quality(Wall(0), here.path()), WallQuality::None);
        assert_eq!(quality(Wall(-1), here.path()), WallQuality::None);
        assert_eq!(quality(Wall(WALL_FLOOR_US), &mark), WallQuality::Set);
        fs::write(&mark, "").unwrap();
        assert_eq!(quality(Wall(WALL_FLOOR_US), &mark), WallQuality::Synchronised);
    }

    #[test]
    fn moments_go_forward_within_one_boot() {
        let clock = Clock::start().unwrap();
        let (first, second) = (clock.moment(), Clock::start().unwrap().moment());
        assert_eq!(first.boot, second.boot);
        assert!(first.mono.0 > 0 && first.mono <= second.mono);
    }

    #[tokio::test(start_paused = true)]
    async fn instants_translate_both_ways() {
        let clock = Clock::start().unwrap();
        let later = clock.now().after(Duration::from_secs(5));
        tokio::time::sleep_until(clock.at(later)).await;
        assert_eq!(clock.now().since(later).as_secs(), 0);
        assert!(clock.now() >= later);
        assert!(clock.at(Instant(u64::MAX)) > clock.at(later));
    }

    #[test]
    fn the_boot_is_named_by_its_hash() {
        assert_eq!(boot_id("x\n"), boot_id("x"));
        assert_ne!(boot_id("x"), boot_id("y"));
    }
}
