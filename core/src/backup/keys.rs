//! The envelope: data keys that seal objects, wrapped under a backup key that is kept elsewhere.
//!
//! A keyring is an object `keys/<generation>-<id of the backup key>`; its body is the CBOR map `{1: project, 2: repository, 3: the hub's
//! secret key, 4: [data key, …], ? 5: [[project, data key], …], ? 6: [id of a data key, …]}`, the newest key last; 5 are the keys of other
//! projects on the same hub, and 6 those of erased ones, which nobody has any more. To rotate means to write the keyring of the next generation with one more data key,
//! under the same backup key or another one: what was sealed before stays as it is and opens with its old data key. A keyring is as secret
//! as the hub's own folder: with the backup key in hand, it makes a hub of a clean machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::seal::{self, Kind, Place, Press};
use super::vault::ObjectName;
use super::{BackupError, RepositoryId, hex, unhex};
use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::ProjectId;
use crate::limits;
use crate::trust::{self, KeyPair};

/// A key that seals objects. It prints as its id only.
#[derive(Clone, Eq, PartialEq)]
pub struct DataKey(pub [u8; 32]);

/// The key that a person keeps: whoever has it and the vault has everything. It prints as its id only.
#[derive(Clone, Eq, PartialEq)]
pub struct BackupKey(pub [u8; 32]);

impl DataKey {
    /// What names it in objects.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        id("mobo 1 backup data key", &self.0)
    }

    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        trust::derive(purpose, &self.0)
    }
}

impl BackupKey {
    /// What names it in vaults and in lists: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&id("mobo 1 backup key", &self.0))
    }

    fn wrapping(&self) -> DataKey {
        DataKey(trust::derive("mobo 1 backup wrapping", &self.0))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", hex(&self.id()))
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupKey({})", self.id())
    }
}

fn id(purpose: &str, key: &[u8; 32]) -> [u8; 16] {
    trust::derive(purpose, key).first_chunk().copied().unwrap_or_default()
}

/// What opens a repository.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Counts its versions from 1.
    pub generation: u64,
    /// The project.
    pub project: ProjectId,
    /// The repository.
    pub repository: RepositoryId,
    /// The hub's keys: they sign manifests, and are in every backup (rule R19).
    pub hub: KeyPair,
    /// The data keys, the newest last.
    pub keys: Vec<DataKey>,
    /// The keys of other projects on the same hub.
    pub others: Others,
}

/// The keys of projects that can be erased: what is theirs is sealed under a key of their own, and nobody reads it once that is gone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Others {
    /// The key of each, by its project.
    pub keys: BTreeMap<ProjectId, DataKey>,
    /// Ids of keys that were destroyed.
    pub shredded: BTreeSet<[u8; 16]>,
}

impl Keyring {
    /// The key that seals now.
    pub(super) fn newest(&self) -> Option<&DataKey> {
        self.keys.last()
    }

    /// The key that seals what is of a project: its own, or that of the repository.
    pub(super) fn key_of(&self, project: ProjectId) -> Option<&DataKey> {
        self.others.keys.get(&project).or_else(|| self.newest())
    }

    pub(super) fn key(&self, id: &[u8; 16]) -> Option<&DataKey> {
        self.keys.iter().chain(self.others.keys.values()).find(|key| key.id() == *id)
    }

    /// True for an object whose key was destroyed, so that nobody can read it: what it held was erased.
    #[must_use]
    pub fn is_shredded(&self, object: &[u8]) -> bool {
        seal::key_id("", object).is_ok_and(|id| self.others.shredded.contains(&id))
    }

    /// The next generation, with a key of its own for each of these projects that has none. `secret` is random, and kept by nobody.
    #[must_use]
    pub fn with_projects(&self, projects: impl IntoIterator<Item = ProjectId>, secret: &[u8; 32]) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        for project in projects {
            let own = blake3::keyed_hash(&trust::derive("mobo 1 backup project key", secret), &project.get().to_be_bytes());
            next.others.keys.entry(project).or_insert(DataKey(*own.as_bytes()));
        }
        next
    }

    /// The next generation, without the keys of these projects.
    #[must_use]
    pub fn without(&self, projects: &BTreeSet<ProjectId>) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        let gone = self.others.keys.iter().filter(|(project, _)| projects.contains(project));
        next.others.shredded.extend(gone.map(|(_, key)| key.id()));
        next.others.keys.retain(|project, _| !projects.contains(project));
        next
    }

    /// True if this keyring goes on from `other`: it opens whatever that one opens, but for what was erased since.
    #[must_use]
    pub fn goes_on_from(&self, other: &Self) -> bool {
        let is_kept =
            |(project, key): (&ProjectId, &DataKey)| self.others.keys.get(project) == Some(key) || self.others.shredded.contains(&key.id());
        let is_same = |one: &Self| (one.project, one.repository, one.hub.public());
        is_same(self) == is_same(other)
            && self.generation > other.generation
            && self.keys.starts_with(&other.keys)
            && other.others.keys.iter().all(is_kept)
            && self.others.shredded.is_superset(&other.others.shredded)
    }

    /// The next generation, which seals with another data key.
    #[must_use]
    pub fn with(&self, key: DataKey) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        next.keys.push(key);
        next
    }

    /// The name that it has under a backup key.
    ///
    /// # Errors
    ///
    /// None that can happen: a generation and an id always make a name.
    pub fn name(&self, key: &BackupKey) -> Result<ObjectName, BackupError> {
        name(self.generation, &key.id())
    }

    /// Wraps it.
    ///
    /// # Errors
    ///
    /// As [`Self::name`].
    pub fn wrap(&self, key: &BackupKey) -> Result<(ObjectName, Vec<u8>), BackupError> {
        let mut writer = Writer::new();
        let Others { keys: others, shredded } = &self.others;
        writer.map(4 + usize::from(!others.is_empty()) + usize::from(!shredded.is_empty()));
        writer.u64(1).u64(self.project.get()).u64(2).bytes(&self.repository.0).u64(3).bytes(&self.hub.secret());
        writer.u64(4).array(self.keys.len());
        for key in &self.keys {
            writer.bytes(&key.0);
        }
        if !others.is_empty() {
            writer.u64(5).array(others.len());
            for (project, key) in others {
                writer.array(2).u64(project.get()).bytes(&key.0);
            }
        }
        if !shredded.is_empty() {
            writer.u64(6).array(shredded.len());
            for id in shredded {
                writer.bytes(id);
            }
        }
        let (_, bytes) = seal::close(&key.wrapping(), &place(self.generation), (&writer.into_bytes(), &mut Press::default()));
        Ok((self.name(key)?, bytes))
    }

    /// Unwraps a keyring.
    ///
    /// # Errors
    ///
    /// [`BackupError::Foreign`] when it was wrapped under another key, [`BackupError::Damaged`] when it is not what was wrapped.
    pub fn unwrap(key: &BackupKey, name: &ObjectName, bytes: &[u8]) -> Result<Self, BackupError> {
        let (generation, of) = parse_name(name).ok_or_else(|| BackupError::damaged(name, "it is no name of a keyring"))?;
        if of != key.id() {
            let why = format!("it was wrapped under the backup key {of}, and this one is {}", key.id());
            return Err(BackupError::foreign(name, why));
        }
        let body = seal::unclose(&key.wrapping(), &place(generation), name.as_str(), bytes)?;
        decode(generation, &body).map_err(|error| BackupError::damaged(name, error))
    }
}

/// A keyring says itself what project and repository it is of.
fn place(generation: u64) -> Place {
    Place { project: 0, repository: RepositoryId([0; 16]), kind: Kind::Keyring, number: generation }
}

fn name(generation: u64, key: &str) -> Result<ObjectName, BackupError> {
    let name = format!("keys/{generation:016x}-{key}");
    ObjectName::parse(&name).ok_or_else(|| BackupError::damaged(name, "it is no name"))
}

/// Generation and backup key of a keyring, from its name; `None` for another name.
#[must_use]
pub fn parse_name(name: &ObjectName) -> Option<(u64, String)> {
    let (generation, key) = name.as_str().strip_prefix("keys/")?.split_once('-')?;
    let generation = u64::from_be_bytes(unhex::<8>(generation)?);
    unhex::<16>(key).map(|_| (generation, key.to_owned()))
}

fn decode(generation: u64, bytes: &[u8]) -> Result<Keyring, Malformed> {
    let (mut project, mut repository, mut hub, mut keys) = (None, None, None, Vec::new());
    let mut others = Others::default();
    let mut reader = Reader::new(bytes);
    reader.each_key(|key, reader| {
        match key {
            1 => project = ProjectId::new(reader.u63()?),
            2 => repository = Some(RepositoryId(reader.fixed()?)),
            3 => hub = Some(KeyPair::from_secret(&reader.fixed()?)),
            4 => {
                for _ in 0..reader.array()? {
                    keys.push(DataKey(reader.fixed()?));
                }
            }
            5 => {
                for _ in 0..reader.array()? {
                    let (of, key) = reader.tuple(2, |reader| Ok((reader.u63()?, reader.fixed()?)))?;
                    let of = ProjectId::new(of).ok_or_else(|| Malformed::what("a project that is none"))?;
                    others.keys.insert(of, DataKey(key));
                }
            }
            6 => {
                for _ in 0..reader.array()? {
                    others.shredded.insert(reader.fixed()?);
                }
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    let most = others.keys.len().max(others.shredded.len());
    match (project, repository, hub) {
        (Some(project), Some(repository), Some(hub)) if !keys.is_empty() && keys.len().max(most) <= limits::BACKUP_KEYS_MAX => {
            Ok(Keyring { generation, project, repository, hub, keys, others })
        }
        _ => Err(Malformed::what("a keyring without all of its parts")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::backup) fn keyring() -> Keyring {
        Keyring {
            generation: 1,
            project: ProjectId::new(5).unwrap(),
            repository: RepositoryId([3; 16]),
            hub: KeyPair::from_secret(&[4; 32]),
            keys: vec![DataKey([6; 32])],
            others: Others::default(),
        }
    }

    // faults: B-10
    #[test]
    fn a_keyring_opens_with_its_backup_key_only() {
        let (key, other) = (BackupKey([1; 32]), BackupKey([2; 32]));
        let ring = keyring().with(DataKey([7; 32]));
        let (name, bytes) = ring.wrap(&key).unwrap();
        let back = Keyring::unwrap(&key, &name, &bytes).unwrap();
        assert_eq!((back.generation, back.project, back.repository, &back.keys), (2, ring.project, ring.repository, &ring.keys));
        assert_eq!(back.hub.public(), ring.hub.public());
        assert!(matches!(Keyring::unwrap(&other, &name, &bytes), Err(BackupError::Foreign { .. })));
        // Under another's name, or as another generation, it does not open either.
        for name in [super::name(2, &other.id()).unwrap(), super::name(3, &key.id()).unwrap()] {
            let opened = [Keyring::unwrap(&other, &name, &bytes), Keyring::unwrap(&key, &name, &bytes)];
            assert!(opened.iter().all(Result::is_err), "{name}");
        }
        let shown = format!("{ring:?} {key:?}");
        assert!(!shown.contains(&hex(&[6; 32])) && !shown.contains(&hex(&[1; 32])) && !shown.contains("[6, 6"), "{shown}");
    }

    /// A project's key goes, and what it sealed is known to be gone; every other key stays.
    #[test]
    fn a_project_is_erased_by_its_key() {
        let (key, one, two) = (BackupKey([1; 32]), ProjectId::new(8).unwrap(), ProjectId::new(9).unwrap());
        let ring = keyring().with_projects([one, two], &[3; 32]);
        assert_eq!(ring.with_projects([one, two], &[4; 32]).others, ring.others, "a project keeps its key");
        let keys = [ring.key_of(one), ring.key_of(two), ring.key_of(ring.project)].map(|key| key.unwrap().id());
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 3);
        let sealed = |project| seal::seal_of(&ring, project, (Kind::Segment, 4), (b"rows", &mut Press::default())).unwrap();
        let objects = [sealed(one), sealed(two), sealed(ring.project)];
        let shredded = ring.without(&BTreeSet::from([one]));
        let (name, bytes) = shredded.wrap(&key).unwrap();
        let back = Keyring::unwrap(&key, &name, &bytes).unwrap();
        assert_eq!((&back.others, back.generation), (&shredded.others, 3));
        let stranger = Keyring { keys: vec![DataKey([9; 32])], ..back.clone() };
        for (later, earlier, goes_on) in [(&back, &ring, true), (&ring, &back, false), (&stranger, &ring, false), (&ring, &ring, false)] {
            assert_eq!(later.goes_on_from(earlier), goes_on, "{later:?} {earlier:?}");
        }
        assert!(!Keyring { generation: 9, ..keyring() }.goes_on_from(&ring), "it has lost the keys of two projects");
        let opens =
            |ring: &Keyring| objects.each_ref().map(|object| seal::open(ring, (Kind::Segment, 4), &object.name, &object.bytes).is_ok());
        assert_eq!((opens(&ring), opens(&back)), ([true; 3], [false, true, true]));
        assert_eq!(objects.each_ref().map(|object| back.is_shredded(&object.bytes)), [true, false, false]);
        assert!(!objects.iter().any(|object| ring.is_shredded(&object.bytes)));
    }
}
