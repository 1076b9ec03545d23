//! How the two ends of a sealed link agree on keys.

use curve25519_dalek::MontgomeryPoint;
use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{PublicKey, Signature};
use mobo_core::limits;
use mobo_core::trust::{KeyPair, Statement, derive};

use super::packet::{Opener, Packet, Sealer};
use super::{LINK_VERSION, LinkId};
use crate::frame::need;

/// Why a hub does not take a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalReason {
    /// The device looks for another hub.
    WrongHub,
    /// It speaks no version that this hub knows.
    Version,
    /// Its signature is not by the key that it names, or its opening makes no sense.
    Malformed,
    /// The hub takes no more links now.
    Busy,
    /// Of a later version.
    Other(u64),
}

/// A link that the hub does not take. Nobody signs it: it can keep a device away, as whoever carries packets can anyway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// A sentence for people.
    pub detail: String,
}

/// A packet that tells the device, where its link's name could be read, and what it says.
pub type Refused = (Option<Vec<u8>>, Refusal);

/// What both ends have once they agreed.
#[derive(Debug)]
pub struct Agreed {
    /// The link's name.
    pub link: LinkId,
    /// The device's key; it holds it.
    pub device: PublicKey,
    /// What signatures on this link are bound to.
    pub binding: [u8; 32],
    /// Seals what this end sends.
    pub sealer: Sealer,
    /// Opens what the other end sends.
    pub opener: Opener,
    /// Longest packet that the other end takes.
    pub packet_bytes_max: usize,
}

/// A device's end of a link that is not agreed yet.
pub struct Opening {
    link: LinkId,
    device: PublicKey,
    hub: PublicKey,
    secret: [u8; 32],
    bytes: Vec<u8>,
    packet: Vec<u8>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("link", &self.link).field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Opening {
    /// Asks the hub that holds `hub` for the link called `link`. `secret` and `link` are random, and used once.
    #[must_use]
    pub fn new(keys: &KeyPair, hub: PublicKey, (link, secret): (LinkId, [u8; 32]), packet_bytes_max: usize) -> Self {
        let device = keys.public();
        let mut w = Writer::new();
        w.map(6).u64(0).u64(LINK_VERSION).u64(1).bytes(hub.as_bytes()).u64(2).bytes(device.as_bytes());
        w.u64(3).bytes(&link.0).u64(4).bytes(&public(secret)).u64(5).u64(packet_bytes_max as u64);
        let bytes = w.into_bytes();
        let packet = Packet::Open(&signed(&bytes, Statement::LinkOpen(&bytes).sign(keys))).encode();
        Self { link, device, hub, secret, bytes, packet }
    }

    /// The packet to send.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        self.packet.clone()
    }

    /// The link's name.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Takes in what [`Packet::Accept`] of this link held. `None` when it is not of the hub that this device looks for.
    #[must_use]
    pub fn accepted(&self, body: &[u8]) -> Option<Agreed> {
        let (bytes, signature) = read_signed(body).ok()?;
        let statement = Statement::LinkAccept { open: &self.bytes, accept: &bytes };
        if !statement.is_signed_by(&self.hub, &signature) {
            return None;
        }
        let (ephemeral, packet_bytes_max) = read_accept(&bytes).ok()?;
        let keys = Keys::agree(self.secret, ephemeral, &statement)?;
        Some(keys.agreed((self.link, self.device), packet_bytes_max, true))
    }
}

/// The hub's answer to what [`Packet::Open`] held: a packet to send, and its end of the link. `secret` is random, and used once.
///
/// # Errors
///
/// [`Refused`].
pub fn answer(keys: &KeyPair, open: &[u8], secret: [u8; 32], packet_bytes_max: usize) -> Result<(Vec<u8>, Agreed), Refused> {
    let refuse = |link: Option<LinkId>, reason, detail: &str| {
        let refusal = Refusal { reason, detail: detail.to_owned() };
        (link.map(|link| Packet::Refuse(link, refusal.clone()).encode()), refusal)
    };
    let malformed = |_| refuse(None, RefusalReason::Malformed, "the opening makes no sense");
    let (bytes, signature) = read_signed(open).map_err(malformed)?;
    let asked = read_open(&bytes).map_err(malformed)?;
    if asked.version != LINK_VERSION {
        return Err(refuse(Some(asked.link), RefusalReason::Version, "this hub speaks another version of sealed links"));
    }
    if asked.hub != keys.public() {
        return Err(refuse(Some(asked.link), RefusalReason::WrongHub, "this is another hub than the one that was asked for"));
    }
    if !Statement::LinkOpen(&bytes).is_signed_by(&asked.device, &signature) {
        return Err(refuse(Some(asked.link), RefusalReason::Malformed, "the opening is not signed by the device that it names"));
    }
    let mut w = Writer::new();
    w.map(2).u64(0).bytes(&public(secret)).u64(1).u64(packet_bytes_max as u64);
    let accept = w.into_bytes();
    let statement = Statement::LinkAccept { open: &bytes, accept: &accept };
    let weak = || refuse(Some(asked.link), RefusalReason::Malformed, "the device's ephemeral key is a weak one");
    let agreed = Keys::agree(secret, asked.ephemeral, &statement).ok_or_else(weak)?;
    let packet = Packet::Accept(asked.link, &signed(&accept, statement.sign(keys))).encode();
    Ok((packet, agreed.agreed((asked.link, asked.device), asked.packet_bytes_max, false)))
}

/// User name and password of a device at the embedded broker of the hub that holds `hub`: its public key, and its signature, in hex.
#[must_use]
pub fn broker_password(keys: &KeyPair, hub: &PublicKey) -> (String, String) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    (hex(keys.public().as_bytes()), hex(&Statement::Broker(hub).sign(keys).0))
}

/// The three secrets of a link.
struct Keys {
    up: [u8; 32],
    down: [u8; 32],
    binding: [u8; 32],
}

impl Keys {
    /// `None` where the other end's key leaves no secret.
    fn agree(secret: [u8; 32], theirs: [u8; 32], statement: &Statement<'_>) -> Option<Self> {
        let shared = MontgomeryPoint(theirs).mul_clamped(secret).to_bytes();
        if shared == [0; 32] {
            return None;
        }
        // Bound to both ends' keys, names and choices: the statement holds all that was said.
        let mut hasher = blake3::Hasher::new_derive_key("mobo link secret 1");
        hasher.update(&shared).update(&statement.bytes());
        let secret = *hasher.finalize().as_bytes();
        Some(Self {
            up: derive("mobo link up 1", &secret),
            down: derive("mobo link down 1", &secret),
            binding: derive("mobo link binding 1", &secret),
        })
    }

    fn agreed(self, (link, device): (LinkId, PublicKey), packet_bytes_max: usize, is_device: bool) -> Agreed {
        let (own, theirs) = if is_device { (self.up, self.down) } else { (self.down, self.up) };
        Agreed {
            link,
            device,
            binding: self.binding,
            sealer: Sealer::new(own, link),
            opener: Opener::new(theirs, link),
            packet_bytes_max: packet_bytes_max.clamp(limits::PACKET_BYTES_MIN, limits::PACKET_BYTES_MAX),
        }
    }
}

fn public(secret: [u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(secret).to_bytes()
}

struct Asked {
    version: u64,
    hub: PublicKey,
    device: PublicKey,
    link: LinkId,
    ephemeral: [u8; 32],
    packet_bytes_max: usize,
}

fn read_open(bytes: &[u8]) -> Result<Asked, Malformed> {
    let mut r = Reader::new(bytes);
    let (mut version, mut hub, mut device, mut link) = (None, None, None, None);
    let (mut ephemeral, mut packet_bytes_max) = (None, limits::PACKET_BYTES_MAX);
    r.each_key(|key, r| {
        match key {
            0 => version = Some(r.u64()?),
            1 => hub = Some(PublicKey(r.fixed()?)),
            2 => device = Some(PublicKey(r.fixed()?)),
            3 => link = Some(LinkId(r.fixed()?)),
            4 => ephemeral = Some(r.fixed()?),
            5 => packet_bytes_max = bounded(r.u64()?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    r.end()?;
    Ok(Asked {
        version: need(version, "version")?,
        hub: need(hub, "hub")?,
        device: need(device, "device")?,
        link: need(link, "link")?,
        ephemeral: need(ephemeral, "ephemeral key")?,
        packet_bytes_max,
    })
}

fn read_accept(bytes: &[u8]) -> Result<([u8; 32], usize), Malformed> {
    let mut r = Reader::new(bytes);
    let (mut ephemeral, mut packet_bytes_max) = (None, limits::PACKET_BYTES_MAX);
    r.each_key(|key, r| {
        match key {
            0 => ephemeral = Some(r.fixed()?),
            1 => packet_bytes_max = bounded(r.u64()?),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    r.end()?;
    Ok((need(ephemeral, "ephemeral key")?, packet_bytes_max))
}

fn bounded(bytes_max: u64) -> usize {
    usize::try_from(bytes_max).unwrap_or(usize::MAX)
}

/// `{ 0: bytes, 1: signature }`.
fn signed(bytes: &[u8], signature: Signature) -> Vec<u8> {
    let mut w = Writer::new();
    w.map(2).u64(0).bytes(bytes).u64(1).bytes(&signature.0);
    w.into_bytes()
}

fn read_signed(body: &[u8]) -> Result<(Vec<u8>, Signature), Malformed> {
    let mut r = Reader::new(body);
    let (mut bytes, mut signature) = (None, None);
    r.each_key(|key, r| {
        match key {
            0 => bytes = Some(r.bytes()?.to_vec()),
            1 => signature = Some(Signature(r.fixed()?)),
            _ => r.skip()?,
        }
        Ok(())
    })?;
    r.end()?;
    Ok((need(bytes, "signed bytes")?, need(signature, "signature")?))
}

pub(super) fn encode_refusal(refusal: &Refusal) -> Vec<u8> {
    let reason = match refusal.reason {
        RefusalReason::WrongHub => 1,
        RefusalReason::Version => 2,
        RefusalReason::Malformed => 3,
        RefusalReason::Busy => 4,
        RefusalReason::Other(reason) => reason,
    };
    let mut w = Writer::new();
    w.map(2).u64(0).u64(reason).u64(1).text(&refusal.detail);
    w.into_bytes()
}

pub(super) fn decode_refusal(bytes: &[u8]) -> Result<Refusal, Malformed> {
    let mut r = Reader::new(bytes);
    let (mut reason, mut detail) = (RefusalReason::Other(0), String::new());
    r.each_key(|key, r| {
        match key {
            0 => {
                reason = match r.u64()? {
                    1 => RefusalReason::WrongHub,
                    2 => RefusalReason::Version,
                    3 => RefusalReason::Malformed,
                    4 => RefusalReason::Busy,
                    other => RefusalReason::Other(other),
                }
            }
            1 => {
                let text = r.text()?;
                let cut = text.floor_char_boundary(limits::CLOSE_REASON_BYTES_MAX);
                detail = text.get(..cut).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            }
            _ => r.skip()?,
        }
        Ok(())
    })?;
    r.end()?;
    Ok(Refusal { reason, detail })
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Content, Opened};
    use super::*;

    const LINK: LinkId = LinkId([5; 8]);

    fn hub() -> KeyPair {
        KeyPair::from_secret(&[1; 32])
    }

    fn opening() -> Opening {
        Opening::new(&KeyPair::from_secret(&[2; 32]), hub().public(), (LINK, [3; 32]), 9_000)
    }

    fn open_body(opening: &Opening) -> Vec<u8> {
        opening.packet()[1..].to_vec()
    }

    fn accept_body(packet: &[u8]) -> Vec<u8> {
        let Ok(Packet::Accept(LINK, body)) = Packet::decode(packet) else { panic!("{packet:?}") };
        body.to_vec()
    }

    #[test]
    fn both_ends_agree_and_nobody_else_can_take_part() {
        let opening = opening();
        let (packet, mut at_hub) = answer(&hub(), &open_body(&opening), [4; 32], 70_000).unwrap();
        let mut at_device = opening.accepted(&accept_body(&packet)).unwrap();
        assert_eq!(at_device.binding, at_hub.binding);
        assert_eq!((at_device.packet_bytes_max, at_hub.packet_bytes_max), (limits::PACKET_BYTES_MAX, 9_000));
        for (from, to) in [(&mut at_device.sealer, &mut at_hub.opener), (&mut at_hub.sealer, &mut at_device.opener)] {
            let packet = from.seal(&Content::Alive);
            assert_eq!(to.open(&packet[9..]), Opened::Next(&[65]));
        }
        let up = at_device.sealer.seal(&Content::Alive);
        assert_eq!(at_device.opener.open(&up[9..]), Opened::Forged, "a packet cannot be sent back to its sender");
        let (_, again) = answer(&hub(), &open_body(&opening), [6; 32], 70_000).unwrap();
        assert_ne!(again.binding, at_hub.binding, "a repeated opening begins another link");
    }

    #[test]
    fn an_answer_of_somebody_else_is_none() {
        let opening = opening();
        let (good, _) = answer(&hub(), &open_body(&opening), [4; 32], 70_000).unwrap();
        let body = accept_body(&good);
        for index in 0..body.len() {
            let mut changed = body.clone();
            changed[index] ^= 1;
            assert!(opening.accepted(&changed).is_none(), "byte {index}");
            assert!(opening.accepted(&body[..index]).is_none(), "cut at {index}");
        }
        let other = Opening::new(&KeyPair::from_secret(&[2; 32]), hub().public(), (LINK, [8; 32]), 9_000);
        assert!(other.accepted(&body).is_none(), "the answer to another opening");
    }

    #[test]
    fn openings_that_are_not_in_order_are_refused() {
        let impostor = KeyPair::from_secret(&[9; 32]);
        let refused = |keys: &KeyPair, open: &[u8]| {
            let (packet, refusal) = answer(keys, open, [4; 32], 70_000).map(|_| ()).unwrap_err();
            if let Some(packet) = packet {
                assert_eq!(Packet::decode(&packet), Ok(Packet::Refuse(LINK, refusal.clone())));
            }
            refusal.reason
        };
        let good = open_body(&opening());
        assert_eq!(refused(&impostor, &good), RefusalReason::WrongHub);
        let (bytes, _) = read_signed(&good).unwrap();
        let forged = signed(&bytes, Statement::LinkOpen(&bytes).sign(&impostor));
        assert_eq!(refused(&hub(), &forged), RefusalReason::Malformed);
        for cut in 0..good.len() {
            assert_eq!(refused(&hub(), &good[..cut]), RefusalReason::Malformed);
        }
        let device = KeyPair::from_secret(&[2; 32]);
        for (version, ephemeral, want) in [(2, public([3; 32]), RefusalReason::Version), (1, [0; 32], RefusalReason::Malformed)] {
            let mut w = Writer::new();
            w.map(5).u64(0).u64(version).u64(1).bytes(hub().public().as_bytes()).u64(2).bytes(device.public().as_bytes());
            w.u64(3).bytes(&LINK.0).u64(4).bytes(&ephemeral);
            let bytes = w.into_bytes();
            assert_eq!(refused(&hub(), &signed(&bytes, Statement::LinkOpen(&bytes).sign(&device))), want);
        }
    }
}
