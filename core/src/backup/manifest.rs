//! The chain of manifests.
//!
//! A manifest is the CBOR array `["mobo manifest 1", body, signature]`; the body is a byte string with the map `{1: project, 2: repository,
//! 3: number, 4: hash of the manifest before, 5: timeline, 6: time taken in µs, 7: name of the keyring, 8: number of its base, 9: [[name,
//! bytes, hash, rows], …], 10: totals [lanes, entries, buckets, positions], 11: state hash, 12: floor, ? 13: [[number, hash], …], ? 14:
//! [number, …]}`; the signature is the hub's. The hash of a manifest is BLAKE3 over all its bytes. Numbers count from 1 without gaps, whatever the timeline.
//!
//! The *floor* is the oldest manifest that still counts. Whoever retires old ones first has a manifest with a higher floor written, and
//! removes what is below afterwards: so a chain that ends early without such a word has been cut. A floor is a base.
//!
//! Keys 13 and 14 are absent when empty: bases below the floor that stay as they are, with the hashes of their manifests, and bases that
//! somebody wants kept, whatever the policy.
//!
//! The **anchor** `number:hash` of a manifest, noted where nobody who can reach the vault can change it, proves later that the repository
//! still has that manifest, and all before it.

use std::fmt;

use super::vault::ObjectName;
use super::{BackupError, RepositoryId, hex, unhex};
use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{ProjectId, PublicKey, Signature, Timeline};
use crate::limits;
use crate::trust::{KeyPair, Statement};

const MAGIC: &str = "mobo manifest 1";
const MAGIC_ANY: &str = "mobo manifest ";

/// An object that belongs to a manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: ObjectName,
    /// Its size.
    pub bytes: u64,
    /// The hash of its bytes.
    pub hash: [u8; 32],
    /// Rows in it.
    pub rows: u64,
}

/// What a hub held at one moment, in figures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Lanes of all logs.
    pub lanes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Buckets.
    pub buckets: u64,
    /// Positions used in them.
    pub positions: u64,
}

/// What stays of the time below the floor, and what must stay.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Retained {
    /// Bases below the floor that are kept without what was written behind them, ascending, with the hashes of their manifests.
    pub kept: Vec<(u64, [u8; 32])>,
    /// Bases under a legal hold, ascending.
    pub held: Vec<u64>,
}

/// What belongs together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// The project.
    pub project: ProjectId,
    /// The repository.
    pub repository: RepositoryId,
    /// Its number, from 1.
    pub number: u64,
    /// The hash of the one before; zeros for the first.
    pub previous: [u8; 32],
    /// The hub's history that it is of.
    pub timeline: Timeline,
    /// When the moment was that it brings back, by the hub's time.
    pub taken_us: i64,
    /// The keyring that opens it and all before it.
    pub keys: ObjectName,
    /// The manifest with the snapshot that it builds on; its own number if it has one.
    pub base: u64,
    /// Its objects: parts of a snapshot, or segments.
    pub members: Vec<Member>,
    /// What the hub held.
    pub totals: Totals,
    /// The hash over the heads of all lanes and buckets at that moment: equal after a replay.
    pub state: [u8; 32],
    /// The oldest manifest that counts.
    pub floor: u64,
    /// What stays besides.
    pub retained: Retained,
}

/// What proves that a manifest was there: `number:hash` as a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Anchor {
    /// The manifest's number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex(&self.hash))
    }
}

impl Anchor {
    /// Reads an anchor; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, hash) = text.trim().split_once(':')?;
        Some(Self { number: number.parse().ok().filter(|number| *number > 0)?, hash: unhex(hash)? })
    }
}

/// The hash of a manifest's bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The name of the manifest of that number.
///
/// # Errors
///
/// None that can happen: a number always makes a name.
pub fn name(number: u64) -> Result<ObjectName, BackupError> {
    let name = format!("manifests/{number:016x}");
    ObjectName::parse(&name).ok_or_else(|| BackupError::damaged(name, "it is no name"))
}

/// The number of a manifest, from its name; `None` for another name.
#[must_use]
pub fn number(name: &ObjectName) -> Option<u64> {
    name.as_str().strip_prefix("manifests/").and_then(unhex::<8>).map(u64::from_be_bytes)
}

impl Manifest {
    /// True if it has a snapshot of its own.
    #[must_use]
    pub fn is_base(&self) -> bool {
        self.base == self.number
    }

    /// Signs it, and gives its bytes.
    #[must_use]
    pub fn sign(&self, hub: &KeyPair) -> Vec<u8> {
        let body = self.body();
        let signature = Statement::Backup(&body).sign(hub);
        let mut writer = Writer::new();
        writer.array(3).text(MAGIC).bytes(&body).bytes(&signature.0);
        writer.into_bytes()
    }

    fn body(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let Retained { kept, held } = &self.retained;
        w.map(12 + usize::from(!kept.is_empty()) + usize::from(!held.is_empty()))
            .u64(1)
            .u64(self.project.get())
            .u64(2)
            .bytes(&self.repository.0)
            .u64(3)
            .u64(self.number);
        w.u64(4).bytes(&self.previous).u64(5).bytes(self.timeline.as_bytes()).u64(6).i64(self.taken_us);
        w.u64(7).text(self.keys.as_str()).u64(8).u64(self.base).u64(9).array(self.members.len());
        for member in &self.members {
            w.array(4).text(member.name.as_str()).u64(member.bytes).bytes(&member.hash).u64(member.rows);
        }
        let Totals { lanes, entries, buckets, positions } = self.totals;
        w.u64(10).array(4).u64(lanes).u64(entries).u64(buckets).u64(positions);
        w.u64(11).bytes(&self.state).u64(12).u64(self.floor);
        if !kept.is_empty() {
            w.u64(13).array(kept.len());
            kept.iter().for_each(|(number, hash)| {
                w.array(2).u64(*number).bytes(hash);
            });
        }
        if !held.is_empty() {
            w.u64(14).array(held.len());
            held.iter().for_each(|number| {
                w.u64(*number);
            });
        }
        w.into_bytes()
    }

    /// Reads a manifest and believes it nothing: for whoever looks for its keyring, or has no key at all.
    ///
    /// # Errors
    ///
    /// [`BackupError`] for bytes that are no manifest.
    pub fn read(name: &ObjectName, bytes: &[u8]) -> Result<Self, BackupError> {
        Ok(split(name, bytes)?.0)
    }

    /// Reads a manifest that the hub of this key has signed.
    ///
    /// # Errors
    ///
    /// [`BackupError`] for bytes that are none, or that somebody else has signed.
    pub fn open(name: &ObjectName, bytes: &[u8], hub: &PublicKey) -> Result<Self, BackupError> {
        let (manifest, body, signature) = split(name, bytes)?;
        if !Statement::Backup(&body).is_signed_by(hub, &signature) {
            return Err(BackupError::damaged(name, "the hub has not signed it so"));
        }
        Ok(manifest)
    }
}

fn split(name: &ObjectName, bytes: &[u8]) -> Result<(Manifest, Vec<u8>, Signature), BackupError> {
    let damaged = |error: Malformed| BackupError::damaged(name, error);
    let mut reader = Reader::new(bytes);
    let parts = reader.tuple(3, |reader| Ok((reader.text()?, reader.bytes()?.to_vec(), Signature(reader.fixed()?))));
    let (magic, body, signature) = parts.map_err(damaged)?;
    if magic != MAGIC {
        return Err(match magic.starts_with(MAGIC_ANY) {
            true => BackupError::Later { object: name.to_string() },
            false => BackupError::damaged(name, "it is no manifest"),
        });
    }
    reader.end().map_err(damaged)?;
    let manifest = decode(&body).map_err(damaged)?;
    if number(name) != Some(manifest.number) {
        return Err(BackupError::damaged(name, format!("the manifest {} is in its place", manifest.number)));
    }
    Ok((manifest, body, signature))
}

fn decode(body: &[u8]) -> Result<Manifest, Malformed> {
    let mut project = None;
    let (mut repository, mut timeline, mut keys) = (None, None, None);
    let mut m = Draft::default();
    let mut reader = Reader::new(body);
    reader.each_key(|key, r| {
        match key {
            1 => project = ProjectId::new(r.u63()?),
            2 => repository = Some(RepositoryId(r.fixed()?)),
            3 => m.number = r.u64()?,
            4 => m.previous = r.fixed()?,
            5 => timeline = Some(Timeline(r.fixed()?)),
            6 => m.taken_us = r.i64()?,
            7 => keys = ObjectName::parse(r.text()?),
            8 => m.base = r.u64()?,
            9 => m.members = members(r)?,
            10 => m.totals = totals(r)?,
            11 => m.state = r.fixed()?,
            12 => m.floor = r.u64()?,
            13 => m.retained.kept = several(r, |r| r.tuple(2, |r| Ok((r.u64()?, r.fixed()?))))?,
            14 => m.retained.held = several(r, |r| r.u64())?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    let (Some(project), Some(repository), Some(timeline), Some(keys)) = (project, repository, timeline, keys) else {
        return Err(Malformed::what("a manifest without all of its parts"));
    };
    let Draft { number, previous, taken_us, base, members, totals, state, floor, retained } = m;
    if number == 0 || base == 0 || base > number || floor == 0 || floor > base {
        return Err(Malformed::what("a manifest whose numbers do not fit each other"));
    }
    let (kept, held) = (&retained.kept, &retained.held);
    if !kept.is_sorted_by_key(|(number, _)| *number) || kept.last().is_some_and(|(last, _)| *last >= floor) || !held.is_sorted() {
        return Err(Malformed::what("a manifest whose old ones do not fit each other"));
    }
    Ok(Manifest { project, repository, number, previous, timeline, taken_us, keys, base, members, totals, state, floor, retained })
}

#[derive(Default)]
struct Draft {
    number: u64,
    previous: [u8; 32],
    taken_us: i64,
    base: u64,
    members: Vec<Member>,
    totals: Totals,
    state: [u8; 32],
    floor: u64,
    retained: Retained,
}

fn several<T>(r: &mut Reader<'_>, mut one: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    let count = r.array()?;
    if count > limits::BACKUP_POINTS_MAX {
        return Err(Malformed::what("too many old manifests"));
    }
    (0..count).map(|_| one(r)).collect()
}

fn members(r: &mut Reader<'_>) -> Result<Vec<Member>, Malformed> {
    let mut members = Vec::new();
    for _ in 0..r.array()? {
        members.push(r.tuple(4, |r| {
            let name = ObjectName::parse(r.text()?).ok_or_else(|| Malformed::what("a name that is none"))?;
            Ok(Member { name, bytes: r.u64()?, hash: r.fixed()?, rows: r.u64()? })
        })?);
    }
    if members.len() > limits::BACKUP_MEMBERS_MAX {
        return Err(Malformed::what("too many objects in one manifest"));
    }
    Ok(members)
}

fn totals(r: &mut Reader<'_>) -> Result<Totals, Malformed> {
    r.tuple(4, |r| Ok(Totals { lanes: r.u64()?, entries: r.u64()?, buckets: r.u64()?, positions: r.u64()? }))
}

#[cfg(test)]
mod tests {
    use super::super::keys::BackupKey;
    use super::super::keys::tests::keyring;
    use super::*;

    pub(super) fn manifest() -> Manifest {
        let ring = keyring();
        Manifest {
            project: ring.project,
            repository: ring.repository,
            number: 7,
            previous: [2; 32],
            timeline: Timeline([8; 16]),
            taken_us: 1_700_000_000_000_000,
            keys: ring.name(&BackupKey([1; 32])).unwrap(),
            base: 3,
            members: vec![Member { name: ObjectName::parse("segments/x").unwrap(), bytes: 10, hash: [1; 32], rows: 2 }],
            totals: Totals { lanes: 1, entries: 2, buckets: 3, positions: 4 },
            state: [5; 32],
            floor: 3,
            retained: Retained { kept: vec![(1, [6; 32])], held: vec![1, 3] },
        }
    }

    // faults: B-5
    #[test]
    fn a_manifest_comes_back_and_no_changed_byte_is_believed() {
        let (ring, want) = (keyring(), manifest());
        let (bytes, at) = (want.sign(&ring.hub), name(7).unwrap());
        assert_eq!(Manifest::open(&at, &bytes, &ring.hub.public()).unwrap(), want);
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(Manifest::open(&at, &changed, &ring.hub.public()).is_err(), "byte {position}");
            assert!(Manifest::open(&at, &bytes[..position], &ring.hub.public()).is_err(), "cut at {position}");
        }
        assert!(Manifest::open(&name(8).unwrap(), &bytes, &ring.hub.public()).is_err(), "in another's place");
        assert!(Manifest::open(&at, &bytes, &KeyPair::from_secret(&[9; 32]).public()).is_err(), "of another hub");
        let anchor = Anchor { number: 7, hash: hash(&bytes) };
        assert_eq!(Anchor::parse(&anchor.to_string()), Some(anchor));
        assert_eq!(number(&at), Some(7));
        for bad in ["", "7", "7:00", "0:00", "x:y"] {
            assert_eq!(Anchor::parse(bad), None, "{bad}");
        }
    }
}
