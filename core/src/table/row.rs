//! The `_mobo` column: everything about a row that its typed columns do not say (rule R27).
//!
//! ```text
//! _mobo = { 0: [stamp, …], ? 1: put, ? 2: delete          as in the canonical state
//!         , ? 3: { field: index | [index, value] }         a value only where no column holds it
//!         , ? 4: { counter: [tally, …] }, 5: ver, ? 6: mac, ? 7: [ver of each stamp], 8: state_hash }
//! ```
//! The row is the state: a changed byte in a column gives another state hash than the one kept here, and is found.

use std::collections::BTreeMap;

use super::state::{Cell, TableState, decode_counter, decode_stamps, index_of, stamp_at};
use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{FieldId, Mac, StateHash, Ver};
use crate::schema::{Collection, FieldType};
use crate::stamp::Stamp;
use crate::table::op::{decode_by_field, each_field};
use crate::value::Value;

/// What the `_mobo` column says besides the merge state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RowMeta {
    /// The record's version.
    pub ver: Ver,
    /// The hub's MAC; on devices.
    pub mac: Option<Mac>,
    /// The hash of the state when the row was written.
    pub state_hash: StateHash,
}

/// Encodes the `_mobo` column of a row of `collection`.
#[must_use]
pub fn encode(state: &TableState, meta: &RowMeta, collection: &Collection) -> Vec<u8> {
    encode_beside(state, meta, Some(collection))
}

/// Encodes a row with every value inline: for rows that have no columns, such as hidden ones.
#[must_use]
pub fn encode_inline(state: &TableState, meta: &RowMeta) -> Vec<u8> {
    encode_beside(state, meta, None)
}

/// Bytes of most rows and states.
pub(super) const ROOM: usize = 384;

fn encode_beside(state: &TableState, meta: &RowMeta, columns: Option<&Collection>) -> Vec<u8> {
    let mut writer = Writer::with_room(ROOM);
    let stamps = state.stamps();
    let vers = !state.vers.is_empty();
    writer.map(3 + state.optional_keys(!state.cells.is_empty()) + usize::from(meta.mac.is_some()) + usize::from(vers));
    state.encode_heads(&mut writer, &stamps);
    if !state.cells.is_empty() {
        writer.u64(3).map(state.cells.len());
        for (field, cell) in &state.cells {
            writer.u64(field.get());
            if columns.is_some_and(|collection| is_in_column(collection, state, *field, cell)) {
                writer.u64(index_of(&stamps, cell.stamp));
            } else {
                writer.array(2).u64(index_of(&stamps, cell.stamp));
                cell.value.encode(&mut writer);
            }
        }
    }
    state.encode_counters(&mut writer);
    writer.u64(5).u64(meta.ver.0);
    if let Some(mac) = meta.mac {
        writer.u64(6).bytes(mac.as_bytes());
    }
    if vers {
        writer.u64(7).array(stamps.len());
        for stamp in &stamps {
            writer.u64(state.vers.get(stamp).map_or(0, |ver| ver.0));
        }
    }
    writer.u64(8).bytes(meta.state_hash.as_bytes());
    writer.into_bytes()
}

/// Puts a row back together from its `_mobo` column and its typed columns; `column` gives the value of a declared register.
///
/// # Errors
///
/// When the column is malformed. That the state fits `meta.state_hash` is the caller's to check: [`is_intact`].
pub fn decode(bytes: &[u8], collection: &Collection, mut column: impl FnMut(FieldId) -> Value) -> Result<(TableState, RowMeta), Malformed> {
    let mut reader = Reader::new(bytes);
    let mut state = TableState::default();
    let (mut stamps, mut meta) = (Vec::new(), PartMeta::default());
    reader.each_key(|key, reader| {
        match key {
            0 => stamps = decode_stamps(reader)?,
            1 => state.put = Some(stamp_at(&stamps, reader.u64()?)?),
            2 => state.delete = Some(stamp_at(&stamps, reader.u64()?)?),
            3 => {
                each_field(reader, |field, reader| {
                    let (stamp, item) = decode_cell(reader, &stamps)?;
                    let value = match item {
                        Some(item) => Value::decode_kept(item, collection.field_by_id(field).map(|field| field.kind))?,
                        None => column(field),
                    };
                    state.cells.insert(field, Cell { stamp, value });
                    Ok(())
                })?;
            }
            4 => state.counters = decode_by_field(reader, decode_counter)?,
            7 => state.vers = decode_vers(reader, &stamps)?,
            key => meta.read(key, reader)?,
        }
        Ok(())
    })?;
    reader.end()?;
    Ok((state, meta.whole()?))
}

/// Reads only what a row says besides its state.
///
/// # Errors
///
/// When the column is malformed.
pub fn decode_meta(bytes: &[u8]) -> Result<RowMeta, Malformed> {
    let (mut reader, mut meta) = (Reader::new(bytes), PartMeta::default());
    reader.each_key(|key, reader| meta.read(key, reader))?;
    reader.end()?;
    meta.whole()
}

/// What a row says besides its state, as far as it was read.
#[derive(Debug, Default)]
struct PartMeta {
    ver: Ver,
    mac: Option<Mac>,
    state_hash: Option<StateHash>,
}

impl PartMeta {
    /// Reads what stands under a key, and passes over what is none of it.
    fn read(&mut self, key: u64, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        match key {
            5 => self.ver = Ver(reader.u63()?),
            6 => self.mac = Some(Mac(reader.fixed()?)),
            8 => self.state_hash = Some(StateHash(reader.fixed()?)),
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn whole(self) -> Result<RowMeta, Malformed> {
        let state_hash = self.state_hash.ok_or_else(|| Malformed::what("row without a state hash"))?;
        Ok(RowMeta { ver: self.ver, mac: self.mac, state_hash })
    }
}

/// The canonical bytes of a row's state, written from its `_mobo` column and its typed columns without the state itself: for whoever only
/// delivers it. `column` writes the value of a declared register, and says false where it cannot.
///
/// # Errors
///
/// When the column is malformed, the row is not as it was written, or `column` cannot give a value.
pub fn delivered(bytes: &[u8], mut column: impl FnMut(FieldId, &mut Writer) -> bool) -> Result<(Vec<u8>, RowMeta), Malformed> {
    let (mut reader, mut meta) = (Reader::new(bytes), PartMeta::default());
    // All of them are the state's, too, and all but the cells word for word.
    let mut parts = [None; 5];
    reader.each_key(|key, reader| {
        match usize::try_from(key).ok().and_then(|key| parts.get_mut(key)) {
            Some(part) => *part = Some(reader.raw()?),
            None => meta.read(key, reader)?,
        }
        Ok(())
    })?;
    reader.end()?;
    let mut writer = Writer::with_room(ROOM);
    writer.map(parts.iter().flatten().count());
    for (key, part) in (0..).zip(parts) {
        match part {
            Some(cells) if key == 3 => write_cells(&mut Reader::new(cells), writer.u64(key), &mut column)?,
            Some(item) => _ = writer.u64(key).raw(item),
            None => {}
        }
    }
    let (bytes, meta) = (writer.into_bytes(), meta.whole()?);
    if meta.state_hash.0 != *blake3::hash(&bytes).as_bytes() {
        return Err(Malformed::what("row that does not fit its hash"));
    }
    Ok((bytes, meta))
}

/// The `_mobo` column of a row under the stamp that the hub has given to the one put that made it: `bytes` is what it was before the hub had
/// the put. `None` where anything else had a part in the row, or where it cannot be read.
#[must_use]
pub fn restamped(bytes: &[u8], stamp: &Stamp, meta: &RowMeta) -> Option<Vec<u8>> {
    let (mut reader, mut parts, mut is_put) = (Reader::new(bytes), [None; 2], false);
    let [cells, counters] = &mut parts;
    let read = reader.each_key(|key, reader| match key {
        0 if reader.array()? == 1 => reader.skip(),
        1 => reader.u64().map(|stamp| is_put = stamp == 0),
        3 => reader.raw().map(|item| *cells = Some(item)),
        4 => reader.raw().map(|item| *counters = Some(item)),
        5..=8 => reader.skip(),
        _ => Err(Malformed::what("row that was not put once")),
    });
    if read.is_err() || !is_put || reader.end().is_err() {
        return None;
    }
    let mut writer = Writer::with_room(ROOM);
    writer.map(4 + parts.iter().flatten().count() + usize::from(meta.mac.is_some())).u64(0).array(1);
    stamp.encode(&mut writer);
    writer.u64(1).u64(0);
    for (key, part) in (3..).zip(parts) {
        if let Some(part) = part {
            writer.u64(key).raw(part);
        }
    }
    writer.u64(5).u64(meta.ver.0);
    if let Some(mac) = meta.mac {
        writer.u64(6).bytes(mac.as_bytes());
    }
    writer.u64(8).bytes(meta.state_hash.as_bytes());
    Some(writer.into_bytes())
}

fn write_cells(
    reader: &mut Reader<'_>,
    writer: &mut Writer,
    column: &mut impl FnMut(FieldId, &mut Writer) -> bool,
) -> Result<(), Malformed> {
    writer.map(reader.clone().map()?);
    each_field(reader, |field, reader| {
        writer.u64(field.get());
        if reader.peek()? == minicbor::data::Type::Array {
            writer.raw(reader.raw()?);
            return Ok(());
        }
        writer.array(2).u64(reader.u64()?);
        if column(field, writer) { Ok(()) } else { Err(Malformed::what("column with a value that its type cannot hold")) }
    })
}

/// The canonical bytes of the state, iff the row is as it was written: whoever delivers it need not encode it again.
#[must_use]
pub fn intact_bytes(state: &TableState, meta: &RowMeta) -> Option<Vec<u8>> {
    let bytes = state.encode();
    (StateHash::of(&bytes) == meta.state_hash).then_some(bytes)
}

/// True iff the row is as it was written.
#[must_use]
pub fn is_intact(state: &TableState, meta: &RowMeta) -> bool {
    state.hash() == meta.state_hash
}

/// True for a register whose column holds its value. A value that the latest delete masks is none: a reader of the column sees the default.
fn is_in_column(collection: &Collection, state: &TableState, field: FieldId, cell: &Cell) -> bool {
    let has_column = collection.field_by_id(field).is_some_and(|field| field.kind != FieldType::Counter);
    has_column && !matches!(cell.value, Value::Unknown(_)) && Some(cell.stamp) > state.delete
}

fn decode_cell<'b>(reader: &mut Reader<'b>, stamps: &[Stamp]) -> Result<(Stamp, Option<&'b [u8]>), Malformed> {
    if reader.peek()? == minicbor::data::Type::Array {
        return reader.tuple(2, |reader| Ok((stamp_at(stamps, reader.u64()?)?, Some(reader.raw()?))));
    }
    Ok((stamp_at(stamps, reader.u64()?)?, None))
}

fn decode_vers(reader: &mut Reader<'_>, stamps: &[Stamp]) -> Result<BTreeMap<Stamp, Ver>, Malformed> {
    if reader.array()? != stamps.len() {
        return Err(Malformed::what("versions of stamps"));
    }
    stamps.iter().map(|stamp| Ok((*stamp, Ver(reader.u64()?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CollectionId, DeviceId, Lane, Ordinal, Seq};
    use crate::schema::{Field, Kind};
    use crate::time::Eff;

    fn stamp(us: i64) -> Stamp {
        Stamp { eff: Eff(us), device: DeviceId([7; 16]), ordinal: Ordinal(1), seq: Seq::FIRST, op: 0 }
    }

    fn id(number: u64) -> FieldId {
        FieldId::new(number).unwrap()
    }

    fn collection() -> Collection {
        let field =
            |number, name: &str| Field { id: id(number), name: name.into(), kind: FieldType::Text, retired: false, references: None };
        let (name, store) = ("c".into(), "default".into());
        let fields = vec![field(1, "a"), field(2, "b")];
        Collection { id: CollectionId::new(1).unwrap(), name, kind: Kind::Table, rev: 1, fields, rules: vec![], lane: Lane::State, store }
    }

    /// A row that was delivered must not tell whether it was sent, or made by its device.
    #[test]
    fn a_row_under_its_own_stamp_is_as_if_it_had_come() {
        let (before, said) = (stamp(i64::MAX), stamp(9));
        let state = |put: Stamp| {
            let cell = |value| Cell { stamp: put, value };
            let cells = [(id(1), cell(Value::Text("new".into()))), (id(2), cell(Value::Null)), (id(3), cell(Value::Unknown(vec![7])))];
            let origin = crate::stamp::Origin { device: put.device, incarnation: crate::ids::Incarnation::new(6).unwrap() };
            let tally = crate::table::Tally { sum: 3, last: put.seq };
            let counters = BTreeMap::from([(id(4), BTreeMap::from([(origin, tally)]))]);
            TableState { put: Some(put), cells: BTreeMap::from(cells), counters, ..TableState::default() }
        };
        let mut shown = state(before);
        shown.vers.insert(before, Ver(0));
        let meta = |state: &TableState, ver, mac| RowMeta { ver: Ver(ver), mac, state_hash: state.hash() };
        let (collection, delivered) = (collection(), state(said));
        let bytes = encode(&shown, &meta(&shown, 0, None), &collection);
        let said_of = meta(&delivered, 4, Some(Mac([5; 16])));
        assert_eq!(restamped(&bytes, &said, &said_of), Some(encode(&delivered, &said_of, &collection)));
        for cut in 0..bytes.len() {
            assert_eq!(restamped(&bytes[..cut], &said, &said_of), None, "{cut}");
        }
        let patched = TableState { delete: Some(stamp(3)), ..shown.clone() };
        let mut twice = shown;
        twice.cells.insert(id(2), Cell { stamp: stamp(2), value: Value::Null });
        for other in [patched, twice] {
            assert_eq!(restamped(&encode(&other, &said_of, &collection), &said, &said_of), None);
        }
    }

    #[test]
    fn rows_come_back_from_what_their_columns_show() {
        let text = |value: &str| Value::Text(value.into());
        let cell = |us, value| Cell { stamp: stamp(us), value };
        // `b` was written before the delete and not by the put that revived the row: its column shows the default.
        let mut state = TableState { put: Some(stamp(9)), delete: Some(stamp(5)), ..TableState::default() };
        state.cells =
            BTreeMap::from([(id(1), cell(9, text("new"))), (id(2), cell(3, text("old"))), (id(3), cell(9, Value::Unknown(vec![7])))]);
        let meta = RowMeta { ver: Ver(4), mac: None, state_hash: state.hash() };
        let collection = collection();
        let shown = |field: FieldId| state.value(field).clone();
        for bytes in [encode(&state, &meta, &collection), encode_inline(&state, &meta)] {
            let (back, meta_back) = decode(&bytes, &collection, shown).unwrap();
            assert_eq!((&back, meta_back), (&state, meta));
            assert!(is_intact(&back, &meta_back));
            let write = |field: FieldId, writer: &mut Writer| {
                shown(field).encode(writer);
                true
            };
            assert_eq!(delivered(&bytes, write).unwrap(), (state.encode(), meta));
        }
        let row = encode(&state, &meta, &collection);
        assert!(delivered(&row, |_, _| false).is_err(), "a column that cannot be read");
        assert!(delivered(&row, |_, writer| !writer.text("changed by hand").is_empty()).is_err());
        for cut in 0..row.len() {
            assert!(delivered(&row[..cut], |field, writer| !(shown(field).encode(writer), writer.is_empty()).1).is_err(), "{cut}");
        }
        let (other, meta) = decode(&encode(&state, &meta, &collection), &collection, |_| text("changed by hand")).unwrap();
        assert!(!is_intact(&other, &meta));
        assert_eq!(crate::table::extra::extra(&state, &collection).as_deref(), Some("{\"3\":7}"));
    }
}
