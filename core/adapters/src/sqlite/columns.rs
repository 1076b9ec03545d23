//! Field values as SQLite keeps them: what any SQL tool reads.
//!
//! text and json are TEXT (json in its canonical form), int, bool and counter INTEGER, float REAL, bytes BLOB, and a timestamp TEXT such as
//! `2026-02-03T04:05:06.789000Z`, which sorts as it reads.

use mobo_core::cbor::Writer;
use mobo_core::rfc3339;
use mobo_core::schema::FieldType;
use mobo_core::value::Value;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// The type of a column in a STRICT table.
pub(crate) const fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text | FieldType::Timestamp | FieldType::Json | FieldType::List => "TEXT",
        FieldType::Int | FieldType::Bool | FieldType::Counter => "INTEGER",
        FieldType::Float => "REAL",
        FieldType::Bytes => "BLOB",
    }
}

/// A value to be bound. One that its column cannot hold is NULL there: `_mobo` has it.
pub(crate) struct Bound<'v>(pub(crate) &'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(bound(self.0))
    }
}

/// What is bound of a value.
pub(crate) fn bound(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Null | Value::Unknown(_) => ToSqlOutput::Borrowed(ValueRef::Null),
        Value::Bool(value) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*value))),
        Value::Int(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
        Value::Float(number) => ToSqlOutput::Borrowed(ValueRef::Real(*number)),
        Value::Text(text) | Value::Json(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        Value::Timestamp(us) => ToSqlOutput::Owned(rusqlite::types::Value::Text(rfc3339::format(*us))),
    }
}

/// The value in a column of a field of type `kind`; `None` when it is nothing that [`Bound`] writes there.
pub(crate) fn value(stored: ValueRef<'_>, kind: FieldType) -> Option<Value> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    match (kind, stored) {
        (_, ValueRef::Null) => Some(Value::Null),
        (FieldType::Bool, ValueRef::Integer(number @ (0 | 1))) => Some(Value::Bool(number == 1)),
        (FieldType::Int | FieldType::Counter, ValueRef::Integer(number)) => Some(Value::Int(number)),
        (FieldType::Float, ValueRef::Real(number)) => Some(Value::Float(number)),
        (FieldType::Text, ValueRef::Text(bytes)) => text(bytes).map(Value::Text),
        (FieldType::Json | FieldType::List, ValueRef::Text(bytes)) => text(bytes).map(Value::Json),
        (FieldType::Bytes, ValueRef::Blob(bytes)) => Some(Value::Bytes(bytes.to_vec())),
        (FieldType::Timestamp, ValueRef::Text(bytes)) => timestamp(std::str::from_utf8(bytes).ok()?).map(Value::Timestamp),
        _ => None,
    }
}

/// Writes the canonical CBOR of [`value`]; false where that is none.
pub(crate) fn encode(stored: ValueRef<'_>, kind: FieldType, writer: &mut Writer) -> bool {
    match (kind, stored) {
        (FieldType::Text | FieldType::Json | FieldType::List, ValueRef::Text(bytes)) => {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            writer.text(text);
        }
        (FieldType::Bytes, ValueRef::Blob(bytes)) => _ = writer.bytes(bytes),
        _ => {
            let Some(value) = value(stored, kind) else { return false };
            value.encode(writer);
        }
    }
    true
}

/// Only in the one form that is written here: another one would be a change by somebody else.
fn timestamp(text: &str) -> Option<i64> {
    rfc3339::parse(text).filter(|us| rfc3339::format(*us) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let cases = [
            (FieldType::Bool, Value::Bool(true)),
            (FieldType::Int, Value::Int(i64::MIN)),
            (FieldType::Float, Value::Float(-1.5e-300)),
            (FieldType::Float, Value::Float(3.0)),
            (FieldType::Text, Value::Text("ä".into())),
            (FieldType::Bytes, Value::Bytes(vec![0, 255])),
            (FieldType::Timestamp, Value::Timestamp(-1)),
            (FieldType::Json, Value::Json("[1]".into())),
            (FieldType::Counter, Value::Int(7)),
            (FieldType::Text, Value::Null),
        ];
        for (kind, given) in cases {
            let table = format!("CREATE TABLE t(v {}) STRICT; DELETE FROM t", sql_type(kind));
            connection.execute_batch(&format!("DROP TABLE IF EXISTS t; {table}")).unwrap();
            connection.execute("INSERT INTO t VALUES (?1)", [Bound(&given)]).unwrap();
            let back = connection.query_row("SELECT v FROM t", [], |row| Ok(value(row.get_ref(0)?, kind))).unwrap();
            assert_eq!(back, Some(given.clone()));
            let mut writer = Writer::new();
            let encoded = connection.query_row("SELECT v FROM t", [], |row| Ok(encode(row.get_ref(0)?, kind, &mut writer))).unwrap();
            assert_eq!((encoded, writer.into_bytes()), (true, given.to_cbor()));
        }
        let wrong = [
            (FieldType::Bool, ValueRef::Integer(2)),
            (FieldType::Text, ValueRef::Text(&[0xff])),
            (FieldType::Timestamp, ValueRef::Text(b"2026-02-03 04:05:06.789000Z")),
            (FieldType::Int, ValueRef::Real(1.0)),
        ];
        for (kind, stored) in wrong {
            assert_eq!(value(stored, kind), None, "{kind:?} {stored:?}");
            assert!(!encode(stored, kind, &mut Writer::new()), "{kind:?} {stored:?}");
        }
    }
}
