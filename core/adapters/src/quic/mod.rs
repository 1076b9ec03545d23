//! Links over QUIC: TLS 1.3, ALPN `mobo/1`, no 0-RTT, no datagrams.
//!
//! The hub shows a self-signed certificate over its ed25519 key, and a device accepts exactly the key that it pinned when it joined. No
//! date is looked at: a device may boot in 1970 (K-2). Devices show no certificate; their `hello` is signed, and bound to the connection
//! by 32 bytes of exported keying material (RFC 8446, 7.5) with the label `mobo channel 1` and an empty context.
//!
//! Streams of a connection, each of which carries frames back to back:
//!
//! | stream                          | opened by | first byte      | carries          |
//! |---------------------------------|-----------|-----------------|------------------|
//! | the only bidirectional          | device    | none            | control          |
//! | unidirectional, at most one each | device   | 0, 1, 2, 3      | that lane        |
//! | unidirectional, at most one     | hub       | 16              | down             |
//!
//! Streams are opened when their first frame is sent, so a hub sees nothing of a device before its first control frame, and reads no lane
//! before it. A stream that ends inside a frame, is reset, begins with another byte, repeats a channel or announces a body over the limit
//! breaks the connection with application code 1; a wanted end has code 0. The reason of either is UTF-8 text for people.
//!
//! A silent peer is found by QUIC's own idle timeout: see [`QuicSettings::keepalive`].

mod credentials;
mod dialer;
mod ended;
mod inbox;
mod link;
mod listener;
mod outbox;
mod transport;

#[cfg(test)]
mod tests;

use mobo_core::ids::Lane;
use mobo_core::link::Channel;
use quinn::Side;

pub use dialer::QuicDialer;
pub use listener::QuicListener;
pub use transport::QuicSettings;

/// Application code of a wanted end.
const CODE_DONE: quinn::VarInt = quinn::VarInt::from_u32(0);

/// Application code of an end because the peer broke the protocol.
const CODE_BROKEN: quinn::VarInt = quinn::VarInt::from_u32(1);

/// The first byte of the stream that goes down.
const DOWN: u8 = 16;

/// The first byte of a channel's unidirectional stream; `None` for the bidirectional one.
fn first_byte(channel: Channel) -> Option<u8> {
    match channel {
        Channel::Control => None,
        Channel::Lane(lane) => Some(lane.number()),
        Channel::Down => Some(DOWN),
    }
}

/// The channel of a unidirectional stream that `sender` opened; `None` when it may send no such channel.
fn channel_of(first_byte: u8, sender: Side) -> Option<Channel> {
    match sender {
        Side::Client => Lane::from_number(first_byte).map(Channel::Lane),
        Side::Server => (first_byte == DOWN).then_some(Channel::Down),
    }
}
