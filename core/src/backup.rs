//! Backups: what a repository is made of, and how it proves that it is whole. Version 1 of the format.
//!
//! A **repository** holds one project of one hub. It is a chain of **manifests**; each names the objects that belong to it. A *base*
//! manifest names the parts of a **snapshot**, which together are everything that the hub's store held at one moment. Every other one names
//! **segments**: what has changed since the manifest before, at one moment again. To apply a base and the segments behind it in order gives
//! the store as it was at the last of these moments, row for row. Objects are written in the order segments, snapshot, manifest, and an
//! object is never overwritten, so that a writer that is killed leaves objects without a manifest, and nothing else.
//!
//! - [`vault`] is the socket for the place that keeps the objects, and has their names.
//! - [`change`] is what is in segments and snapshots: rows of named tables, put and dropped. A table that comes with a later version
//!   travels by itself; one that the reader does not know is refused by name.
//! - [`seal`] packs them with zstd, then under ChaCha20-Poly1305 with a key of the object's own. The byte before the packed form says how it
//!   was packed: what earlier versions deflated is read for ever, and another way can come.
//! - [`keys`] is the envelope: the data keys of a repository, wrapped under one *backup key* that is kept elsewhere. Another backup key
//!   means another wrapping; no data is written again.
//! - [`manifest`] is the chain. A manifest holds hashes, sizes, counts and times, and nothing of what anybody wrote; it is signed by the
//!   hub, and not encrypted, so that a pruner works without keys.
//! - [`verify`] finds out whether a repository is whole.
//! - [`schedule`] says when a snapshot is due, and [`retention`] what may go.
//!
//! Everything is bound: an object's key and its seal to the project, the repository, the kind and the content; a manifest to its number and
//! to the hash of the one before. So an object of another project, of another place, or of another time is not taken for this one.

pub mod change;
pub mod keys;
pub mod manifest;
pub mod packed;
pub mod prune;
pub mod retention;
pub mod schedule;
pub mod seal;
pub mod vault;
pub mod verify;

/// Why bytes of a repository are not what they should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackupError {
    /// It is not what was written: a person must look, and restore from what is whole.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be opened with this key, or belongs to another project or hub.
    #[error("{object} is not for this key: {why}")]
    Foreign {
        /// The object's name.
        object: String,
        /// What does not fit.
        why: String,
    },
    /// It was written by a later version: upgrade.
    #[error("{object} was written by a later version of mobo: upgrade this one")]
    Later {
        /// The object's name.
        object: String,
    },
}

impl BackupError {
    pub(crate) fn damaged(object: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), why: why.to_string() }
    }

    pub(crate) fn foreign(object: impl ToString, why: impl ToString) -> Self {
        Self::Foreign { object: object.to_string(), why: why.to_string() }
    }
}

/// A repository's name: random, made with it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RepositoryId(pub [u8; 16]);

impl std::fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits; `None` for anything else.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * N)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | digit);
    }
    Some(bytes)
}
