//! What a node takes from the machine that it runs on: time and randomness.
//!
//! The code that carries out sessions takes them through here, so that a simulator can run that very code on a machine of its own.

use std::fmt;

use mobo_core::ids::BootId;
use mobo_core::store::StoreError;
use mobo_core::time::{Instant, Moment, Wall};

use crate::clock::Clock;
use crate::entropy;

/// A machine, real or simulated.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Monotonic time of this process.
    fn now(&self) -> Instant;

    /// What a device seals into an entry now (rule R4).
    fn moment(&self) -> Moment;

    /// The wall clock, whatever it is worth.
    fn wall(&self) -> Wall;

    /// This boot of the machine.
    fn boot(&self) -> BootId;

    /// 32 random bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when there is no randomness to be had.
    fn random(&self) -> Result<[u8; 32], StoreError>;
}

impl Machine for Clock {
    fn now(&self) -> Instant {
        Self::now(self)
    }

    fn moment(&self) -> Moment {
        Self::moment(self)
    }

    fn wall(&self) -> Wall {
        Self::wall(self)
    }

    fn boot(&self) -> BootId {
        Self::boot(self)
    }

    fn random(&self) -> Result<[u8; 32], StoreError> {
        entropy::bytes().map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

/// `N` random bytes of a machine, at most 32.
///
/// # Errors
///
/// As [`Machine::random`].
pub fn random<const N: usize>(machine: &dyn Machine) -> Result<[u8; N], StoreError> {
    const { assert!(N <= 32, "a machine gives 32 bytes at a time") };
    let all = machine.random()?;
    let mut some = [0; N];
    some.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    Ok(some)
}
