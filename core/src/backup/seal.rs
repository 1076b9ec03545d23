//! How objects are packed and sealed.
//!
//! An object is `mobo-backup`, a byte for the version (1), a byte for its kind, 16 bytes that name the data key, the 32-byte tag of its
//! content, and the sealed form. What is sealed is a byte for the way it was packed (0 as it is, 1 deflated, 2 with zstd) and the packed body.
//! Nothing is deflated any more: zstd packs to an eighth less in half of the time, and every second counts it.
//!
//! The tag is a keyed hash of kind, number and body; the object's own key is derived from data key and tag, so that one key seals one
//! content and its nonce can be zero: the same content gives the same object, which is how an unchanged part of a snapshot is kept once.
//! With it are authenticated the head, the project, the repository and the number: that of its manifest for a segment, 0 for a part of a
//! snapshot, the generation for a keyring.

use std::fmt;
use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zstd::bulk::Compressor;

use super::keys::{DataKey, Keyring};
use super::vault::ObjectName;
use super::{BackupError, RepositoryId, hex};
use crate::ids::ProjectId;
use crate::limits;

const MAGIC: &[u8; 11] = b"mobo-backup";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 2 + 16 + 32;
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
const ZSTD: u8 = 2;
/// The first of the fast ones: level 1 packs to 4 % less and takes a sixth longer.
const ZSTD_LEVEL: i32 = -1;

/// What an object is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Changes since the manifest before; its number is that of its manifest.
    Segment,
    /// A part of the whole state.
    Snapshot,
    /// Wrapped keys; its number is the generation.
    Keyring,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Snapshot => 2,
            Self::Keyring => 3,
        }
    }
}

/// An object that is ready to be kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// Its name in the vault.
    pub name: ObjectName,
    /// Its bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The hash of its bytes.
    pub hash: [u8; 32],
}

/// Where an object belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) project: u64,
    pub(super) repository: RepositoryId,
    pub(super) kind: Kind,
    pub(super) number: u64,
}

/// Packs and seals the body of a segment of the manifest `number`, or with [`Kind::Snapshot`] and 0 a part of a snapshot, under the newest
/// data key.
///
/// # Errors
///
/// [`BackupError::Damaged`] for a keyring without a key, or a body larger than [`limits::BACKUP_BODY_BYTES_MAX`].
pub fn seal(keyring: &Keyring, kind: Kind, number: u64, body: &[u8]) -> Result<Sealed, BackupError> {
    seal_of(keyring, keyring.project, (kind, number), (body, &mut Press::default()))
}

/// The same for what is of `project`, under its own key where it has one, with a press that may have packed others before.
///
/// # Errors
///
/// As [`seal`].
pub fn seal_of(
    keyring: &Keyring,
    project: ProjectId,
    (kind, number): (Kind, u64),
    (body, press): (&[u8], &mut Press),
) -> Result<Sealed, BackupError> {
    let key = keyring.key_of(project).ok_or_else(|| BackupError::damaged("the keyring", "there is no key in it"))?;
    if body.len() > limits::BACKUP_BODY_BYTES_MAX {
        return Err(BackupError::damaged("a new object", "its body is too large"));
    }
    let place = Place { project: keyring.project.get(), repository: keyring.repository, kind, number };
    let (tag, bytes) = close(key, &place, (body, press));
    let hash = *blake3::hash(&bytes).as_bytes();
    let name = match kind {
        Kind::Segment => format!("segments/{number:016x}-{}", hex(hash.first_chunk::<16>().unwrap_or(&[0; 16]))),
        Kind::Snapshot | Kind::Keyring => format!("snapshots/{}", hex(tag.first_chunk::<16>().unwrap_or(&[0; 16]))),
    };
    let name = ObjectName::parse(&name).ok_or_else(|| BackupError::damaged(name, "it is no name"))?;
    Ok(Sealed { name, bytes: Arc::new(bytes), hash })
}

/// Opens an object, and gives its body.
///
/// # Errors
///
/// [`BackupError`] for bytes that are not what [`seal`] made for this place.
pub fn open(keyring: &Keyring, (kind, number): (Kind, u64), name: &ObjectName, bytes: &[u8]) -> Result<Vec<u8>, BackupError> {
    let id = key_id(name.as_str(), bytes)?;
    let key = keyring.key(&id).ok_or_else(|| BackupError::foreign(name, format!("the keyring has no key {}", hex(&id))))?;
    unclose(key, &Place { project: keyring.project.get(), repository: keyring.repository, kind, number }, name.as_str(), bytes)
}

/// True for bytes that are not `sealed`, and open to the same content in the same place: packed by another version.
#[must_use]
pub fn is_the_same(keyring: &Keyring, place: (Kind, u64), sealed: &Sealed, there: &[u8]) -> bool {
    there.get(..HEAD_BYTES) == sealed.bytes.get(..HEAD_BYTES) && open(keyring, place, &sealed.name, there).is_ok()
}

/// Another name for a part of a snapshot, for a reason that its content does not know. What opens a part does not ask for its name.
///
/// # Errors
///
/// None that can happen: a hash always makes a name.
pub fn renamed(name: &ObjectName, why: &str, number: u64) -> Result<ObjectName, BackupError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_str().as_bytes()).update(why.as_bytes()).update(&number.to_be_bytes());
    let renamed = format!("snapshots/{}", hex(hasher.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16])));
    ObjectName::parse(&renamed).ok_or_else(|| BackupError::damaged(renamed, "it is no name"))
}

/// The key that an object says it is sealed with.
pub(super) fn key_id(name: &str, bytes: &[u8]) -> Result<[u8; 16], BackupError> {
    let head = bytes.get(..HEAD_BYTES).ok_or_else(|| BackupError::damaged(name, "it is shorter than any object"))?;
    if !head.starts_with(MAGIC) {
        return Err(BackupError::damaged(name, "it does not begin like an object of a backup"));
    }
    if head.get(MAGIC.len()).is_some_and(|version| *version > VERSION) {
        return Err(BackupError::Later { object: name.to_owned() });
    }
    let id = head.get(MAGIC.len() + 2..).and_then(<[u8]>::first_chunk::<16>);
    id.copied().ok_or_else(|| BackupError::damaged(name, "it has no head"))
}

/// Packs and seals; gives the tag of the content, too.
pub(super) fn close(key: &DataKey, place: &Place, (body, press): (&[u8], &mut Press)) -> ([u8; 32], Vec<u8>) {
    let tag = tag(key, place, body);
    let head = head(key, place, &tag);
    let mut bytes = std::mem::take(&mut press.sealed);
    bytes.clear();
    let (way, content) = press.pack(body).map_or((PLAIN, body), |packed| (ZSTD, packed));
    bytes.reserve(head.len() + 1 + content.len() + CHACHA20_POLY1305.tag_len());
    bytes.extend(&head);
    bytes.push(way);
    bytes.extend(content);
    let aad = Aad::from(bound(&head, place));
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let sealed = bytes.get_mut(head.len()..).unwrap_or_default();
    match cipher(key, &tag).and_then(|cipher| cipher.seal_in_place_separate_tag(nonce, aad, sealed).ok()) {
        Some(proof) => bytes.extend(proof.as_ref()),
        // That would take 256 GiB, and a body has its limit: nobody could open it, and nothing of it is told.
        None => bytes.truncate(head.len()),
    }
    (tag, bytes)
}

/// What packs bodies, one after the other, with the memory that it needs for that.
#[derive(Default)]
pub struct Press {
    packer: Option<Compressor<'static>>,
    packed: Vec<u8>,
    /// The memory of an object that is in its vault.
    sealed: Vec<u8>,
}

impl Press {
    /// The body packed; `None` where that is no smaller.
    fn pack(&mut self, body: &[u8]) -> Option<&[u8]> {
        let packer = match &mut self.packer {
            Some(packer) => packer,
            None => self.packer.insert(Compressor::new(ZSTD_LEVEL).ok()?),
        };
        self.packed.clear();
        // What does not fit into the room of the body is no smaller.
        self.packed.reserve(body.len());
        let done = packer.compress_to_buffer(body, &mut self.packed);
        (done.is_ok() && self.packed.len() < body.len()).then_some(&self.packed)
    }

    /// Takes the memory of an object back when nobody needs the object any more.
    pub fn take_back(&mut self, sealed: Sealed) {
        if let Some(bytes) = Arc::into_inner(sealed.bytes) {
            self.sealed = bytes;
        }
    }

    /// Gives up memory that a body of so many bytes does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        for memory in [&mut self.packed, &mut self.sealed] {
            memory.clear();
            memory.shrink_to(bytes);
        }
    }
}

impl fmt::Debug for Press {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Press").field("bytes", &self.packed.capacity()).finish_non_exhaustive()
    }
}

/// What was packed in that way; `None` for what was not, or is more than a body may be.
fn unpacked(way: u8, packed: &[u8]) -> Option<Vec<u8>> {
    match way {
        PLAIN => Some(packed.to_vec()),
        DEFLATED => miniz_oxide::inflate::decompress_to_vec_with_limit(packed, limits::BACKUP_BODY_BYTES_MAX).ok(),
        ZSTD => {
            // The frame says how much it is; more than that does not fit.
            let told = zstd::zstd_safe::get_frame_content_size(packed).ok()??;
            let room = usize::try_from(told).ok().filter(|room| *room <= limits::BACKUP_BODY_BYTES_MAX)?;
            zstd::bulk::decompress(packed, room).ok()
        }
        _ => None,
    }
}

/// Opens and unpacks.
pub(super) fn unclose(key: &DataKey, place: &Place, name: &str, bytes: &[u8]) -> Result<Vec<u8>, BackupError> {
    let (head, sealed) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| BackupError::damaged(name, "it is shorter than any object"))?;
    let tag_told: [u8; 32] = *head.last_chunk().ok_or_else(|| BackupError::damaged(name, "it has no head"))?;
    let mut sealed = sealed.to_vec();
    let aad = Aad::from(bound(head, place));
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let opened = cipher(key, &tag_told).and_then(|cipher| cipher.open_in_place(nonce, aad, &mut sealed).ok());
    let opened = opened.ok_or_else(|| BackupError::damaged(name, "it is not what was sealed for this place"))?;
    let (way, packed) = opened.split_first().ok_or_else(|| BackupError::damaged(name, "there is nothing in it"))?;
    if *way > ZSTD {
        return Err(BackupError::Later { object: name.to_owned() });
    }
    let body = unpacked(*way, packed).ok_or_else(|| BackupError::damaged(name, "it cannot be unpacked"))?;
    if tag(key, place, &body) != tag_told {
        return Err(BackupError::damaged(name, "its content is not what its head says"));
    }
    Ok(body)
}

fn head(key: &DataKey, place: &Place, tag: &[u8; 32]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([VERSION, place.kind.code()]);
    bytes.extend(key.id());
    bytes.extend(tag);
    bytes
}

fn bound(head: &[u8], place: &Place) -> Vec<u8> {
    let mut bound = head.to_vec();
    bound.extend(place.project.to_be_bytes());
    bound.extend(place.repository.0);
    bound.push(place.kind.code());
    bound.extend(place.number.to_be_bytes());
    bound
}

fn tag(key: &DataKey, place: &Place, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&key.derive("mobo 1 backup content"));
    hasher.update(&[place.kind.code()]).update(&place.number.to_be_bytes()).update(body);
    *hasher.finalize().as_bytes()
}

fn cipher(key: &DataKey, tag: &[u8; 32]) -> Option<LessSafeKey> {
    let own = blake3::keyed_hash(&key.derive("mobo 1 backup object"), tag);
    UnboundKey::new(&CHACHA20_POLY1305, own.as_bytes()).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::keyring;
    use super::*;

    // faults: B-5, B-12, B-14
    #[test]
    fn an_object_opens_in_its_place_only_and_not_with_any_byte_changed() {
        let keyring = keyring();
        let body = [b"abc".repeat(100), vec![7; 40]].concat();
        let sealed = seal(&keyring, Kind::Segment, 7, &body).unwrap();
        assert_eq!(open(&keyring, (Kind::Segment, 7), &sealed.name, &sealed.bytes).unwrap(), body);
        assert!(sealed.bytes.len() < body.len(), "it is packed");
        for place in [(Kind::Segment, 8), (Kind::Snapshot, 7), (Kind::Keyring, 7)] {
            assert!(open(&keyring, place, &sealed.name, &sealed.bytes).is_err(), "{place:?}");
        }
        for position in 0..sealed.bytes.len() {
            let mut bytes = sealed.bytes.to_vec();
            bytes[position] ^= 1;
            assert!(open(&keyring, (Kind::Segment, 7), &sealed.name, &bytes).is_err(), "byte {position}");
            assert!(open(&keyring, (Kind::Segment, 7), &sealed.name, &bytes[..position]).is_err(), "cut at {position}");
        }
        let others = [
            Keyring { project: ProjectId::new(9).unwrap(), ..keyring.clone() },
            Keyring { repository: RepositoryId([9; 16]), ..keyring.clone() },
        ];
        for other in others {
            assert!(open(&other, (Kind::Segment, 7), &sealed.name, &sealed.bytes).is_err(), "{other:?}");
        }
    }

    /// Another version of the packer gives other bytes for the same body: they are as good. Anything else is not, nor another part.
    #[test]
    fn what_opens_to_the_same_content_is_the_same() {
        let (keyring, place) = (keyring(), (Kind::Snapshot, 0));
        let body = b"abc".repeat(100);
        let sealed = seal(&keyring, Kind::Snapshot, 0, &body).unwrap();
        let at = Place { project: keyring.project.get(), repository: keyring.repository, kind: Kind::Snapshot, number: 0 };
        let key = keyring.newest().unwrap();
        let mut bytes = head(key, &at, &tag(key, &at, &body));
        let mut plain = [vec![0], body].concat();
        let aad = Aad::from(bound(&bytes, &at));
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        cipher(key, &tag(key, &at, &plain[1..])).unwrap().seal_in_place_append_tag(nonce, aad, &mut plain).unwrap();
        bytes.extend(plain);
        assert_ne!(bytes, *sealed.bytes);
        assert!(is_the_same(&keyring, place, &sealed, &bytes));
        let other = seal(&keyring, Kind::Snapshot, 0, b"other").unwrap();
        assert!(!is_the_same(&keyring, place, &sealed, &other.bytes));
        bytes[HEAD_BYTES + 3] ^= 1;
        assert!(!is_the_same(&keyring, place, &sealed, &bytes));
        let names = [renamed(&sealed.name, "again", 1), renamed(&sealed.name, "again", 2), renamed(&sealed.name, "lock", 1)];
        let names: Vec<_> = names.into_iter().map(Result::unwrap).collect();
        assert!(names.iter().all(|name| *name != sealed.name) && names[0] != names[1] && names[0] != names[2]);
    }

    /// Only who has the key can make one, and it may be broken all the same.
    #[test]
    fn a_frame_holds_what_it_says_and_no_more_than_a_body_may() {
        let body = b"abc".repeat(100);
        let frame = Press::default().pack(&body).unwrap().to_vec();
        assert_eq!(unpacked(ZSTD, &frame).as_ref(), Some(&body));
        let large = zstd::bulk::compress(&vec![7; limits::BACKUP_BODY_BYTES_MAX + 1], ZSTD_LEVEL).unwrap();
        let mut silent = Compressor::new(ZSTD_LEVEL).unwrap();
        silent.set_parameter(zstd::zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
        let silent = silent.compress(&body).unwrap();
        let cut = &frame[..frame.len() - 1];
        for (case, bytes) in [("cut off", cut), ("none", &body[..]), ("empty", &[]), ("too large", &large[..]), ("silent", &silent[..])] {
            assert_eq!(unpacked(ZSTD, bytes), None, "{case}");
        }
        assert_eq!((unpacked(DEFLATED, &frame), unpacked(ZSTD + 1, &frame)), (None, None), "another way");
    }

    /// Whatever it packed before, also where that grew by being packed.
    #[test]
    fn a_press_packs_each_body_as_a_new_one_would() {
        let (keyring, mut press) = (keyring(), Press::default());
        let noise: Vec<u8> = (0..1_000_u32).flat_map(|n| *blake3::hash(&n.to_be_bytes()).as_bytes()).collect();
        for (case, body) in [b"abc".repeat(10_000), noise, b"abc".repeat(100), vec![], vec![7; 300_000]].iter().enumerate() {
            let sealed = seal_of(&keyring, keyring.project, (Kind::Segment, 7), (body, &mut press)).unwrap();
            assert_eq!(sealed, seal(&keyring, Kind::Segment, 7, body).unwrap(), "{case}");
            assert_eq!(open(&keyring, (Kind::Segment, 7), &sealed.name, &sealed.bytes).unwrap(), *body, "{case}");
            press.take_back(sealed);
            press.shrink_to(body.len() / 2);
        }
    }

    #[test]
    fn the_same_content_is_the_same_object_until_the_key_changes() {
        let keyring = keyring();
        let one = seal(&keyring, Kind::Snapshot, 0, b"rows").unwrap();
        assert_eq!(seal(&keyring, Kind::Snapshot, 0, b"rows").unwrap(), one);
        let next = keyring.with(DataKey([8; 32]));
        let two = seal(&next, Kind::Snapshot, 0, b"rows").unwrap();
        assert_ne!(two.name, one.name);
        for sealed in [&one, &two] {
            assert_eq!(open(&next, (Kind::Snapshot, 0), &sealed.name, &sealed.bytes).unwrap(), b"rows");
        }
        assert!(matches!(open(&keyring, (Kind::Snapshot, 0), &two.name, &two.bytes), Err(BackupError::Foreign { .. })));
    }
}
