//! The socket for a backup's target: it keeps objects under names, and never changes one that it has.
//!
//! Everything that a repository is made of is written once, under a name that was free. There is no way in this trait to replace or
//! to remove an object: who runs the hub, or steals its credentials, cannot unmake a backup. Removing is a capability of its own,
//! [`Pruner`], which holds another credential and which the hub that writes does not have.
//!
//! The names of a repository, all below the root of the vault:
//!
//! | name | what | written |
//! |---|---|---|
//! | `keys/<id>` | the data keys of the repository, wrapped under one backup key | before the first object that needs them |
//! | `segments/<number>-<hash>` | the rows that changed since the manifest before | first |
//! | `snapshots/<hash>` | a part of the whole state, named by its content, so that an unchanged part is kept once | second |
//! | `manifests/<number>` | what belongs together: the objects with their hashes, and the hash of the manifest before | last |
//!
//! Numbers have 16 hexadecimal digits, hashes 32, both in lower case, so that the order of names is the order of numbers. An object
//! without a manifest that names it was left by a writer that was killed; a pruner may take it once it is old.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::future::BoxFuture;
use crate::limits;

/// What a vault answers.
pub type VaultFuture<'a, T> = BoxFuture<'a, Result<T, VaultError>>;

/// The folder of names under which manifests are kept.
pub const MANIFESTS: &str = "manifests/";
/// The folder of names under which segments are kept.
pub const SEGMENTS: &str = "segments/";
/// The folder of names under which the parts of snapshots are kept.
pub const SNAPSHOTS: &str = "snapshots/";
/// The folder of names under which wrapped keys are kept.
pub const KEYS: &str = "keys/";

/// Why a vault cannot do what it is asked, by what the caller does next. No sentence of it names a credential.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VaultError {
    /// It is away, slow, or answered with an error of its own: try again later. Whether a write happened is not known.
    #[error("the vault is not available: {0}")]
    Unavailable(String),
    /// There is no room: writing must wait until somebody makes some, reading goes on.
    #[error("the vault is full: {0}")]
    Full(String),
    /// It does not let this credential do that, or does not understand the request: a person must act.
    #[error("the vault refuses: {0}")]
    Refused(String),
    /// There is no such object.
    #[error("the vault has no object {0}")]
    Gone(ObjectName),
    /// There is an object of that name already, and it stays as it is: read it, it may be the same.
    #[error("the vault has an object {0} already")]
    Exists(ObjectName),
    /// What is there is not what can have been written: it is too large, or ends early.
    #[error("the vault is damaged: {0}")]
    Damaged(String),
}

/// The name of an object: `folder/name` in lower-case letters, digits, `.`, `_` and `-`, of at most
/// [`limits::OBJECT_NAME_BYTES_MAX`] bytes. No part begins with a dot, so that a name never leads out of a vault, nor to a file that
/// an adapter keeps for itself.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// Reads a name; `None` for what is not one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"._-".contains(&letter);
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_letter);
        (name.len() <= limits::OBJECT_NAME_BYTES_MAX && name.split('/').all(is_part)).then(|| Self(name.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One object in a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// How large it is.
    pub bytes: u64,
}

/// The socket. Adapters: a folder, S3.
///
/// A list may lag behind what was written (an object store's may), so nobody concludes from one that an object is gone: that is what
/// [`Self::head`] and [`Self::get`] say, and they see every write that has returned.
pub trait Vault: fmt::Debug + Send + Sync {
    /// Where it is, for people: `folder:///mnt/usb` or `s3://bucket/prefix`, without credentials.
    fn place(&self) -> String;

    /// For how long nobody may remove what this writes, counted from then; `None` where the adapter locks nothing.
    fn lock(&self) -> Option<Duration> {
        None
    }

    /// Keeps an object, whole and durable when this is ready. An object of at most [`limits::OBJECT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] when the name is taken, whatever is there. After [`VaultError::Unavailable`] it may be there or not, but
    /// never a part of it.
    fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, ()>;

    /// The bytes of an object: all of them, or those in a range, which ends early where the object does.
    ///
    /// # Errors
    ///
    /// [`VaultError::Gone`]; [`VaultError::Damaged`] when it is larger than [`limits::OBJECT_BYTES_MAX`].
    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> VaultFuture<'_, Vec<u8>>;

    /// True if an object is there and has exactly these bytes, by what is read of it now.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    fn holds(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, bool> {
        let name = name.clone();
        Box::pin(async move { Ok(self.get(&name, None).await? == *bytes) })
    }

    /// How large an object is; `None` when there is no such object.
    fn head(&self, name: &ObjectName) -> VaultFuture<'_, Option<u64>>;

    /// The next objects whose names begin with `prefix` (one of the folders above, or `""` for all), in the order of their names, behind
    /// `after`. At most [`limits::VAULT_LIST_MAX`]; an empty page is the end. What is not an object's name is left out.
    fn list(&self, prefix: &str, after: Option<&ObjectName>) -> VaultFuture<'_, Vec<Listed>>;
}

/// Removes objects: another credential than the writer's, and held by nobody who writes.
pub trait Pruner: fmt::Debug + Send + Sync {
    /// The same place, with this credential.
    fn vault(&self) -> &dyn Vault;

    /// Removes an object; fine when it is gone already.
    ///
    /// # Errors
    ///
    /// [`VaultError::Refused`] for an object that is locked, or with a credential that may not delete.
    fn delete(&self, name: &ObjectName) -> VaultFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    // faults: B-14
    #[test]
    fn names_cannot_lead_out_of_a_vault() {
        let long = format!("segments/{}", "a".repeat(limits::OBJECT_NAME_BYTES_MAX));
        for (name, ok) in [
            ("manifests/0000000000000001", true),
            ("segments/0000000000000001-00ff", true),
            ("a", true),
            ("a.b/c_d-e", true),
            ("", false),
            ("/etc/passwd", false),
            ("a//b", false),
            ("a/", false),
            ("../a", false),
            ("a/../b", false),
            ("a/.partial", false),
            (".", false),
            ("A", false),
            ("a b", false),
            ("a\\b", false),
            ("a\0", false),
            ("é", false),
            (long.as_str(), false),
        ] {
            assert_eq!(ObjectName::parse(name).is_some(), ok, "{name:?}");
        }
    }
}
