//! Removes what was retired, with the credential of whoever may.
//!
//! Old manifests are retired by a newer one, which the hub signs; only then anything goes, and only what nothing that stays needs. Killed
//! anywhere, it is run again: what is left lies below the floor, and nobody misses it.

use mobo_core::backup::keys;
use mobo_core::backup::manifest::{self, Manifest};
use mobo_core::backup::prune::Staying;
use mobo_core::backup::vault::{KEYS, MANIFESTS, Pruner, SEGMENTS, SNAPSHOTS, VaultError};
use mobo_core::store::Turn;

use super::repository::{answer, get, list};
use super::{BackupFailure, Base, Repository};

/// What a pruner has removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Objects that are gone.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are locked, and go another time.
    pub locked: u64,
}

/// Removes all keyrings but the newest, which is `repository`'s: they hold keys that were taken out of it. Also those under another backup key,
/// which a rotation that was cut short has left.
///
/// # Errors
///
/// The vault's; [`VaultError::Refused`] where one of them is locked, or this credential may not; [`BackupFailure::Refused`] where there is a
/// newer one, which another hub needs.
pub async fn sweep_keys(pruner: &dyn Pruner, repository: &Repository) -> Result<Swept, BackupFailure> {
    let mut swept = Swept::default();
    let ours = repository.keyring().generation;
    let others: Vec<_> = list(pruner.vault(), KEYS).await?.into_iter().filter(|listed| listed.name != *repository.keys()).collect();
    let generations = || others.iter().filter_map(|listed| keys::parse_name(&listed.name));
    if generations().any(|(generation, _)| generation > ours) {
        return Err(BackupFailure::Refused("another hub has written a newer keyring: give each hub a vault of its own".to_owned()));
    }
    for listed in others.iter().filter(|listed| keys::parse_name(&listed.name).is_some()) {
        answer(pruner.delete(&listed.name)).await?;
        (swept.removed, swept.bytes) = (swept.removed + 1, swept.bytes + listed.bytes);
    }
    Ok(swept)
}

/// Removes everything that neither `newest` nor any of its bases needs. Nobody may write into the repository meanwhile: it goes on only while the
/// turn of this hub does.
///
/// # Errors
///
/// The vault's; [`BackupFailure::Refused`] where it is not certain what stays; [`BackupFailure::Busy`] where the turn is lost.
pub async fn sweep((pruner, turn): (&dyn Pruner, &mut dyn Turn), newest: &Manifest, bases: &[Base]) -> Result<Swept, BackupFailure> {
    let bases: Vec<(Manifest, u64)> = bases.iter().map(|base| (base.manifest.clone(), base.below)).collect();
    let uncertain = || BackupFailure::Refused("not all snapshots that stay could be read, so nothing was removed".to_owned());
    let staying = Staying::new(newest, &bases).ok_or_else(uncertain)?;
    // What this credential reaches may be another place than the one that was looked at.
    let name = manifest::name(newest.number)?;
    let there = get(pruner.vault(), &name).await?.map(|bytes| Manifest::read(&name, &bytes)).transpose()?;
    if there.as_ref() != Some(newest) {
        let why = "where this credential removes, the newest backup of this hub is not: nothing was removed".to_owned();
        return Err(BackupFailure::Refused(why));
    }
    let (mut swept, mut refused) = (Swept::default(), None);
    // Segments and parts go before the manifests that name them: what was begun can always be found again.
    for folder in [SEGMENTS, SNAPSHOTS, MANIFESTS] {
        let mut after = None;
        'pages: loop {
            let page = answer(pruner.vault().list(folder, after.as_ref())).await?;
            let Some(last) = page.last() else { break };
            let next = last.name.clone();
            // Another hub may be about to name what nobody names yet.
            if !turn.holds().await? {
                return Err(BackupFailure::Busy);
            }
            for listed in page {
                if staying.ends_with(&listed.name) && folder != SNAPSHOTS {
                    break 'pages;
                }
                if !staying.may_go(&listed.name) {
                    continue;
                }
                match answer(pruner.delete(&listed.name)).await {
                    Ok(()) => (swept.removed, swept.bytes) = (swept.removed + 1, swept.bytes + listed.bytes),
                    Err(VaultError::Refused(why)) => {
                        swept.locked += 1;
                        refused = Some(why);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if after.is_some_and(|after| after >= next) {
                break;
            }
            after = Some(next);
        }
    }
    match refused {
        // Some of it is under a lock; all of it means a credential that may not.
        Some(why) if swept.removed == 0 => Err(VaultError::Refused(why).into()),
        _ => Ok(swept),
    }
}
