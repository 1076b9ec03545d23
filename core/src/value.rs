//! Field values: what a register of a table holds, and its canonical bytes.

use crate::cbor::{Malformed, Reader, Writer};
use crate::limits;
use crate::schema::FieldType;

/// The value of one register.
///
/// Its canonical CBOR names no type of its own: the schema does. A field that this node does not know is kept as [`Value::Unknown`],
/// bit for bit, so that a newer node gets back what it wrote (invariant I20).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: what SQL calls NULL, and every field's default.
    Null,
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A finite float; −0 is 0.
    Float(f64),
    /// Text without U+0000.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Microseconds since 1970 UTC, years 1 to 9999.
    Timestamp(i64),
    /// JSON in the canonical form of RFC 8785.
    Json(String),
    /// The CBOR of a field that this node's schema does not have.
    Unknown(Vec<u8>),
}

/// 0001-01-01T00:00:00Z in microseconds.
pub const TIMESTAMP_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds.
pub const TIMESTAMP_MAX: i64 = 253_402_300_799_999_999;

impl Value {
    /// Writes the canonical CBOR.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Null => writer.null(),
            Self::Bool(value) => writer.bool(*value),
            Self::Int(number) | Self::Timestamp(number) => writer.i64(*number),
            Self::Float(number) => writer.f64(*number),
            Self::Text(text) | Self::Json(text) => writer.text(text),
            Self::Bytes(bytes) => writer.bytes(bytes),
            Self::Unknown(item) => writer.raw(item),
        };
    }

    /// About how many bytes the value takes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) | Self::Timestamp(_) => 9,
            Self::Text(text) | Self::Json(text) => text.len() + 5,
            Self::Bytes(bytes) | Self::Unknown(bytes) => bytes.len() + 5,
        }
    }

    /// The canonical CBOR.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.into_bytes()
    }

    /// Reads the value of a field: `kind` is its type, or `None` where the schema does not know the field.
    ///
    /// # Errors
    ///
    /// When the item is not a value of that type, is not canonical (a NaN, −0, JSON out of order), or is too long.
    pub fn decode(item: &[u8], kind: Option<FieldType>) -> Result<Self, Malformed> {
        if item.len() > limits::VALUE_BYTES_MAX + 16 {
            return Err(Malformed::what("value too long"));
        }
        let mut reader = Reader::new(item);
        let Some(kind) = kind else {
            reader.skip()?;
            reader.end()?;
            return Ok(Self::Unknown(item.to_vec()));
        };
        if reader.null()? {
            reader.end()?;
            return Ok(Self::Null);
        }
        let value = Self::decode_typed(&mut reader, kind)?;
        reader.end()?;
        // One value, one encoding: otherwise two nodes would hash the same row differently.
        if !value.is_encoded_in(item) {
            return Err(Malformed::what("value not in canonical form"));
        }
        Ok(value)
    }

    /// True if `item`, which was read as this value to its end, is the value's canonical form. The shortest form of a head is its only one of
    /// that length, and what stands behind the head of a text is the text.
    fn is_encoded_in(&self, item: &[u8]) -> bool {
        match self {
            Self::Null | Self::Bool(_) => item.len() == 1,
            Self::Int(number) | Self::Timestamp(number) => {
                let magnitude = if *number < 0 { !*number } else { *number };
                item.len() == head_bytes(magnitude.cast_unsigned())
            }
            Self::Text(text) => item.len() == head_bytes(text.len() as u64) + text.len(),
            Self::Bytes(bytes) => item.len() == head_bytes(bytes.len() as u64) + bytes.len(),
            Self::Float(_) | Self::Json(_) | Self::Unknown(_) => self.to_cbor() == item,
        }
    }

    /// Reads the value of a field out of a stored or delivered state. What does not fit the type, because it was written before this node
    /// knew the field, is kept as [`Value::Unknown`]: no definition that arrives later makes a row unreadable.
    ///
    /// # Errors
    ///
    /// When the item is not one well-formed item, or is too long.
    pub fn decode_kept(item: &[u8], kind: Option<FieldType>) -> Result<Self, Malformed> {
        Self::decode(item, kind).or_else(|_| Self::decode(item, None))
    }

    fn decode_typed(reader: &mut Reader<'_>, kind: FieldType) -> Result<Self, Malformed> {
        Ok(match kind {
            FieldType::Bool => Self::Bool(reader.bool()?),
            FieldType::Int => Self::Int(reader.i64()?),
            FieldType::Float => Self::float(reader.f64()?).ok_or_else(|| Malformed::what("float not finite"))?,
            FieldType::Text => Self::text(reader.text()?).ok_or_else(|| Malformed::what("text with U+0000"))?,
            FieldType::Bytes => Self::bytes(reader.bytes()?).ok_or_else(|| Malformed::what("bytes too long"))?,
            FieldType::Timestamp => Self::timestamp(reader.i64()?).ok_or_else(|| Malformed::what("timestamp outside years 1 to 9999"))?,
            FieldType::Json | FieldType::List => {
                let text = reader.text()?;
                let canonical = canonical_json(text).ok_or_else(|| Malformed::what("JSON"))?;
                Self::Json(canonical)
            }
            FieldType::Counter => return Err(Malformed::what("a counter has no register value")),
        })
    }

    /// A float value, if finite; −0 becomes 0 (rule R13).
    #[must_use]
    pub fn float(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self::Float(if number == 0.0 { 0.0 } else { number }))
    }

    /// A text value, if it has no U+0000 and is not too long.
    #[must_use]
    pub fn text(text: &str) -> Option<Self> {
        (!text.contains('\0') && text.len() <= limits::VALUE_BYTES_MAX).then(|| Self::Text(text.to_owned()))
    }

    /// A bytes value, if it is not too long.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= limits::VALUE_BYTES_MAX).then(|| Self::Bytes(bytes.to_vec()))
    }

    /// A timestamp value, if it is in years 1 to 9999.
    #[must_use]
    pub fn timestamp(us: i64) -> Option<Self> {
        (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&us).then_some(Self::Timestamp(us))
    }

    /// A JSON value in canonical form, if `text` is JSON without U+0000, and neither too long nor nested too deep.
    #[must_use]
    pub fn json(text: &str) -> Option<Self> {
        canonical_json(text).map(Self::Json)
    }
}

/// Bytes of the shortest head with this number.
const fn head_bytes(number: u64) -> usize {
    match number {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// The RFC 8785 form of a JSON text; `None` for what is not JSON or holds U+0000.
#[must_use]
pub fn canonical_json(text: &str) -> Option<String> {
    if text.len() > limits::VALUE_BYTES_MAX {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let canonical = serde_json_canonicalizer::to_string(&value).ok()?;
    (canonical.len() <= limits::VALUE_BYTES_MAX && is_storable(&value, limits::NESTING_MAX)).then_some(canonical)
}

/// True for JSON that is nested at most `depth` deep and holds no U+0000.
fn is_storable(value: &serde_json::Value, depth: usize) -> bool {
    let Some(inner) = depth.checked_sub(1) else { return false };
    match value {
        serde_json::Value::Array(items) => items.iter().all(|item| is_storable(item, inner)),
        serde_json::Value::Object(members) => members.iter().all(|(name, member)| !name.contains('\0') && is_storable(member, inner)),
        serde_json::Value::String(text) => !text.contains('\0'),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_through_its_one_encoding() {
        let cases = [
            (FieldType::Int, Value::Int(-7), "26"),
            (FieldType::Float, Value::Float(1.5), "f93e00"),
            (FieldType::Bool, Value::Bool(true), "f5"),
            (FieldType::Text, Value::Text("ä".into()), "62c3a4"),
            (FieldType::Bytes, Value::Bytes(vec![0, 1]), "420001"),
            (FieldType::Timestamp, Value::Timestamp(0), "00"),
            (FieldType::Json, Value::Json("{\"a\":1}".into()), "677b2261223a317d"),
            (FieldType::Text, Value::Null, "f6"),
        ];
        for (kind, value, want) in cases {
            let bytes = value.to_cbor();
            assert_eq!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(), want);
            assert_eq!(Value::decode(&bytes, Some(kind)).unwrap(), value);
        }
    }

    #[test]
    fn numbers_and_lengths_on_either_side_of_each_head_round_trip() {
        for edge in [23, 24, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, i64::MAX] {
            for number in [edge, !edge, edge - 1, -edge] {
                let bytes = Value::Int(number).to_cbor();
                assert_eq!(Value::decode(&bytes, Some(FieldType::Int)).unwrap(), Value::Int(number));
            }
        }
        for len in [0, 23, 24, 255, 256, 65_535, 65_536] {
            let (text, bytes) = (Value::Text("a".repeat(len)), Value::Bytes(vec![7; len]));
            assert_eq!(Value::decode(&text.to_cbor(), Some(FieldType::Text)).unwrap(), text);
            assert_eq!(Value::decode(&bytes.to_cbor(), Some(FieldType::Bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let cases: [(FieldType, &[u8], &str); 13] = [
            (FieldType::Text, &[0x78, 0x01, b'a'], "a text with a longer head"),
            (FieldType::Bytes, &[0x59, 0x00, 0x01, 7], "bytes with a longer head"),
            (FieldType::Int, &[0x39, 0x00, 0xff], "a negative integer that fits fewer bytes"),
            (FieldType::Timestamp, &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "a time that fits fewer bytes"),
            (FieldType::Bool, &[0xf8, 0x15], "a bool in two bytes"),
            (FieldType::Float, &[0xf9, 0x7e, 0x00], "NaN"),
            (FieldType::Float, &[0xf9, 0x80, 0x00], "minus zero"),
            (FieldType::Float, &[0xfa, 0x3f, 0x80, 0, 0], "a float that fits fewer bytes"),
            (FieldType::Int, &[0x18, 0x01], "an integer that fits fewer bytes"),
            (FieldType::Text, &[0x61, 0x00], "U+0000"),
            (FieldType::Json, &[0x68, b'{', b'"', b'a', b'"', b':', b' ', b'1', b'}'], "a space in JSON"),
            (FieldType::Counter, &[0x01], "a counter as a register"),
            (FieldType::Bool, &[0x01], "an integer for a bool"),
        ];
        for (kind, bytes, what) in cases {
            assert!(Value::decode(bytes, Some(kind)).is_err(), "{what}");
        }
    }

    #[test]
    fn canonical_json_is_its_own_canonical_form() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let number = f64::from_bits(bits);
            if number.is_finite() {
                let once = canonical_json(&format!("{number:e}")).unwrap();
                assert_eq!(once.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{number:e}");
                assert_eq!(canonical_json(&once).as_ref(), Some(&once));
            }
        }
        assert_eq!(canonical_json("[9007199254740993,-0, 1e3]").unwrap(), "[9007199254740992,0,1000]");
        assert_eq!(canonical_json(r#"{"b":"\\u0000","a":1}"#).unwrap(), r#"{"a":1,"b":"\\u0000"}"#);
        for bad in [r#""\u0000""#, r#"{"\u0000":1}"#, "1e999", "{", &format!("{}1{}", "[".repeat(64), "]".repeat(64))] {
            assert_eq!(canonical_json(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_a_later_definition_is_kept() {
        let odd = [0xfa, 0x3f, 0x80, 0, 0];
        assert_eq!(Value::decode_kept(&odd, Some(FieldType::Float)).unwrap(), Value::Unknown(odd.to_vec()));
        assert_eq!(Value::decode_kept(&[0x26], Some(FieldType::Int)).unwrap(), Value::Int(-7));
        assert!(Value::decode_kept(&[0x26, 0x00], Some(FieldType::Int)).is_err());
    }

    #[test]
    fn unknown_fields_keep_their_bits() {
        let odd = [0xfa, 0x3f, 0x80, 0, 0];
        assert_eq!(Value::decode(&odd, None).unwrap().to_cbor(), odd);
    }
}
