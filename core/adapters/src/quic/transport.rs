//! The settings of QUIC itself: windows, streams, silence.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::limits;
use quinn::{IdleTimeout, TransportConfig, VarInt};

/// What an operator may set of QUIC links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuicSettings {
    /// The unit of silence: a peer that is not heard for 1.5 times this long is dead. An idle link costs two small packets in half of it.
    /// Both ends should agree; the smaller one rules. Default: [`limits::KEEPALIVE`].
    pub keepalive: Duration,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self { keepalive: limits::KEEPALIVE }
    }
}

impl QuicSettings {
    /// The transport of either end.
    ///
    /// QUIC restarts its idle clock at the first packet that it sends after it heard the peer, which a keep-alive does half a `keepalive`
    /// later at the latest. So an idle timeout of one `keepalive` finds a peer that fell silent within 1.5 of them.
    pub(super) fn transport(self) -> Arc<TransportConfig> {
        let idle = IdleTimeout::try_from(self.keepalive).unwrap_or_else(|_| VarInt::MAX.into());
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(self.keepalive / 2))
            .max_idle_timeout(Some(idle))
            .max_concurrent_bidi_streams(1_u32.into())
            .max_concurrent_uni_streams(limits::QUIC_STREAMS_MAX.into())
            .stream_receive_window(limits::QUIC_STREAM_WINDOW_BYTES.into())
            .receive_window(limits::QUIC_RECEIVE_WINDOW_BYTES.into())
            .send_window(limits::QUIC_SEND_WINDOW_BYTES)
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_found_when_the_limits_say() {
        let QuicSettings { keepalive } = QuicSettings::default();
        assert_eq!(keepalive / 2 + keepalive, limits::PEER_DEAD_AFTER);
    }
}
