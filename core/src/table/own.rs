//! Rows that one put of a device has made whole, named by that put: the hub sees which they are, and the device makes them anew from its own
//! entry in place of being sent what it has.
//!
//! Neither side has to believe the other: [`Sameness`] over what the hub has and over what the device made shows that it is the same.

use std::collections::BTreeMap;

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{CollectionId, DeviceId, FieldId, Incarnation, Mac, Ordinal, RecordId, RecordKey, Seq, StateHash, Ver};
use crate::life::Life;
use crate::merge::time::of_op;
use crate::message::{OwnRows, OwnRun};
use crate::stamp::Stamp;
use crate::store::PullItem;
use crate::table::op::{Action, decode_by_field, each_field};
use crate::table::state::decode_counter;
use crate::time::Eff;

/// A log of a device, by its number at the hub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnLog {
    /// The device.
    pub device: DeviceId,
    /// The log.
    pub incarnation: Incarnation,
    /// Its number, as stamps have it.
    pub ordinal: Ordinal,
}

/// The entry of this log that made all of a row, and which of its operations did; `None` where anything else had a part in it. `state` is the
/// canonical state of a row; what is none, as a saved document, was made by nobody.
///
/// What an entry adds to a counter says nothing of what earlier ones of its log had added: a row with counters is named only in its first version.
/// Where that holds several entries, the device finds out by [`Sameness`].
#[must_use]
pub fn made_by(state: &[u8], ver: Ver, log: &OwnLog) -> Option<(Seq, u32)> {
    let mut reader = Reader::new(state);
    let (mut stamp, mut is_put, mut tallies) = (None, false, Vec::new());
    // No words for those who have no use for them: most rows of others end here.
    let no = || Malformed(String::new());
    let read = reader.each_key(|key, reader| match key {
        0 if reader.array()? == 1 => {
            let only = Stamp::decode(reader)?;
            stamp = Some(only).filter(|stamp| (stamp.device, stamp.ordinal) == (log.device, log.ordinal));
            if stamp.is_some() { Ok(()) } else { Err(no()) }
        }
        1 => {
            is_put = reader.u64()? == 0;
            Ok(())
        }
        3 => reader.skip(),
        4 if ver == Ver(1) => each_field(reader, |_, reader| {
            tallies.extend(decode_counter(reader)?);
            Ok(())
        }),
        _ => Err(no()),
    });
    let stamp = stamp.filter(|_| read.is_ok() && is_put && reader.end().is_ok())?;
    let is_of = |at: Incarnation| at == log.incarnation || Life::is_of(at, log.device, log.incarnation);
    let is_own = tallies.iter().all(|(of, tally)| of.device == log.device && is_of(of.incarnation) && tally.last == stamp.seq);
    is_own.then_some((stamp.seq, stamp.op))
}

/// Rows of a page that the device has made itself, as they are named to it.
#[derive(Clone, Debug)]
pub struct Naming {
    log: OwnLog,
    runs: Vec<OwnRun>,
    sameness: Sameness,
    /// What goes on with the last run: the place in the page, the put, and the version.
    next: Option<(u32, (Seq, u32), Ver)>,
}

impl Naming {
    /// Names rows of this log.
    #[must_use]
    pub fn of(log: OwnLog) -> Self {
        Self { log, runs: Vec::new(), sameness: Sameness::default(), next: None }
    }

    /// Names a record of the page, of which so many come before it. False where it is none that one put of the log made: it has to be spelled.
    pub fn take(&mut self, place: u32, item: &PullItem, mac: Mac) -> bool {
        let Some(state) = &item.state else { return false };
        let Some((seq, op)) = made_by(&state.bytes, item.ver, &self.log) else { return false };
        match self.runs.last_mut().filter(|_| self.next == Some((place, (seq, op), item.ver))) {
            Some(run) => run.macs.push(mac),
            None => self.runs.push(OwnRun { place, seq, op, ver: item.ver, macs: vec![mac] }),
        }
        self.sameness.add(&item.key, state.hash);
        self.next = op.checked_add(1).map(|op| (place.saturating_add(1), (seq, op), item.ver));
        true
    }

    /// All that was named; `None` where that is nothing.
    #[must_use]
    pub fn finish(self) -> Option<Box<OwnRows>> {
        let Self { log, runs, sameness, next: _ } = self;
        (!runs.is_empty()).then(|| Box::new(OwnRows { incarnation: log.incarnation, sameness: sameness.finish(), runs }))
    }
}

/// A row as one put makes it where nothing was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Made {
    /// The index of the put in its entry.
    pub op: u32,
    /// The record.
    pub key: RecordKey,
    /// What the hub has stamped it with.
    pub stamp: Stamp,
    /// Its canonical state.
    pub bytes: Vec<u8>,
}

impl Made {
    /// The hash of its state.
    #[must_use]
    pub fn state_hash(&self) -> StateHash {
        StateHash::of(&self.bytes)
    }
}

/// An entry of a table, and what its device knows of when it was made.
#[derive(Clone, Copy, Debug)]
pub struct OwnEntry<'e> {
    /// Its log.
    pub log: OwnLog,
    /// The log under which its increments count.
    pub counts_under: Incarnation,
    /// Its position.
    pub seq: Seq,
    /// Its effective time, as the hub has said it.
    pub eff: Eff,
    /// That of the entry before it; the earliest there is where it is not known.
    pub before: Eff,
    /// Its payload.
    pub payload: &'e [u8],
}

impl OwnEntry<'_> {
    /// The rows that these of its operations make, which ascend. What is no put makes none.
    ///
    /// # Errors
    ///
    /// When the payload is malformed.
    pub fn rows(&self, ops: &[u32]) -> Result<Vec<Made>, Malformed> {
        let (mut made, mut wanted, mut index) = (Vec::with_capacity(ops.len()), ops.iter().copied().peekable(), 0_u32);
        let mut reader = Reader::new(self.payload);
        reader.each_key(|key, reader| {
            if key != 0 {
                return reader.skip();
            }
            for _ in 0..reader.array()? {
                if reader.array()? != 2 {
                    return Err(Malformed::what("group"));
                }
                let collection = CollectionId::new(reader.u64()?).ok_or_else(|| Malformed::what("collection id"))?;
                for _ in 0..reader.array()? {
                    if wanted.next_if_eq(&index).is_some() {
                        made.extend(self.row(reader, (collection, index))?);
                    } else {
                        reader.skip()?;
                    }
                    index = index.saturating_add(1);
                }
            }
            Ok(())
        })?;
        Ok(made)
    }

    fn row(&self, reader: &mut Reader<'_>, (collection, op): (CollectionId, u32)) -> Result<Option<Made>, Malformed> {
        let (mut id, mut before_us, mut is_put) = (None, 0, false);
        let (mut fields, mut deltas) = (None, BTreeMap::new());
        reader.each_key(|key, reader| {
            match key {
                0 => id = RecordId::new(reader.text()?).ok(),
                1 => is_put = reader.u8()? == Action::Put.code(),
                2 => before_us = reader.u63()?,
                4 => fields = Some(reader.raw()?),
                5 => deltas = decode_by_field(reader, Reader::i128)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let Some(id) = id.filter(|_| is_put) else { return Ok(None) };
        let eff = of_op(self.before, self.eff, before_us);
        let stamp = Stamp { eff, device: self.log.device, ordinal: self.log.ordinal, seq: self.seq, op };
        Ok(Some(Made { op, key: RecordKey { collection, id }, stamp, bytes: self.state(&stamp, (fields, &deltas))? }))
    }

    /// The canonical state of a row that was written once: `fields` is the map of its values, as the operation has it.
    fn state(&self, stamp: &Stamp, (fields, deltas): (Option<&[u8]>, &BTreeMap<FieldId, i128>)) -> Result<Vec<u8>, Malformed> {
        let mut writer = Writer::with_room(super::row::ROOM);
        let mut fields = fields.map(Reader::new);
        let cells = fields.as_mut().map_or(Ok(0), Reader::map)?;
        writer.map(2 + usize::from(cells > 0) + usize::from(!deltas.is_empty())).u64(0).array(1);
        stamp.encode(&mut writer);
        writer.u64(1).u64(0);
        if let Some(mut fields) = fields.filter(|_| cells > 0) {
            writer.u64(3).map(cells);
            for _ in 0..cells {
                writer.u64(fields.u64()?).array(2).u64(0).raw(fields.raw()?);
            }
        }
        if !deltas.is_empty() {
            writer.u64(4).map(deltas.len());
            for (field, delta) in deltas {
                writer.u64(field.get()).array(1).array(4).bytes(self.log.device.as_bytes()).u64(self.counts_under.get());
                writer.i128(*delta).u64(self.seq.get());
            }
        }
        Ok(writer.into_bytes())
    }
}

/// What shows that two sides mean the same rows: a hash over their keys and states, in order.
#[derive(Clone, Debug, Default)]
pub struct Sameness(blake3::Hasher);

impl Sameness {
    /// One more row.
    pub fn add(&mut self, key: &RecordKey, state: StateHash) {
        self.0.update(&key.collection.get().to_be_bytes()).update(key.id.as_str().as_bytes());
        // No id holds a zero: what is before it cannot be taken for what is behind it.
        self.0.update(&[0]).update(state.as_bytes());
    }

    /// The hash over all of them.
    #[must_use]
    pub fn finish(&self) -> [u8; 16] {
        self.0.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Applying, Author, MergeEngine, Stamped};
    use crate::ids::Lane;
    use crate::schema::{Collection, Field, FieldType, Kind};
    use crate::stamp::Origin;
    use crate::table::op::{TableOp, encode_payload};
    use crate::table::{TableEngine, TableState, Tally};
    use crate::value::Value;

    const LOG: fn() -> OwnLog = || OwnLog { device: DeviceId([7; 16]), incarnation: Incarnation::new(9).unwrap(), ordinal: Ordinal(3) };

    fn field(number: u64) -> FieldId {
        FieldId::new(number).unwrap()
    }

    fn collection() -> Collection {
        let field = |number, name: &str, kind| Field { id: field(number), name: name.into(), kind, retired: false, references: None };
        let fields = vec![field(1, "a", FieldType::Text), field(2, "b", FieldType::Float), field(5, "n", FieldType::Counter)];
        let (name, store) = ("c".into(), "default".into());
        Collection { id: CollectionId::new(4).unwrap(), name, kind: Kind::Table, rev: 1, fields, rules: vec![], lane: Lane::State, store }
    }

    fn op(id: &str, action: Action, values: &[(u64, Value)]) -> TableOp {
        TableOp {
            key: RecordKey { collection: collection().id, id: RecordId::new(id).unwrap() },
            action,
            before_us: 0,
            base_ver: Ver(0),
            fields: values.iter().map(|(number, value)| (field(*number), value.to_cbor())).collect(),
            deltas: BTreeMap::new(),
        }
    }

    /// What the hub has after these operations of one entry on one record, under these indices.
    fn merged(ops: &[(u32, &TableOp)], (seq, eff, before): (Seq, Eff, Eff)) -> TableState {
        let mut state = TableState::default();
        apply(&mut state, ops, (seq, eff, before));
        state
    }

    fn apply(state: &mut TableState, ops: &[(u32, &TableOp)], (seq, eff, before): (Seq, Eff, Eff)) {
        let log = LOG();
        let author = Author { device: log.device, incarnation: log.incarnation, ordinal: log.ordinal, ancestors: Default::default() };
        let applying = Applying { author: &author, seq, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
        let stamp = |op: u32, us| Stamp { eff: of_op(before, eff, us), device: log.device, ordinal: log.ordinal, seq, op };
        let ops: Vec<_> = ops.iter().map(|(index, op)| Stamped { op: *op, stamp: stamp(*index, op.before_us) }).collect();
        TableEngine.apply(&collection(), state, &ops, &applying).unwrap();
    }

    #[test]
    fn what_the_device_makes_is_what_the_hub_has() {
        let text = |text: &str| Value::Text(text.into());
        let mut ops = vec![
            op("x", Action::Put, &[(1, text("one")), (2, Value::Float(1.5)), (77, Value::Unknown(vec![0x81, 0x05]))]),
            op("y", Action::Put, &[]),
            op("z", Action::Put, &[(1, Value::Null), (2, Value::Null)]),
        ];
        ops[2].before_us = 40;
        ops[1].deltas.insert(field(5), -7);
        ops[2].deltas.insert(field(5), 1 << 70);
        let payload = encode_payload(&ops, Some("ann"));
        for before in [Eff(i64::MIN), Eff(900), Eff(970)] {
            let times = (Seq::new(12).unwrap(), Eff(1_000), before);
            let entry = OwnEntry { log: LOG(), counts_under: LOG().incarnation, seq: times.0, eff: times.1, before, payload: &payload };
            let made = entry.rows(&[0, 1, 2]).unwrap();
            assert_eq!(made.len(), ops.len());
            let (mut ours, mut theirs) = (Sameness::default(), Sameness::default());
            for ((index, op), made) in (0..).zip(&ops).zip(&made) {
                let state = merged(&[(index, op)], times);
                assert_eq!((&made.key, &made.bytes), (&op.key, &state.encode()));
                assert_eq!(made_by(&made.bytes, Ver(1), &LOG()), Some((times.0, index)));
                ours.add(&made.key, StateHash(*blake3::hash(&made.bytes).as_bytes()));
                theirs.add(&op.key, state.hash());
            }
            assert_eq!(ours.finish(), theirs.finish());
            assert_eq!(entry.rows(&[1]).unwrap(), made[1..2]);
            assert_eq!(entry.rows(&[3]).unwrap(), [], "no such operation");
        }
        for cut in 0..payload.len() {
            let entry = OwnEntry {
                log: LOG(),
                counts_under: LOG().incarnation,
                seq: Seq::FIRST,
                eff: Eff(1),
                before: Eff(0),
                payload: &payload[..cut],
            };
            assert!(entry.rows(&[0, 1, 2]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_row_that_anything_else_had_a_part_in_is_nobodys() {
        let one = (Seq::FIRST, Eff(10), Eff(0));
        let (put, patch) = (op("x", Action::Put, &[(1, Value::Null)]), op("x", Action::Patch, &[(2, Value::Null)]));
        let made = merged(&[(0, &put)], one);
        assert_eq!(made_by(&made.encode(), Ver(2), &LOG()), Some((Seq::FIRST, 0)));
        let others = [OwnLog { ordinal: Ordinal(4), ..LOG() }, OwnLog { device: DeviceId([8; 16]), ..LOG() }];
        for other in others {
            assert_eq!(made_by(&made.encode(), Ver(1), &other), None);
        }
        let mut counted = put.clone();
        counted.deltas.insert(field(5), 2);
        let delete = op("x", Action::Delete, &[]);
        let not_whole = [
            ("patched", merged(&[(0, &put), (1, &patch)], one)),
            ("never put", merged(&[(0, &patch)], one)),
            ("counted, and perhaps before", merged(&[(0, &counted)], one)),
            ("deleted", merged(&[(0, &put), (1, &delete)], one)),
            ("a tombstone", merged(&[(0, &delete)], one)),
            ("nothing", TableState::default()),
        ];
        for (what, state) in not_whole {
            assert_eq!(made_by(&state.encode(), Ver(2), &LOG()), None, "{what}");
        }
        let count = |incarnation: u64, seq: u64| {
            let mut state = merged(&[(0, &counted)], one);
            let origin = Origin { device: LOG().device, incarnation: Incarnation::new(incarnation).unwrap() };
            state.counters.insert(field(5), [(origin, Tally { sum: 2, last: Seq::new(seq).unwrap() })].into());
            made_by(&state.encode(), Ver(1), &LOG())
        };
        assert_eq!([count(9, 1), count(9, 2), count(8, 1)], [Some((Seq::FIRST, 0)), None, None]);
        // Put again by a later entry, all of it is that one's.
        let mut again = made;
        apply(&mut again, &[(6, &put)], (Seq::new(2).unwrap(), Eff(20), Eff(10)));
        assert_eq!(made_by(&again.encode(), Ver(2), &LOG()), Some((Seq::new(2).unwrap(), 6)));
        for bytes in [&b"\x85\x6f\x4a\x83 a saved document"[..], &[], &[0xa0], &[0xff]] {
            assert_eq!(made_by(bytes, Ver(1), &LOG()), None);
        }
    }

    #[test]
    fn what_is_no_put_makes_no_row() {
        let payload =
            encode_payload(&[op("x", Action::Delete, &[]), op("y", Action::Patch, &[(1, Value::Null)]), op("z", Action::Put, &[])], None);
        let entry =
            OwnEntry { log: LOG(), counts_under: LOG().incarnation, seq: Seq::FIRST, eff: Eff(1), before: Eff(0), payload: &payload };
        let made: Vec<u32> = entry.rows(&[0, 1, 2]).unwrap().iter().map(|made| made.op).collect();
        assert_eq!(made, [2]);
    }
}
