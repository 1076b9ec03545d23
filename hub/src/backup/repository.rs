//! A repository in a vault, opened with its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::backup::keys::{self, BackupKey, DataKey, Keyring, Others};
use mobo_core::backup::manifest::{self, Anchor, Manifest, Member};
use mobo_core::backup::seal::{self, Kind, Sealed};
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
        let (kept, _) = Self::keep(vault, key, (&keyring, None)).await?;
        Ok(kept)
    }

    /// Goes on under another backup key, or the same one, with one more data key. What was sealed before stays as it is.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn rotate(&self, key: &BackupKey, data: [u8; 32]) -> Result<Self, BackupFailure> {
        let keys = self.keyring.keys.len();
        let rotated = self.go_on(key, |ring| (ring.keys.len() == keys).then(|| ring.with(DataKey(data)))).await?;
        Ok(rotated.unwrap_or_else(|| self.clone()))
    }

    /// Gives a key of its own to each of these projects that has none; as it is where all have one. `secret` is random, and kept by nobody.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn admit(&self, key: &BackupKey, projects: &BTreeSet<ProjectId>, secret: &[u8; 32]) -> Result<Option<Self>, BackupFailure> {
        let admitted = |ring: &Keyring| {
            let is_new = |project: &ProjectId| *project != ring.project && !ring.others.keys.contains_key(project);
            let new: Vec<ProjectId> = projects.iter().copied().filter(is_new).collect();
            (!new.is_empty()).then(|| ring.with_projects(new, secret))
        };
        self.go_on(key, admitted).await
    }

    /// Goes on without the keys of all projects but these: what they sealed is not to be read any more, once the older keyrings are removed
    /// by whoever may. `None` where there are no others.
    ///
    /// # Errors
    ///
    /// The vault's.
    pub async fn shred(&self, key: &BackupKey, staying: &BTreeSet<ProjectId>) -> Result<Option<Self>, BackupFailure> {
        let shredded = |ring: &Keyring| {
            let gone: BTreeSet<ProjectId> = ring.others.keys.keys().copied().filter(|project| !staying.contains(project)).collect();
            (!gone.is_empty()).then(|| ring.without(&gone))
        };
        self.go_on(key, shredded).await
    }

    /// Writes the keyring that follows on the newest one. One that is there already was left by a writer whose answer was lost, or that was
    /// killed: it is adopted, and followed on. `None` where nothing follows.
    async fn go_on(&self, key: &BackupKey, next: impl Fn(&Keyring) -> Option<Keyring>) -> Result<Option<Self>, BackupFailure> {
        let mut adopted: Option<Self> = None;
        for _ in 0..limits::BACKUP_KEYRINGS_LEFT_MAX {
            let known = &adopted.as_ref().unwrap_or(self).keyring;
            let Some(wanted) = next(known) else { return Ok(adopted) };
            let (kept, is_wanted) = Self::keep(Arc::clone(&self.vault), key, (&wanted, Some(known))).await?;
            if is_wanted {
                return Ok(Some(kept));
            }
            adopted = Some(kept);
        }
        Err(BackupFailure::Refused("another hub writes keyrings into this repository: give each hub a vault of its own".to_owned()))
    }

    /// Keeps a keyring, or finds one there that goes on from the known one; says whether it is the wanted one.
    async fn keep(
        vault: Arc<dyn Vault>,
        key: &BackupKey,
        (wanted, known): (&Keyring, Option<&Arc<Keyring>>),
    ) -> Result<(Self, bool), BackupFailure> {
        let (name, bytes) = wanted.wrap(key)?;
        let unreadable = |error: BackupError| BackupFailure::Refused(format!("{error}: begin a new repository in another vault"));
        Keyring::unwrap(key, &name, &bytes).map_err(unreadable)?;
        let bytes = Arc::new(bytes);
        let was_there = put(vault.as_ref(), &name, &bytes).await?;
        let there = written(vault.as_ref(), &name).await?;
        let is_wanted = there == *bytes;
        let found = Keyring::unwrap(key, &name, &there)?;
        if !(is_wanted || was_there && known.is_some_and(|known| found.goes_on_from(known))) {
            return Err(not_written(&name));
        }
        Ok((Self { vault, keyring: Arc::new(found), keys: name }, is_wanted))
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
    /// The vault's; [`BackupFailure::Taken`] when another one has its number already; [`BackupFailure::Refused`] when nobody could read it
    /// again.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Anchor, BackupFailure> {
        let (name, bytes) = (manifest::name(manifest.number)?, manifest.sign(&self.keyring.hub));
        let unreadable = |error: BackupError| BackupFailure::Refused(format!("{error}: it was not written; please report it"));
        verify::open_manifest(&self.keyring, &name, &bytes).map_err(unreadable)?;
        let anchor = Anchor { number: manifest.number, hash: manifest::hash(&bytes) };
        match answer(self.vault.put(&name, Arc::new(bytes.clone()))).await {
            Ok(()) => {}
            Err(VaultError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match get(self.vault.as_ref(), &name).await? {
            Some(there) if there == bytes => Ok(anchor),
            Some(there) => Err(BackupFailure::Taken(Anchor { hash: manifest::hash(&there), ..anchor })),
            None => Err(VaultError::Unavailable(format!("{name} was written, and is not there")).into()),
        }
    }

    /// Keeps an object and reads it back. An unchanged part of a snapshot is there already: as it would be written now, or packed by another
    /// version; where it cannot be read any more, it is written under another name.
    pub(super) async fn keep_object(&self, sealed: &Sealed, place: (Kind, u64), rows: u64) -> Result<Member, BackupFailure> {
        let mut name = sealed.name.clone();
        for again in 1..=limits::BACKUP_NAMES_MAX {
            let was_there = put(self.vault.as_ref(), &name, &sealed.bytes).await?;
            match answer(self.vault.holds(&name, Arc::clone(&sealed.bytes))).await {
                Ok(true) => return Ok(Member { name, bytes: sealed.bytes.len() as u64, hash: sealed.hash, rows }),
                // What else there is, is looked at.
                Ok(false) | Err(VaultError::Gone(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let there = written(self.vault.as_ref(), &name).await?;
            if was_there && place.0 == Kind::Snapshot && seal::is_the_same(&self.keyring, place, sealed, &there) {
                return Ok(Member { name, bytes: there.len() as u64, hash: manifest::hash(&there), rows });
            }
            if !was_there || place.0 != Kind::Snapshot {
                return Err(not_written(&name));
            }
            tracing::error!(target: "alarm", object = %name, "a part of older backups is damaged in the vault: run `mobo-hub backup verify`");
            name = seal::renamed(&sealed.name, "again", again)?;
        }
        Err(not_written(&sealed.name))
    }
}

/// Writes an object, unless there is one of its name; says whether there was.
async fn put(vault: &dyn Vault, name: &ObjectName, bytes: &Arc<Vec<u8>>) -> Result<bool, VaultError> {
    match answer(vault.put(name, Arc::clone(bytes))).await {
        Ok(()) => Ok(false),
        Err(VaultError::Exists(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reads what was written.
async fn written(vault: &dyn Vault, name: &ObjectName) -> Result<Vec<u8>, VaultError> {
    get(vault, name).await?.ok_or_else(|| VaultError::Unavailable(format!("{name} was written, and is not there")))
}

fn not_written(name: &ObjectName) -> BackupFailure {
    let why = "what is read back is not what was written: look at the disk behind the vault".to_owned();
    BackupError::Damaged { object: name.to_string(), why }.into()
}

/// An object; `None` where there is none.
pub(super) async fn get(vault: &dyn Vault, name: &ObjectName) -> Result<Option<Vec<u8>>, VaultError> {
    match answer(vault.get(name, None)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(VaultError::Gone(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The highest number of a manifest; 0 where there is none. They are looked for by name, in steps that double; of a list, which may lag and be
/// long, a page is asked for what is behind.
///
/// # Errors
///
/// The vault's.
pub async fn newest_number(vault: &dyn Vault, at_least: u64) -> Result<u64, VaultError> {
    let is_there = async |number: u64| Ok::<bool, VaultError>(answer(vault.head(&named(number)?)).await?.is_some());
    let mut newest = if at_least > 0 && is_there(at_least).await? { at_least } else { 0 };
    loop {
        let mut step = 1;
        while is_there(newest.saturating_add(step)).await? {
            newest = newest.saturating_add(step);
            step = step.saturating_mul(2);
        }
        // The newest one is there, and the one a step behind it is not.
        while step > 1 {
            step /= 2;
            if is_there(newest.saturating_add(step)).await? {
                newest = newest.saturating_add(step);
            }
        }
        // Below the floor there are gaps.
        let behind = answer(vault.list(MANIFESTS, Some(&named(newest)?))).await?;
        match behind.iter().filter_map(|listed| manifest::number(&listed.name)).max().filter(|behind| *behind > newest) {
            Some(behind) => newest = behind,
            None => return Ok(newest),
        }
    }
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
pub(crate) async fn answer<T>(asked: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
    let late = |_| VaultError::Unavailable(format!("no answer for {} s", limits::VAULT_TIMEOUT.as_secs()));
    tokio::time::timeout(limits::VAULT_TIMEOUT, asked).await.map_err(late)?
}
