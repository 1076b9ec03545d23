//! The sync session, sans-IO: one conversation between a device and a hub, whatever carries it.
//!
//! Each side is a machine with one closed enum in and one closed enum out. After every `handle`, the driver takes effects with
//! `poll_effect` until there are none, then reads `poll_timeout`. Effects are ordered: what is to be stored comes before the message that
//! tells of it. A machine never waits and never reads a clock; all state that matters is in the stores, so a session may end at any point
//! and another may go on.

pub mod device;
pub mod hub;
mod lanes;

use crate::ids::Lane;
use crate::message::{Code, PeerError};

pub use device::DeviceSession;
pub use hub::HubSession;

/// Why a session ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// This side was asked to stop.
    Stopped,
    /// The peer said goodbye.
    PeerLeft,
    /// The peer has been silent too long.
    Silent,
    /// The hub ordered a new incarnation: start it, then connect again.
    Refenced,
    /// The peer refused, with its word for it.
    Refused(PeerError),
    /// The peer did what the protocol does not allow.
    Violation(String),
    /// This side's store could not do what the session needed: try again later.
    Store(String),
}

impl CloseReason {
    /// True if connecting again soon cannot help: somebody must act first.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(error) => matches!(
                error.code,
                Code::REVOKED | Code::UNKNOWN_DEVICE | Code::WRONG_PROJECT | Code::VERSION | Code::TOKEN_INVALID | Code::TOKEN_EXPIRED
            ),
            Self::Stopped | Self::PeerLeft | Self::Silent | Self::Refenced | Self::Violation(_) | Self::Store(_) => false,
        }
    }
}

/// Which lanes yield to which: a lane is read only while no lane before it has anything to send.
const URGENCY: [Lane; 4] = Lane::ALL;
