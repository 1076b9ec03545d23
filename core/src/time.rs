//! Time as arguments: a monotonic [`Instant`] for timers, and the [`Moment`] that a device seals into an entry (rule R4).

use std::time::Duration;

use crate::ids::BootId;

/// A point on the monotonic clock of this process, in nanoseconds since an arbitrary origin.
///
/// Our own type and not `std::time::Instant`, so that tests and the simulator can make one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `duration` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Microseconds of `CLOCK_BOOTTIME`: they count on through suspend and start at zero with each boot.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mono(pub u64);

/// Wall-clock microseconds since 1970-01-01T00:00:00Z, possibly negative.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Wall(pub i64);

/// Effective time in microseconds since 1970 UTC: decided once, by the hub (rule R5).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Eff(pub i64);

impl Eff {
    /// The effective time `us` microseconds earlier.
    #[must_use]
    pub fn before(self, us: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(us).unwrap_or(i64::MAX)))
    }

    /// The effective time `us` microseconds later.
    #[must_use]
    pub fn plus(self, us: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(us).unwrap_or(i64::MAX)))
    }
}

/// How far a device trusts its wall clock.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WallQuality {
    /// No clock: the reading means nothing (a board without an RTC that booted in 1970).
    None,
    /// Somebody or something set it, nothing confirms it.
    Set,
    /// Disciplined by a time service.
    Synchronised,
}

impl WallQuality {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Set => 1,
            Self::Synchronised => 2,
        }
    }

    /// The quality for a number on the wire; unknown numbers trust nothing.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Set,
            2 => Self::Synchronised,
            _ => Self::None,
        }
    }
}

/// When a device did something, as it can know it by itself (rule R4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Moment {
    /// Which boot `mono` counts from.
    pub boot: BootId,
    /// `CLOCK_BOOTTIME`.
    pub mono: Mono,
    /// The wall clock, worth what `quality` says.
    pub wall: Wall,
    /// How far to trust `wall`.
    pub quality: WallQuality,
}
