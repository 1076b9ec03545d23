//! Deterministic CBOR (RFC 8949 §4.2.1): the canonical bytes of headers, payloads and states (rule R25).
//!
//! Encoding writes shortest integers, shortest exact floats, definite lengths, and map keys in ascending order (callers write keys
//! ascending; integer keys only). Decoding is total: any input gives a value or [`Malformed`], never a panic, and never an allocation
//! that the input did not pay for.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as CborError};
use minicbor::encode::Encoder;

use crate::limits;

/// Bytes that are not the CBOR that was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed CBOR: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Says which part was wrong.
    #[must_use]
    pub fn what(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<CborError> for Malformed {
    fn from(error: CborError) -> Self {
        Self(error.to_string())
    }
}

/// Writes deterministic CBOR into memory.
#[derive(Debug)]
pub struct Writer(Encoder<Vec<u8>>);

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// Writing into a `Vec` cannot fail, so each method hides minicbor's `Result`.
impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self(Encoder::new(Vec::new()))
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.writer().len()
    }

    /// True before the first write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens a map of `len` pairs; keys follow in ascending order.
    pub fn map(&mut self, len: usize) -> &mut Self {
        let _ = self.0.map(len as u64);
        self
    }

    /// Opens an array of `len` items.
    pub fn array(&mut self, len: usize) -> &mut Self {
        let _ = self.0.array(len as u64);
        self
    }

    /// An unsigned integer; also every map key.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        let _ = self.0.u64(number);
        self
    }

    /// A signed integer.
    pub fn i64(&mut self, number: i64) -> &mut Self {
        let _ = self.0.i64(number);
        self
    }

    /// A 128-bit integer: a plain integer where it fits 64 bits, else a bignum (tags 2 and 3) without leading zeros.
    pub fn i128(&mut self, number: i128) -> &mut Self {
        if let Ok(small) = i64::try_from(number) {
            return self.i64(small);
        }
        if let Ok(small) = u64::try_from(number) {
            return self.u64(small);
        }
        let (tag, magnitude) = if number < 0 { (3, (-1 - number).cast_unsigned()) } else { (2, number.cast_unsigned()) };
        if let (3, Ok(small)) = (tag, u64::try_from(magnitude)) {
            let _ = self.0.int(minicbor::data::Int::try_from(-1 - i128::from(small)).unwrap_or_else(|_| 0.into()));
            return self;
        }
        let _ = self.0.tag(minicbor::data::Tag::new(tag));
        let bytes = magnitude.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.bytes(bytes.get(zeros..).unwrap_or_default())
    }

    /// A float in the shortest of the three widths that keeps its value. NaN and infinities are the caller's to refuse.
    pub fn f64(&mut self, number: f64) -> &mut Self {
        match (half_bits(number), narrow(number)) {
            (Some(half), _) => self.raw(&[0xf9, (half >> 8) as u8, (half & 0xff) as u8]),
            (None, Some(single)) => {
                let _ = self.0.f32(single);
                self
            }
            (None, None) => {
                let _ = self.0.f64(number);
                self
            }
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.bytes(bytes);
        self
    }

    /// A text string.
    pub fn text(&mut self, text: &str) -> &mut Self {
        let _ = self.0.str(text);
        self
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        let _ = self.0.bool(value);
        self
    }

    /// Null.
    pub fn null(&mut self) -> &mut Self {
        let _ = self.0.null();
        self
    }

    /// One item that is already encoded, verbatim.
    pub fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.0.writer_mut().extend_from_slice(item);
        self
    }
}

fn narrow(number: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the comparison proves that nothing was lost")]
    let single = number as f32;
    (f64::from(single).to_bits() == number.to_bits()).then_some(single)
}

/// The IEEE 754 half-precision bits of `number`, if it has an exact one.
fn half_bits(number: f64) -> Option<u16> {
    let bits = narrow(number)?.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = i32::try_from((bits >> 23) & 0xff).ok()? - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        -127 if mantissa == 0 => Some(sign),
        -14..=15 if mantissa.trailing_zeros() >= 13 => {
            let exponent = u16::try_from(exponent + 15).ok()?;
            Some(sign | (exponent << 10) | (mantissa >> 13) as u16)
        }
        -24..=-15 => {
            let full = mantissa | 0x80_0000;
            let shift = u32::try_from(-exponent - 1).ok()?;
            (full.trailing_zeros() >= shift).then(|| sign | (full >> shift) as u16)
        }
        _ => None,
    }
}

/// Reads CBOR from memory.
#[derive(Clone, Debug)]
pub struct Reader<'b>(Decoder<'b>);

impl<'b> Reader<'b> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    /// Refuses bytes behind the last item.
    ///
    /// # Errors
    ///
    /// When input is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.position() == self.0.input().len() { Ok(()) } else { Err(Malformed::what("bytes behind the item")) }
    }

    /// The number of pairs of a map. Indefinite maps, and maps that the rest of the input cannot hold, are refused.
    ///
    /// # Errors
    ///
    /// When the next item is not such a map.
    pub fn map(&mut self) -> Result<usize, Malformed> {
        let len = self.0.map()?;
        self.affordable(len, 2)
    }

    /// The number of items of an array, with the same rule.
    ///
    /// # Errors
    ///
    /// When the next item is not such an array.
    pub fn array(&mut self) -> Result<usize, Malformed> {
        let len = self.0.array()?;
        self.affordable(len, 1)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(self.0.u64()?)
    }

    /// An unsigned integer of at most 32 bits.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.0.u32()?)
    }

    /// An unsigned integer of at most 8 bits.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.0.u8()?)
    }

    /// A signed integer.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(self.0.i64()?)
    }

    /// An integer of up to 128 bits, as [`Writer::i128`] writes it.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn i128(&mut self) -> Result<i128, Malformed> {
        if self.0.datatype()? != Type::Tag {
            return Ok(i128::from(self.0.int()?));
        }
        let tag = self.0.tag()?.as_u64();
        let bytes = self.0.bytes()?;
        if bytes.len() > 16 || bytes.first() == Some(&0) || (tag != 2 && tag != 3) {
            return Err(Malformed::what("bignum"));
        }
        let magnitude = bytes.iter().fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        let magnitude = i128::try_from(magnitude).map_err(|_| Malformed::what("bignum over 127 bits"))?;
        Ok(if tag == 3 { -1 - magnitude } else { magnitude })
    }

    /// A float of any width.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn f64(&mut self) -> Result<f64, Malformed> {
        match self.0.datatype()? {
            Type::F16 => self.half(),
            Type::F32 => Ok(f64::from(self.0.f32()?)),
            _ => Ok(self.0.f64()?),
        }
    }

    /// A byte string.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        Ok(self.0.bytes()?)
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed(format!("expected {N} bytes")))
    }

    /// A text string.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn text(&mut self) -> Result<&'b str, Malformed> {
        Ok(self.0.str()?)
    }

    /// True or false.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.0.bool()?)
    }

    /// Takes a null if it is next.
    ///
    /// # Errors
    ///
    /// At the end of the input.
    pub fn null(&mut self) -> Result<bool, Malformed> {
        if self.0.datatype()? != Type::Null {
            return Ok(false);
        }
        self.0.null()?;
        Ok(true)
    }

    /// One whole item, verbatim, checked to be well formed, of definite lengths, and nested at most [`limits::NESTING_MAX`] deep.
    ///
    /// # Errors
    ///
    /// When there is no such item.
    pub fn raw(&mut self) -> Result<&'b [u8], Malformed> {
        let start = self.0.position();
        self.skip()?;
        self.0.input().get(start..self.0.position()).ok_or_else(|| Malformed::what("item"))
    }

    /// Passes over one item, under the same rules as [`Self::raw`].
    ///
    /// # Errors
    ///
    /// When there is no such item.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(limits::NESTING_MAX)
    }

    /// What is next, without taking it.
    ///
    /// # Errors
    ///
    /// At the end of the input.
    pub fn peek(&self) -> Result<Type, Malformed> {
        Ok(self.0.datatype()?)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), Malformed> {
        let inner = depth.checked_sub(1).ok_or_else(|| Malformed::what("nested too deep"))?;
        match self.0.datatype()? {
            Type::Array => (0..self.array()?).try_for_each(|_| self.skip_nested(inner)),
            Type::Map => (0..self.map()? * 2).try_for_each(|_| self.skip_nested(inner)),
            Type::Tag => {
                self.0.tag()?;
                self.skip_nested(inner)
            }
            Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef | Type::Break => {
                Err(Malformed::what("indefinite length"))
            }
            _ => Ok(self.0.skip()?),
        }
    }

    fn affordable(&self, len: Option<u64>, bytes_each: u64) -> Result<usize, Malformed> {
        let left = (self.0.input().len() - self.0.position()) as u64;
        match len {
            Some(len) if len.saturating_mul(bytes_each) <= left => Ok(usize::try_from(len).unwrap_or(usize::MAX)),
            Some(_) => Err(Malformed::what("length beyond the input")),
            None => Err(Malformed::what("indefinite length")),
        }
    }

    fn half(&mut self) -> Result<f64, Malformed> {
        let start = self.0.position();
        let [_, high, low] = *self.0.input().get(start..start + 3).ok_or_else(|| Malformed::what("float"))? else {
            return Err(Malformed::what("float"));
        };
        self.0.set_position(start + 3);
        let bits = u16::from_be_bytes([high, low]);
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = (i32::from((bits >> 10) & 0x1f), f64::from(bits & 0x3ff));
        Ok(sign
            * match exponent {
                0 => mantissa * 2_f64.powi(-24),
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + mantissa / 1024.0) * 2_f64.powi(exponent - 15),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn floats_take_the_shortest_exact_width() {
        // RFC 8949, appendix A.
        let cases = [
            (0.0, "f90000"),
            (1.0, "f93c00"),
            (1.1, "fb3ff199999999999a"),
            (1.5, "f93e00"),
            (65504.0, "f97bff"),
            (100_000.0, "fa47c35000"),
            (3.402_823_466_385_288_6e38, "fa7f7fffff"),
            (1.0e300, "fb7e37e43c8800759c"),
            (5.960_464_477_539_063e-8, "f90001"),
            (0.000_061_035_156_25, "f90400"),
            (-4.0, "f9c400"),
            (-4.1, "fbc010666666666666"),
        ];
        for (number, want) in cases {
            let mut writer = Writer::new();
            writer.f64(number);
            let bytes = writer.into_bytes();
            assert_eq!(hex(&bytes), want, "{number}");
            assert_eq!(Reader::new(&bytes).f64().unwrap().to_bits(), f64::to_bits(number), "{number}");
        }
    }

    #[test]
    fn integers_of_128_bits_round_trip() {
        let cases = [
            (0, "00"),
            (-1, "20"),
            (i128::from(u64::MAX), "1bffffffffffffffff"),
            (i128::from(u64::MAX) + 1, "c249010000000000000000"),
            (-1 - i128::from(u64::MAX), "3bffffffffffffffff"),
            (-2 - i128::from(u64::MAX), "c349010000000000000000"),
        ];
        for (number, want) in cases {
            let mut writer = Writer::new();
            writer.i128(number);
            let bytes = writer.into_bytes();
            assert_eq!(hex(&bytes), want);
            assert_eq!(Reader::new(&bytes).i128().unwrap(), number);
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_allocation() {
        for bytes in [&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0x9f, 0xff], &[0xbf, 0xff], &[0x5f, 0xff]] {
            assert!(Reader::new(bytes).raw().is_err(), "{bytes:?}");
        }
        let deep = vec![0x81; limits::NESTING_MAX + 1];
        assert!(Reader::new(&deep).raw().is_err());
    }
}
