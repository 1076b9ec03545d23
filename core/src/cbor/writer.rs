//! Writing.

use minicbor::encode::Encoder;

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

    /// An empty writer with room for so many bytes: one that is filled often need not grow each time.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self(Encoder::new(Vec::with_capacity(bytes)))
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
