//! Why a connection ended, as the caller must know it.

use mobo_core::link::LinkError;
use quinn::{ConnectionError, StoppedError, WriteError};

use crate::reasons::readable;

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
