//! Key files: one secret each, readable by its owner only, made once and never replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mobo_core::trust::KeyPair;

use crate::data_dir::replace_file;
use crate::entropy;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot use the key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key.
    #[error("{path} is not a key: restore it from a backup; it is not replaced, because a new key would be a new identity")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
}

/// The key pair in a file; made when the file is not there, durable before it is used.
///
/// # Errors
///
/// [`KeyFileError`]. A damaged file is never replaced.
pub fn load_or_create(path: &Path) -> Result<KeyPair, KeyFileError> {
    match load(path)? {
        Some(keys) => Ok(keys),
        None => create(path),
    }
}

/// The key pair in a file; `None` when there is no file.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn load(path: &Path) -> Result<Option<KeyPair>, KeyFileError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).map(Some).ok_or_else(|| KeyFileError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyFileError::Io { path: path.to_owned(), source }),
    }
}

fn create(path: &Path) -> Result<KeyPair, KeyFileError> {
    let keys = KeyPair::from_secret(&entropy::bytes::<32>()?);
    replace_file(path, hex(&keys.secret()).as_bytes()).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    Ok(keys)
}

fn parse(hex: &str) -> Option<KeyPair> {
    parse_hex(hex).map(|secret| KeyPair::from_secret(&secret))
}

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    let mut secret = [0; 32];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | digit);
    }
    Some(secret)
}

/// 64 hexadecimal digits of 32 bytes.
pub(crate) fn hex(secret: &[u8; 32]) -> String {
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.key");
        assert!(load(&path).unwrap().is_none());
        let keys = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public(), keys.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "garbage").unwrap();
        assert!(matches!(load_or_create(&path), Err(KeyFileError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "garbage");
    }
}
