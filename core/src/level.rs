//! How safe a write is (DESIGN.md, section 2).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits;

/// How safe a write is. A higher level holds all that a lower one promises.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AckLevel {
    /// On the disk of the device that took it.
    Local,
    /// Committed by the hub.
    Hub,
    /// Inside a verified backup.
    Safe,
}

impl AckLevel {
    /// The word on the command line, in `Prefer: wait=…` and in the header `Mobo-Ack`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hub => "hub",
            Self::Safe => "safe",
        }
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no level.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a level is local, hub or safe")]
pub struct BadAckLevel;

impl FromStr for AckLevel {
    type Err = BadAckLevel;

    fn from_str(word: &str) -> Result<Self, BadAckLevel> {
        [Self::Local, Self::Hub, Self::Safe].into_iter().find(|level| level.name() == word).ok_or(BadAckLevel)
    }
}

/// What a writer waits for before it is answered. The write is durable on its node either way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// The level.
    pub level: AckLevel,
    /// At most so long; the answer then says how far it has come. At most [`limits::WAIT_MAX`].
    pub timeout: Duration,
}

impl Patience {
    /// Waits for `level`, for `timeout` cut to [`limits::WAIT_MAX`], or for [`limits::WAIT`].
    #[must_use]
    pub fn new(level: AckLevel, timeout: Option<Duration>) -> Self {
        Self { level, timeout: timeout.unwrap_or(limits::WAIT).min(limits::WAIT_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_order_and_have_words() {
        assert!(AckLevel::Local < AckLevel::Hub && AckLevel::Hub < AckLevel::Safe);
        for level in [AckLevel::Local, AckLevel::Hub, AckLevel::Safe] {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!("archived".parse::<AckLevel>(), Err(BadAckLevel));
    }
}
