//! A repository in a vault, opened with its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::backup::keys::{self, BackupKey, DataKey, Keyring, Others};
use mobo_core::backup::manifest::{self, Anchor, Manifest, Member};
use mobo_core::backup::seal::Sealed;
use mobo_core::backup::vault::{KEYS, Listed, MANIFESTS, ObjectName, Vault, VaultError};
use mobo_core::backup::{BackupError, RepositoryId, verify};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::trust::KeyPair;

use super::BackupFailure;

/// A repository that can be read, and written by the hub that it belongs to.
#[derive(Clone, Debug)]
pub struct Repository {
    vault: Arc<dyn Vault>,
    keyring: Arc<Keyring>,
    keys: ObjectName,
}

impl Repository {
    /// The repository in a vault; `None` where there is none.
    ///
    /// # Errors
    ///
    /// The vault's; [`BackupError::Foreign`] when the backup key opens none of its keyrings.
    pub async fn open(vault: Arc<dyn Vault>, key: &BackupKey) -> Result<Option<Self>, BackupFailure> {
        let mut found: Vec<(u64, String, ObjectName)> = Vec::new();
        for listed in list(vault.as_ref(), KEYS).await? {
            found.extend(keys::parse_name(&listed.name).map(|(generation, of)| (generation, of, listed.name)));
        }
        let mine = found.iter().filter(|(_, of, _)| *of == key.id()).max_by_key(|(generation, ..)| *generation);
        let Some((_, _, name)) = mine else {
            let Some((_, of, name)) = found.last() else { return Ok(None) };
            let why = format!("it was wrapped under the backup key {of}, and this one is {}: give that one", key.id());
            return Err(BackupError::Foreign { object: name.to_string(), why }.into());
        };
        let bytes = answer(vault.get(name, None)).await?;
        let keyring = Keyring::unwrap(key, name, &bytes)?;
        Ok(Some(Self { vault, keyring: Arc::new(keyring), keys: name.clone() }))
    }

    /// Makes a repository in a vault without one, and proves that its keys can be read back.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn create(
        vault: Arc<dyn Vault>,
        key: &BackupKey,
        (project, hub): (ProjectId, KeyPair),
        (id, data): ([u8; 16], [u8; 32]),
    ) -> Result<Self, BackupFailure> {
        let keyring =
            Keyring { generation: 1, project, repository: RepositoryId(id), hub, keys: vec![DataKey(data)], others: Others::default() };
        Self::keep(vault, key, keyring).await
    }

    /// Goes on under another backup key, or the same one, with one more data key. What was sealed before stays as it is.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn rotate(&self, key: &BackupKey, data: [u8; 32]) -> Result<Self, BackupFailure> {
        Self::keep(Arc::clone(&self.vault), key, self.keyring.with(DataKey(data))).await
    }

    /// Gives a key of its own to each of these projects that has none; as it is where all have one. `secret` is random, and kept by nobody.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn admit(&self, key: &BackupKey, projects: &BTreeSet<ProjectId>, secret: &[u8; 32]) -> Result<Option<Self>, BackupFailure> {
        let known = &self.keyring.others.keys;
        let new: Vec<ProjectId> =
            projects.iter().copied().filter(|project| *project != self.keyring.project && !known.contains_key(project)).collect();
        if new.is_empty() {
            return Ok(None);
        }
        Self::keep(Arc::clone(&self.vault), key, self.keyring.with_projects(new, secret)).await.map(Some)
    }

    /// Goes on without the keys of all projects but these: what they sealed is not to be read any more, once the older keyrings are removed
    /// by whoever may. `None` where there are no others.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn shred(&self, key: &BackupKey, staying: &BTreeSet<ProjectId>) -> Result<Option<Self>, BackupFailure> {
        let gone: BTreeSet<ProjectId> = self.keyring.others.keys.keys().copied().filter(|project| !staying.contains(project)).collect();
        if gone.is_empty() {
            return Ok(None);
        }
        Self::keep(Arc::clone(&self.vault), key, self.keyring.without(&gone)).await.map(Some)
    }

    async fn keep(vault: Arc<dyn Vault>, key: &BackupKey, keyring: Keyring) -> Result<Self, BackupFailure> {
        let (name, bytes) = keyring.wrap(key)?;
        keep_exactly(vault.as_ref(), &name, &bytes).await?;
        let back = answer(vault.get(&name, None)).await?;
        let keyring = Keyring::unwrap(key, &name, &back)?;
        Ok(Self { vault, keyring: Arc::new(keyring), keys: name })
    }

    /// Its keys.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The name of its keyring.
    #[must_use]
    pub fn keys(&self) -> &ObjectName {
        &self.keys
    }

    /// Where it is.
    #[must_use]
    pub fn vault(&self) -> &Arc<dyn Vault> {
        &self.vault
    }

    /// The manifest of that number, signed by the hub, with what proves it; `None` where there is none.
    ///
    /// # Errors
    ///
    /// The vault's, and [`BackupError`] for one that is not what the hub wrote.
    pub async fn manifest(&self, number: u64) -> Result<Option<(Anchor, Manifest)>, BackupFailure> {
        let name = manifest::name(number)?;
        let Some(bytes) = get(self.vault.as_ref(), &name).await? else { return Ok(None) };
        let manifest = verify::open_manifest(&self.keyring, &name, &bytes)?;
        Ok(Some((Anchor { number, hash: manifest::hash(&bytes) }, manifest)))
    }

    /// Writes a manifest, which must be the next one.
    ///
    /// # Errors
    ///
    /// The vault's; [`BackupFailure::Refused`] when another one has its number already: another hub writes here.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Anchor, BackupFailure> {
        let (name, bytes) = (manifest::name(manifest.number)?, manifest.sign(&self.keyring.hub));
        let anchor = Anchor { number: manifest.number, hash: manifest::hash(&bytes) };
        match answer(self.vault.put(&name, bytes.clone())).await {
            Ok(()) => {}
            Err(VaultError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match get(self.vault.as_ref(), &name).await? {
            Some(there) if there == bytes => Ok(anchor),
            Some(_) => {
                let why = format!("the manifest {} was written by somebody else meanwhile", manifest.number);
                Err(BackupFailure::Refused(why))
            }
            None => Err(VaultError::Unavailable(format!("{name} was written, and is not there")).into()),
        }
    }

    /// Keeps an object and reads it back.
    pub(super) async fn keep_object(&self, sealed: Sealed, rows: u64) -> Result<Member, BackupFailure> {
        keep_exactly(self.vault.as_ref(), &sealed.name, &sealed.bytes).await?;
        Ok(Member { name: sealed.name, bytes: sealed.bytes.len() as u64, hash: sealed.hash, rows })
    }
}

/// Keeps an object, or finds exactly it already there; either way it was read back when this is ready.
async fn keep_exactly(vault: &dyn Vault, name: &ObjectName, bytes: &[u8]) -> Result<(), BackupFailure> {
    match answer(vault.put(name, bytes.to_vec())).await {
        Ok(()) | Err(VaultError::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match get(vault, name).await? {
        Some(there) if there == bytes => Ok(()),
        Some(_) => {
            let why = "what is read back is not what was written: look at the disk behind the vault".to_owned();
            Err(BackupError::Damaged { object: name.to_string(), why }.into())
        }
        None => Err(VaultError::Unavailable(format!("{name} was written, and is not there")).into()),
    }
}

/// An object; `None` where there is none.
pub(super) async fn get(vault: &dyn Vault, name: &ObjectName) -> Result<Option<Vec<u8>>, VaultError> {
    match answer(vault.get(name, None)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(VaultError::Gone(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The highest number of a manifest; 0 where there is none. A list may lag: what is above it is looked for by name.
///
/// # Errors
///
/// The vault's.
pub async fn newest_number(vault: &dyn Vault, at_least: u64) -> Result<u64, VaultError> {
    let mut newest = at_least;
    for listed in list(vault, MANIFESTS).await? {
        newest = newest.max(manifest::number(&listed.name).unwrap_or(0));
    }
    if newest == at_least && newest > 0 && answer(vault.head(&named(newest)?)).await?.is_none() {
        // What should be there is not: the newest one that is.
        let listed = list(vault, MANIFESTS).await?;
        newest = listed.iter().filter_map(|listed| manifest::number(&listed.name)).max().unwrap_or(0);
    }
    while answer(vault.head(&named(newest + 1)?)).await?.is_some() {
        newest += 1;
    }
    Ok(newest)
}

fn named(number: u64) -> Result<ObjectName, VaultError> {
    manifest::name(number).map_err(|error| VaultError::Damaged(error.to_string()))
}

pub(super) async fn list(vault: &dyn Vault, prefix: &str) -> Result<Vec<Listed>, VaultError> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let page = answer(vault.list(prefix, all.last().map(|listed| &listed.name))).await?;
        // A page that does not go on would come for ever.
        let goes_on = match (all.last(), page.first()) {
            (Some(last), Some(first)) => first.name > last.name,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if !goes_on {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The answer of a vault, if it comes.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
    let late = |_| VaultError::Unavailable(format!("no answer for {} s", limits::VAULT_TIMEOUT.as_secs()));
    tokio::time::timeout(limits::VAULT_TIMEOUT, asked).await.map_err(late)?
}
