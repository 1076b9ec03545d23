//! Bucket digests (rule R29): how anyone checks that two nodes hold the same.

use std::fmt;

use crate::ids::{RecordKey, StateHash};

/// The sum modulo 2^256 of `blake3(collection ‖ id ‖ state_hash)` over a bucket's present records and kept tombstones.
///
/// Both the hashes and the sum are read as little-endian integers. The collection's id enters as 8 bytes, big-endian.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What one record contributes.
    #[must_use]
    pub fn of(key: &RecordKey, state: StateHash) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.collection.get().to_be_bytes()).update(key.id.as_str().as_bytes()).update(state.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The digest with one more contribution.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = [0; 32];
        let mut carry = 0_u16;
        for ((byte, a), b) in sum.iter_mut().zip(self.0).zip(other.0) {
            let [low, high] = (u16::from(a) + u16::from(b) + carry).to_le_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        Self(sum)
    }

    /// The digest with one contribution taken out.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let mut complement = other.0.map(|byte| !byte);
        for byte in &mut complement {
            let (next, overflow) = byte.overflowing_add(1);
            *byte = next;
            if !overflow {
                break;
            }
        }
        self.plus(Self(complement))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_wrap_and_come_apart_again() {
        let one = {
            let mut one = [0; 32];
            one[0] = 1;
            Digest(one)
        };
        assert_eq!(Digest([0xff; 32]).plus(one), Digest::default());
        assert_eq!(Digest::default().minus(one), Digest([0xff; 32]));
        let (a, b) = (Digest([0xab; 32]), Digest([0xcd; 32]));
        assert_eq!(a.plus(b).minus(a), b);
        assert_eq!(a.minus(a), Digest::default());
    }
}
