//! Rows in the binary form of Postgres: as COPY takes them, and as a cursor gives them.

use mobo_core::backup::packed::PackedRows;
use mobo_core::rfc3339;
use mobo_core::store::transfer::{Cell, CellRef, Row, TableName};
use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef};

use crate::postgres::cells::{POSTGRES_EPOCH_US, canonical};
use crate::postgres::error::Failure;

/// How a column is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Form {
    Bool,
    /// A whole number of so many bytes.
    Int(usize),
    Float,
    Text,
    Json,
    Bytes,
    Time,
}

impl Form {
    /// The form of a type, by the name that Postgres gives it; `None` for one that no table of ours has.
    pub(in crate::postgres) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "bool" => Self::Bool,
            "int2" => Self::Int(2),
            "int4" => Self::Int(4),
            "int8" => Self::Int(8),
            "float8" => Self::Float,
            "text" => Self::Text,
            "jsonb" => Self::Json,
            "bytea" => Self::Bytes,
            "timestamptz" => Self::Time,
            _ => return None,
        })
    }
}

/// Rows for COPY.
#[derive(Debug)]
pub(super) struct Encoder<'f> {
    forms: &'f [Form],
    bytes: Vec<u8>,
}

impl<'f> Encoder<'f> {
    /// The head of a COPY.
    pub(super) fn new(forms: &'f [Form]) -> Self {
        Self { forms, bytes: b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec() }
    }

    /// Adds a row; an error names the position of the cell that does not fit its column.
    pub(super) fn add(&mut self, row: &Row) -> Result<(), usize> {
        let count = i16::try_from(self.forms.len()).map_err(|_| 0_usize)?;
        self.bytes.extend(count.to_be_bytes());
        for (position, (form, cell)) in self.forms.iter().zip(row).enumerate() {
            let length_at = self.bytes.len();
            self.bytes.extend((-1_i32).to_be_bytes());
            if *cell == Cell::Null {
                continue;
            }
            encode(&mut self.bytes, *form, cell).ok_or(position)?;
            let length = i32::try_from(self.bytes.len() - length_at - 4).map_err(|_| position)?;
            if let Some(place) = self.bytes.get_mut(length_at..length_at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    /// What was added since this was asked last.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The same, and the end of the COPY.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend((-1_i16).to_be_bytes());
        self.bytes
    }
}

fn encode(bytes: &mut Vec<u8>, form: Form, cell: &Cell) -> Option<()> {
    match (form, cell) {
        (Form::Bool, Cell::Int(number @ (0 | 1))) => bytes.push(u8::from(*number == 1)),
        (Form::Int(2), Cell::Int(number)) => bytes.extend(i16::try_from(*number).ok()?.to_be_bytes()),
        (Form::Int(4), Cell::Int(number)) => bytes.extend(i32::try_from(*number).ok()?.to_be_bytes()),
        (Form::Int(_), Cell::Int(number)) => bytes.extend(number.to_be_bytes()),
        (Form::Float, Cell::Real(number)) => bytes.extend(number.to_be_bytes()),
        (Form::Text, Cell::Text(text)) => bytes.extend(text.as_bytes()),
        (Form::Json, Cell::Text(text)) => {
            bytes.push(1);
            bytes.extend(text.as_bytes());
        }
        (Form::Bytes, Cell::Bytes(value)) => bytes.extend(value),
        (Form::Time, Cell::Text(text)) => bytes.extend(rfc3339::parse(text)?.checked_sub(POSTGRES_EPOCH_US)?.to_be_bytes()),
        _ => return None,
    }
    Some(())
}

/// A row that a cursor gave.
pub(in crate::postgres) fn decode(row: &PgRow, forms: &[Form], table: &TableName) -> Result<Row, Failure> {
    let cell = |(position, form): (usize, &Form)| {
        let raw = row.try_get_raw(position)?;
        if raw.is_null() {
            return Ok(Cell::Null);
        }
        let cell = decode_cell(raw.as_bytes().map_err(sqlx::Error::Decode)?, *form, table);
        cell.ok_or_else(|| Failure::damaged(format!("{table} holds no valid {form:?} where one must be")))
    };
    forms.iter().enumerate().map(cell).collect()
}

/// Adds a row that a cursor gave to others that are only carried.
pub(in crate::postgres) fn pack(row: &PgRow, (forms, table): (&[Form], &TableName), page: &mut PackedRows) -> Result<(), Failure> {
    page.open(forms.len());
    for (position, form) in forms.iter().enumerate() {
        let raw = row.try_get_raw(position)?;
        let bytes = if raw.is_null() { None } else { Some(raw.as_bytes().map_err(sqlx::Error::Decode)?) };
        let invalid = || Failure::damaged(format!("{table} holds no valid {form:?} where one must be"));
        match (bytes, form) {
            (None, _) => page.cell(CellRef::Null),
            (Some(bytes), Form::Text) => page.cell(CellRef::Text(std::str::from_utf8(bytes).map_err(|_| invalid())?)),
            (Some(bytes), Form::Bytes) => page.cell(CellRef::Bytes(bytes)),
            (Some(bytes), _) => page.cell(CellRef::from(&decode_cell(bytes, *form, table).ok_or_else(invalid)?)),
        }
    }
    page.close();
    Ok(())
}

fn decode_cell(bytes: &[u8], form: Form, table: &TableName) -> Option<Cell> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(match form {
        Form::Bool => match bytes {
            [byte @ (0 | 1)] => Cell::Int(i64::from(*byte)),
            _ => return None,
        },
        Form::Int(2) => Cell::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int(4) => Cell::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int(_) => Cell::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Float => Cell::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Text => Cell::Text(text(bytes)?),
        Form::Json => match bytes.split_first() {
            Some((1, json)) => Cell::Text(json_text(std::str::from_utf8(json).ok()?, table)?),
            _ => return None,
        },
        Form::Bytes => Cell::Bytes(bytes.to_vec()),
        Form::Time => {
            let us = i64::from_be_bytes(bytes.try_into().ok()?).checked_add(POSTGRES_EPOCH_US)?;
            Cell::Text(rfc3339::format(us))
        }
    })
}

/// A record's JSON is in its canonical form wherever it is kept as text; what is written for people keeps every digit.
fn json_text(json: &str, table: &TableName) -> Option<String> {
    match table {
        TableName::Collection(_) => canonical(json),
        TableName::Own(_) => serde_json::from_str::<serde_json::Value>(json).ok().map(|value| value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_as_they_were() {
        let own = TableName::Own("conflict".into());
        let cases = [
            ("bool", Cell::Int(1)),
            ("int2", Cell::Int(-7)),
            ("int4", Cell::Int(i64::from(i32::MIN))),
            ("int8", Cell::Int(i64::MAX)),
            ("float8", Cell::Real(-1.5e-300)),
            ("text", Cell::Text("ä".into())),
            ("jsonb", Cell::Text("{\"a\":9007199254740993}".into())),
            ("bytea", Cell::Bytes(vec![0, 255])),
            ("timestamptz", Cell::Text("2026-02-03T04:05:06.789000Z".into())),
            ("timestamptz", Cell::Text("0001-01-01T00:00:00.000000Z".into())),
        ];
        for (kind, cell) in cases {
            let form = Form::of(kind).unwrap();
            let mut bytes = Vec::new();
            encode(&mut bytes, form, &cell).unwrap();
            assert_eq!(decode_cell(&bytes, form, &own), Some(cell), "{kind}");
        }
        assert_eq!(Form::of("numeric"), None);
    }

    #[test]
    fn what_does_not_fit_its_column_is_named_and_null_fits_all() {
        let forms = [Form::Int(8), Form::Int(2), Form::Bool];
        let mut encoder = Encoder::new(&forms);
        encoder.add(&vec![Cell::Null, Cell::Null, Cell::Null]).unwrap();
        assert_eq!(encoder.add(&vec![Cell::Int(1), Cell::Int(40_000), Cell::Int(0)]), Err(1));
        assert_eq!(encoder.add(&vec![Cell::Int(1), Cell::Int(4), Cell::Int(2)]), Err(2));
        assert_eq!(encoder.add(&vec![Cell::Text("1".into()), Cell::Null, Cell::Null]), Err(0));
        let mut encoder = Encoder::new(&forms[..1]);
        encoder.add(&vec![Cell::Int(258)]).unwrap();
        assert_eq!(encoder.take()[19..], [0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(encoder.finish(), [255, 255]);
    }
}
