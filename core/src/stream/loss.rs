//! What a device says of samples that it had to drop before the hub had them.

use std::fmt;

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::CollectionId;
use crate::limits;
use crate::rfc3339;
use crate::time::Eff;

/// The encoding of such a payload: to a reader that does not know it, samples that it cannot read, which it keeps.
const LOSS: u64 = 3;

/// Why samples were dropped.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LossReason {
    /// The device's room was used up, and the oldest went.
    DropOldest,
    /// The device's room was used up: minima, maxima and means of each minute took their place.
    Thin,
    /// Of a later version.
    Other(u64),
}

impl LossReason {
    const fn code(self) -> u64 {
        match self {
            Self::DropOldest => 1,
            Self::Thin => 2,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::DropOldest,
            2 => Self::Thin,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropOldest => f.write_str("the device ran out of room, and the oldest went (drop_oldest)"),
            Self::Thin => f.write_str("the device ran out of room, and kept minimum, maximum and mean of each minute (thin)"),
            Self::Other(code) => write!(f, "reason {code} of a later version"),
        }
    }
}

/// Samples of one stream that were dropped: the payload of an entry of its own, on the stream's lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loss {
    /// The stream.
    pub collection: CollectionId,
    /// How many samples.
    pub samples: u64,
    /// Of how many entries.
    pub entries: u64,
    /// Taken from so many microseconds before the entry's `mono` ...
    pub from_before_us: u64,
    /// ... to so many.
    pub to_before_us: u64,
    /// Why.
    pub reason: LossReason,
}

impl Loss {
    /// `{ 0: collection, 1: 3, 2: 0, 7: [samples, entries, from, to, reason] }`
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(4).u64(0).u64(self.collection.get()).u64(1).u64(LOSS).u64(2).u64(0);
        writer.u64(7).array(5).u64(self.samples).u64(self.entries).u64(self.from_before_us).u64(self.to_before_us).u64(self.reason.code());
        writer.into_bytes()
    }

    /// Reads a payload; `None` for one that has samples.
    ///
    /// # Errors
    ///
    /// When it says that it is one, and is malformed.
    pub fn decode(payload: &[u8]) -> Result<Option<Self>, Malformed> {
        if payload.len() > limits::ENTRY_PAYLOAD_BYTES_MAX {
            return Err(Malformed::what("payload too long"));
        }
        let mut reader = Reader::new(payload);
        let (mut collection, mut encoding, mut told) = (None, 0, None);
        reader.each_key(|key, reader| {
            match key {
                0 => collection = CollectionId::new(reader.u64()?),
                1 => encoding = reader.u64()?,
                7 if encoding == LOSS => {
                    let parts = |reader: &mut Reader<'_>| Ok((reader.u63()?, reader.u63()?, reader.u63()?, reader.u63()?, reader.u63()?));
                    told = Some(reader.tuple(5, parts)?);
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        if encoding != LOSS {
            return Ok(None);
        }
        let (Some(collection), Some((samples, entries, from_before_us, to_before_us, reason))) = (collection, told) else {
            return Err(Malformed::what("loss"));
        };
        Ok(Some(Self { collection, samples, entries, from_before_us, to_before_us, reason: LossReason::from_code(reason) }))
    }

    /// What a person is told of it, where the entry that says so was sealed at `sealed`.
    #[must_use]
    pub fn sentence(&self, stream: &str, sealed: Eff) -> String {
        let at = |before| rfc3339::format(sealed.before(before).0);
        format!(
            "{} samples of \"{stream}\" in {} entries, taken from {} to {}, are lost: {}",
            self.samples,
            self.entries,
            at(self.from_before_us),
            at(self.to_before_us),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{peek_collection, peek_samples};

    fn loss(reason: LossReason) -> Loss {
        let collection = CollectionId::new(9).unwrap();
        Loss { collection, samples: 12_000, entries: 20, from_before_us: 90_000_000, to_before_us: 30_000_000, reason }
    }

    #[test]
    fn losses_round_trip() {
        for reason in [LossReason::DropOldest, LossReason::Thin, LossReason::Other(77)] {
            let bytes = loss(reason).encode();
            assert_eq!(Loss::decode(&bytes), Ok(Some(loss(reason))));
            assert_eq!(peek_collection(&bytes).unwrap(), loss(reason).collection);
            assert_eq!(peek_samples(&bytes), Ok(0), "it costs nothing");
            (0..bytes.len()).for_each(|cut| assert!(Loss::decode(&bytes[..cut]).is_err(), "cut to {cut}"));
        }
    }

    #[test]
    fn a_sentence_says_how_much_and_since_when() {
        let told = loss(LossReason::DropOldest).sentence("vibration", Eff(100_000_000));
        assert!(told.starts_with("12000 samples of \"vibration\" in 20 entries, taken from 1970-01-01T00:00:10"), "{told}");
        assert!(told.contains("to 1970-01-01T00:01:10"), "{told}");
    }
}
