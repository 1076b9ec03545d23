//! Deterministic CBOR (RFC 8949 §4.2.1): the canonical bytes of headers, payloads and states (rule R25).
//!
//! Encoding writes shortest integers, shortest exact floats, definite lengths, and map keys in ascending order (callers write keys
//! ascending; integer keys only). Decoding is total: any input gives a value or [`Malformed`], never a panic, and never an allocation
//! that the input did not pay for.

use minicbor::decode::Error as CborError;

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

/// Bytes that are not the CBOR that was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed CBOR: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Says which part was wrong.
    #[must_use]
    pub fn what(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<CborError> for Malformed {
    fn from(error: CborError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn floats_take_the_shortest_exact_width() {
        // RFC 8949, appendix A.
        let cases = [
            (0.0, "f90000"),
            (1.0, "f93c00"),
            (1.1, "fb3ff199999999999a"),
            (1.5, "f93e00"),
            (65504.0, "f97bff"),
            (100_000.0, "fa47c35000"),
            (3.402_823_466_385_288_6e38, "fa7f7fffff"),
            (1.0e300, "fb7e37e43c8800759c"),
            (5.960_464_477_539_063e-8, "f90001"),
            (0.000_061_035_156_25, "f90400"),
            (-4.0, "f9c400"),
            (-4.1, "fbc010666666666666"),
        ];
        for (number, want) in cases {
            let mut writer = Writer::new();
            writer.f64(number);
            let bytes = writer.into_bytes();
            assert_eq!(hex(&bytes), want, "{number}");
            assert_eq!(Reader::new(&bytes).f64().unwrap().to_bits(), f64::to_bits(number), "{number}");
        }
    }

    #[test]
    fn integers_of_128_bits_round_trip() {
        let cases = [
            (0, "00"),
            (-1, "20"),
            (i128::from(u64::MAX), "1bffffffffffffffff"),
            (i128::from(u64::MAX) + 1, "c249010000000000000000"),
            (-1 - i128::from(u64::MAX), "3bffffffffffffffff"),
            (-2 - i128::from(u64::MAX), "c349010000000000000000"),
        ];
        for (number, want) in cases {
            let mut writer = Writer::new();
            writer.i128(number);
            let bytes = writer.into_bytes();
            assert_eq!(hex(&bytes), want);
            assert_eq!(Reader::new(&bytes).i128().unwrap(), number);
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_allocation() {
        for bytes in [&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0x9f, 0xff], &[0xbf, 0xff], &[0x5f, 0xff]] {
            assert!(Reader::new(bytes).raw().is_err(), "{bytes:?}");
        }
        let deep = vec![0x81; limits::NESTING_MAX + 1];
        assert!(Reader::new(&deep).raw().is_err());
    }
}
