//! The payload of a document entry: automerge changes, grouped by collection.
//!
//! ```text
//! payload = { 0: [ [collection, [op, …]], … ], ? 1: author }
//! op      = { 0: id, 1: action, ? 2: before_us, ? 3: base_ver, 4: [change, …], ? 5: epoch }
//! ```

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{CollectionId, RecordId, RecordKey, StateHash, Ver};
use crate::limits;
use crate::table::Action;

/// One operation on one document: the automerge changes that its author made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DocumentOp {
    /// The document.
    pub key: RecordKey,
    /// What the author meant; the changes say what is merged.
    pub action: Action,
    /// Microseconds before the entry's `mono` (rule R4).
    pub before_us: u64,
    /// The version of the record that the author saw; `Ver(0)` for none.
    pub base_ver: Ver,
    /// Uncompressed automerge change chunks, in causal order.
    pub changes: Vec<Vec<u8>>,
    /// The document's generation; 0 until squashing exists (rule R30).
    pub epoch: u32,
}

/// Encodes the payload of a document entry.
#[must_use]
pub fn encode_payload(ops: &[DocumentOp], author: Option<&str>) -> Vec<u8> {
    let mut writer = Writer::new();
    let groups: Vec<&[DocumentOp]> = ops.chunk_by(|a, b| a.key.collection == b.key.collection).collect();
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

fn encode_op(writer: &mut Writer, op: &DocumentOp) {
    let optional = [op.before_us != 0, op.base_ver.0 != 0, op.epoch != 0];
    writer.map(3 + optional.iter().filter(|present| **present).count());
    writer.u64(0).text(op.key.id.as_str()).u64(1).u64(u64::from(op.action.code()));
    if op.before_us != 0 {
        writer.u64(2).u64(op.before_us);
    }
    if op.base_ver.0 != 0 {
        writer.u64(3).u64(op.base_ver.0);
    }
    writer.u64(4).array(op.changes.len());
    for change in &op.changes {
        writer.bytes(change);
    }
    if op.epoch != 0 {
        writer.u64(5).u64(u64::from(op.epoch));
    }
}

/// Decodes the payload of a document entry. The changes are opaque here: the engine's guard looks inside.
///
/// # Errors
///
/// When it is malformed or over a limit.
pub fn decode_payload(payload: &[u8]) -> Result<Vec<DocumentOp>, Malformed> {
    let mut ops = Vec::new();
    let mut reader = Reader::new(payload);
    reader.each_key(|key, reader| match key {
        0 => decode_groups(reader, &mut ops),
        _ => reader.skip(),
    })?;
    reader.end()?;
    if ops.is_empty() { Err(Malformed::what("an entry without operations")) } else { Ok(ops) }
}

fn decode_groups(reader: &mut Reader<'_>, ops: &mut Vec<DocumentOp>) -> Result<(), Malformed> {
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

fn decode_op(reader: &mut Reader<'_>, collection: CollectionId) -> Result<DocumentOp, Malformed> {
    let (mut id, mut action, mut before_us, mut base_ver, mut epoch) = (None, None, 0, Ver(0), 0);
    let mut changes = Vec::new();
    reader.each_key(|key, reader| {
        match key {
            0 => id = RecordId::new(reader.text()?).ok(),
            1 => action = Action::from_code(reader.u8()?),
            2 => before_us = reader.u63()?,
            3 => base_ver = Ver(reader.u63()?),
            4 => changes = decode_changes(reader)?,
            5 => epoch = reader.u32()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (id, action, changes.is_empty()) {
        (Some(id), Some(action), false) => {
            Ok(DocumentOp { key: RecordKey { collection, id }, action, before_us, base_ver, changes, epoch })
        }
        _ => Err(Malformed::what("operation")),
    }
}

fn decode_changes(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let len = reader.array()?;
    if len > limits::CHANGES_PER_OP_MAX {
        return Err(Malformed::what("too many changes"));
    }
    (0..len)
        .map(|_| {
            let change = reader.bytes()?;
            if change.len() > limits::CHANGE_BYTES_MAX {
                return Err(Malformed::what("change too long"));
            }
            Ok(change.to_vec())
        })
        .collect()
}

/// The state hash of a document: blake3 of the CBOR `[epoch, [head, …]]` with the heads ascending (rule R13).
#[must_use]
pub fn state_hash(epoch: u32, heads: &[[u8; 32]]) -> StateHash {
    let mut sorted = heads.to_vec();
    sorted.sort_unstable();
    let mut writer = Writer::new();
    writer.array(2).u64(u64::from(epoch)).array(sorted.len());
    for head in &sorted {
        writer.bytes(head);
    }
    StateHash::of(&writer.into_bytes())
}
