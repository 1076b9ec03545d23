//! The lives of a log: each run of the device's program that writes into it is one (rule R10).
//!
//! A counter's tally says how far an origin was counted, and not which entries that were. A log may have two ends: an image of the device's disk
//! is put back, or runs beside it, and a hub that was restored takes what the one writes in places of which rows still have what the other had
//! written. One end cannot be told from the other by how far it goes. But whatever goes on with a log has started its program to do so. So what is
//! written in each life counts under a name that no other has, and one that is drawn by its own run cannot be a copy's, too.

use crate::ids::{DeviceId, Incarnation, Nonce};

/// Bits of the random part of a life.
const MARK_BITS: u32 = 23;
/// Bits of its number.
const NUMBER_BITS: u32 = 20;
/// Bits of what the names of all lives of one log have in common.
const TAG_BITS: u32 = 20;
const _: () = assert!(MARK_BITS + NUMBER_BITS + TAG_BITS == 63, "an incarnation has 63 bits");

const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;

/// A life of a log but the first: its number, from 1, and a mark that its run has drawn.
///
/// ```
/// use mobo_core::ids::{DeviceId, Incarnation, Nonce};
/// use mobo_core::life::Life;
///
/// let (device, log) = (DeviceId([7; 16]), Incarnation::new(9).unwrap());
/// let one = Life::of(1, Nonce([1; 8])).unwrap();
/// let other = Life::of(1, Nonce([2; 8])).unwrap();
/// assert_ne!(one.counts_under(device, log), other.counts_under(device, log), "two copies of a device");
/// assert_eq!(Life::from_bits(one.bits()), Some(one));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Life(u64);

impl Life {
    /// The life of that number, of a run that has drawn this; `None` for the first, which is number 0. From 1,048,575 on, all have that number.
    #[must_use]
    pub fn of(number: u32, drawn: Nonce) -> Option<Self> {
        let number = u64::from(number).min(NUMBER_MAX);
        Self::from_bits(number << MARK_BITS | u64::from(Self::mark(drawn)))
    }

    /// The mark of a run that has drawn this.
    #[must_use]
    pub fn mark(drawn: Nonce) -> u32 {
        let [a, b, c, d, ..] = drawn.0;
        u32::from_be_bytes([a, b, c, d]) >> (u32::BITS - MARK_BITS)
    }

    /// A life as it is written; `None` for what is none.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        (1..=NUMBER_MAX).contains(&(bits >> MARK_BITS)).then_some(Self(bits))
    }

    /// As it is written: the number, and 23 bits of the mark behind it.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::try_from(self.0 >> MARK_BITS).unwrap_or(u32::MAX)
    }

    /// The log under which increments count that were written in this life of `log`.
    #[must_use]
    pub fn counts_under(self, device: DeviceId, log: Incarnation) -> Incarnation {
        name(tag(device, log), self.0)
    }

    /// The log under which increments count that were written in this life of `log`; its own in the first one.
    #[must_use]
    pub fn counting_log(life: Option<Self>, (device, log): (DeviceId, Incarnation)) -> Incarnation {
        life.map_or(log, |life| life.counts_under(device, log))
    }

    /// True for the name of any life of `log` but its first.
    #[must_use]
    pub fn is_of(counts_under: Incarnation, device: DeviceId, log: Incarnation) -> bool {
        LifeName::read(counts_under).is_some_and(|name| name.number > 0 && name.tag == tag(device, log))
    }
}

/// 20 bits that tell the logs of one device apart, not 0.
fn tag(device: DeviceId, log: Incarnation) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mobo life 1").update(device.as_bytes()).update(&log.get().to_be_bytes());
    let drawn = u64::from_be_bytes(hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default());
    1 + drawn % ((1 << TAG_BITS) - 1)
}

fn name(tag: u64, life: u64) -> Incarnation {
    // Not 0: its tag is not.
    Incarnation::new(tag << (NUMBER_BITS + MARK_BITS) | life).unwrap_or(Incarnation::from_entropy([1; 8]))
}

/// What the name of a life says, and that of a log's [`folded`](Self::folded) ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LifeName {
    tag: u64,
    /// Its number; 0 for what the lives that are long over have added.
    pub(crate) number: u32,
}

impl LifeName {
    /// Reads an origin as a name. Whether it is one only they know who know the log, or another name beside it: any other is random.
    pub(crate) fn read(origin: Incarnation) -> Option<Self> {
        let (tag, life) = (origin.get() >> (NUMBER_BITS + MARK_BITS), origin.get() & ((1 << (NUMBER_BITS + MARK_BITS)) - 1));
        let number = u32::try_from(life >> MARK_BITS).unwrap_or(u32::MAX);
        (tag > 0 && (number > 0 || life == 0)).then_some(Self { tag, number })
    }

    /// The name under which one tally has what lives of this log have added that are long over.
    pub(crate) fn folded(self) -> Incarnation {
        name(self.tag, 0)
    }

    /// True for two lives of one log.
    pub(crate) fn is_beside(self, other: Self) -> bool {
        self.tag == other.tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_number_and_its_log() {
        let (device, log, other) = (DeviceId([3; 16]), Incarnation::new(1 << 40).unwrap(), Incarnation::new(5).unwrap());
        for number in [1, 2, 3, NUMBER_MAX as u32] {
            let life = Life::of(number, Nonce([number as u8; 8])).unwrap();
            assert_eq!(life.number(), number);
            let read = LifeName::read(life.counts_under(device, log)).unwrap();
            assert_eq!(read.number, number);
            assert!(Life::is_of(life.counts_under(device, log), device, log));
            assert!(!Life::is_of(life.counts_under(device, log), device, other));
            assert!(read.is_beside(LifeName::read(read.folded()).unwrap()));
            assert_eq!(LifeName::read(read.folded()).unwrap().number, 0);
            assert!(!Life::is_of(read.folded(), device, log), "no life counts there by itself");
        }
        assert_eq!(Life::of(0, Nonce([9; 8])), None);
        assert_eq!(Life::of(u32::MAX, Nonce([9; 8])), Life::of(1_048_575, Nonce([9; 8])));
        for bits in [0, 1, (1 << 23) - 1, 1 << 43, u64::MAX] {
            assert_eq!(Life::from_bits(bits), None, "{bits}");
        }
    }
}
