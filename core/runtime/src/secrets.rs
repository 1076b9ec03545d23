//! Secrets of the settings in an encrypted file, `DIR/secrets.sealed`: what a backup of the folder, or a look over a shoulder, must not show.
//!
//! The file is `mobo-sealed-1`, a line feed, a nonce of 12 bytes, and a TOML text under ChaCha20-Poly1305; the first line is authenticated
//! with it. The key is 64 hexadecimal digits in a file that only its owner can read: the one that `MOBO_SECRETS_KEY_FILE` names, or else
//! `$CREDENTIALS_DIRECTORY/secrets.key`, or else `DIR/secrets.key`. Keep it elsewhere than the sealed file where that file is backed up.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mobo_core::limits;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use toml::{Table, Value};

use crate::data_dir::replace_file;
use crate::entropy;
use crate::key_file::{hex, parse_hex};

/// The name of the file in a data folder.
pub const FILE: &str = "secrets.sealed";
/// The name of its key, in a data folder or among credentials.
pub const KEY: &str = "secrets.key";
/// The environment variable that names the key's file.
pub const KEY_VARIABLE: &str = "MOBO_SECRETS_KEY_FILE";

const HEAD: &[u8] = b"mobo-sealed-1\n";

/// Where an encrypted file and its key are, or may come to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The encrypted file.
    pub file: PathBuf,
    /// The file with its key.
    pub key: PathBuf,
}

impl Place {
    /// Those of a data folder, with the key where this process's environment says, or among its credentials.
    #[must_use]
    pub fn of_process(data_dir: &Path, credentials: Option<&Path>) -> Self {
        let named = std::env::var_os(KEY_VARIABLE).map(PathBuf::from);
        let credential = credentials.map(|folder| folder.join(KEY)).filter(|path| path.exists());
        Self { file: data_dir.join(FILE), key: named.or(credential).unwrap_or_else(|| data_dir.join(KEY)) }
    }
}

/// Why secrets cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sealed file is there and its key is not.
    #[error("there is no key for it at {}: put it there, or name its place in {KEY_VARIABLE}", path.display())]
    NoKey {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("{} can be read by others than its owner: `chmod 600` it, and change what it protects", path.display())]
    OpenKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The key's file holds no key.
    #[error("{} is no key: it must hold 64 hexadecimal digits", path.display())]
    BadKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The file was sealed with another key, or is not what was written.
    #[error("{} was sealed with another key, or is damaged: restore both from one backup, or remove it and seal the secrets anew", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
}

/// The settings in an encrypted file, as TOML has them; none when there is no file.
///
/// # Errors
///
/// [`SecretsError`]; none of its sentences holds a secret.
pub fn read(place: &Place) -> Result<Table, SecretsError> {
    match read_bytes(&place.file) {
        Ok(bytes) => open(&bytes, &load_key(&place.key)?).ok_or_else(|| SecretsError::Unreadable { path: place.file.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
        Err(source) => Err(SecretsError::Io { path: place.file.clone(), source }),
    }
}

/// Puts one setting into an encrypted file, or takes it out; makes the file, and a key where there is none.
///
/// # Errors
///
/// [`SecretsError`]; the file is as it was then.
pub fn keep(place: &Place, setting: &str, value: Option<&str>) -> Result<(), SecretsError> {
    let mut table = read(place)?;
    let key = match load_key(&place.key) {
        Err(SecretsError::NoKey { .. }) => make_key(&place.key)?,
        other => other?,
    };
    let (section, name) = setting.split_once('.').unwrap_or((setting, ""));
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = entry {
        match value {
            Some(value) => section.insert(name.to_owned(), Value::String(value.to_owned())),
            None => section.remove(name),
        };
    }
    let failed = |source| SecretsError::Io { path: place.file.clone(), source };
    let sealed = seal(&table.to_string(), &key)?.ok_or_else(|| failed(io::ErrorKind::FileTooLarge.into()))?;
    replace_file(&place.file, &sealed).map_err(failed)
}

/// What seals. It is shown to nobody.
struct SealKey(LessSafeKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    fn new(bytes: &[u8; 32]) -> Option<Self> {
        UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }
}

fn load_key(path: &Path) -> Result<SealKey, SecretsError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound { SecretsError::NoKey { path } } else { SecretsError::Io { path, source } }
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SecretsError::OpenKey { path: path.to_owned() });
    }
    let text = crate::data_dir::read_text(path, 256).map_err(failed)?;
    parse_hex(text.trim()).and_then(|bytes| SealKey::new(&bytes)).ok_or_else(|| SecretsError::BadKey { path: path.to_owned() })
}

fn make_key(path: &Path) -> Result<SealKey, SecretsError> {
    let bytes = entropy::bytes::<32>()?;
    replace_file(path, format!("{}\n", hex(&bytes)).as_bytes()).map_err(|source| SecretsError::Io { path: path.to_owned(), source })?;
    SealKey::new(&bytes).ok_or_else(|| SecretsError::BadKey { path: path.to_owned() })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limits::CONFIG_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `None` when it would be more than is ever read again.
fn seal(text: &str, key: &SealKey) -> Result<Option<Vec<u8>>, entropy::NoEntropy> {
    // Random: a key seals a handful of files in its life.
    let nonce = entropy::bytes::<NONCE_LEN>()?;
    let mut sealed = text.as_bytes().to_vec();
    if key.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(HEAD), &mut sealed).is_err() {
        return Ok(None);
    }
    let file = [HEAD, &nonce, &sealed].concat();
    Ok(Some(file).filter(|file| u64::try_from(file.len()).is_ok_and(|bytes| bytes <= limits::CONFIG_FILE_BYTES_MAX)))
}

fn open(bytes: &[u8], key: &SealKey) -> Option<Table> {
    let (nonce, sealed) = bytes.strip_prefix(HEAD)?.split_first_chunk::<NONCE_LEN>()?;
    let mut sealed = sealed.to_vec();
    let text = key.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(HEAD), &mut sealed).ok()?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> Place {
        Place { file: folder.join(FILE), key: folder.join("elsewhere.key") }
    }

    #[test]
    fn what_is_sealed_comes_back_and_is_nowhere_to_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        assert!(read(&place).unwrap().is_empty());
        keep(&place, "store.url", Some("postgres://u:hunter2@db/x")).unwrap();
        keep(&place, "backup.token", Some("hush")).unwrap();
        let table = read(&place).unwrap();
        assert_eq!(table["store"]["url"].as_str(), Some("postgres://u:hunter2@db/x"));
        let bytes = fs::read(&place.file).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        keep(&place, "store.url", None).unwrap();
        let table = read(&place).unwrap();
        assert!(table["store"].as_table().unwrap().is_empty() && table["backup"]["token"].as_str() == Some("hush"));
        for path in [&place.file, &place.key] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        keep(&place, "a.b", Some("c")).unwrap();
        let whole = fs::read(&place.file).unwrap();
        let key = load_key(&place.key).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped, &key).is_none(), "byte {at}");
            assert!(open(&whole[..at], &key).is_none(), "cut at {at}");
        }
        assert!(open(&whole, &key).is_some());
    }

    #[test]
    fn a_key_that_is_missing_open_or_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        keep(&place, "a.b", Some("c")).unwrap();
        let refusal = |place: &Place| read(place).unwrap_err().to_string();
        fs::set_permissions(&place.key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refusal(&place).contains("can be read by others"));
        fs::set_permissions(&place.key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&place.key, "zz").unwrap();
        assert!(refusal(&place).contains("64 hexadecimal digits"));
        fs::write(&place.key, "0".repeat(64)).unwrap();
        assert!(refusal(&place).contains("sealed with another key"));
        assert!(keep(&place, "a.b", Some("d")).is_err(), "what cannot be read is not written over");
        fs::remove_file(&place.key).unwrap();
        assert!(refusal(&place).contains(KEY_VARIABLE));
    }
}
