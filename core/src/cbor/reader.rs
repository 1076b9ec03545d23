//! Reading.

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::Malformed;
use crate::limits;

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

    /// A map of integer keys; `item` takes the value of each. Keys ascend and none repeats: two readers of the same bytes, one of them of
    /// a later version, never understand them differently.
    ///
    /// # Errors
    ///
    /// When the next item is not such a map, or when `item` fails.
    pub fn each_key(&mut self, mut item: impl FnMut(u64, &mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        let mut above = 0;
        for _ in 0..self.map()? {
            let key = self.u64()?;
            if key < above {
                return Err(Malformed::what("keys out of order"));
            }
            above = key.checked_add(1).ok_or_else(|| Malformed::what("key"))?;
            item(key, self)?;
        }
        Ok(())
    }

    /// An array of a fixed shape: at least `len` items, which `item` takes; what later versions appended is passed over.
    ///
    /// # Errors
    ///
    /// When the next item is not such an array, or when `item` fails.
    pub fn tuple<T>(&mut self, len: usize, item: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<T, Malformed> {
        let found = self.array()?;
        if found < len {
            return Err(Malformed::what("array too short"));
        }
        let value = item(self)?;
        (len..found).try_for_each(|_| self.skip())?;
        Ok(value)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(self.0.u64()?)
    }

    /// An unsigned integer of at most 63 bits: what a signed SQL `bigint` holds.
    ///
    /// # Errors
    ///
    /// When the next item is something else.
    pub fn u63(&mut self) -> Result<u64, Malformed> {
        let number = self.u64()?;
        if i64::try_from(number).is_ok() { Ok(number) } else { Err(Malformed::what("number over 63 bits")) }
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

    /// An integer of up to 128 bits, as [`Writer::i128`](super::Writer::i128) writes it.
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
        if !(9..=16).contains(&bytes.len()) || bytes.first() == Some(&0) || (tag != 2 && tag != 3) {
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
        let width = self.0.datatype()?;
        if width == Type::F16 {
            return self.half();
        }
        if width == Type::F32 { Ok(f64::from(self.0.f32()?)) } else { Ok(self.0.f64()?) }
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
        let kind = self.0.datatype()?;
        if kind == Type::Array {
            return (0..self.array()?).try_for_each(|_| self.skip_nested(inner));
        }
        if kind == Type::Map {
            return (0..self.map()? * 2).try_for_each(|_| self.skip_nested(inner));
        }
        if kind == Type::Tag {
            self.0.tag()?;
            return self.skip_nested(inner);
        }
        if matches!(kind, Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef | Type::Break) {
            return Err(Malformed::what("indefinite length"));
        }
        Ok(self.0.skip()?)
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
