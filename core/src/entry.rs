//! One immutable, sealed write: the unit of sync, quarantine and backup.
//!
//! The sealed bytes are hashed, signed, stored and forwarded verbatim. Only the author encodes; everybody else decodes and keeps.

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{BootId, Chain, DeviceId, Eid, Incarnation, Lane, LaneKey, Nonce, ProjectId, Seq};
use crate::life::Life;
use crate::limits;
use crate::schema::Kind;
use crate::time::{Moment, Mono, Wall, WallQuality};

/// What an author says about an entry besides its payload (rules R4, R15).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// The engine number: [`Kind::code`]. Kept as a number, so that an entry of an engine to come can be carried.
    pub engine: u8,
    /// When it was sealed, as the device knows time.
    pub moment: Moment,
    /// Makes two equal writes two entries.
    pub nonce: Nonce,
    /// [`crate::ids::Timeline::short`] of the timeline that the payload's `base_ver`s belong to; absent when there is none.
    pub timeline: Option<[u8; 8]>,
    /// The first sealing of an entry that was authored again under another incarnation; absent on a first sealing.
    pub provenance: Option<Provenance>,
    /// The life of its log that it was written in; absent in the first one, and where it is of no matter: on what is no table, and on what was
    /// authored again ([`Provenance::life`]).
    pub life: Option<Life>,
}

/// Where an entry was sealed first (rule R15).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Provenance {
    /// The original log.
    pub incarnation: Incarnation,
    /// The original lane.
    pub lane: Lane,
    /// The original position.
    pub seq: Seq,
    /// The original identity.
    pub eid: Eid,
    /// True where the rows that devices hold may have what was written at that position: the log ended there because a restored hub had lost
    /// what was before it, or a hub had acknowledged the entry before it was lost. Then its increments count for that position, wherever they
    /// come from.
    pub sole: bool,
    /// The original life of the log.
    pub life: Option<Life>,
}

impl Header {
    /// The kind of collection that this entry writes; `None` for an engine of a later version.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.engine)
    }

    /// The log under which its increments on tables count (rule R10), where it was written in `log` and not authored again.
    #[must_use]
    pub fn counts_under(&self, device: DeviceId, log: Incarnation) -> Incarnation {
        Life::counting_log(self.life.filter(|_| crate::protect!("life.counts", true)), (device, log))
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let clock = self.moment.quality != WallQuality::None;
        let life = self.provenance.map_or(self.life, |origin| origin.life);
        let optional = usize::from(clock) + usize::from(self.timeline.is_some()) + usize::from(life.is_some());
        writer.map(5 + optional + self.origin_keys());
        writer.u64(0).u64(u64::from(self.engine));
        writer.u64(1).bytes(self.moment.boot.as_bytes());
        writer.u64(2).u64(self.moment.mono.0);
        if clock {
            writer.u64(3).i64(self.moment.wall.0);
        }
        writer.u64(4).u64(u64::from(self.moment.quality.code()));
        writer.u64(5).bytes(self.nonce.as_bytes());
        if let Some(timeline) = &self.timeline {
            writer.u64(6).bytes(timeline);
        }
        if let Some(origin) = &self.provenance {
            writer.u64(7).array(4).u64(origin.incarnation.get()).u64(u64::from(origin.lane.number()));
            writer.u64(origin.seq.get()).bytes(origin.eid.as_bytes());
            if origin.sole {
                writer.u64(8).bool(true);
            }
        }
        if let Some(life) = life {
            writer.u64(9).u64(life.bits());
        }
        writer.into_bytes()
    }

    fn origin_keys(&self) -> usize {
        self.provenance.map_or(0, |origin| 1 + usize::from(origin.sole))
    }

    /// Reads a sealed header; keys of later versions are passed over.
    ///
    /// # Errors
    ///
    /// When a part is missing or malformed, or the header is over its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > limits::ENTRY_HEADER_BYTES_MAX {
            return Err(Malformed::what("header too long"));
        }
        let mut reader = Reader::new(bytes);
        let (mut engine, mut boot, mut mono, mut nonce) = (None, None, None, None);
        let (mut wall, mut quality, mut timeline) = (None, WallQuality::None, None);
        let (mut provenance, mut sole, mut life) = (None::<Provenance>, false, None);
        reader.each_key(|key, reader| {
            match key {
                0 => engine = Some(reader.u8()?),
                1 => boot = Some(BootId(reader.fixed()?)),
                2 => mono = Some(Mono(reader.u63()?)),
                3 => wall = Some(reader.i64()?),
                4 => quality = WallQuality::from_code(reader.u8()?),
                5 => nonce = Some(Nonce(reader.fixed()?)),
                6 => timeline = Some(reader.fixed()?),
                7 => provenance = Some(Provenance::decode(reader)?),
                8 => sole = reader.bool()?,
                9 => life = Some(Life::from_bits(reader.u64()?).ok_or_else(|| Malformed::what("life"))?),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        let wall = match (quality, wall) {
            // A reading of which its author knows nothing is no reading, whatever it says.
            (WallQuality::None, _) => Wall(0),
            (WallQuality::Set | WallQuality::Synchronised, Some(wall)) => Wall(wall),
            (WallQuality::Set | WallQuality::Synchronised, None) => return Err(Malformed::what("header without its clock")),
        };
        match (engine, boot, mono, nonce) {
            (Some(engine), Some(boot), Some(mono), Some(nonce)) => {
                let moment = Moment { boot, mono, wall, quality };
                let provenance = provenance.map(|origin| Provenance { sole, life, ..origin });
                let life = life.filter(|_| provenance.is_none());
                Ok(Self { engine, moment, nonce, timeline, provenance, life })
            }
            _ => Err(Malformed::what("header")),
        }
    }
}

impl Provenance {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.tuple(4, |reader| {
            let (incarnation, lane) = (Incarnation::new(reader.u64()?), Lane::from_number(reader.u8()?));
            let (seq, eid) = (Seq::new(reader.u64()?), Eid(reader.fixed()?));
            match (incarnation, lane, seq) {
                (Some(incarnation), Some(lane), Some(seq)) => Ok(Self { incarnation, lane, seq, eid, sole: false, life: None }),
                _ => Err(Malformed::what("provenance")),
            }
        })
    }
}

/// The payload of a sealed entry, or what is left of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// The bytes.
    Present(Vec<u8>),
    /// The device dropped the bytes under its quota before the hub had them; the hash keeps the chain whole, so the loss is on record and
    /// the lane has no hole.
    Lost([u8; 32]),
}

impl Payload {
    /// The blake3 of the payload: what the chain covers.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        match self {
            Self::Present(bytes) => *blake3::hash(bytes).as_bytes(),
            Self::Lost(hash) => *hash,
        }
    }
}

/// A sealed entry as it is stored and as it travels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The canonical bytes of its [`Header`].
    pub header: Vec<u8>,
    /// Its payload.
    pub payload: Payload,
}

impl Entry {
    /// Seals a payload.
    #[must_use]
    pub fn seal(header: &Header, payload: Vec<u8>) -> Self {
        Self { header: header.encode(), payload: Payload::Present(payload) }
    }

    /// The entry's identity; `None` when its payload is lost.
    #[must_use]
    pub fn eid(&self) -> Option<Eid> {
        let Payload::Present(payload) = &self.payload else { return None };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.header).update(payload);
        Eid::from_slice(hasher.finalize().as_bytes().get(..16)?)
    }

    /// The bytes that count against limits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.header.len()
            + match &self.payload {
                Payload::Present(bytes) => bytes.len(),
                Payload::Lost(_) => 32,
            }
    }
}

/// The chain of a lane before its first entry. It binds the lane to its project, device and incarnation.
#[must_use]
pub fn chain_start(project: ProjectId, lane: &LaneKey) -> Chain {
    let mut writer = Writer::new();
    writer.array(5).text("mobo lane 1").u64(project.get()).bytes(lane.device.as_bytes());
    writer.u64(lane.incarnation.get()).u64(u64::from(lane.lane.number()));
    Chain(*blake3::hash(&writer.into_bytes()).as_bytes())
}

/// The chain after one more entry: `blake3(chain ‖ header ‖ blake3(payload))`.
#[must_use]
pub fn chain_next(chain: Chain, entry: &Entry) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain.as_bytes()).update(&entry.header).update(&entry.payload.hash());
    Chain(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(quality: WallQuality) -> Header {
        Header {
            engine: 2,
            moment: Moment { boot: BootId([1; 8]), mono: Mono(5), wall: Wall(-3), quality },
            nonce: Nonce([2; 8]),
            timeline: Some([3; 8]),
            provenance: Some(Provenance {
                incarnation: Incarnation::new(9).unwrap(),
                lane: Lane::State,
                seq: Seq::FIRST,
                eid: Eid([4; 16]),
                sole: quality == WallQuality::Set,
                life: Life::from_bits(5 << 23 | 77).filter(|_| quality == WallQuality::Set),
            }),
            life: None,
        }
    }

    #[test]
    fn headers_round_trip() {
        let with_clock = header(WallQuality::Set);
        assert_eq!(Header::decode(&with_clock.encode()).unwrap(), with_clock);
        let first = Header { provenance: None, life: Life::from_bits(1 << 23), ..with_clock };
        assert_eq!(Header::decode(&first.encode()).unwrap(), first);
        let without = Header::decode(&header(WallQuality::None).encode()).unwrap();
        assert_eq!(without.moment.wall, Wall(0), "a reading that means nothing does not travel");
    }

    #[test]
    fn a_clock_is_there_iff_its_quality_says_so() {
        // The fourth pair is the wall clock (3: -3), the fifth its quality (4: 1).
        let whole = header(WallQuality::Set).encode();
        let at = whole.windows(4).position(|bytes| bytes == [3, 0x22, 4, 1]).unwrap();
        let mut unknown = whole.clone();
        unknown[at + 3] = 0;
        let read = Header::decode(&unknown).unwrap();
        assert_eq!(read, header_of(&read, WallQuality::None), "with quality 0 a reader takes no notice of key 3");
        unknown[at + 3] = 9;
        assert_eq!(Header::decode(&unknown).unwrap(), read, "a quality that this version does not know is none");
        let mut missing = whole.clone();
        missing[0] -= 1;
        missing.drain(at..at + 2);
        assert!(Header::decode(&missing).is_err(), "a set clock that says nothing");
    }

    fn header_of(header: &Header, quality: WallQuality) -> Header {
        Header { moment: Moment { wall: Wall(0), quality, ..header.moment }, ..header.clone() }
    }

    #[test]
    fn a_lost_payload_keeps_the_chain() {
        let whole = Entry::seal(&header(WallQuality::Set), b"payload".to_vec());
        let lost = Entry { header: whole.header.clone(), payload: Payload::Lost(whole.payload.hash()) };
        let start = Chain([0; 32]);
        assert_eq!(chain_next(start, &whole), chain_next(start, &lost));
        assert!(lost.eid().is_none());
    }
}
