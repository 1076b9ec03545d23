//! Packets: what travels as one MQTT payload, or as one WebSocket message.

use mobo_core::cbor::Malformed;
use mobo_core::ids::Lane;
use mobo_core::limits;
use mobo_core::link::Channel;

use super::LinkId;
use super::agreement::{Refusal, decode_refusal, encode_refusal};

const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const REFUSE: u8 = 3;
const SEALED: u8 = 16;

const DOWN: u8 = 16;
const CONTROL: u8 = 32;
const CREDIT: u8 = 64;
const ALIVE: u8 = 65;
const CLOSE: u8 = 66;
const CLOSED: u8 = 67;

const MAC_BYTES: usize = 16;

/// Bytes around a piece of a channel in its packet.
pub const CONTENT_OVERHEAD_BYTES: usize = 1 + 8 + 8 + MAC_BYTES + 1;

/// One packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// A device asks for a link: the signed opening, to be given to [`answer`](super::answer).
    Open(&'a [u8]),
    /// The hub takes it: its signed answer, to be given to [`Opening::accepted`](super::Opening::accepted).
    Accept(LinkId, &'a [u8]),
    /// The hub does not take it.
    Refuse(LinkId, Refusal),
    /// What travels on an open link, to be given to [`Opener::open`].
    Sealed(LinkId, &'a [u8]),
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// When it is none of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (kind, rest) = bytes.split_first().ok_or_else(|| Malformed::what("empty packet"))?;
        if *kind == OPEN {
            return Ok(Self::Open(rest));
        }
        let (link, rest) = rest.split_first_chunk::<8>().ok_or_else(|| Malformed::what("packet too short"))?;
        let link = LinkId(*link);
        match *kind {
            ACCEPT => Ok(Self::Accept(link, rest)),
            REFUSE => Ok(Self::Refuse(link, decode_refusal(rest)?)),
            SEALED => Ok(Self::Sealed(link, rest)),
            _ => Err(Malformed::what("kind of packet")),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(rest) => [&[OPEN], *rest].concat(),
            Self::Accept(link, rest) => [&[ACCEPT], &link.0[..], rest].concat(),
            Self::Refuse(link, refusal) => [&[REFUSE], &link.0[..], &encode_refusal(refusal)].concat(),
            Self::Sealed(link, rest) => [&[SEALED], &link.0[..], rest].concat(),
        }
    }
}

/// What is inside a sealed packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content<'a> {
    /// Bytes of a channel; its frames follow each other.
    Piece(Channel, &'a [u8]),
    /// So many bytes of a channel have found their reader.
    Credit(Channel, u32),
    /// Nothing but a sign of life.
    Alive,
    /// The peer leaves; true if because this end broke the protocol. With its reason, for people.
    Close(bool, &'a [u8]),
    /// The peer has everything that came before the close.
    Closed,
}

impl<'a> Content<'a> {
    /// Reads what a packet held; `Ok(None)` is of a later version, and passed over.
    ///
    /// # Errors
    ///
    /// When it is cut short.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let (tag, rest) = bytes.split_first().ok_or_else(|| Malformed::what("empty content"))?;
        if let Some(channel) = channel_of(*tag) {
            return Ok(Some(Self::Piece(channel, rest)));
        }
        Ok(match *tag {
            CREDIT => {
                let fields = rest.split_first_chunk::<1>().and_then(|([tag], rest)| Some((channel_of(*tag)?, rest.first_chunk::<4>()?)));
                let (channel, bytes) = fields.ok_or_else(|| Malformed::what("credit"))?;
                Some(Self::Credit(channel, u32::from_be_bytes(*bytes)))
            }
            ALIVE => Some(Self::Alive),
            CLOSE => {
                let (broken, reason) = rest.split_first().ok_or_else(|| Malformed::what("close"))?;
                Some(Self::Close(*broken != 0, reason.get(..limits::CLOSE_REASON_BYTES_MAX).unwrap_or(reason)))
            }
            CLOSED => Some(Self::Closed),
            _ => None,
        })
    }

    fn encode_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Piece(channel, piece) => {
                bytes.push(tag(*channel));
                bytes.extend_from_slice(piece);
            }
            Self::Credit(channel, credit) => {
                bytes.extend_from_slice(&[CREDIT, tag(*channel)]);
                bytes.extend_from_slice(&credit.to_be_bytes());
            }
            Self::Alive => bytes.push(ALIVE),
            Self::Close(broken, reason) => {
                bytes.extend_from_slice(&[CLOSE, u8::from(*broken)]);
                bytes.extend_from_slice(reason);
            }
            Self::Closed => bytes.push(CLOSED),
        }
    }
}

fn tag(channel: Channel) -> u8 {
    match channel {
        Channel::Control => CONTROL,
        Channel::Lane(lane) => lane.number(),
        Channel::Down => DOWN,
    }
}

fn channel_of(tag: u8) -> Option<Channel> {
    match tag {
        CONTROL => Some(Channel::Control),
        DOWN => Some(Channel::Down),
        lane => Lane::from_number(lane).map(Channel::Lane),
    }
}

/// Seals what one end sends.
pub struct Sealer {
    key: [u8; 32],
    link: LinkId,
    next: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("link", &self.link).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) const fn new(key: [u8; 32], link: LinkId) -> Self {
        Self { key, link, next: 0 }
    }

    /// The next packet.
    pub fn seal(&mut self, content: &Content<'_>) -> Vec<u8> {
        let piece_bytes = if let Content::Piece(_, piece) = content { piece.len() } else { limits::CLOSE_REASON_BYTES_MAX };
        let mut bytes = Vec::with_capacity(CONTENT_OVERHEAD_BYTES + piece_bytes);
        bytes.push(SEALED);
        bytes.extend_from_slice(&self.link.0);
        bytes.extend_from_slice(&self.next.to_be_bytes());
        let at = bytes.len();
        bytes.extend_from_slice(&[0; MAC_BYTES]);
        content.encode_to(&mut bytes);
        let mac = mac(&self.key, self.link, self.next, bytes.get(at + MAC_BYTES..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(at..at + MAC_BYTES) {
            place.copy_from_slice(&mac);
        }
        // At a million packets a second the counter lasts for half a million years.
        self.next = self.next.saturating_add(1);
        bytes
    }
}

/// What became of a sealed packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opened<'a> {
    /// The next one: its content.
    Next(&'a [u8]),
    /// It was opened before: nothing is to be done.
    Repeated,
    /// Somebody else made it, or changed it: nothing is to be done.
    Forged,
    /// So many before it are missing: the link is over.
    Gap(u64),
}

/// Opens what the other end sealed.
pub struct Opener {
    key: [u8; 32],
    link: LinkId,
    next: u64,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("link", &self.link).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Opener {
    pub(super) const fn new(key: [u8; 32], link: LinkId) -> Self {
        Self { key, link, next: 0 }
    }

    /// Opens what [`Packet::Sealed`] held.
    pub fn open<'a>(&mut self, sealed: &'a [u8]) -> Opened<'a> {
        let Some((counter, rest)) = sealed.split_first_chunk::<8>() else { return Opened::Forged };
        let Some((said, content)) = rest.split_first_chunk::<MAC_BYTES>() else { return Opened::Forged };
        let counter = u64::from_be_bytes(*counter);
        if !same(said, &mac(&self.key, self.link, counter, content)) {
            return Opened::Forged;
        }
        match counter.checked_sub(self.next) {
            None => Opened::Repeated,
            Some(0) => {
                self.next = self.next.saturating_add(1);
                Opened::Next(content)
            }
            Some(missing) => Opened::Gap(missing),
        }
    }
}

fn mac(key: &[u8; 32], link: LinkId, counter: u64, content: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&link.0).update(&counter.to_be_bytes()).update(content);
    let mut mac = [0; MAC_BYTES];
    hasher.finalize_xof().fill(&mut mac);
    mac
}

/// Compares in a time that does not tell where the two differ.
fn same(left: &[u8; MAC_BYTES], right: &[u8; MAC_BYTES]) -> bool {
    left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_packet_is_opened() {
        let (key, link) = ([7; 32], LinkId([1; 8]));
        let (mut sealer, mut opener) = (Sealer::new(key, link), Opener::new(key, link));
        let packets: Vec<Vec<u8>> = (0..4).map(|n| sealer.seal(&Content::Piece(Channel::Lane(Lane::State), &[n]))).collect();
        let body = |packet: &[u8]| packet[9..].to_vec();
        assert_eq!(opener.open(&body(&packets[0])), Opened::Next(&[0, 0]));
        assert_eq!(opener.open(&body(&packets[0])), Opened::Repeated);
        assert_eq!(opener.open(&body(&packets[2])), Opened::Gap(1));
        assert_eq!(opener.open(&body(&packets[1])), Opened::Next(&[0, 1]), "nothing but the next moves the counter");
        for index in 0..body(&packets[2]).len() {
            let mut changed = body(&packets[2]);
            changed[index] ^= 1;
            assert_eq!(opener.open(&changed), Opened::Forged, "byte {index}");
            assert_eq!(opener.open(&body(&packets[2])[..index]), Opened::Forged, "cut at {index}");
        }
        assert_eq!(Opener::new(key, LinkId([2; 8])).open(&body(&packets[0])), Opened::Forged, "of another link");
        assert_eq!(Opener::new([8; 32], link).open(&body(&packets[0])), Opened::Forged, "under another key");
    }

    #[test]
    fn contents_survive_the_way_and_nothing_is_taken_for_them() {
        let contents = [
            Content::Piece(Channel::Control, b"frame"),
            Content::Piece(Channel::Down, b""),
            Content::Credit(Channel::Lane(Lane::Blobs), 70_000),
            Content::Alive,
            Content::Close(true, b"why"),
            Content::Closed,
        ];
        for content in contents {
            let mut bytes = Vec::new();
            content.encode_to(&mut bytes);
            assert_eq!(Content::decode(&bytes), Ok(Some(content)));
        }
        assert_eq!(Content::decode(&[99, 1]), Ok(None), "of a later version");
        for cut in [&[][..], &[CREDIT], &[CREDIT, 32, 0, 0, 0], &[CREDIT, 99, 0, 0, 0, 1], &[CLOSE]] {
            assert!(Content::decode(cut).is_err(), "{cut:?}");
        }
    }
}
