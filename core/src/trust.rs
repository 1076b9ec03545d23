//! What is signed and what is MACed, byte for byte (rules R19, R23). Each kind of signature names itself first, so that none can stand for
//! another.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::cbor::{Malformed, Reader, Writer};
use crate::digest::Digest;
use crate::ids::{
    BucketId, Chain, CollectionId, DeviceId, LaneKey, Mac, Position, ProjectId, PublicKey, RecordKey, Seq, Signature, StateHash, Timeline,
    Ver,
};
use crate::limits;

/// An ed25519 key pair: a device's, or the hub's. It prints as its public half only.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// The pair for 32 secret random bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret bytes, for the key file and nothing else.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The id of whoever holds this pair.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::of(&self.public())
    }

    /// The X25519 secret of this pair: opens what was sealed to its holder ([`exchange_point`]).
    #[must_use]
    pub fn exchange_secret(&self) -> [u8; 32] {
        self.0.to_scalar_bytes()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

/// The X25519 public key of whoever holds the pair of an ed25519 key (RFC 7748, section 4.1); `None` where the bytes are no key.
#[must_use]
pub fn exchange_point(key: &PublicKey) -> Option<[u8; 32]> {
    VerifyingKey::from_bytes(&key.0).ok().map(|key| key.to_montgomery().to_bytes())
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({})", self.public())
    }
}

/// A statement that a key can sign.
#[derive(Clone, Copy, Debug)]
pub enum Statement<'a> {
    /// "This lane's head is this chain": one for each push (replication.md D9).
    Push(&'a LaneHead),
    /// "I have merged this lane up to here, on this timeline": one for each ack (rule R17).
    Ack(&'a LaneHead, Timeline),
    /// A hello, bound to the channel that it is sent on.
    Hello {
        /// What both ends of the channel derive from its handshake; empty where the link has none.
        binding: &'a [u8],
        /// The signed bytes of the hello.
        hello: &'a [u8],
    },
    /// A request to enrol, bound likewise: proves that the sender holds the key it enrols.
    Enrol {
        /// As in a hello.
        binding: &'a [u8],
        /// The invitation's secret.
        secret: &'a [u8],
    },
    /// A device's certificate.
    Certificate(&'a [u8]),
    /// A checkpoint: [`checkpoint_bytes`].
    Checkpoint(&'a [u8]),
    /// "I, a device, ask for a link to this hub": the bytes of the opening of a sealed link.
    LinkOpen(&'a [u8]),
    /// "I, the hub, take this link": bound to both openings.
    LinkAccept {
        /// The device's signed bytes.
        open: &'a [u8],
        /// The hub's.
        accept: &'a [u8],
    },
    /// A device's password at the embedded broker of the hub that holds this key.
    Broker(&'a PublicKey),
    /// A bundle that somebody carries, by its binding.
    Bundle(&'a [u8]),
    /// "This is what a backup holds": the body of a manifest.
    Backup(&'a [u8]),
    /// The report of a drill.
    Drill(&'a [u8]),
}

/// The head of one lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LaneHead {
    /// The project.
    pub project: ProjectId,
    /// The lane.
    pub lane: LaneKey,
    /// Its last position.
    pub last: Seq,
    /// The chain there.
    pub chain: Chain,
}

impl Statement<'_> {
    /// The bytes that are signed: a CBOR array whose first item names the kind.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Push(head) => head.encode(writer.array(7).text("mobo push 1")),
            Self::Ack(head, timeline) => {
                head.encode(writer.array(8).text("mobo ack 1"));
                writer.bytes(timeline.as_bytes());
            }
            Self::Hello { binding, hello } => {
                writer.array(3).text("mobo hello 1").bytes(binding).bytes(hello);
            }
            Self::Enrol { binding, secret } => {
                writer.array(3).text("mobo enrol 1").bytes(binding).bytes(secret);
            }
            Self::Certificate(bytes) => {
                writer.array(2).text("mobo certificate 1").bytes(bytes);
            }
            Self::Checkpoint(bytes) => {
                writer.array(2).text("mobo checkpoint 1").bytes(bytes);
            }
            Self::LinkOpen(bytes) => {
                writer.array(2).text("mobo link open 1").bytes(bytes);
            }
            Self::LinkAccept { open, accept } => {
                writer.array(3).text("mobo link accept 1").bytes(open).bytes(accept);
            }
            Self::Broker(hub) => {
                writer.array(2).text("mobo broker 1").bytes(hub.as_bytes());
            }
            Self::Bundle(binding) => {
                writer.array(2).text("mobo bundle 1").bytes(binding);
            }
            Self::Drill(report) => {
                writer.array(2).text("mobo drill 1").bytes(report);
            }
            Self::Backup(body) => {
                writer.array(2).text("mobo backup 1").bytes(body);
            }
        }
        writer.into_bytes()
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, keys: &KeyPair) -> Signature {
        keys.sign(&self.bytes())
    }

    /// True iff `signature` is this statement's by `key`. Malleable and small-order signatures are refused.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey, signature: &Signature) -> bool {
        VerifyingKey::from_bytes(&key.0)
            .and_then(|key| key.verify_strict(&self.bytes(), &ed25519_dalek::Signature::from_bytes(&signature.0)))
            .is_ok()
    }
}

impl LaneHead {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.project.get()).bytes(self.lane.device.as_bytes()).u64(self.lane.incarnation.get());
        writer.u64(u64::from(self.lane.lane.number())).u64(self.last.get()).bytes(self.chain.as_bytes());
    }
}

/// What the hub certifies of a device (rule R23). A restored hub re-admits on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The device's key.
    pub key: PublicKey,
    /// Its label.
    pub name: String,
    /// The keys of the buckets that it was granted at enrolment.
    pub buckets: Vec<String>,
    /// When it was issued: the hub's time, in microseconds since 1970 UTC.
    pub issued_us: i64,
    /// Names and values of the claims that it was given at enrolment.
    pub claims: Vec<(String, String)>,
}

impl Certificate {
    /// The canonical bytes: `{ 0: project, 1: key, 2: name, 3: [bucket, …], 4: issued, ? 5: [[name, value], …] }`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .map(5 + usize::from(!self.claims.is_empty()))
            .u64(0)
            .u64(self.project.get())
            .u64(1)
            .bytes(self.key.as_bytes())
            .u64(2)
            .text(&self.name);
        writer.u64(3).array(self.buckets.len());
        for bucket in &self.buckets {
            writer.text(bucket);
        }
        writer.u64(4).i64(self.issued_us);
        if !self.claims.is_empty() {
            writer.u64(5).array(self.claims.len());
            for (name, value) in &self.claims {
                writer.array(2).text(name).text(value);
            }
        }
        writer.into_bytes()
    }

    /// Reads what [`Self::encode`] wrote; keys of later versions are passed over.
    ///
    /// # Errors
    ///
    /// When it is malformed or over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (mut project, mut key, mut name, mut issued_us) = (None, None, String::new(), 0);
        let (mut buckets, mut claims) = (Vec::new(), Vec::new());
        reader.each_key(|key_, reader| {
            match key_ {
                0 => project = ProjectId::new(reader.u64()?),
                1 => key = Some(PublicKey(reader.fixed()?)),
                2 => name = label(reader, limits::NAME_BYTES_MAX)?,
                3 => buckets = decode_labels(reader)?,
                4 => issued_us = reader.i64()?,
                5 => claims = decode_claims(reader)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        match (project, key) {
            (Some(project), Some(key)) => Ok(Self { project, key, name, buckets, issued_us, claims }),
            _ => Err(Malformed::what("certificate")),
        }
    }
}

fn decode_claims(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Malformed> {
    let len = reader.array()?;
    if len > limits::CLAIMS_MAX {
        return Err(Malformed::what("too many claims"));
    }
    let pair = |reader: &mut Reader<'_>| Ok((label(reader, limits::NAME_BYTES_MAX)?, label(reader, limits::BUCKET_KEY_BYTES_MAX)?));
    (0..len).map(|_| reader.tuple(2, pair)).collect()
}

fn decode_labels(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let len = reader.array()?;
    if len > limits::BUCKETS_PER_DEVICE_MAX {
        return Err(Malformed::what("too many buckets"));
    }
    (0..len).map(|_| label(reader, limits::BUCKET_KEY_BYTES_MAX)).collect()
}

fn label(reader: &mut Reader<'_>, bytes_max: usize) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.len() <= bytes_max { Ok(text.to_owned()) } else { Err(Malformed::what("label too long")) }
}

/// Position and digest of each bucket.
pub type Heads = Vec<(BucketId, Position, Digest)>;

/// What a checkpoint says, as it is signed, and as a device keeps it to prove it to a restored hub (rule R17):
/// `[timeline, [[bucket, position, digest], …]]`.
#[must_use]
pub fn checkpoint_bytes(timeline: Timeline, heads: &[(BucketId, Position, Digest)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(2).bytes(timeline.as_bytes()).array(heads.len());
    for (bucket, position, digest) in heads {
        writer.array(3).u64(bucket.get()).u64(position.0).bytes(&digest.0);
    }
    writer.into_bytes()
}

/// Reads what [`checkpoint_bytes`] wrote.
///
/// # Errors
///
/// When it is something else.
pub fn decode_checkpoint(bytes: &[u8]) -> Result<(Timeline, Heads), Malformed> {
    let mut reader = Reader::new(bytes);
    let checkpoint = reader.tuple(2, |reader| {
        let timeline = Timeline(reader.fixed()?);
        let len = reader.array()?;
        if len > limits::BUCKETS_PER_DEVICE_MAX {
            return Err(Malformed::what("too many buckets"));
        }
        let heads: Result<Vec<_>, Malformed> = (0..len)
            .map(|_| {
                reader.tuple(3, |reader| {
                    let bucket = BucketId::new(reader.u64()?).ok_or_else(|| Malformed::what("bucket"))?;
                    Ok((bucket, Position(reader.u63()?), Digest(reader.fixed()?)))
                })
            })
            .collect();
        Ok((timeline, heads?))
    })?;
    reader.end()?;
    Ok(checkpoint)
}

/// The hub's secret for MACs over what it delivers (rule R19). It is in every backup, and prints as nothing.
#[derive(Clone)]
pub struct OfferKey(pub [u8; 32]);

impl std::fmt::Debug for OfferKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfferKey(…)")
    }
}

impl OfferKey {
    /// The MAC of a delivered row, document or tombstone.
    #[must_use]
    pub fn row(&self, project: ProjectId, key: &RecordKey, (timeline, ver): (Timeline, Ver), state: StateHash) -> Mac {
        let mut writer = Writer::with_room(192);
        writer.array(7).text("mobo row 1").u64(project.get()).u64(key.collection.get()).text(key.id.as_str());
        writer.bytes(timeline.as_bytes()).u64(ver.0).bytes(state.as_bytes());
        self.mac(&writer.into_bytes())
    }

    /// The MAC of a delivered collection definition; `bytes` are its canonical bytes.
    #[must_use]
    pub fn schema(&self, project: ProjectId, collection: CollectionId, timeline: Timeline, bytes: &[u8]) -> Mac {
        let mut writer = Writer::new();
        writer.array(5).text("mobo schema 1").u64(project.get()).u64(collection.get()).bytes(timeline.as_bytes());
        writer.bytes(blake3::hash(bytes).as_bytes());
        self.mac(&writer.into_bytes())
    }

    fn mac(&self, bytes: &[u8]) -> Mac {
        let hash = blake3::keyed_hash(&self.0, bytes);
        let mut mac = [0; 16];
        mac.copy_from_slice(hash.as_bytes().get(..16).unwrap_or(&[0; 16]));
        Mac(mac)
    }
}

/// A short checksum for texts that people copy by hand: the first four bytes of the blake3.
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = *blake3::hash(bytes).as_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A key for one purpose, derived from a secret: knowing it tells nothing of the secret or of other purposes.
#[must_use]
pub fn derive(purpose: &str, secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(purpose, secret)
}

/// A join secret as it may cross a broker or a proxy: hidden by what only the two ends of the link know, its channel binding. Masking twice
/// gives the secret back. `None` on a link without a binding.
#[must_use]
pub fn mask_secret(binding: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    if binding.is_empty() {
        return None;
    }
    let mut mask = vec![0; secret.len()];
    blake3::Hasher::new_derive_key("mobo join mask 1").update(binding).finalize_xof().fill(&mut mask);
    Some(mask.iter().zip(secret).map(|(mask, byte)| mask ^ byte).collect())
}

/// How a one-time secret is kept: its blake3.
#[must_use]
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    *blake3::hash(secret).as_bytes()
}
