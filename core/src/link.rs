//! The socket for transports: QUIC, MQTT and WebSocket.
//!
//! A link is a lossy pipe with a beginning and an end: it carries whole frames, in order on each channel, until it breaks. Nothing that
//! matters lives in it: acknowledgement, order and identity are the session's.

use std::fmt;

use crate::future::BoxFuture;
use crate::ids::{Lane, PublicKey};
use crate::limits;

/// Which stream of a link a frame takes. Frames on one channel stay in order; nothing is promised between channels.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// The conversation.
    Control,
    /// A lane's entries, device → hub; urgent lanes overtake others.
    Lane(Lane),
    /// Batches and checkpoints, hub → device.
    Down,
}

/// Why a link ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// Nobody could be reached, or the handshake failed: try again later.
    #[error("cannot reach {peer}: {why}")]
    Unreachable {
        /// Who.
        peer: String,
        /// Why.
        why: String,
    },
    /// The peer is not the hub that this device joined. It is not tried again at once.
    #[error("{peer} is not the hub that this device joined: its key is not the pinned one")]
    WrongPeer {
        /// Who.
        peer: String,
    },
    /// No link can be taken here: the address is in use, or is not this machine's. A person must act.
    #[error("cannot listen on {address}: {why}")]
    CannotListen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why, and what to do.
        why: String,
    },
    /// The peer closed, or this end did.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// The peer fell silent.
    #[error("the peer has been silent too long")]
    Silent,
    /// The peer sent what is not a frame.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}

/// One end of an open link.
pub trait Link: fmt::Debug + Send + Sync {
    /// Sends one whole frame; ready when the transport has taken it (its flow control is the back-pressure).
    fn send(&self, channel: Channel, frame: Vec<u8>) -> BoxFuture<'_, Result<(), LinkError>>;

    /// The next whole frame of any channel.
    fn recv(&self) -> BoxFuture<'_, Result<Vec<u8>, LinkError>>;

    /// What both ends derive from the handshake: signatures are bound to it. Empty where the transport has none.
    fn binding(&self) -> Vec<u8>;

    /// Who is at the other end, for people.
    fn peer(&self) -> String;

    /// Bytes sent and received so far.
    fn bytes(&self) -> (u64, u64);

    /// Closes after what was sent is delivered, or the peer is gone.
    fn close(&self, reason: &str) -> BoxFuture<'_, ()>;
}

/// Opens links.
pub trait Dialer: fmt::Debug + Send + Sync {
    /// `quic`, `mqtt` or `ws`.
    fn transport(&self) -> &'static str;

    /// Opens a link to the hub that holds `hub`, at `address` (`host:port`).
    fn dial(&self, address: String, hub: PublicKey) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>>;

    /// Ready when there is a better link than the last one that [`Self::dial`] brought; by default never.
    fn better(&self, _address: String, _hub: PublicKey) -> BoxFuture<'_, Box<dyn Link>> {
        Box::pin(std::future::pending())
    }

    /// Why the last link is not of the transport that would be preferred; `None` where it is.
    fn detour(&self) -> Option<String> {
        None
    }

    /// Pushes of one lane that may wait for their ack on the last link.
    fn pushes_in_flight_max(&self) -> usize {
        limits::PUSHES_IN_FLIGHT_MAX
    }
}

/// Takes links.
pub trait Listener: fmt::Debug + Send + Sync {
    /// The next link; an error ends the listener.
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>>;

    /// Where it listens, with the real port.
    fn address(&self) -> std::net::SocketAddr;

    /// Stops accepting and closes what is open.
    fn close(&self) -> BoxFuture<'_, ()>;
}
