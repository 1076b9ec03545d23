//! Bundles: what a device and its hub have to say to each other, sealed into a file that somebody carries (SPEC.md, section 20).
//!
//! ```text
//! frames ─▶ Packer ─▶ chunks under one key ─▶ a file ─▶ Unpacker ─▶ frames
//! ```
//! The key comes from an ephemeral secret and the recipient's own key, so only the recipient reads it; the signature in it is bound to
//! that agreement, so nobody else can have made it, or moved it into another bundle.

use curve25519_dalek::MontgomeryPoint;
use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{ProjectId, PublicKey, Signature};
use mobo_core::limits;
use mobo_core::trust::{KeyPair, Statement, exchange_point};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::frame_bytes;

/// What every bundle begins with.
pub const MAGIC: &[u8] = b"mobo bundle 1\n";

const TAG_BYTES: usize = 16;
const HEAD_BYTES_MAX: usize = 256;
const SIGNATURE_BYTES: usize = 64;

/// What a bundle carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Up: a hello, then pushes.
    Entries,
    /// Down: rejects and acks.
    Receipt,
}

impl Kind {
    const fn number(self) -> u64 {
        match self {
            Self::Entries => 1,
            Self::Receipt => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Entries => "the entries of a device, which `mobo-hub device import` takes",
            Self::Receipt => "a hub's receipt, which `mobo-edge backup import` takes",
        }
    }
}

/// Why a bundle is not taken. Each sentence says what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BundleError {
    /// It begins otherwise.
    #[error(
        "this is no bundle of mobo, or one of a later version: name the file that `backup export` wrote, and upgrade the older of the two"
    )]
    NotABundle,
    /// It is for the other direction.
    #[error("this bundle holds {}", .0.name())]
    WrongKind(Kind),
    /// It belongs to another project.
    #[error("this bundle is of another project ({0}): import it where that project is")]
    WrongProject(ProjectId),
    /// Somebody else's key opens it.
    #[error("this bundle is sealed for another hub or device ({0}): import it there")]
    WrongRecipient(PublicKey),
    /// A piece of it is not what was sealed.
    #[error("this bundle is damaged or forged at byte {at}: export it again, and copy it anew")]
    Damaged {
        /// Where the piece begins.
        at: u64,
    },
    /// It ends before its end.
    #[error("this bundle is cut off after {bytes} bytes: export it again, and unmount the stick before it is pulled out")]
    Truncated {
        /// How much there is.
        bytes: u64,
    },
    /// There is something behind its end.
    #[error("there is something behind the end of this bundle: export it again")]
    Trailing,
    /// Its content is not frames.
    #[error("what is in this bundle makes no sense to this version: upgrade the older of the two")]
    Malformed,
}

/// What both ends derive from the agreement.
struct Agreed {
    key: LessSafeKey,
    binding: [u8; 32],
}

impl Agreed {
    fn new(secret: [u8; 32], point: [u8; 32], head: &[u8]) -> Option<Self> {
        let shared = MontgomeryPoint(point).mul_clamped(secret).0;
        if shared == [0; 32] {
            return None;
        }
        let root = blake3::derive_key("mobo bundle secret 1", &[&shared, head].concat());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &blake3::derive_key("mobo bundle key 1", &root)).ok()?;
        Some(Self { key: LessSafeKey::new(key), binding: blake3::derive_key("mobo bundle binding 1", &root) })
    }
}

/// Never the same twice under one key: every bundle has its own.
fn nonce(counter: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3] = u8::from(is_last);
    for (place, byte) in bytes.iter_mut().skip(4).zip(counter.to_be_bytes()) {
        *place = byte;
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Makes a bundle, piece by piece.
pub struct Packer {
    agreed: Agreed,
    counter: u64,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("chunks", &self.counter).finish_non_exhaustive()
    }
}

impl Packer {
    /// Starts a bundle of `sender` for whoever holds `recipient`. `secret` is random and used once. `None` where `recipient` is no key.
    #[must_use]
    pub fn new(kind: Kind, project: ProjectId, (sender, recipient): (&KeyPair, &PublicKey), secret: [u8; 32]) -> Option<Self> {
        let mut w = Writer::new();
        w.map(4).u64(0).u64(kind.number()).u64(1).u64(project.get()).u64(2).bytes(recipient.as_bytes());
        w.u64(3).bytes(&MontgomeryPoint::mul_base_clamped(secret).0);
        let head = w.into_bytes();
        let agreed = Agreed::new(secret, exchange_point(recipient)?, &head)?;
        let mut sealed = MAGIC.to_vec();
        sealed.extend_from_slice(&u16::try_from(head.len()).unwrap_or(u16::MAX).to_be_bytes());
        sealed.extend_from_slice(&head);
        let plain = Statement::Bundle(&agreed.binding).sign(sender).as_bytes().to_vec();
        Some(Self { agreed, counter: 0, plain, sealed })
    }

    /// What a hello in this bundle is bound to.
    #[must_use]
    pub const fn binding(&self) -> [u8; 32] {
        self.agreed.binding
    }

    /// Puts a frame into it.
    pub fn put(&mut self, frame: &[u8]) {
        self.plain.extend_from_slice(frame);
        // The last chunk is sealed as such, so one is always kept back.
        while self.plain.len() > limits::BUNDLE_CHUNK_BYTES {
            let rest = self.plain.split_off(limits::BUNDLE_CHUNK_BYTES);
            let chunk = std::mem::replace(&mut self.plain, rest);
            self.seal(chunk, false);
        }
    }

    /// The bytes that are ready, to be written behind those before.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    /// Ends the bundle and gives its last bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let chunk = std::mem::take(&mut self.plain);
        self.seal(chunk, true);
        self.sealed
    }

    fn seal(&mut self, mut chunk: Vec<u8>, is_last: bool) {
        // Fails for chunks of many gigabytes only.
        let _ = self.agreed.key.seal_in_place_append_tag(nonce(self.counter, is_last), Aad::empty(), &mut chunk);
        self.counter += 1;
        self.sealed.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.sealed.extend_from_slice(&chunk);
    }
}

/// Whose bundles are taken.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The kind.
    pub kind: Kind,
    /// The project.
    pub project: ProjectId,
    /// The recipient's own keys.
    pub keys: &'a KeyPair,
}

/// Reads a bundle, piece by piece.
pub struct Unpacker<'a> {
    expected: Expected<'a>,
    agreed: Option<Agreed>,
    counter: u64,
    ended: bool,
    /// Bytes that were fed, and where the first of `buffer` stands in the bundle.
    at: u64,
    buffer: Vec<u8>,
    plain: Vec<u8>,
    signature: Option<Signature>,
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("at", &self.at).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<'a> Unpacker<'a> {
    /// Waits for the first bytes.
    #[must_use]
    pub fn new(expected: Expected<'a>) -> Self {
        let (buffer, plain) = (Vec::new(), Vec::new());
        Self { expected, agreed: None, counter: 0, ended: false, at: 0, buffer, plain, signature: None }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    ///
    /// [`BundleError`], as soon as it is certain.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.buffer.extend_from_slice(bytes);
        if self.agreed.is_none() {
            self.head()?;
        }
        while self.agreed.is_some() && self.chunk()? {}
        Ok(())
    }

    /// The next whole frame; `None` where more bytes must be fed first.
    ///
    /// # Errors
    ///
    /// [`BundleError::Malformed`].
    pub fn frame(&mut self) -> Result<Option<Vec<u8>>, BundleError> {
        if self.signature.is_none() {
            let Some((signature, rest)) = self.plain.split_first_chunk::<SIGNATURE_BYTES>() else { return Ok(None) };
            self.signature = Some(Signature(*signature));
            self.plain = rest.to_vec();
        }
        let length = frame_bytes(&self.plain).map_err(|_| BundleError::Malformed)?;
        let Some(length) = length.filter(|length| *length <= self.plain.len()) else { return Ok(None) };
        let rest = self.plain.split_off(length);
        Ok(Some(std::mem::replace(&mut self.plain, rest)))
    }

    /// Says that the file has ended.
    ///
    /// # Errors
    ///
    /// [`BundleError::Truncated`] where the bundle has not.
    pub fn end(&self) -> Result<(), BundleError> {
        let bytes = self.at + self.buffer.len() as u64;
        match (self.ended, self.agreed.is_some()) {
            (true, _) if self.plain.is_empty() && self.signature.is_some() => Ok(()),
            (true, _) => Err(BundleError::Malformed),
            (false, false) if !MAGIC.starts_with(&self.buffer) && !self.buffer.starts_with(MAGIC) => Err(BundleError::NotABundle),
            (false, _) => Err(BundleError::Truncated { bytes }),
        }
    }

    /// What a hello in it is bound to; `None` before its head was read.
    #[must_use]
    pub fn binding(&self) -> Option<[u8; 32]> {
        self.agreed.as_ref().map(|agreed| agreed.binding)
    }

    /// True iff the holder of `key` has made it; known from the first frame on.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (Some(agreed), Some(signature)) = (&self.agreed, &self.signature) else { return false };
        Statement::Bundle(&agreed.binding).is_signed_by(key, signature)
    }

    fn head(&mut self) -> Result<(), BundleError> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer.get(..known) != MAGIC.get(..known) {
            return Err(BundleError::NotABundle);
        }
        let Some((length, rest)) = self.buffer.get(MAGIC.len()..).and_then(|rest| rest.split_first_chunk::<2>()) else { return Ok(()) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > HEAD_BYTES_MAX {
            return Err(BundleError::NotABundle);
        }
        let Some(head) = rest.get(..length) else { return Ok(()) };
        let (kind, project, recipient, ephemeral) = read_head(head).map_err(|_| BundleError::NotABundle)?;
        let Expected { kind: wanted, project: own, keys } = self.expected;
        if project != own {
            return Err(BundleError::WrongProject(project));
        }
        if recipient != keys.public() {
            return Err(BundleError::WrongRecipient(recipient));
        }
        if kind != wanted {
            return Err(BundleError::WrongKind(kind));
        }
        let at = MAGIC.len() + 2 + length;
        let damaged = BundleError::Damaged { at: 0 };
        self.agreed = Some(Agreed::new(keys.exchange_secret(), ephemeral, head).ok_or(damaged)?);
        self.consume(at);
        Ok(())
    }

    /// Opens the next chunk; false where it is not there yet.
    fn chunk(&mut self) -> Result<bool, BundleError> {
        if self.ended {
            return if self.buffer.is_empty() { Ok(false) } else { Err(BundleError::Trailing) };
        }
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(false) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(TAG_BYTES..=limits::BUNDLE_CHUNK_BYTES + TAG_BYTES).contains(&length) {
            return Err(BundleError::Damaged { at: self.at });
        }
        let (Some(sealed), Some(agreed)) = (rest.get(..length), &self.agreed) else { return Ok(false) };
        let opened = |is_last| {
            let mut chunk = sealed.to_vec();
            agreed.key.open_in_place(nonce(self.counter, is_last), Aad::empty(), &mut chunk).ok().map(|plain| plain.to_vec())
        };
        let (plain, is_last) = match opened(false) {
            Some(plain) => (plain, false),
            None => (opened(true).ok_or(BundleError::Damaged { at: self.at })?, true),
        };
        self.plain.extend_from_slice(&plain);
        (self.counter, self.ended) = (self.counter + 1, is_last);
        self.consume(4 + length);
        Ok(true)
    }

    fn consume(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.at += bytes as u64;
    }
}

type Head = (Kind, ProjectId, PublicKey, [u8; 32]);

fn read_head(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut reader = Reader::new(bytes);
    let (mut kind, mut project, mut recipient, mut ephemeral) = (None, None, None, None);
    reader.each_key(|key, reader| {
        match key {
            0 => {
                let number = reader.u64()?;
                kind = [Kind::Entries, Kind::Receipt].into_iter().find(|kind| kind.number() == number);
            }
            1 => project = ProjectId::new(reader.u64()?),
            2 => recipient = Some(PublicKey(reader.fixed()?)),
            3 => ephemeral = Some(reader.fixed()?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    match (kind, project, recipient, ephemeral) {
        (Some(kind), Some(project), Some(recipient), Some(ephemeral)) => Ok((kind, project, recipient, ephemeral)),
        _ => Err(Malformed::what("head of a bundle")),
    }
}
