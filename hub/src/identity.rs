//! The hub's identity: one secret key, from which everything else that must stay secret is derived.
//!
//! It lives in `DIR/hub.key`, readable by its owner only, and nowhere else. Hubs that share one Postgres share this file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mobo_core::trust::{KeyPair, OfferKey};
use mobo_runtime::entropy;

/// The name of the key file in the data folder.
pub const KEY_FILE: &str = "hub.key";

/// Why the hub has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use the hub's key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key.
    #[error("{path} is not a hub key: restore it from a backup; a new key would lock every enrolled device out")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
}

/// The key pair in `dir`, made on the first call.
///
/// # Errors
///
/// [`IdentityError`]. A damaged file is never replaced.
pub fn load_or_create(dir: &Path) -> Result<KeyPair, IdentityError> {
    let path = dir.join(KEY_FILE);
    let failed = |source| IdentityError::Io { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => parse(text.trim()).ok_or(IdentityError::Damaged { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = KeyPair::from_secret(&entropy::bytes::<32>()?);
            let hex: String = keys.secret().iter().map(|byte| format!("{byte:02x}")).collect();
            let fresh = dir.join(format!("{KEY_FILE}.new"));
            let write = || {
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
                file.write_all(hex.as_bytes())?;
                file.sync_all()?;
                fs::rename(&fresh, &path)?;
                fs::File::open(dir)?.sync_all()
            };
            write().map_err(failed)?;
            Ok(keys)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The key for MACs over what the hub delivers (rule R19): derived, so that whoever restores the hub's key has it, too.
#[must_use]
pub fn offer_key(keys: &KeyPair) -> OfferKey {
    OfferKey(mobo_core::trust::derive("mobo 1 offer key", &keys.secret()))
}

fn parse(hex: &str) -> Option<KeyPair> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    if digits.len() != 64 {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | digit);
    }
    Some(KeyPair::from_secret(&secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let keys = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap().public(), keys.public());
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "garbage").unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(IdentityError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "garbage");
    }
}
