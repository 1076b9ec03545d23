//! Why something was refused, in numbers that never change.

use crate::ids::{Eid, Seq};

/// Why something was refused. Numbers never change; one that this version does not know is kept as it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The stable word for a code, as the CLI and the API print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    /// The frame or its content is not what the protocol says.
    MALFORMED = 1, "malformed";
    /// This version does not do that.
    UNSUPPORTED = 2, "unsupported";
    /// No common protocol version.
    VERSION = 3, "version";
    /// The other side is overloaded; `retry_after` says how long to wait.
    BUSY = 4, "busy";
    /// Something broke on the other side; trying again may help.
    INTERNAL = 5, "internal";
    /// The device was revoked.
    REVOKED = 10, "revoked";
    /// The hub does not know the device, and its certificate is not the hub's.
    UNKNOWN_DEVICE = 11, "unknown_device";
    /// A signature does not fit.
    BAD_SIGNATURE = 12, "bad_signature";
    /// Another project.
    WRONG_PROJECT = 13, "wrong_project";
    /// The invitation does not exist.
    TOKEN_INVALID = 14, "token_invalid";
    /// The invitation is too old.
    TOKEN_EXPIRED = 15, "token_expired";
    /// The invitation has been used.
    TOKEN_USED = 16, "token_used";
    /// The device is shut out for a while: it begins one new log after the other.
    SUSPENDED = 17, "suspended";
    /// The push does not start where the hub's lane ends.
    GAP = 20, "gap";
    /// The chain does not fit the entries.
    BROKEN_CHAIN = 21, "broken_chain";
    /// The payload cannot be read.
    BAD_PAYLOAD = 30, "bad_payload";
    /// No collection has that id.
    UNKNOWN_COLLECTION = 31, "unknown_collection";
    /// A value is not of its field's type.
    BAD_VALUE = 32, "bad_value";
    /// The device may not write that record.
    FORBIDDEN = 33, "forbidden";
    /// An automerge change is not what an honest author would make.
    BAD_CHANGE = 34, "bad_change";
    /// An automerge change by another author.
    FORGED_ACTOR = 35, "forged_actor";
    /// A change depends on one that is not here.
    MISSING_DEPENDENCY = 36, "missing_dependency";
    /// A change depends on one that was refused.
    BLOCKED = 37, "blocked";
    /// A generation of a document that does not exist here.
    BAD_EPOCH = 38, "bad_epoch";
    /// The entry is of an engine that this version does not have.
    UNKNOWN_ENGINE = 39, "unknown_engine";
    /// Larger than a limit allows.
    TOO_LARGE = 40, "too_large";
    /// The stored record does not match its own hash.
    CORRUPT_RECORD = 41, "corrupt_record";
    /// Merging it failed again and again.
    UNMERGEABLE = 42, "unmergeable";
    /// Re-authored after the hub forgot the original (rule R15).
    STALE_PROVENANCE = 43, "stale_provenance";
    /// The device dropped the payload under its quota.
    LOST = 44, "lost";
    /// The entry's collection is of another kind than its engine.
    WRONG_KIND = 45, "wrong_kind";
}

/// An entry's identity with where it sits; how the hub remembers it (rule R15).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// Its position.
    pub seq: Seq,
    /// Its identity.
    pub eid: Eid,
}
