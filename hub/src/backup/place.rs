//! Vaults by their addresses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_adapters::vault::FolderVault;
use mobo_core::backup::vault::{Vault, VaultError};

/// Opens the vault at an address: a path, or `folder://` with one. Blocks for a moment.
///
/// # Errors
///
/// The vault's; [`VaultError::Refused`] for an address that is none.
pub fn open_vault(address: &str) -> Result<Arc<dyn Vault>, VaultError> {
    let folder = folder(address).ok_or_else(|| {
        // Not shown: what nobody understands may hold a password anywhere.
        VaultError::Refused("that is no address of a vault: give a folder, as /mnt/backup or folder:///mnt/backup".to_owned())
    })?;
    Ok(Arc::new(FolderVault::open(&folder)?))
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
}
