//! One column of a segment, as bytes.
//!
//! ```text
//! before = varint of the first, then for each next one: zigzag varint of how much its step differs from the step before it
//! column = presence, values that are present
//! presence = 0 (all) | 1 bitmap (lowest bit first) | 2 (none)
//! values = int, timestamp: zigzag varints of the differences
//!        | float: 0, 8 bytes each | 1, k, zigzag varints of the differences of round(x·10^k)
//!        | bool: bitmap
//!        | text, json, bytes: varint length, bytes
//! ```
//! Differences are taken modulo 2^64, the first one to 0, so that every pair of 64-bit numbers has one.

use crate::cbor::Malformed;
use crate::limits;
use crate::schema::FieldType;
use crate::value::{TIMESTAMP_MAX, TIMESTAMP_MIN, Value, canonical_json};

const ALL: u8 = 0;
const SOME: u8 = 1;
const NONE: u8 = 2;

const RAW: u8 = 0;
const DECIMAL: u8 = 1;
/// 10^k for the k of decimal floats: all exact.
const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];
/// Integers up to here are exact in a float.
const EXACT_MAX: i64 = 1 << 53;

pub(super) fn encode_before(before_us: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(before_us.len() + 16);
    let (mut last, mut step) = (None, 0);
    for before in before_us.iter().map(|before| before.cast_signed()) {
        match last {
            None => put_varint(&mut out, before.cast_unsigned()),
            Some(last) => {
                let next = before.wrapping_sub(last);
                put_varint(&mut out, zigzag(next.wrapping_sub(step)));
                step = next;
            }
        }
        last = Some(before);
    }
    out
}

pub(super) fn decode_before(bytes: &[u8], samples: usize) -> Result<Vec<u64>, Malformed> {
    let mut input = Input(bytes);
    let mut before_us: Vec<u64> = Vec::with_capacity(samples.min(bytes.len()));
    let mut step = 0_i64;
    for _ in 0..samples {
        let number = input.varint()?;
        let before = match before_us.last() {
            None => number,
            Some(last) => {
                step = step.wrapping_add(unzigzag(number));
                last.wrapping_add(step.cast_unsigned())
            }
        };
        if i64::try_from(before).is_err() {
            return Err(Malformed::what("time of a sample"));
        }
        before_us.push(before);
    }
    input.end()?;
    Ok(before_us)
}

/// `None` for a value that is not of the type.
pub(super) fn encode(kind: FieldType, values: &[Value]) -> Option<Vec<u8>> {
    let present: Vec<&Value> = values.iter().filter(|value| **value != Value::Null).collect();
    let mut out = Vec::with_capacity(values.len() + 2);
    if present.is_empty() {
        out.push(NONE);
        return Some(out);
    }
    if present.len() == values.len() {
        out.push(ALL);
    } else {
        out.push(SOME);
        put_bitmap(&mut out, values.iter().map(|value| *value != Value::Null));
    }
    match kind {
        FieldType::Int | FieldType::Timestamp => put_differences(&mut out, all(&present, |value| number(kind, value))?),
        FieldType::Float => put_floats(&mut out, &all(&present, float)?),
        FieldType::Bool => put_bitmap(&mut out, all(&present, truth)?),
        FieldType::Text | FieldType::Json | FieldType::Bytes => {
            for bytes in all(&present, |value| string(kind, value))? {
                put_varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
        FieldType::Counter | FieldType::List => return None,
    }
    Some(out)
}

fn all<'v, T>(present: &[&'v Value], read: impl Fn(&'v Value) -> Option<T>) -> Option<Vec<T>> {
    present.iter().map(|value| read(value)).collect()
}

fn number(kind: FieldType, value: &Value) -> Option<i64> {
    match (kind, value) {
        (FieldType::Int, Value::Int(number)) => Some(*number),
        (FieldType::Timestamp, Value::Timestamp(us)) => (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(us).then_some(*us),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    let Value::Float(number) = value else { return None };
    number.is_finite().then_some(if *number == 0.0 { 0.0 } else { *number })
}

fn truth(value: &Value) -> Option<bool> {
    if let Value::Bool(value) = value { Some(*value) } else { None }
}

fn string(kind: FieldType, value: &Value) -> Option<&[u8]> {
    let bytes = match (kind, value) {
        (FieldType::Text, Value::Text(text)) if !text.contains('\0') => text.as_bytes(),
        (FieldType::Json, Value::Json(text)) if canonical_json(text).as_ref() == Some(text) => text.as_bytes(),
        (FieldType::Bytes, Value::Bytes(bytes)) => bytes,
        _ => return None,
    };
    (bytes.len() <= limits::VALUE_BYTES_MAX).then_some(bytes)
}

fn put_floats(out: &mut Vec<u8>, numbers: &[f64]) {
    let decimal = (0..).zip(POWERS).find_map(|(k, power)| {
        let scaled: Option<Vec<i64>> = numbers.iter().map(|number| scale(*number, power)).collect();
        Some((k, scaled?))
    });
    match decimal {
        Some((k, scaled)) => {
            out.extend_from_slice(&[DECIMAL, k]);
            put_differences(out, scaled);
        }
        None => {
            out.push(RAW);
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
    }
}

/// The integer that stands for `number`, if it gives back the very same bits.
fn scale(number: f64, power: f64) -> Option<i64> {
    let scaled = (number * power).round();
    if scaled.abs() > EXACT_MAX as f64 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    let scaled = scaled as i64;
    (unscale(scaled, power).to_bits() == number.to_bits()).then_some(scaled)
}

fn unscale(scaled: i64, power: f64) -> f64 {
    scaled as f64 / power
}

pub(super) fn decode(kind: FieldType, bytes: &[u8], samples: usize) -> Result<Vec<Value>, Malformed> {
    let mut input = Input(bytes);
    let present = match input.byte()? {
        ALL => vec![true; samples],
        SOME => input.bitmap(samples)?,
        NONE => vec![false; samples],
        _ => return Err(Malformed::what("presence")),
    };
    let count = present.iter().filter(|present| **present).count();
    let mut values = if count == 0 { Vec::new() } else { decode_present(kind, &mut input, count)? }.into_iter();
    input.end()?;
    Ok(present.into_iter().map(|present| if present { values.next().unwrap_or(Value::Null) } else { Value::Null }).collect())
}

/// Reads `count` values; each takes at least a bit of the input, so a false count ends with it.
fn decode_present(kind: FieldType, input: &mut Input<'_>, count: usize) -> Result<Vec<Value>, Malformed> {
    match kind {
        FieldType::Int => Ok(input.differences(count)?.into_iter().map(Value::Int).collect()),
        FieldType::Timestamp => input.differences(count)?.into_iter().map(|us| good(Value::timestamp(us))).collect(),
        FieldType::Float => decode_floats(input, count),
        FieldType::Bool => Ok(input.bitmap(count)?.into_iter().map(Value::Bool).collect()),
        FieldType::Text => (0..count).map(|_| good(Value::text(input.text()?))).collect(),
        FieldType::Json => (0..count).map(|_| json(input.text()?)).collect(),
        FieldType::Bytes => (0..count).map(|_| good(Value::bytes(input.string()?))).collect(),
        FieldType::Counter | FieldType::List => Err(Malformed::what("a type that streams do not have")),
    }
}

fn decode_floats(input: &mut Input<'_>, count: usize) -> Result<Vec<Value>, Malformed> {
    match input.byte()? {
        RAW => return (0..count).map(|_| good(Value::float(f64::from_le_bytes(input.fixed()?)))).collect(),
        DECIMAL => {}
        _ => return Err(Malformed::what("form of floats")),
    }
    let power = POWERS.get(usize::from(input.byte()?)).ok_or_else(|| Malformed::what("decimal places"))?;
    let scaled = input.differences(count)?;
    if scaled.iter().any(|scaled| scaled.unsigned_abs() > EXACT_MAX.unsigned_abs()) {
        return Err(Malformed::what("decimal"));
    }
    Ok(scaled.into_iter().map(|scaled| Value::Float(unscale(scaled, *power))).collect())
}

fn json(text: &str) -> Result<Value, Malformed> {
    good(Value::json(text).filter(|value| matches!(value, Value::Json(canonical) if canonical == text)))
}

fn good(value: Option<Value>) -> Result<Value, Malformed> {
    value.ok_or_else(|| Malformed::what("value of a sample"))
}

fn put_differences(out: &mut Vec<u8>, numbers: Vec<i64>) {
    let mut last = 0_i64;
    for number in numbers {
        put_varint(out, zigzag(number.wrapping_sub(last)));
        last = number;
    }
}

fn put_bitmap(out: &mut Vec<u8>, bits: impl IntoIterator<Item = bool>) {
    for (index, bit) in bits.into_iter().enumerate() {
        if index % 8 == 0 {
            out.push(0);
        }
        if let Some(byte) = out.last_mut() {
            *byte |= u8::from(bit) << (index % 8);
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is left of a column.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| Malformed::what("column cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::what("column cut short"))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.fixed::<1>().map(u8::from_le_bytes)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::what("bytes behind a column")) }
    }

    /// An unsigned LEB128 of 64 bits in its shortest form.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::what("varint"))
    }

    fn differences(&mut self, count: usize) -> Result<Vec<i64>, Malformed> {
        let mut last = 0_i64;
        (0..count)
            .map(|_| {
                last = last.wrapping_add(unzigzag(self.varint()?));
                Ok(last)
            })
            .collect()
    }

    /// Bits, lowest first; those that fill the last byte are 0.
    fn bitmap(&mut self, count: usize) -> Result<Vec<bool>, Malformed> {
        let bytes = self.take(count.div_ceil(8))?;
        let mut bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let taken = bits.by_ref().take(count).collect();
        if bits.any(|bit| bit) { Err(Malformed::what("bitmap")) } else { Ok(taken) }
    }

    fn string(&mut self) -> Result<&'b [u8], Malformed> {
        let len = self.varint()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn text(&mut self) -> Result<&'b str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed::what("text of a sample"))
    }
}
