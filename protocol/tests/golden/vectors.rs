//! What a vector is in code.

use mobo_protocol::{DecodeError, Message};

/// A message and the file of its bytes.
pub(crate) struct Frame {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) message: Message,
}

/// Canonical bytes of `core` and what must hold for the file that keeps them.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) check: Check,
}

/// What must hold for a golden form.
pub(crate) type Check = Box<dyn Fn(&[u8])>;

/// Bytes that a later version may send, and what this one makes of them.
pub(crate) struct Later {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) meaning: Result<Message, DecodeError>,
}
