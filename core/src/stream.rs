//! The payload of a stream entry: samples of one collection, column by column.
//!
//! ```text
//! payload = { 0: collection, 1: encoding, 2: samples, 3: before, 4: { field: column }, ? 5: author }
//! ```
//! or, in encoding 2, with key 6 in place of 3 and 4: { 3: before, 4: { field: column } } as a deflate stream (RFC 1951).
//!
//! A writer takes whichever is shorter. `before` and the columns are byte strings of their own small format (`protocol/SPEC.md` says it in full):
//! readings that come at a steady pace and differ little take two to three bytes each, and half a byte when many of them are deflated. A column of a field that this
//! node does not know is kept as it is, so that nothing is lost on the way to a node that does (invariant I20).

mod column;
mod loss;
pub mod thin;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use loss::{Loss, LossReason};

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{CollectionId, FieldId};
use crate::limits;
use crate::schema::Collection;
use crate::table::op::decode_by_field;
use crate::value::Value;

/// Columns as they are.
const COLUMNS: u64 = 1;
/// Columns, deflated.
const DEFLATED: u64 = 2;
/// What is shorter is not deflated: there is nothing to win.
const DEFLATE_BYTES_MIN: usize = 256;
/// Fast enough for a small device, and within a few percent of the best.
const DEFLATE_LEVEL: u8 = 6;

/// Samples of one stream, in the order in which they were taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The stream.
    pub collection: CollectionId,
    /// For each sample, how many microseconds before the entry's `mono` it was taken (rule R4); 1 to [`limits::ENTRY_SAMPLES_MAX`] of them.
    pub before_us: Vec<u64>,
    /// The values; a field without a column is null in every sample.
    pub columns: BTreeMap<FieldId, Column>,
    /// Who wrote them, where the device knows a user.
    pub author: Option<String>,
}

/// The values of one field, one for each sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Of a field that the schema has.
    Typed(Vec<Value>),
    /// Of a field that the schema does not have: the bytes of the column.
    Unknown(Vec<u8>),
}

/// Samples that cannot be sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSegment {
    /// No sample, or more than one entry takes.
    #[error("an entry takes 1 to {max} samples, and {cells} values at most: split them", max = limits::ENTRY_SAMPLES_MAX, cells = limits::ENTRY_CELLS_MAX)]
    Size,
    /// A column whose length is not the number of samples.
    #[error("field {0} does not have one value for each sample")]
    Ragged(FieldId),
    /// A value that is not of its field's type, or a field that the stream does not have.
    #[error("field {0} has a value that its type cannot hold")]
    Value(FieldId),
    /// A moment before the machine can have booted.
    #[error("a sample is older than 2^63 microseconds")]
    Time,
}

impl Segment {
    /// The payload. `schema` is the stream's definition.
    ///
    /// # Errors
    ///
    /// [`BadSegment`]; what is returned without one decodes to the same segment, −0 as 0.
    pub fn encode(&self, schema: &Collection) -> Result<Vec<u8>, BadSegment> {
        let samples = self.before_us.len();
        if samples == 0 || samples > limits::ENTRY_SAMPLES_MAX || samples * self.columns.len() > limits::ENTRY_CELLS_MAX {
            return Err(BadSegment::Size);
        }
        if self.before_us.iter().any(|before| i64::try_from(*before).is_err()) {
            return Err(BadSegment::Time);
        }
        let before = column::encode_before(&self.before_us);
        let columns = self.columns.iter().map(|(field, column)| Ok((*field, column.encode(schema, *field, samples)?)));
        let columns = columns.collect::<Result<Vec<_>, BadSegment>>()?;
        let mut body = Writer::new();
        put_body(body.map(2), &before, &columns);
        let deflated = deflate(&body.into_bytes());
        let authored = usize::from(self.author.is_some());
        let mut writer = Writer::new();
        let encoding = if deflated.is_some() { DEFLATED } else { COLUMNS };
        writer.map(if deflated.is_some() { 4 } else { 5 } + authored).u64(0).u64(self.collection.get()).u64(1).u64(encoding);
        writer.u64(2).u64(samples as u64);
        if deflated.is_none() {
            put_body(&mut writer, &before, &columns);
        }
        if let Some(author) = &self.author {
            writer.u64(5).text(author);
        }
        if let Some(deflated) = deflated {
            writer.u64(6).bytes(&deflated);
        }
        Ok(writer.into_bytes())
    }

    /// Reads a payload. `schema` is the definition of its stream; [`peek_collection`] says which.
    ///
    /// # Errors
    ///
    /// When it is malformed, of another encoding, over a limit, or holds a value that its field's type cannot hold.
    pub fn decode(payload: &[u8], schema: &Collection) -> Result<Self, Malformed> {
        if payload.len() > limits::ENTRY_PAYLOAD_BYTES_MAX {
            return Err(Malformed::what("payload too long"));
        }
        let mut reader = Reader::new(payload);
        let (mut collection, mut encoding, mut samples, mut body, mut author) = (None, 0, 0, Body::default(), None);
        let mut deflated = None;
        reader.each_key(|key, reader| {
            match key {
                0 => collection = CollectionId::new(reader.u64()?),
                1 => encoding = reader.u64()?,
                2 => samples = reader.u64()?,
                3 | 4 if encoding == COLUMNS => body.take(key, reader)?,
                5 => author = Some(reader.text()?.to_owned()),
                6 if encoding == DEFLATED => deflated = Some(inflate(reader.bytes()?)?),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        if let Some(inflated) = &deflated {
            let mut reader = Reader::new(inflated);
            reader.each_key(|key, reader| body.take(key, reader))?;
            reader.end()?;
        }
        let (Some(collection), Body { before: Some(before), columns }) = (collection, body) else { return Err(Malformed::what("segment")) };
        // Before anything is allocated for them.
        let samples = usize::try_from(samples).ok().filter(|samples| (1..=limits::ENTRY_SAMPLES_MAX).contains(samples));
        let samples = samples.filter(|samples| samples * columns.len() <= limits::ENTRY_CELLS_MAX);
        let samples = samples.ok_or_else(|| Malformed::what("number of samples"))?;
        let before_us = column::decode_before(before, samples)?;
        let columns = columns.into_iter().map(|(field, bytes)| Ok((field, Column::decode(bytes, schema, field, samples)?)));
        Ok(Self { collection, before_us, columns: columns.collect::<Result<_, Malformed>>()?, author })
    }
}

/// Times and columns, as bytes.
#[derive(Default)]
struct Body<'b> {
    before: Option<&'b [u8]>,
    columns: BTreeMap<FieldId, &'b [u8]>,
}

impl<'b> Body<'b> {
    fn take(&mut self, key: u64, reader: &mut Reader<'b>) -> Result<(), Malformed> {
        match key {
            3 => self.before = Some(reader.bytes()?),
            4 => self.columns = decode_by_field(reader, Reader::bytes)?,
            _ => reader.skip()?,
        }
        Ok(())
    }
}

fn put_body(writer: &mut Writer, before: &[u8], columns: &[(FieldId, Cow<'_, [u8]>)]) {
    writer.u64(3).bytes(before).u64(4).map(columns.len());
    for (field, column) in columns {
        writer.u64(field.get()).bytes(column);
    }
}

/// The deflated bytes, where that is shorter by a tenth or more.
fn deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < DEFLATE_BYTES_MIN || bytes.len() > limits::ENTRY_PAYLOAD_BYTES_MAX {
        return None;
    }
    Some(miniz_oxide::deflate::compress_to_vec(bytes, DEFLATE_LEVEL)).filter(|deflated| deflated.len() <= bytes.len() - bytes.len() / 10)
}

/// One layer, and never more than a payload may hold without it.
fn inflate(deflated: &[u8]) -> Result<Vec<u8>, Malformed> {
    miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, limits::ENTRY_PAYLOAD_BYTES_MAX)
        .map_err(|_| Malformed::what("deflated columns"))
}

impl Column {
    fn encode(&self, schema: &Collection, field: FieldId, samples: usize) -> Result<Cow<'_, [u8]>, BadSegment> {
        match self {
            Self::Unknown(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Typed(values) if values.len() != samples => Err(BadSegment::Ragged(field)),
            Self::Typed(values) => {
                let kind = schema.field_by_id(field).map(|field| field.kind);
                kind.and_then(|kind| column::encode(kind, values)).map(Cow::Owned).ok_or(BadSegment::Value(field))
            }
        }
    }

    fn decode(bytes: &[u8], schema: &Collection, field: FieldId, samples: usize) -> Result<Self, Malformed> {
        match schema.field_by_id(field) {
            Some(field) => column::decode(field.kind, bytes, samples).map(Self::Typed),
            None => Ok(Self::Unknown(bytes.to_vec())),
        }
    }
}

/// The stream that a payload belongs to: what must be known before the rest can be read.
///
/// # Errors
///
/// When the payload does not start like one.
pub fn peek_collection(payload: &[u8]) -> Result<CollectionId, Malformed> {
    let mut reader = Reader::new(payload);
    if reader.map()? == 0 || reader.u64()? != 0 {
        return Err(Malformed::what("segment"));
    }
    CollectionId::new(reader.u64()?).ok_or_else(|| Malformed::what("collection id"))
}

/// How many samples a payload says that it holds, before the rest can be read.
///
/// # Errors
///
/// When the payload does not start like one.
pub fn peek_samples(payload: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(payload);
    let keys = reader.map()?;
    for key in 0..keys.min(3) {
        match (key as u64 == reader.u64()?, reader.u64()?) {
            (true, samples) if key == 2 => return Ok(samples),
            (true, _) => {}
            (false, _) => break,
        }
    }
    Err(Malformed::what("segment"))
}

#[cfg(test)]
mod tests;
