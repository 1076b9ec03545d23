//! Finds out whether a repository is whole, without restoring it: a state machine that asks for objects and judges what it is given.
//!
//! It walks the chain from the newest manifest down to the floor. Each manifest must be signed by the hub, be in its place, and have the hash
//! that the one above it names; each object must be there with its size, and where it is read, be byte for byte what its manifest says, open,
//! and hold changes that can be read. What is known from elsewhere (the hub's own record, an anchor) must be in the chain: a repository that
//! was rolled back verifies in itself, and is found out by that.

use std::collections::{BTreeSet, VecDeque};

use super::keys::Keyring;
use super::manifest::{self, Anchor, Manifest, Member};
use super::seal::{self, Kind};
use super::vault::{ObjectName, SEGMENTS, SNAPSHOTS};
use super::{BackupError, change};
use crate::limits;

/// What to look at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scope {
    /// Objects of manifests up to this number were read before: it is enough that they are there. 0 to read all.
    pub read_above: u64,
    /// What is known from elsewhere.
    pub known: Vec<Anchor>,
}

/// What a verification needs next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Want {
    /// The bytes of an object.
    Bytes(ObjectName),
    /// The size of an object.
    Size(ObjectName),
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// The newest manifest; `None` for a repository without one.
    pub newest: Option<Anchor>,
    /// Manifests that were checked.
    pub manifests: u64,
    /// Objects that were read and opened.
    pub read: u64,
    /// Of these, objects of erased projects: nobody can open them.
    pub erased: u64,
    /// Objects that are there with their size.
    pub seen: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// What is wrong, at most [`limits::BACKUP_DAMAGES_MAX`] of it; none for a repository that is whole.
    pub damages: Vec<BackupError>,
}

/// One verification. After [`Verify::want`], the answer goes to [`Verify::bytes`] or [`Verify::size`]; then the next one, until there is none.
#[derive(Debug)]
pub struct Verify<'k> {
    keyring: &'k Keyring,
    scope: Scope,
    next: VecDeque<Task>,
    expected: Option<[u8; 32]>,
    floor: u64,
    seen: BTreeSet<(ObjectName, [u8; 32])>,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
enum Task {
    Manifest(u64),
    /// A base below the floor, with the hash that it must have.
    Kept(u64, [u8; 32]),
    Read(u64, Member),
    Look(Member),
}

impl<'k> Verify<'k> {
    /// Of a repository whose newest manifest is `newest`: the highest number in the vault's list, or one above it that is there.
    #[must_use]
    pub fn new(keyring: &'k Keyring, newest: u64, scope: Scope) -> Self {
        let mut verify =
            Self { keyring, next: VecDeque::new(), expected: None, floor: 1, seen: BTreeSet::new(), verdict: Verdict::default(), scope };
        let beyond = verify.scope.known.iter().filter(|known| known.number > newest).max_by_key(|known| known.number);
        if let Some(known) = beyond {
            let why = format!("the newest one is {newest}: the repository was rolled back, or it is another one");
            verify.damage(BackupError::damaged(format!("manifest {}", known.number), why));
        }
        if newest > 0 {
            verify.next.push_back(Task::Manifest(newest));
        }
        verify
    }

    /// What is needed next; `None` at the end.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        Some(match self.next.front()? {
            Task::Manifest(number) | Task::Kept(number, _) => Want::Bytes(manifest::name(*number).ok()?),
            Task::Read(_, member) => Want::Bytes(member.name.clone()),
            Task::Look(member) => Want::Size(member.name.clone()),
        })
    }

    /// The size that was wanted; `None` for an object that is not there.
    pub fn size(&mut self, size: Option<u64>) {
        let Some(Task::Look(member)) = self.next.pop_front() else { return };
        match size {
            Some(bytes) if bytes == member.bytes => {
                self.verdict.seen += 1;
                self.verdict.bytes += bytes;
            }
            Some(bytes) => self.damage(BackupError::damaged(&member.name, format!("it has {bytes} bytes, and had {}", member.bytes))),
            None => self.damage(BackupError::damaged(&member.name, "it is gone")),
        }
    }

    /// The bytes that were wanted; `None` for an object that is not there.
    pub fn bytes(&mut self, bytes: Option<&[u8]>) {
        match self.next.pop_front() {
            Some(Task::Manifest(number)) => self.manifest(number, bytes),
            Some(Task::Kept(number, hash)) => match kept(self.keyring, (number, hash), bytes) {
                Ok(manifest) => {
                    self.verdict.manifests += 1;
                    self.verdict.bytes += bytes.map_or(0, |bytes| bytes.len() as u64);
                    self.members(manifest);
                }
                Err(damage) => self.damage(damage),
            },
            Some(Task::Read(number, member)) => match check(self.keyring, (number, &member), bytes) {
                Ok(_) => {
                    self.verdict.erased += u64::from(bytes.is_some_and(|bytes| self.keyring.is_shredded(bytes)));
                    self.verdict.read += 1;
                    self.verdict.bytes += member.bytes;
                }
                Err(damage) => self.damage(damage),
            },
            Some(Task::Look(_)) | None => {}
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    fn damage(&mut self, damage: BackupError) {
        if self.verdict.damages.len() < limits::BACKUP_DAMAGES_MAX {
            self.verdict.damages.push(damage);
        }
    }

    fn manifest(&mut self, number: u64, bytes: Option<&[u8]>) {
        let below = number - 1;
        match self.judge(number, bytes) {
            Ok(manifest) => {
                self.expected = Some(manifest.previous);
                self.floor = self.floor.max(manifest.floor);
                if number == self.floor && !manifest.is_base() {
                    self.damage(BackupError::damaged(format!("manifest {number}"), "the chain begins with it, and it has no snapshot"));
                }
                if self.verdict.newest.is_some_and(|newest| newest.number == number) {
                    self.next.extend(manifest.retained.kept.iter().map(|(number, hash)| Task::Kept(*number, *hash)));
                }
                self.members(manifest);
            }
            Err(damage) => {
                self.damage(damage);
                self.expected = None;
            }
        }
        if below >= self.floor {
            self.next.push_back(Task::Manifest(below));
        }
    }

    fn members(&mut self, manifest: Manifest) {
        let (number, is_new) = (manifest.number, manifest.number > self.scope.read_above);
        for member in manifest.members {
            if self.seen.insert((member.name.clone(), member.hash)) {
                self.next.push_back(if is_new { Task::Read(number, member) } else { Task::Look(member) });
            }
        }
    }

    fn judge(&mut self, number: u64, bytes: Option<&[u8]>) -> Result<Manifest, BackupError> {
        let name = manifest::name(number)?;
        let bytes = bytes.ok_or_else(|| BackupError::damaged(&name, "it is gone"))?;
        let anchor = Anchor { number, hash: manifest::hash(bytes) };
        let manifest = open_manifest(self.keyring, &name, bytes)?;
        if self.verdict.newest.is_none() {
            self.verdict.newest = Some(anchor);
        }
        if self.expected.is_some_and(|expected| expected != anchor.hash) {
            return Err(BackupError::damaged(&name, "it is not the one that the next manifest follows"));
        }
        if self.scope.known.iter().any(|known| known.number == number && known.hash != anchor.hash) {
            return Err(BackupError::damaged(
                &name,
                "it is not the one that was written: the repository was rolled back and went on, or it is another one",
            ));
        }
        self.verdict.manifests += 1;
        self.verdict.bytes += bytes.len() as u64;
        Ok(manifest)
    }
}

/// A manifest of this keyring's hub, project and repository.
///
/// # Errors
///
/// [`BackupError`] for anything else.
pub fn open_manifest(keyring: &Keyring, name: &ObjectName, bytes: &[u8]) -> Result<Manifest, BackupError> {
    let manifest = Manifest::open(name, bytes, &keyring.hub.public())?;
    if manifest.project != keyring.project {
        return Err(BackupError::foreign(name, format!("it is of the project {}", manifest.project)));
    }
    if manifest.repository != keyring.repository {
        return Err(BackupError::foreign(name, format!("it is of the repository {}", manifest.repository)));
    }
    Ok(manifest)
}

/// A base below the floor: the one that the newest manifest says.
fn kept(keyring: &Keyring, (number, hash): (u64, [u8; 32]), bytes: Option<&[u8]>) -> Result<Manifest, BackupError> {
    let name = manifest::name(number)?;
    let bytes = bytes.ok_or_else(|| BackupError::damaged(&name, "it is gone, and the newest manifest says that it is kept"))?;
    let manifest = open_manifest(keyring, &name, bytes)?;
    if manifest::hash(bytes) != hash || !manifest.is_base() {
        return Err(BackupError::damaged(&name, "it is not the one that the newest manifest keeps"));
    }
    Ok(manifest)
}

/// The changes in an object of the manifest `number`, which must be byte for byte what the manifest says; none for one of an erased project.
///
/// # Errors
///
/// [`BackupError`] for anything else.
pub fn check(keyring: &Keyring, (number, member): (u64, &Member), bytes: Option<&[u8]>) -> Result<Vec<change::Change>, BackupError> {
    let name = &member.name;
    let bytes = bytes.ok_or_else(|| BackupError::damaged(name, "it is gone"))?;
    if bytes.len() as u64 != member.bytes {
        return Err(BackupError::damaged(name, format!("it has {} bytes, and had {}", bytes.len(), member.bytes)));
    }
    if manifest::hash(bytes) != member.hash {
        return Err(BackupError::damaged(name, "its bytes are not what was written"));
    }
    let place = if name.as_str().starts_with(SEGMENTS) {
        (Kind::Segment, number)
    } else if name.as_str().starts_with(SNAPSHOTS) {
        (Kind::Snapshot, 0)
    } else {
        return Err(BackupError::damaged(name, "a manifest names it, and it is neither a segment nor a part of a snapshot"));
    };
    // What was erased is there as it was written, and says nothing any more.
    if keyring.is_shredded(bytes) {
        return Ok(Vec::new());
    }
    change::decode(&seal::open(keyring, place, name, bytes)?).map_err(|error| BackupError::damaged(name, error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::change::{Body, Deed};
    use super::super::keys::{BackupKey, tests::keyring};
    use super::super::manifest::{Retained, Totals};
    use super::*;
    use crate::ids::Timeline;
    use crate::store::transfer::{Cell, TableName};

    type Objects = BTreeMap<ObjectName, Vec<u8>>;

    /// Five manifests: a base with two parts, two segments each, and another base with one of the parts.
    fn repository() -> (Keyring, Objects) {
        repository_with(false)
    }

    /// The same; or with the second base as the floor, and the first one kept without its segments.
    fn repository_with(retired: bool) -> (Keyring, Objects) {
        let (ring, mut objects, mut previous) = (keyring(), Objects::new(), [0; 32]);
        let mut first = [0; 32];
        for number in 1..=5_u64 {
            let base = if number < 4 { 1 } else { 4 };
            let (kind, of) = if number == base { (Kind::Snapshot, 0) } else { (Kind::Segment, number) };
            let members = (0..2).map(|part| {
                let (mut body, mut bytes) = (Body::default(), Vec::new());
                let rows = if number == base && part == 0 { 0 } else { number as i64 };
                body.add(Deed::Put, (&TableName::Own("lane".into()), &["n".to_owned()]), vec![Cell::Int(rows * 10 + part)]);
                let rows = body.encode(&mut bytes);
                let sealed = seal::seal(&ring, kind, of, &bytes).unwrap();
                let member = Member { name: sealed.name.clone(), bytes: sealed.bytes.len() as u64, hash: sealed.hash, rows };
                objects.insert(sealed.name, sealed.bytes.to_vec());
                member
            });
            let manifest = Manifest {
                project: ring.project,
                repository: ring.repository,
                number,
                previous,
                timeline: Timeline([1; 16]),
                taken_us: 1_000 * number as i64,
                keys: ring.name(&BackupKey([1; 32])).unwrap(),
                base,
                members: members.collect(),
                totals: Totals::default(),
                state: [0; 32],
                floor: if retired && number == 5 { 4 } else { 1 },
                retained: if retired && number == 5 { Retained { kept: vec![(1, first)], held: vec![1] } } else { Retained::default() },
            };
            let bytes = manifest.sign(&ring.hub);
            previous = manifest::hash(&bytes);
            if number == 1 {
                first = previous;
            }
            objects.insert(manifest::name(number).unwrap(), bytes);
        }
        (ring, objects)
    }

    fn verify(ring: &Keyring, objects: &Objects, scope: Scope) -> Verdict {
        let newest = objects.keys().filter_map(manifest::number).max().unwrap_or(0);
        let mut verify = Verify::new(ring, newest, scope);
        while let Some(want) = verify.want() {
            match want {
                Want::Bytes(name) => verify.bytes(objects.get(&name).map(Vec::as_slice)),
                Want::Size(name) => verify.size(objects.get(&name).map(|bytes| bytes.len() as u64)),
            }
        }
        verify.verdict().clone()
    }

    #[test]
    fn a_whole_repository_is_found_whole() {
        let (ring, objects) = repository();
        let verdict = verify(&ring, &objects, Scope::default());
        assert_eq!(verdict.damages, []);
        assert_eq!((verdict.manifests, verdict.read, verdict.seen), (5, 9, 0));
        let fast = verify(&ring, &objects, Scope { read_above: 4, known: vec![verdict.newest.unwrap()] });
        assert_eq!((fast.damages.len(), fast.read, fast.seen, fast.bytes), (0, 2, 7, verdict.bytes));
    }

    /// What was retired may be gone; what is kept of it may not.
    // faults: B-5, B-8
    #[test]
    fn what_is_kept_below_the_floor_is_looked_at_as_well() {
        let (ring, objects) = repository_with(true);
        let whole = verify(&ring, &objects, Scope::default());
        assert_eq!((whole.damages.as_slice(), whole.manifests), (&[][..], 3));
        let without = |gone: &dyn Fn(&ObjectName) -> bool| {
            let left: Objects = objects.iter().filter(|(name, _)| !gone(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
            verify(&ring, &left, Scope::default()).damages.len()
        };
        let retired = |name: &ObjectName| manifest::number(name).is_some_and(|number| number == 2 || number == 3);
        assert_eq!(without(&retired), 0);
        assert_eq!(without(&|name| manifest::number(name) == Some(1)), 1);
        let first = Manifest::read(&manifest::name(1).unwrap(), &objects[&manifest::name(1).unwrap()]).unwrap();
        assert_eq!(without(&|name| first.members.iter().any(|member| member.name == *name)), 2);
        let mut swapped = objects.clone();
        swapped.insert(manifest::name(1).unwrap(), objects[&manifest::name(2).unwrap()].clone());
        assert_eq!(verify(&ring, &swapped, Scope::default()).damages.len(), 1);
    }

    // faults: B-5, B-6
    #[test]
    fn every_mutation_of_a_small_repository_is_found() {
        let (ring, objects) = repository();
        let known = verify(&ring, &objects, Scope::default()).newest.unwrap();
        let found = |mutant: &Objects, what: &str| {
            let verdict = verify(&ring, mutant, Scope { read_above: 0, known: vec![known] });
            assert_ne!(verdict.damages, [], "{what}");
        };
        for (name, bytes) in &objects {
            let with = |bytes: Option<Vec<u8>>| {
                let mut mutant = objects.clone();
                mutant.remove(name);
                mutant.extend(bytes.map(|bytes| (name.clone(), bytes)));
                mutant
            };
            found(&with(None), &format!("{name} gone"));
            found(&with(Some(Vec::new())), &format!("{name} empty"));
            // Every byte of an object is tried where objects and manifests are; here, every place in which they meet.
            for position in (0..bytes.len()).step_by(23) {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << (position % 8);
                found(&with(Some(changed)), &format!("{name}, byte {position}"));
                found(&with(Some(bytes[..position].to_vec())), &format!("{name} cut at {position}"));
            }
            for other in objects.iter().filter(|(_, other)| *other != bytes) {
                found(&with(Some(other.1.clone())), &format!("{name} in place of {}", other.0));
            }
        }
        let mut rolled = objects.clone();
        for newest in (0..5).rev() {
            rolled.remove(&manifest::name(newest + 1).unwrap());
            found(&rolled, &format!("rolled back to {newest}"));
        }
    }
}
