//! The whole merge state of one table row, and its canonical bytes.
//!
//! ```text
//! state = { 0: [stamp, …]            distinct stamps, ascending
//!         , ? 1: put, ? 2: delete     indices into the stamps
//!         , ? 3: { field: [index, value] }
//!         , ? 4: { field: [ [device, incarnation, sum, last_seq], … ] } }
//! ```
//! `state_hash = blake3(state)` (rule R13). A row that was written once holds one stamp, whatever the number of its fields.

use std::collections::{BTreeMap, BTreeSet};

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{DeviceId, FieldId, Incarnation, Seq, StateHash, Ver};
use crate::schema::Collection;
use crate::stamp::{Origin, Stamp};
use crate::table::op::{decode_by_field, each_field};
use crate::value::Value;

/// A register: its value and who wrote it last.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The winner's stamp.
    pub stamp: Stamp,
    /// The winner's value.
    pub value: Value,
}

/// What one origin has added to a counter (rule R10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tally {
    /// The sum of its increments.
    pub sum: i128,
    /// The last of its entries that added here; an entry at or below it adds nothing.
    pub last: Seq,
}

/// A counter: one tally for each origin.
pub type Counter = BTreeMap<Origin, Tally>;

/// The merge state of one row.
///
/// `vers` is the hub's note of the record version at which each stamp arrived (rule R12); it is outside the canonical bytes and the hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableState {
    /// The latest put.
    pub put: Option<Stamp>,
    /// The latest delete.
    pub delete: Option<Stamp>,
    /// The registers that were ever written.
    pub cells: BTreeMap<FieldId, Cell>,
    /// The counters that were ever incremented.
    pub counters: BTreeMap<FieldId, Counter>,
    /// At which version of the record each stamp was merged; on the hub only.
    pub vers: BTreeMap<Stamp, Ver>,
}

impl TableState {
    /// A row is visible iff its latest put is later than its latest delete (rule R9).
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.put.is_some() && !crate::protect!("row.delete-hides", self.put <= self.delete)
    }

    /// The value that a reader sees: a register stamped before the latest delete reads as its default.
    #[must_use]
    pub fn value(&self, field: FieldId) -> &Value {
        self.cells.get(&field).filter(|cell| Some(cell.stamp) > self.delete).map_or(&Value::Null, |cell| &cell.value)
    }

    /// The value of a counter, clamped to what SQL and JSON hold.
    #[must_use]
    pub fn counter(&self, field: FieldId) -> i64 {
        let sum = self.counters.get(&field).map_or(0, |tallies| tallies.values().fold(0_i128, |sum, tally| sum.saturating_add(tally.sum)));
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// The distinct stamps, ascending.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        let mut stamps: Vec<Stamp> = Vec::with_capacity(4);
        for stamp in self.cells.values().map(|cell| cell.stamp).chain(self.put).chain(self.delete) {
            // Most of a row was written at once.
            if stamps.last() != Some(&stamp) {
                stamps.push(stamp);
            }
        }
        stamps.sort_unstable();
        stamps.dedup();
        stamps
    }

    /// At most how many bytes the canonical form takes, give or take a few: cheap, for limits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cells: usize = self.cells.values().map(|cell| 64 + cell.value.size_bytes()).sum();
        let tallies: usize = self.counters.values().map(|tallies| 16 + 48 * tallies.len()).sum();
        cells + tallies
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_room(super::row::ROOM);
        let stamps = self.stamps();
        writer.map(1 + self.optional_keys(!self.cells.is_empty()));
        self.encode_heads(&mut writer, &stamps);
        if !self.cells.is_empty() {
            writer.u64(3).map(self.cells.len());
            for (field, cell) in &self.cells {
                writer.u64(field.get()).array(2).u64(index_of(&stamps, cell.stamp));
                cell.value.encode(&mut writer);
            }
        }
        self.encode_counters(&mut writer);
        writer.into_bytes()
    }

    /// The hash over the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        StateHash::of(&self.encode())
    }

    /// Reads canonical bytes; the collection says the types of the fields, and fields it does not have are kept as they are.
    ///
    /// # Errors
    ///
    /// When they are malformed, or not the one canonical encoding of what they say.
    pub fn decode(bytes: &[u8], collection: &Collection) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut state = Self::default();
        let mut stamps = Vec::new();
        reader.each_key(|key, reader| {
            match key {
                0 => stamps = decode_stamps(reader)?,
                1 => state.put = Some(stamp_at(&stamps, reader.u64()?)?),
                2 => state.delete = Some(stamp_at(&stamps, reader.u64()?)?),
                3 => {
                    each_field(reader, |field, reader| {
                        if reader.array()? != 2 {
                            return Err(Malformed::what("cell"));
                        }
                        let stamp = stamp_at(&stamps, reader.u64()?)?;
                        let kind = collection.field_by_id(field).map(|field| field.kind);
                        state.cells.insert(field, Cell { stamp, value: Value::decode_kept(reader.raw()?, kind)? });
                        Ok(())
                    })?;
                }
                4 => state.counters = decode_by_field(reader, decode_counter)?,
                _ => return Err(Malformed::what("state of a later version")),
            }
            Ok(())
        })?;
        reader.end()?;
        if state.encode() != bytes {
            return Err(Malformed::what("state not in canonical form"));
        }
        Ok(state)
    }

    pub(super) fn optional_keys(&self, cells: bool) -> usize {
        usize::from(self.put.is_some()) + usize::from(self.delete.is_some()) + usize::from(cells) + usize::from(!self.counters.is_empty())
    }

    /// Writes keys 0 to 2.
    pub(super) fn encode_heads(&self, writer: &mut Writer, stamps: &[Stamp]) {
        writer.u64(0).array(stamps.len());
        for stamp in stamps {
            stamp.encode(writer);
        }
        if let Some(put) = self.put {
            writer.u64(1).u64(index_of(stamps, put));
        }
        if let Some(delete) = self.delete {
            writer.u64(2).u64(index_of(stamps, delete));
        }
    }

    /// Writes key 4.
    pub(super) fn encode_counters(&self, writer: &mut Writer) {
        if self.counters.is_empty() {
            return;
        }
        writer.u64(4).map(self.counters.len());
        for (field, tallies) in &self.counters {
            writer.u64(field.get()).array(tallies.len());
            for (origin, tally) in tallies {
                writer.array(4).bytes(origin.device.as_bytes()).u64(origin.incarnation.get());
                writer.i128(tally.sum).u64(tally.last.get());
            }
        }
    }
}

/// The log under which the increments of an entry count that was authored again, where nobody else can have written its first position:
/// every authoring of it counts there, and none of them where the first log's own tally reaches it (`drop_doubles`).
#[must_use]
pub fn stands_for(device: DeviceId, first: Incarnation, seq: Seq) -> Incarnation {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mobo again 1").update(device.as_bytes()).update(&first.get().to_be_bytes()).update(&seq.get().to_be_bytes());
    Incarnation::from_entropy(hasher.finalize().as_bytes().first_chunk().copied().unwrap_or([1; 8]))
}

/// Takes out the tallies of entries that were authored again where the tally of their first log holds what they did: another device has given
/// it back. Which of the two comes first makes no difference. Only pairs of one of `fresh` and one of `others` are looked at, because all
/// other ones were when they came: each look costs a hash, and a stranger chooses how many tallies there are.
pub(super) fn drop_doubles(tallies: &mut Counter, fresh: &[Origin], others: impl Fn(&Origin, &Tally) -> bool) {
    let mut doubled = BTreeSet::new();
    for at in fresh {
        let Some(tally) = tallies.get(at) else { continue };
        for (other, theirs) in of_device(tallies, at.device).filter(|(other, theirs)| *other != at && others(other, theirs)) {
            if holds((at, tally), (other, theirs)) {
                doubled.insert(*other);
            }
            if holds((other, theirs), (at, tally)) {
                doubled.insert(*at);
            }
        }
    }
    if crate::protect!("counter.doubled", !doubled.is_empty()) {
        tallies.retain(|origin, _| !doubled.contains(origin));
    }
}

/// The tallies of one device.
pub(super) fn of_device(tallies: &Counter, device: DeviceId) -> impl Iterator<Item = (&Origin, &Tally)> {
    let lowest = Origin { device, incarnation: Incarnation::from_entropy([0; 8]) };
    tallies.range(lowest..).take_while(move |(origin, _)| origin.device == device)
}

/// True if what `again` counts is in the tally of its first log.
fn holds((first, tally): (&Origin, &Tally), (again, theirs): (&Origin, &Tally)) -> bool {
    tally.last >= theirs.last && stands_for(first.device, first.incarnation, theirs.last) == again.incarnation
}

pub(super) fn index_of(stamps: &[Stamp], stamp: Stamp) -> u64 {
    stamps.binary_search(&stamp).unwrap_or_default() as u64
}

pub(super) fn stamp_at(stamps: &[Stamp], index: u64) -> Result<Stamp, Malformed> {
    usize::try_from(index).ok().and_then(|index| stamps.get(index)).copied().ok_or_else(|| Malformed::what("stamp index"))
}

pub(super) fn decode_stamps(reader: &mut Reader<'_>) -> Result<Vec<Stamp>, Malformed> {
    (0..reader.array()?).map(|_| Stamp::decode(reader)).collect()
}

pub(super) fn decode_counter(reader: &mut Reader<'_>) -> Result<Counter, Malformed> {
    let mut tallies = BTreeMap::new();
    for _ in 0..reader.array()? {
        if reader.array()? != 4 {
            return Err(Malformed::what("tally"));
        }
        let device = DeviceId(reader.fixed()?);
        let incarnation = Incarnation::new(reader.u64()?).ok_or_else(|| Malformed::what("incarnation"))?;
        let sum = reader.i128()?;
        let last = Seq::new(reader.u64()?).ok_or_else(|| Malformed::what("tally seq"))?;
        tallies.insert(Origin { device, incarnation }, Tally { sum, last });
    }
    Ok(tallies)
}
