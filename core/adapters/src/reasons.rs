//! Reasons of an end, as they are sent and as they are shown.

use std::io::ErrorKind;

use mobo_core::limits;

/// A reason as it is sent: not longer than the limit.
pub(crate) fn reason_bytes(reason: &str) -> &[u8] {
    let cut = reason.floor_char_boundary(limits::CLOSE_REASON_BYTES_MAX);
    reason.get(..cut).unwrap_or_default().as_bytes()
}

/// A peer's reason as it may be shown: short, and without control characters.
pub(crate) fn readable(reason: &[u8]) -> String {
    let reason = reason.get(..limits::CLOSE_REASON_BYTES_MAX).unwrap_or(reason);
    let reason: String = String::from_utf8_lossy(reason).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if reason.is_empty() { "no reason was given".into() } else { reason }
}

/// Why an address cannot be listened on, and what to do; `port` says which kind it is.
pub(crate) fn bind_advice(error: &std::io::Error, port: &str) -> String {
    if error.kind() == ErrorKind::AddrInUse {
        format!("this {port} port is in use: stop the program that has it, or listen on another port")
    } else if error.kind() == ErrorKind::AddrNotAvailable {
        "this machine has no such address: listen on one that it has, or on 0.0.0.0 for all".into()
    } else if error.kind() == ErrorKind::PermissionDenied {
        "the system does not permit it: listen on a port above 1023, or give this program the right".into()
    } else {
        error.to_string()
    }
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
