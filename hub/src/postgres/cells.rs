//! Field values as Postgres keeps them: what any SQL tool reads.
//!
//! text is text under COLLATE "C", int and counter bigint, float float8, bool boolean, timestamp timestamptz, json and list jsonb, bytes
//! bytea. A batch is written as one array for each column.

use mobo_core::cbor::Writer;
use mobo_core::schema::FieldType;
use mobo_core::value::{TIMESTAMP_MAX, TIMESTAMP_MIN, Value};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo};
use sqlx::{Encode, Postgres, Row, Type, ValueRef};

use super::error::Failure;
use super::session::Statement;

/// The type of a field's column.
pub(super) const fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "text COLLATE \"C\"",
        FieldType::Int | FieldType::Counter => "bigint",
        FieldType::Float => "float8",
        FieldType::Bool => "boolean",
        FieldType::Timestamp => "timestamptz",
        FieldType::Json | FieldType::List => "jsonb",
        FieldType::Bytes => "bytea",
    }
}

/// 2000-01-01, from which Postgres counts, in microseconds since 1970.
pub(super) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A timestamptz by its microseconds since 1970 UTC, exact in all years. Times outside years 1 to 9999 are clamped to them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Micros(pub(super) i64);

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let us = self.0.clamp(TIMESTAMP_MIN, TIMESTAMP_MAX) - POSTGRES_EPOCH_US;
        <i64 as Encode<Postgres>>::encode(us, buffer)
    }
}

/// The values of one column of a batch.
#[derive(Debug)]
pub(super) enum Column<'v> {
    /// boolean
    Bool(Vec<Option<bool>>),
    /// bigint
    Int(Vec<Option<i64>>),
    /// float8
    Float(Vec<Option<f64>>),
    /// text
    Text(Vec<Option<&'v str>>),
    /// jsonb, as text
    Json(Vec<Option<&'v str>>),
    /// bytea
    Bytes(Vec<Option<&'v [u8]>>),
    /// timestamptz
    Time(Vec<Option<Micros>>),
}

impl<'v> Column<'v> {
    /// An empty column of a field.
    pub(super) fn of(kind: FieldType, rows: usize) -> Self {
        match kind {
            FieldType::Text => Self::Text(Vec::with_capacity(rows)),
            FieldType::Int | FieldType::Counter => Self::Int(Vec::with_capacity(rows)),
            FieldType::Float => Self::Float(Vec::with_capacity(rows)),
            FieldType::Bool => Self::Bool(Vec::with_capacity(rows)),
            FieldType::Timestamp => Self::Time(Vec::with_capacity(rows)),
            FieldType::Json | FieldType::List => Self::Json(Vec::with_capacity(rows)),
            FieldType::Bytes => Self::Bytes(Vec::with_capacity(rows)),
        }
    }

    /// Adds the value of the next row. One that the column cannot hold is NULL there: `_mobo` has it.
    pub(super) fn push(&mut self, value: &'v Value) {
        match self {
            Self::Bool(values) => values.push(if let Value::Bool(value) = value { Some(*value) } else { None }),
            Self::Int(values) => values.push(if let Value::Int(number) = value { Some(*number) } else { None }),
            Self::Float(values) => values.push(if let Value::Float(number) = value { Some(*number) } else { None }),
            Self::Text(values) => values.push(if let Value::Text(text) = value { Some(text) } else { None }),
            Self::Json(values) => values.push(if let Value::Json(text) = value { Some(text) } else { None }),
            Self::Bytes(values) => values.push(if let Value::Bytes(bytes) = value { Some(bytes) } else { None }),
            Self::Time(values) => values.push(if let Value::Timestamp(us) = value { Some(Micros(*us)) } else { None }),
        }
    }

    /// The type of the array that is bound.
    pub(super) const fn array_type(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool[]",
            Self::Int(_) => "int8[]",
            Self::Float(_) => "float8[]",
            Self::Text(_) | Self::Json(_) => "text[]",
            Self::Bytes(_) => "bytea[]",
            Self::Time(_) => "timestamptz[]",
        }
    }

    /// What turns an element of the array into what the column takes.
    pub(super) const fn cast(&self) -> &'static str {
        match self {
            Self::Json(_) => "::jsonb",
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Bytes(_) | Self::Time(_) => "",
        }
    }

    /// Binds the array as the next argument.
    pub(super) fn bind<'q>(self, statement: Statement<'q>) -> Statement<'q> {
        match self {
            Self::Bool(values) => statement.bind(values),
            Self::Int(values) => statement.bind(values),
            Self::Float(values) => statement.bind(values),
            Self::Text(values) | Self::Json(values) => statement.bind(values),
            Self::Bytes(values) => statement.bind(values),
            Self::Time(values) => statement.bind(values),
        }
    }
}

/// Binds one value for a comparison with a column of type `kind`; `None` when it is not of that type. JSON is bound as text.
pub(super) fn bind_value<'q>(statement: Statement<'q>, value: &Value, kind: FieldType) -> Option<Statement<'q>> {
    Some(match (kind, value) {
        (FieldType::Bool, Value::Bool(value)) => statement.bind(*value),
        (FieldType::Int | FieldType::Counter, Value::Int(number)) => statement.bind(*number),
        (FieldType::Float, Value::Float(number)) => statement.bind(*number),
        (FieldType::Text, Value::Text(text)) => statement.bind(text.clone()),
        (FieldType::Json | FieldType::List, Value::Json(text)) => statement.bind(text.clone()),
        (FieldType::Bytes, Value::Bytes(bytes)) => statement.bind(bytes.clone()),
        (FieldType::Timestamp, Value::Timestamp(us)) => statement.bind(Micros(*us)),
        _ => return None,
    })
}

/// The value in a column of a field of type `kind`; `None` when it is nothing that is ever written there.
pub(super) fn value(row: &PgRow, index: usize, kind: FieldType) -> Result<Option<Value>, Failure> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Some(Value::Null));
    }
    Ok(of_bytes(raw.as_bytes().map_err(sqlx::Error::Decode)?, kind))
}

/// Writes the canonical CBOR of [`value`]; false where that is none.
pub(super) fn encode(row: &PgRow, index: usize, kind: FieldType, writer: &mut Writer) -> Result<bool, Failure> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        writer.null();
        return Ok(true);
    }
    let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
    if kind == FieldType::Text {
        return Ok(std::str::from_utf8(bytes).is_ok_and(|text| !writer.text(text).is_empty()));
    }
    let value = of_bytes(bytes, kind);
    if let Some(value) = &value {
        value.encode(writer);
    }
    Ok(value.is_some())
}

/// The binary form of each type, as `…send` functions of Postgres give it.
fn of_bytes(bytes: &[u8], kind: FieldType) -> Option<Value> {
    let number = || bytes.try_into().ok().map(i64::from_be_bytes);
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    match kind {
        FieldType::Bool => match bytes {
            [byte @ (0 | 1)] => Some(Value::Bool(*byte == 1)),
            _ => None,
        },
        FieldType::Int | FieldType::Counter => number().map(Value::Int),
        FieldType::Float => bytes.try_into().ok().map(f64::from_be_bytes).and_then(Value::float),
        FieldType::Text => text(bytes).map(Value::Text),
        FieldType::Bytes => Some(Value::Bytes(bytes.to_vec())),
        FieldType::Timestamp => number()?.checked_add(POSTGRES_EPOCH_US).and_then(Value::timestamp),
        FieldType::Json | FieldType::List => match bytes.split_first() {
            Some((1, json)) => canonical(std::str::from_utf8(json).ok()?).map(Value::Json),
            _ => None,
        },
    }
}

/// The RFC 8785 form of what jsonb gives back, which has blanks, another order of members, and numbers written out in full: longer than any
/// limit on what was put in.
pub(super) fn canonical(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    serde_json_canonicalizer::to_string(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_forms_are_read_exactly() {
        let time = |us: i64| (us - POSTGRES_EPOCH_US).to_be_bytes().to_vec();
        let cases = [
            (FieldType::Bool, vec![1], Some(Value::Bool(true))),
            (FieldType::Bool, vec![2], None),
            (FieldType::Int, (-7_i64).to_be_bytes().to_vec(), Some(Value::Int(-7))),
            (FieldType::Int, vec![0], None),
            (FieldType::Float, 1.5_f64.to_be_bytes().to_vec(), Some(Value::Float(1.5))),
            (FieldType::Float, f64::NAN.to_be_bytes().to_vec(), None),
            (FieldType::Text, b"\xc3\xa4".to_vec(), Some(Value::Text("ä".into()))),
            (FieldType::Timestamp, time(TIMESTAMP_MIN), Some(Value::Timestamp(TIMESTAMP_MIN))),
            (FieldType::Timestamp, time(TIMESTAMP_MAX), Some(Value::Timestamp(TIMESTAMP_MAX))),
            (FieldType::Timestamp, i64::MAX.to_be_bytes().to_vec(), None),
            (
                FieldType::Json,
                b"\x01{\"b\": 1, \"a\": [100000000000000000000000, 0.0000001]}".to_vec(),
                Some(Value::Json(r#"{"a":[1e+23,1e-7],"b":1}"#.into())),
            ),
            (FieldType::Json, b"{}".to_vec(), None),
        ];
        for (kind, bytes, want) in cases {
            assert_eq!(of_bytes(&bytes, kind), want, "{kind:?} {bytes:02x?}");
        }
    }
}
