//! Links over ways that bring no security of their own: each packet is MACed and counted (SPEC.md, section 19).
//!
//! ```text
//! send ─▶ Outgoing ─▶ pump ─▶ Carrier ─▶ … ─▶ Source ─▶ Conversation::packet ─▶ Incoming ─▶ recv
//!         a frame for         the way:                  opens, checks the        bytes of
//!         each channel        MQTT, WebSocket           counter, never waits     each channel
//! ```
//! The pump is the one task that sends: it takes the most urgent channel that the peer has room for. What arrives is bounded by the window
//! of its channel and waits there for its reader; a peer that goes over it breaks the protocol.

mod conversation;
mod handshake;
mod incoming;
mod link;
mod open_links;
mod outgoing;
mod pump;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use mobo_core::future::BoxFuture;
use mobo_core::link::{Channel, LinkError};

pub(crate) use conversation::Conversation;
pub(crate) use handshake::{accept, dial, random};
pub(crate) use link::SealedLink;
pub(crate) use open_links::OpenLinks;

/// What carries packets away.
pub(crate) trait Carrier: Send {
    /// Sends one packet; ready when the way has taken it.
    fn send(&mut self, packet: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Lets go of the way, after what was sent is on it.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}

/// What brings packets.
pub(crate) trait Source: Send {
    /// The next packet; an error is the end of the way.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>>;
}

/// How one end of a link is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// True at the device, false at the hub.
    pub(crate) is_device: bool,
    /// Who is at the other end, for people.
    pub(crate) peer: String,
    /// The unit of silence: a peer that is not heard for 1.5 times this long is dead.
    pub(crate) keepalive: Duration,
    /// Longest packet that this end's way carries.
    pub(crate) packet_bytes_max: usize,
}

/// The channels, most urgent first.
const CHANNELS: [Channel; 6] = {
    use mobo_core::ids::Lane;
    [
        Channel::Control,
        Channel::Lane(Lane::State),
        Channel::Down,
        Channel::Lane(Lane::Events),
        Channel::Lane(Lane::Telemetry),
        Channel::Lane(Lane::Blobs),
    ]
};

/// True if a device, or a hub, may send on a channel.
const fn permits(channel: Channel, by_device: bool) -> bool {
    match channel {
        Channel::Control => true,
        Channel::Lane(_) => by_device,
        Channel::Down => !by_device,
    }
}
