//! Writing.

/// Writes deterministic CBOR into memory.
///
/// Every byte that is hashed, stored or sent goes through here, one small item after the other, so that nothing stands between an item and
/// the bytes.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

/// Major types.
const UNSIGNED: u8 = 0x00;
const NEGATIVE: u8 = 0x20;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const ARRAY: u8 = 0x80;
const MAP: u8 = 0xa0;
const TAG: u8 = 0xc0;
const SIMPLE: u8 = 0xe0;

impl Writer {
    /// An empty writer.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty writer with room for so many bytes: one that is filled often need not grow each time.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// An empty writer in the memory of these bytes, which go.
    #[must_use]
    pub fn in_place_of(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self(bytes)
    }

    /// Takes back all that was written, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True before the first write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens a map of `len` pairs; keys follow in ascending order.
    #[inline]
    pub fn map(&mut self, len: usize) -> &mut Self {
        self.head(MAP, len as u64)
    }

    /// Opens an array of `len` items.
    #[inline]
    pub fn array(&mut self, len: usize) -> &mut Self {
        self.head(ARRAY, len as u64)
    }

    /// An unsigned integer; also every map key.
    #[inline]
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.head(UNSIGNED, number)
    }

    /// A signed integer.
    #[inline]
    pub fn i64(&mut self, number: i64) -> &mut Self {
        if number < 0 { self.head(NEGATIVE, (!number).cast_unsigned()) } else { self.head(UNSIGNED, number.cast_unsigned()) }
    }

    /// A 128-bit integer: a plain integer where it fits 64 bits, else a bignum (tags 2 and 3) without leading zeros.
    pub fn i128(&mut self, number: i128) -> &mut Self {
        let (plain, tag, magnitude) =
            if number < 0 { (NEGATIVE, 3, (-1 - number).cast_unsigned()) } else { (UNSIGNED, 2, number.cast_unsigned()) };
        if let Ok(small) = u64::try_from(magnitude) {
            return self.head(plain, small);
        }
        let bytes = magnitude.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.head(TAG, tag).bytes(bytes.get(zeros..).unwrap_or_default())
    }

    /// A float in the shortest of the three widths that keeps its value. NaN and infinities are the caller's to refuse.
    pub fn f64(&mut self, number: f64) -> &mut Self {
        match (half_bits(number), narrow(number)) {
            (Some(half), _) => self.raw(&[0xf9, (half >> 8) as u8, (half & 0xff) as u8]),
            (None, Some(single)) => self.raw(&[SIMPLE | 26]).raw(&single.to_be_bytes()),
            (None, None) => self.raw(&[SIMPLE | 27]).raw(&number.to_be_bytes()),
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64).raw(bytes)
    }

    /// A text string.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64).raw(text.as_bytes())
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(&[SIMPLE | if value { 21 } else { 20 }])
    }

    /// Null.
    pub fn null(&mut self) -> &mut Self {
        self.raw(&[SIMPLE | 22])
    }

    /// One item that is already encoded, verbatim.
    pub fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.0.extend_from_slice(item);
        self
    }

    /// A major type and its number, in the fewest bytes.
    #[inline]
    fn head(&mut self, major: u8, number: u64) -> &mut Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = number.to_be_bytes();
        match number {
            0..24 => self.0.push(major | b7),
            24..0x100 => self.0.extend_from_slice(&[major | 24, b7]),
            0x100..0x1_0000 => self.0.extend_from_slice(&[major | 25, b6, b7]),
            0x1_0000..0x1_0000_0000 => self.0.extend_from_slice(&[major | 26, b4, b5, b6, b7]),
            _ => self.0.extend_from_slice(&[major | 27, b0, b1, b2, b3, b4, b5, b6, b7]),
        }
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
