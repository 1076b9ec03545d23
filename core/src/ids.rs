//! Identities: a newtype for each, so that none is taken for another.
//!
//! Internal ids are random 63-bit numbers, made once and never reused; names are labels that may change (rule R1). They fit a signed
//! SQL `bigint` and a CBOR unsigned integer alike.

use std::fmt;
use std::num::NonZeroU64;

use crate::limits;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The id for a stored or received number; `None` for 0 and for numbers above 2^63 − 1.
            #[must_use]
            pub const fn new(number: u64) -> Option<Self> {
                match NonZeroU64::new(number) {
                    Some(number) if number.get() <= i64::MAX as u64 => Some(Self(number)),
                    _ => None,
                }
            }

            /// A fresh id from eight random bytes.
            #[must_use]
            pub fn from_entropy(bytes: [u8; 8]) -> Self {
                let number = u64::from_le_bytes(bytes) >> 1;
                Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }

            /// The number as SQL stores it.
            #[must_use]
            pub const fn sql(self) -> i64 {
                self.0.get().cast_signed()
            }

            /// The id for a number that SQL stored.
            #[must_use]
            pub const fn from_sql(number: i64) -> Option<Self> {
                Self::new(number.cast_unsigned())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

random_id!(
    /// A project: the unit of tenancy. Every key, row and frame carries it.
    ProjectId
);
random_id!(
    /// A collection, for ever; its name is a label.
    CollectionId
);
random_id!(
    /// A field of a collection, for ever; its name is a label.
    FieldId
);
random_id!(
    /// A bucket: a named set of records; its key text is a label.
    BucketId
);
random_id!(
    /// The identity of a device's log. A clone or a restored image starts a new one.
    Incarnation
);

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The id for a received or stored slice; `None` when its length is wrong.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

bytes_id!(
    /// A device (or a hub as an author): the first 16 bytes of the blake3 of its ed25519 public key.
    DeviceId,
    16
);
bytes_id!(
    /// The hub's history. A restore starts a new one, which knows its parents (rule R17).
    Timeline,
    16
);
bytes_id!(
    /// One boot of a machine.
    BootId,
    8
);
bytes_id!(
    /// Random bytes in a sealed header that make two equal writes two entries (rule R15).
    Nonce,
    8
);
bytes_id!(
    /// The identity of an entry: `blake3(header ‖ payload)[..16]` of its first sealing (rule R15).
    Eid,
    16
);
bytes_id!(
    /// A lane's running hash.
    Chain,
    32
);
bytes_id!(
    /// The hash of a record's whole merge state (rule R13).
    StateHash,
    32
);
bytes_id!(
    /// A keyed hash with which the hub recognises what it once delivered (rule R19).
    Mac,
    16
);
bytes_id!(
    /// An ed25519 public key.
    PublicKey,
    32
);
bytes_id!(
    /// An ed25519 signature.
    Signature,
    64
);

impl DeviceId {
    /// The id that belongs to a public key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&key.0).as_bytes()[..16]);
        Self(id)
    }
}

impl Timeline {
    /// The first eight bytes: how a sealed header names the timeline of its `base_ver`s.
    #[must_use]
    pub fn short(self) -> [u8; 8] {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        short
    }
}

/// A gap-free, hash-chained sequence of one origin's entries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Records: tables and documents.
    State,
    /// Events and alarms.
    Events,
    /// Telemetry.
    Telemetry,
    /// Blobs.
    Blobs,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 4] = [Self::State, Self::Events, Self::Telemetry, Self::Blobs];

    /// The number on the wire and in SQL.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::State => 0,
            Self::Events => 1,
            Self::Telemetry => 2,
            Self::Blobs => 3,
        }
    }

    /// The lane for a number; `None` from 4 on.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::State),
            1 => Some(Self::Events),
            2 => Some(Self::Telemetry),
            3 => Some(Self::Blobs),
            _ => None,
        }
    }
}

/// The position of an entry in its lane; the first is 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Seq(NonZeroU64);

const _: () = assert!(size_of::<Option<Seq>>() == size_of::<Seq>());

impl Seq {
    /// The first position.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The position for a number; `None` for 0 ("nothing yet") and above 2^63 − 1.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) if number.get() <= i64::MAX as u64 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position after `last`, the first when there is none.
    #[must_use]
    pub const fn after(last: Option<Self>) -> Self {
        match last {
            Some(last) => last.next(),
            None => Self::FIRST,
        }
    }
}

/// A position in a bucket: positions 1..head are each used exactly once (rule R28). 0 is "from the beginning".
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position(pub u64);

/// A record's version on one timeline: how many merges have touched it. 0 is "never delivered".
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ver(pub u64);

/// The hub's numbering of a device's incarnations in the order in which it met them; the first is 1. Part of every stamp (rule R5).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ordinal(pub u32);

/// The text key of a record inside its collection.
///
/// 1 to [`limits::RECORD_ID_BYTES_MAX`] bytes of UTF-8 without control characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordId(String);

impl RecordId {
    /// The key for a text.
    ///
    /// # Errors
    ///
    /// [`BadRecordId`] when it is empty, too long, or holds a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, BadRecordId> {
        let text = text.into();
        if text.is_empty() || text.len() > limits::RECORD_ID_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(BadRecordId);
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a record's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an id is 1 to {max} bytes of text without control characters", max = limits::RECORD_ID_BYTES_MAX)]
pub struct BadRecordId;

/// A record's key inside its project (rule R1).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordKey {
    /// Which collection.
    pub collection: CollectionId,
    /// Which record.
    pub id: RecordId,
}

/// The identity of one lane of one device.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LaneKey {
    /// The device that writes it.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
    /// The lane.
    pub lane: Lane,
}

impl StateHash {
    /// Of the canonical bytes of a state.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_sql_cannot_hold() {
        assert!(FieldId::new(0).is_none());
        assert!(FieldId::new(1 << 63).is_none());
        assert_eq!(FieldId::from_sql(i64::MAX).unwrap().get(), i64::MAX as u64);
        assert_eq!(Seq::after(None), Seq::FIRST);
    }

    #[test]
    fn record_ids_are_plain_text() {
        for bad in ["", "a\0b", "line\nbreak"] {
            assert_eq!(RecordId::new(bad), Err(BadRecordId), "{bad:?}");
        }
        assert!(RecordId::new("Werkstück 7/ä").is_ok());
        assert!(RecordId::new("x".repeat(limits::RECORD_ID_BYTES_MAX + 1)).is_err());
    }
}
