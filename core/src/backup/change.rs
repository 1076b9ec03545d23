//! What is in segments and snapshots: changes of tables, as plain rows.
//!
//! The body of an object is a CBOR array of changes. A change is `[kind, table kind, table, columns, rows]`, where `kind` is 0 to clear a
//! table, 1 to drop the rows that match, and 2 to put rows in place of those with the same key; `table kind` is 0 for one of mobo's own and
//! 1 for a collection's; `rows` is an array of arrays of cells. A cell is null, an integer, `[f64]`, a text or bytes: the five of
//! [`crate::store::transfer::Cell`]; a float is wrapped, because a whole one would read as an integer in its shortest form.

use minicbor::data::Type;

use crate::cbor::{Malformed, Reader, Writer};
use crate::limits;
use crate::store::transfer::{Cell, Row, TableName};

/// What is done to a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deed {
    /// All rows go. There are no columns and no rows in the change.
    Clear,
    /// The rows go whose cells in these columns are like one of these.
    Drop,
    /// These rows come, each in place of the one with the same key.
    Put,
}

/// A change of one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is done.
    pub deed: Deed,
    /// The table.
    pub table: TableName,
    /// The columns of the rows, by name.
    pub columns: Vec<String>,
    /// The rows, or for [`Deed::Drop`] what they are found by.
    pub rows: Vec<Row>,
}

/// Collects changes until they fill an object.
#[derive(Debug, Default)]
pub struct Body {
    changes: Vec<Change>,
    bytes: usize,
    rows: u64,
}

impl Body {
    /// Adds a row; the change before takes it if it is of the same kind.
    pub fn add(&mut self, deed: Deed, (table, columns): (&TableName, &[String]), row: Row) {
        self.bytes += row.iter().map(|cell| cell.bytes() - size_of::<Cell>() + 5).sum::<usize>();
        self.rows += 1;
        match self.changes.last_mut() {
            Some(last) if last.deed == deed && last.table == *table && last.columns == columns => last.rows.push(row),
            Some(_) | None => self.changes.push(Change { deed, table: table.clone(), columns: columns.to_vec(), rows: vec![row] }),
        }
    }

    /// Clears a table.
    pub fn clear(&mut self, table: &TableName) {
        self.changes.push(Change { deed: Deed::Clear, table: table.clone(), columns: Vec::new(), rows: Vec::new() });
    }

    /// True if nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// About its size when it is encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Encodes what was added and begins anew; gives it with the number of its rows.
    #[must_use]
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        let body = std::mem::take(self);
        (encode(&body.changes, body.bytes), body.rows)
    }
}

fn encode(changes: &[Change], room: usize) -> Vec<u8> {
    let mut writer = Writer::with_room(room + 256);
    writer.array(changes.len());
    for change in changes {
        let (kind, name) = match &change.table {
            TableName::Own(name) => (0, name),
            TableName::Collection(name) => (1, name),
        };
        let deed = match change.deed {
            Deed::Clear => 0,
            Deed::Drop => 1,
            Deed::Put => 2,
        };
        writer.array(5).u64(deed).u64(kind).text(name).array(change.columns.len());
        for column in &change.columns {
            writer.text(column);
        }
        writer.array(change.rows.len());
        for row in &change.rows {
            writer.array(row.len());
            row.iter().for_each(|cell| encode_cell(&mut writer, cell));
        }
    }
    writer.into_bytes()
}

fn encode_cell(writer: &mut Writer, cell: &Cell) {
    match cell {
        Cell::Null => writer.null(),
        Cell::Int(number) => writer.i64(*number),
        Cell::Real(number) => writer.array(1).f64(*number),
        Cell::Text(text) => writer.text(text),
        Cell::Bytes(bytes) => writer.bytes(bytes),
    };
}

/// The changes in the body of an object.
///
/// # Errors
///
/// [`Malformed`] for bytes that are no body, or a row whose cells are not as many as its columns.
pub fn decode(bytes: &[u8]) -> Result<Vec<Change>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut changes = Vec::new();
    for _ in 0..reader.array()? {
        changes.push(reader.tuple(5, decode_change)?);
    }
    reader.end()?;
    Ok(changes)
}

fn decode_change(reader: &mut Reader<'_>) -> Result<Change, Malformed> {
    let deed = match reader.u64()? {
        0 => Deed::Clear,
        1 => Deed::Drop,
        2 => Deed::Put,
        _ => return Err(Malformed::what("a change of a kind that this version does not know")),
    };
    let kind = reader.u64()?;
    let name = reader.text()?.to_owned();
    let table = match kind {
        0 => TableName::Own(name),
        1 => TableName::Collection(name),
        _ => return Err(Malformed::what("a table of a kind that this version does not know")),
    };
    let mut columns = Vec::new();
    for _ in 0..reader.array()? {
        columns.push(reader.text()?.to_owned());
    }
    if columns.len() > limits::BACKUP_COLUMNS_MAX {
        return Err(Malformed::what("too many columns"));
    }
    let mut rows = Vec::new();
    for _ in 0..reader.array()? {
        if reader.array()? != columns.len() {
            return Err(Malformed::what("a row with more or fewer cells than its table has columns"));
        }
        rows.push((0..columns.len()).map(|_| decode_cell(reader)).collect::<Result<Row, Malformed>>()?);
    }
    Ok(Change { deed, table, columns, rows })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is refused as what is no integer")]
fn decode_cell(reader: &mut Reader<'_>) -> Result<Cell, Malformed> {
    Ok(match reader.peek()? {
        Type::Null => {
            reader.null()?;
            Cell::Null
        }
        Type::Array => Cell::Real(reader.tuple(1, Reader::f64)?),
        Type::String => Cell::Text(reader.text()?.to_owned()),
        Type::Bytes => Cell::Bytes(reader.bytes()?.to_vec()),
        _ => Cell::Int(reader.i64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_as_they_were_and_rows_of_one_kind_share_a_change() {
        let (own, pumps) = (TableName::Own("lane".into()), TableName::Collection("pumps".into()));
        let columns = ["a".to_owned(), "b".to_owned()];
        let mut body = Body::default();
        body.clear(&own);
        body.add(Deed::Put, (&own, &columns), vec![Cell::Int(-1), Cell::Null]);
        body.add(Deed::Put, (&own, &columns), vec![Cell::Real(1.0), Cell::Text("ä".into())]);
        body.add(Deed::Put, (&pumps, &columns), vec![Cell::Bytes(vec![0, 255]), Cell::Int(i64::MAX)]);
        body.add(Deed::Drop, (&pumps, &columns[..1]), vec![Cell::Real(-1.5e300)]);
        let (bytes, rows) = body.take();
        let changes = decode(&bytes).unwrap();
        assert_eq!((rows, changes.len(), body.is_empty()), (4, 4, true));
        assert_eq!(changes[1].rows, [vec![Cell::Int(-1), Cell::Null], vec![Cell::Real(1.0), Cell::Text("ä".into())]]);
        assert_eq!((changes[0].deed, changes[3].deed, &changes[3].table), (Deed::Clear, Deed::Drop, &pumps));
        assert_eq!(changes[2].rows, [vec![Cell::Bytes(vec![0, 255]), Cell::Int(i64::MAX)]]);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
