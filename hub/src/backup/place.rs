//! Vaults by their addresses, with the credentials of who writes or of who removes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_adapters::vault::s3::{Credentials, Lock, S3Pruner, S3Settings, S3Vault};
use mobo_adapters::vault::{FolderPruner, FolderVault};
use mobo_core::backup::vault::{Pruner, Vault, VaultError};
use mobo_runtime::config::Config;

use crate::settings::backup;

/// Who asks a bucket, and how. A folder needs nothing of it.
#[derive(Clone, Debug)]
pub struct Access {
    endpoint: String,
    region: String,
    credentials: Credentials,
    lock: Option<Lock>,
}

impl Access {
    /// The writer's, as the settings have it.
    #[must_use]
    pub fn writer(config: &Config) -> Self {
        let days = config.get(&backup::LOCK).map(|lock| u32::try_from(lock.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX));
        let lock = days.map(|days| Lock { compliance: true, days });
        Self { lock, ..Self::of(config, config.get(&backup::KEY_ID), config.get(&backup::SECRET)) }
    }

    /// The pruner's, with a credential that was given for this once, or else with that of the settings.
    #[must_use]
    pub fn pruner(config: &Config, given: Option<(String, String)>) -> Self {
        let (key_id, secret) = given.unwrap_or_else(|| (config.get(&backup::PRUNE_KEY_ID), config.get(&backup::PRUNE_SECRET)));
        Self::of(config, key_id, secret)
    }

    fn of(config: &Config, key_id: String, secret: String) -> Self {
        let credentials = Credentials { key_id, secret, token: None };
        Self { endpoint: config.get(&backup::ENDPOINT), region: config.get(&backup::REGION), credentials, lock: None }
    }

    fn settings(&self, address: &str, what: &str) -> Result<S3Settings, VaultError> {
        if self.credentials.key_id.is_empty() || self.credentials.secret.is_empty() {
            return Err(VaultError::Refused(format!("a bucket needs a credential: set {what}")));
        }
        let settings = S3Settings::parse(address, &self.endpoint, &self.region, self.credentials.clone())?;
        Ok(S3Settings { lock: self.lock, ..settings })
    }
}

/// Opens the vault at an address: a path, `folder://` with one, or `s3://`. Blocks for a moment.
///
/// # Errors
///
/// The vault's; [`VaultError::Refused`] for an address that is none.
pub fn open_vault(address: &str, access: &Access) -> Result<Arc<dyn Vault>, VaultError> {
    if address.starts_with("s3://") {
        return Ok(Arc::new(S3Vault::new(access.settings(address, "backup.key_id and backup.secret")?)?));
    }
    Ok(Arc::new(FolderVault::open(&folder(address).ok_or_else(no_address)?)?))
}

/// The same, for whoever removes objects.
///
/// # Errors
///
/// As there.
pub fn open_pruner(address: &str, access: &Access) -> Result<Arc<dyn Pruner>, VaultError> {
    if address.starts_with("s3://") {
        return Ok(Arc::new(S3Pruner::new(access.settings(address, "backup.prune_key_id and backup.prune_secret, for this command")?)?));
    }
    Ok(Arc::new(FolderPruner::open(&folder(address).ok_or_else(no_address)?)?))
}

fn no_address() -> VaultError {
    // Not shown: what nobody understands may hold a password anywhere.
    let why = "that is no address of a vault: give a folder, as /mnt/backup or folder:///mnt/backup, or a bucket, as s3://backups/plant-4";
    VaultError::Refused(why.to_owned())
}

/// The folder that an address names; `None` for another kind of address.
fn folder(address: &str) -> Option<PathBuf> {
    let path = match address.split_once("://") {
        Some(("folder", path)) => path,
        Some(_) => return None,
        None => address,
    };
    // What a relative path is relative to changes with whoever reads it.
    std::path::absolute(Path::new(path)).ok().filter(|_| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_from_addresses() {
        let here = std::env::current_dir().unwrap();
        for (address, want) in [
            ("/mnt/b", Some(PathBuf::from("/mnt/b"))),
            ("folder:///mnt/b", Some(PathBuf::from("/mnt/b"))),
            ("b", Some(here.join("b"))),
            ("", None),
            ("folder://", None),
            ("ftp://host/b", None),
        ] {
            assert_eq!(folder(address), want, "{address}");
        }
    }

    #[test]
    fn a_bucket_without_a_credential_is_refused_with_the_setting_to_set() {
        let access = Access::of_nobody();
        assert!(open_vault("s3://backups", &access).unwrap_err().to_string().contains("backup.secret"));
        assert!(open_pruner("s3://backups", &access).unwrap_err().to_string().contains("backup.prune_secret"));
        assert!(open_vault("ftp://user:password@host", &access).unwrap_err().to_string().contains("no address of a vault"));
    }

    impl Access {
        fn of_nobody() -> Self {
            let credentials = Credentials { key_id: String::new(), secret: String::new(), token: None };
            Self { endpoint: String::new(), region: "us-east-1".to_owned(), credentials, lock: None }
        }
    }
}
