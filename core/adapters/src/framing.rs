//! Where a frame ends in a stream of bytes.

use mobo_core::link::LinkError;
use mobo_protocol::frame_bytes;

/// How many bytes surely belong to the frame that begins with `frame`; 0 when it is whole. Only what has arrived takes memory: a length
/// that is announced reserves nothing.
pub(crate) fn missing_bytes(frame: &[u8]) -> Result<usize, LinkError> {
    const FRAME_BYTES_MIN: usize = 3;
    match frame_bytes(frame) {
        Ok(Some(total)) => Ok(total.saturating_sub(frame.len())),
        Ok(None) => Ok(FRAME_BYTES_MIN.saturating_sub(frame.len()).max(1)),
        Err(error) => Err(LinkError::Protocol(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use mobo_core::limits;

    use super::*;

    #[test]
    fn a_frame_is_read_to_its_end_and_no_byte_further() {
        let max = limits::FRAME_BODY_BYTES_MAX;
        for (start, want) in [
            (vec![], Ok(3)),
            (vec![1, 0], Ok(1)),
            (vec![1, 0, 0], Ok(0)),
            (vec![1, 0, 5, 9], Ok(4)),
            (vec![1, 0, 0x80], Ok(1)),
            (vec![1, 0, 0x80, 0x80, 0x40], Ok(max)),
        ] {
            assert_eq!(missing_bytes(&start), want, "{start:?}");
        }
        for start in [vec![1, 0, 0x81, 0x80, 0x40], vec![0xff; 7], vec![1, 0, 0x80, 0]] {
            assert!(matches!(missing_bytes(&start), Err(LinkError::Protocol(_))), "{start:?}");
        }
    }
}
