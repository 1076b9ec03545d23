//! Why a connection ended, as the caller must know it.

use mobo_core::limits;
use mobo_core::link::LinkError;
use quinn::{ConnectionError, StoppedError, WriteError};

/// Why a connection that was up is over.
pub(super) fn ended(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkError::Closed(readable(&close.reason)),
        ConnectionError::ConnectionClosed(close) => LinkError::Closed(format!("{} {}", close.error_code, readable(&close.reason))),
        ConnectionError::Reset => LinkError::Closed("the peer no longer knows this connection, as after a restart".into()),
        ConnectionError::LocallyClosed => LinkError::Closed("this end closed it".into()),
        ConnectionError::TimedOut => LinkError::Silent,
        ConnectionError::TransportError(_) | ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            LinkError::Protocol(error.to_string())
        }
    }
}

/// Why a connection did not come up.
pub(super) fn unreachable(peer: &str, error: &ConnectionError) -> LinkError {
    let why = match error {
        ConnectionError::TimedOut => "nothing there answers over UDP: check the address, and that no firewall drops it".into(),
        ConnectionError::VersionMismatch => "it speaks no version of QUIC that this program knows".into(),
        ConnectionError::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
            "it takes no more connections now".into()
        }
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::TransportError(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => error.to_string(),
    };
    LinkError::Unreachable { peer: peer.to_owned(), why }
}

/// Why a stream takes no more.
pub(super) fn unwritable(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => ended(error),
        WriteError::Stopped(_) => LinkError::Protocol("it refuses to read a stream".into()),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => LinkError::Closed("this end closed it".into()),
    }
}

/// Why the delivery of a stream cannot be awaited.
pub(super) fn undelivered(error: StoppedError) -> LinkError {
    match error {
        StoppedError::ConnectionLost(error) => ended(error),
        StoppedError::ZeroRttRejected => LinkError::Closed("this end closed it".into()),
    }
}

/// A reason as it is sent: not longer than the limit.
pub(super) fn reason_bytes(reason: &str) -> &[u8] {
    let cut = reason.floor_char_boundary(limits::CLOSE_REASON_BYTES_MAX);
    reason.get(..cut).unwrap_or_default().as_bytes()
}

/// A peer's reason as it may be shown: short, and without control characters.
fn readable(reason: &[u8]) -> String {
    let reason = reason.get(..limits::CLOSE_REASON_BYTES_MAX).unwrap_or(reason);
    let reason: String = String::from_utf8_lossy(reason).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if reason.is_empty() { "no reason was given".into() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_peers_are_made_harmless() {
        let long = "é".repeat(limits::CLOSE_REASON_BYTES_MAX);
        for (reason, want) in [
            (b"".as_slice(), "no reason was given".to_owned()),
            (b"bye", "bye".to_owned()),
            (b"a\n\x1b[2Jb\xff", "a  [2Jb\u{fffd}".to_owned()),
            (long.as_bytes(), "é".repeat(limits::CLOSE_REASON_BYTES_MAX / 2)),
        ] {
            assert_eq!(readable(reason), want);
        }
        assert_eq!(reason_bytes(&format!("a{long}")).len(), limits::CLOSE_REASON_BYTES_MAX - 1, "cut between characters");
    }
}
