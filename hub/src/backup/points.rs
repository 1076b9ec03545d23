//! The restore points of a repository: its bases, from the newest down to the floor, and those that are kept below.

use mobo_core::backup::BackupError;
use mobo_core::backup::manifest::{Anchor, Manifest};

use super::{BackupFailure, Repository};

/// A base.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// What proves it.
    pub anchor: Anchor,
    /// Its manifest.
    pub manifest: Manifest,
    /// The base that the manifest before it builds on; 0 where none counts any more.
    pub below: u64,
}

/// All bases that `newest` stands on or keeps, newest first.
///
/// # Errors
///
/// The vault's; [`BackupError::Damaged`] where one of them is not there: without all of them, nobody knows what may be removed.
pub async fn points(repository: &Repository, newest: &Manifest) -> Result<Vec<Base>, BackupFailure> {
    let mut bases = Vec::new();
    let mut number = newest.base;
    loop {
        let (anchor, manifest) = one(repository, number).await?;
        let below = if number > newest.floor { one(repository, number - 1).await?.1.base } else { 0 };
        bases.push(Base { anchor, manifest, below });
        if number <= newest.floor {
            break;
        }
        number = below;
    }
    for (number, hash) in newest.retained.kept.iter().rev() {
        let (anchor, manifest) = one(repository, *number).await?;
        if anchor.hash != *hash {
            let why = "it is not the one that the newest manifest keeps".to_owned();
            return Err(BackupError::Damaged { object: format!("manifest {number}"), why }.into());
        }
        bases.push(Base { anchor, manifest, below: 0 });
    }
    Ok(bases)
}

async fn one(repository: &Repository, number: u64) -> Result<(Anchor, Manifest), BackupFailure> {
    let gone = || BackupError::Damaged { object: format!("manifest {number}"), why: "it is gone".to_owned() };
    Ok(repository.manifest(number).await?.ok_or_else(gone)?)
}
