//! The payload of a table entry: operations, grouped by collection.
//!
//! ```text
//! payload = { 0: [ [collection, [op, …]], … ], ? 1: author }
//! op      = { 0: id, 1: action, ? 2: before_us, ? 3: base_ver, ? 4: { field: value }, ? 5: { field: delta } }
//! ```

use std::collections::BTreeMap;

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{CollectionId, FieldId, RecordId, RecordKey, Ver};
use crate::limits;

/// What an operation does to its row (rule R9).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Makes the row visible and writes every field that its author declares.
    Put,
    /// Writes some fields; neither shows nor hides the row.
    Patch,
    /// Hides the row; takes from every counter what its author saw.
    Delete,
}

impl Action {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Patch => 1,
            Self::Delete => 2,
        }
    }

    /// The word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// The action for a number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Put),
            1 => Some(Self::Patch),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// One operation on one row.
///
/// Values are the canonical CBOR of their field, because only the schema, not the wire, knows their types.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableOp {
    /// The row.
    pub key: RecordKey,
    /// What is done.
    pub action: Action,
    /// Microseconds before the entry's `mono` at which it was done (rule R4).
    pub before_us: u64,
    /// The version of the row that the author saw; `Ver(0)` for none.
    pub base_ver: Ver,
    /// Registers written.
    pub fields: BTreeMap<FieldId, Vec<u8>>,
    /// Counter increments.
    pub deltas: BTreeMap<FieldId, i128>,
}

/// Encodes the payload of a table entry. Operations keep their order; runs in one collection share a group.
#[must_use]
pub fn encode_payload(ops: &[TableOp], author: Option<&str>) -> Vec<u8> {
    let mut writer = Writer::new();
    let groups: Vec<&[TableOp]> = ops.chunk_by(|a, b| a.key.collection == b.key.collection).collect();
    writer.map(1 + usize::from(author.is_some())).u64(0).array(groups.len());
    for group in groups {
        let collection = group.first().map_or(0, |op| op.key.collection.get());
        writer.array(2).u64(collection).array(group.len());
        for op in group {
            encode_op(&mut writer, op);
        }
    }
    if let Some(author) = author {
        writer.u64(1).text(author);
    }
    writer.into_bytes()
}

fn encode_op(writer: &mut Writer, op: &TableOp) {
    let optional = [op.before_us != 0, op.base_ver.0 != 0, !op.fields.is_empty(), !op.deltas.is_empty()];
    writer.map(2 + optional.iter().filter(|present| **present).count());
    writer.u64(0).text(op.key.id.as_str()).u64(1).u64(u64::from(op.action.code()));
    if op.before_us != 0 {
        writer.u64(2).u64(op.before_us);
    }
    if op.base_ver.0 != 0 {
        writer.u64(3).u64(op.base_ver.0);
    }
    if !op.fields.is_empty() {
        writer.u64(4).map(op.fields.len());
        for (field, value) in &op.fields {
            writer.u64(field.get()).raw(value);
        }
    }
    if !op.deltas.is_empty() {
        writer.u64(5).map(op.deltas.len());
        for (field, delta) in &op.deltas {
            writer.u64(field.get()).i128(*delta);
        }
    }
}

/// Decodes the payload of a table entry, in the order in which its operations were made. Keys of later versions are passed over.
///
/// # Errors
///
/// When it is malformed or over a limit. Values are checked against the schema later, by the merge.
pub fn decode_payload(payload: &[u8]) -> Result<Vec<TableOp>, Malformed> {
    let mut ops = Vec::new();
    let mut reader = Reader::new(payload);
    reader.each_key(|key, reader| match key {
        0 => decode_groups(reader, &mut ops),
        _ => reader.skip(),
    })?;
    reader.end()?;
    if ops.is_empty() { Err(Malformed::what("an entry without operations")) } else { Ok(ops) }
}

fn decode_groups(reader: &mut Reader<'_>, ops: &mut Vec<TableOp>) -> Result<(), Malformed> {
    for _ in 0..reader.array()? {
        if reader.array()? != 2 {
            return Err(Malformed::what("group"));
        }
        let collection = CollectionId::new(reader.u64()?).ok_or_else(|| Malformed::what("collection id"))?;
        for _ in 0..reader.array()? {
            if ops.len() == limits::ENTRY_OPS_MAX {
                return Err(Malformed::what("too many operations"));
            }
            ops.push(decode_op(reader, collection)?);
        }
    }
    Ok(())
}

fn decode_op(reader: &mut Reader<'_>, collection: CollectionId) -> Result<TableOp, Malformed> {
    let (mut id, mut action, mut before_us, mut base_ver) = (None, None, 0, Ver(0));
    let (mut fields, mut deltas) = (BTreeMap::new(), BTreeMap::new());
    reader.each_key(|key, reader| {
        match key {
            0 => id = RecordId::new(reader.text()?).ok(),
            1 => action = Action::from_code(reader.u8()?),
            2 => before_us = reader.u63()?,
            3 => base_ver = Ver(reader.u63()?),
            4 => fields = decode_by_field(reader, |reader| Ok(reader.raw()?.to_vec()))?,
            5 => deltas = decode_by_field(reader, Reader::i128)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (id, action) {
        (Some(id), Some(action)) => Ok(TableOp { key: RecordKey { collection, id }, action, before_us, base_ver, fields, deltas }),
        _ => Err(Malformed::what("operation")),
    }
}

/// Reads `{ field: T }` with ascending fields, and no more of them than a collection can have.
pub(crate) fn decode_by_field<'b, T>(
    reader: &mut Reader<'b>,
    mut item: impl FnMut(&mut Reader<'b>) -> Result<T, Malformed>,
) -> Result<BTreeMap<FieldId, T>, Malformed> {
    let mut by_field = BTreeMap::new();
    each_field(reader, |field, reader| {
        by_field.insert(field, item(reader)?);
        Ok(())
    })?;
    Ok(by_field)
}

/// The same, with each item taken where it is read.
pub(crate) fn each_field<'b>(
    reader: &mut Reader<'b>,
    mut item: impl FnMut(FieldId, &mut Reader<'b>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut left = limits::FIELDS_PER_COLLECTION_MAX;
    reader.each_key(|field, reader| {
        left = left.checked_sub(1).ok_or_else(|| Malformed::what("too many fields"))?;
        item(FieldId::new(field).ok_or_else(|| Malformed::what("field id"))?, reader)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(collection: u64, id: &str, action: Action) -> TableOp {
        TableOp {
            key: RecordKey { collection: CollectionId::new(collection).unwrap(), id: RecordId::new(id).unwrap() },
            action,
            before_us: 3,
            base_ver: Ver(7),
            fields: BTreeMap::from([(FieldId::new(1).unwrap(), vec![0xf6])]),
            deltas: BTreeMap::from([(FieldId::new(2).unwrap(), -5)]),
        }
    }

    #[test]
    fn payloads_round_trip_in_order() {
        let ops = [op(1, "a", Action::Put), op(2, "b", Action::Patch), op(1, "a", Action::Delete)];
        assert_eq!(decode_payload(&encode_payload(&ops, Some("ann"))).unwrap(), ops);
    }

    #[test]
    fn malformed_payloads_are_refused() {
        for bytes in [&[0xa0][..], &[0xa1, 0x00, 0x80], &[0xa1, 0x00, 0x81, 0x82, 0x00, 0x80], &[]] {
            assert!(decode_payload(bytes).is_err(), "{bytes:02x?}");
        }
    }
}
