//! New rows, put into a table by one stream: Postgres writes whole pages of them, and looks at each row once.

use mobo_core::ids::{BucketId, Position};
use mobo_core::merge::RecordWrite;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::value::{TIMESTAMP_MAX, TIMESTAMP_MIN, Value};

use super::rows::{extra_of, mobo};
use crate::postgres::cells::POSTGRES_EPOCH_US;
use crate::postgres::error::Failure;
use crate::postgres::session::Tx;
use crate::postgres::table::{quoted, table};

/// Fewer rows are written by a statement, which is parsed once for all.
pub(super) const COPIED_MIN: usize = 32;

/// Writes rows that are not there. One that is, because somebody else has made it meanwhile, ends the transaction as a row that is met.
pub(super) async fn write(tx: &mut Tx, collection: &Collection, records: &[&RecordWrite]) -> Result<(), Failure> {
    let fields: String = collection.fields.iter().map(|field| format!(", {}", quoted(&field.name))).collect();
    let name = table(collection);
    let sql = format!("COPY {name}(id, mobo_ver, _extra, _mobo, _bucket, _position{fields}) FROM STDIN (FORMAT binary)");
    tx.copy(&sql, encode(collection, records)?).await
}

fn encode(collection: &Collection, records: &[&RecordWrite]) -> Result<Vec<u8>, Failure> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.reserve(records.len() * 512);
    let mut rows = Rows { bytes };
    let columns = i16::try_from(6 + collection.fields.len()).map_err(|_| Failure::refused("a table has too many columns"))?;
    for record in records {
        let (bucket, position): (Option<BucketId>, Option<Position>) = record.home.unzip();
        rows.bytes.extend(columns.to_be_bytes());
        rows.cell(record.key.id.as_str().as_bytes())?;
        rows.number(Some(record.ver.0.cast_signed()))?;
        match extra_of(record, collection) {
            Some(extra) => rows.json(&extra)?,
            None => rows.null(),
        }
        rows.cell(&mobo(record, Some(collection)))?;
        rows.number(bucket.map(BucketId::sql))?;
        rows.number(position.map(|position| position.0.cast_signed()))?;
        let values = record.columns.as_deref().unwrap_or_default();
        for (field, value) in collection.fields.iter().zip(values.iter().chain(std::iter::repeat(&Value::Null))) {
            rows.value(field.kind, value)?;
        }
    }
    rows.bytes.extend((-1_i16).to_be_bytes());
    Ok(rows.bytes)
}

/// Cells in the binary form: a length, and that many bytes.
struct Rows {
    bytes: Vec<u8>,
}

impl Rows {
    fn null(&mut self) {
        self.bytes.extend((-1_i32).to_be_bytes());
    }

    fn cell(&mut self, cell: &[u8]) -> Result<(), Failure> {
        self.head(cell.len())?;
        self.bytes.extend(cell);
        Ok(())
    }

    fn number(&mut self, number: Option<i64>) -> Result<(), Failure> {
        match number {
            Some(number) => self.cell(&number.to_be_bytes())?,
            None => self.null(),
        }
        Ok(())
    }

    /// jsonb: the number of its form, and the text.
    fn json(&mut self, text: &str) -> Result<(), Failure> {
        self.head(1 + text.len())?;
        self.bytes.push(1);
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    /// What the column cannot hold is NULL there: `_mobo` has it.
    fn value(&mut self, kind: FieldType, value: &Value) -> Result<(), Failure> {
        match (kind, value) {
            (FieldType::Bool, Value::Bool(value)) => self.cell(&[u8::from(*value)]),
            (FieldType::Int | FieldType::Counter, Value::Int(number)) => self.cell(&number.to_be_bytes()),
            (FieldType::Float, Value::Float(number)) => self.cell(&number.to_be_bytes()),
            (FieldType::Text, Value::Text(text)) => self.cell(text.as_bytes()),
            (FieldType::Json | FieldType::List, Value::Json(text)) => self.json(text),
            (FieldType::Bytes, Value::Bytes(bytes)) => self.cell(bytes),
            (FieldType::Timestamp, Value::Timestamp(us)) => {
                self.cell(&(us.clamp(&TIMESTAMP_MIN, &TIMESTAMP_MAX) - POSTGRES_EPOCH_US).to_be_bytes())
            }
            _ => {
                self.null();
                Ok(())
            }
        }
    }

    fn head(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = i32::try_from(bytes).map_err(|_| Failure::refused("a value is too long for Postgres"))?;
        self.bytes.extend(bytes.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: FieldType, value: &Value, want: &[u8]) {
        let mut rows = Rows { bytes: Vec::new() };
        rows.value(kind, value).unwrap();
        assert_eq!(rows.bytes, want, "{kind:?} {value:?}");
    }

    #[test]
    fn cells_are_written_as_postgres_reads_them() {
        check(FieldType::Bool, &Value::Bool(true), &[0, 0, 0, 1, 1]);
        check(FieldType::Int, &Value::Int(-2), &[0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 254]);
        check(FieldType::Float, &Value::Float(1.5), &[0, 0, 0, 8, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        check(FieldType::Text, &Value::Text("ä".into()), &[0, 0, 0, 2, 0xc3, 0xa4]);
        check(FieldType::Bytes, &Value::Bytes(vec![0, 9]), &[0, 0, 0, 2, 0, 9]);
        check(FieldType::Json, &Value::Json("[1]".into()), &[0, 0, 0, 4, 1, b'[', b'1', b']']);
        check(FieldType::Timestamp, &Value::Timestamp(POSTGRES_EPOCH_US + 258), &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
        check(FieldType::Text, &Value::Null, &[255; 4]);
        check(FieldType::Int, &Value::Unknown(vec![0xf5]), &[255; 4]);
    }
}
