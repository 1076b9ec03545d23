//! The part of mobo that **spells**: bytes ⇄ [`Message`]s, by total functions without state.
//!
//! `SPEC.md` beside this crate is the contract, and `vectors/` holds the golden bytes that no version may change. The canonical bytes
//! inside frames (headers, payloads, states, certificates) belong to `mobo-core`; frames carry them verbatim.
//!
//! ```
//! use mobo_core::message::Message;
//! let bytes = mobo_protocol::encode(&Message::Bye);
//! assert_eq!(mobo_protocol::decode(&bytes), Ok(Message::Bye));
//! ```

pub mod bundle;
mod enrol;
mod frame;
mod hello;
mod pull;
mod push;
mod recover;
pub mod sealed;
mod token;

pub use frame::{DecodeError, FRAME_HEADER_BYTES_MAX, decode, encode, frame_bytes};
pub use hello::hello_bytes;
pub use token::{JoinToken, TokenError};

/// The protocol version that this crate speaks.
pub const PROTO: u32 = 1;

/// The ALPN of sessions over QUIC.
pub const ALPN: &[u8] = b"mobo/1";

/// Abilities that this version has beyond the base, one bit each.
pub const FEATURES: u64 = mobo_core::message::FORMER_LOGS;

#[doc(no_inline)]
pub use mobo_core::message::Message;
