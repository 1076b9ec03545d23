//! What is in segments and snapshots: changes of tables, as plain rows.
//!
//! The body of an object is a CBOR array of changes. A change is `[kind, table kind, table, columns, rows]`, where `kind` is 0 to clear a
//! table, 1 to drop the rows that match, and 2 to put rows in place of those with the same key; `table kind` is 0 for one of mobo's own and
//! 1 for a collection's; `rows` is an array of arrays of cells. A cell is null, an integer, `[f64]`, a text or bytes: the five of
//! [`crate::store::transfer::Cell`]; a float is wrapped, because a whole one would read as an integer in its shortest form.

use minicbor::data::Type;

use crate::cbor::{Malformed, Reader, Writer};
use crate::limits;
use crate::store::transfer::{Cell, CellRef, Row, TableName};

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

/// Rows as a change holds them, one behind the other: whoever only carries them from a store into an object need not take them apart, cell by
/// cell.
#[derive(Debug, Default)]
pub struct PackedRows {
    writer: Writer,
    ends: Vec<usize>,
}

impl PackedRows {
    /// None yet, with room for so many bytes of them.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self { writer: Writer::with_room(bytes), ends: Vec::new() }
    }

    /// Opens a row of so many cells, which follow.
    pub fn open(&mut self, cells: usize) {
        self.writer.array(cells);
    }

    /// Adds the next cell of the open row.
    pub fn cell(&mut self, cell: CellRef<'_>) {
        encode_cell(&mut self.writer, cell);
    }

    /// Ends the open row, when it has all of its cells.
    pub fn close(&mut self) {
        self.ends.push(self.writer.len());
    }

    /// Takes the rows, and leaves room for as many more.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let room = Self { writer: Writer::with_room(self.bytes() + self.bytes() / 8), ends: Vec::with_capacity(self.len()) };
        std::mem::replace(self, room)
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without any row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.writer.len()
    }

    /// Each row, as a reader of its array of cells.
    pub fn rows(&self) -> impl Iterator<Item = Reader<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| Reader::new(self.writer.as_bytes().get(start..*end).unwrap_or_default()))
    }
}

/// Collects changes until they fill an object. Bytes that came packed are moved, and copied once, when all is taken.
#[derive(Debug, Default)]
pub struct Body {
    /// Changes that are complete, encoded: their bytes are those of all pieces, one behind the other.
    closed: Vec<Writer>,
    changes: usize,
    open: Option<Open>,
    bytes: usize,
    rows: u64,
}

/// A change that takes more rows yet.
#[derive(Debug)]
struct Open {
    deed: Deed,
    table: TableName,
    columns: Vec<String>,
    /// Its rows, likewise, but for those of `last`, which are behind them.
    rows: Vec<Writer>,
    /// Takes single rows.
    last: Writer,
    count: usize,
}

impl Body {
    /// Adds a row; the change before takes it if it is of the same kind.
    pub fn add(&mut self, deed: Deed, of: (&TableName, &[String]), row: Row) {
        self.bytes += row.iter().map(|cell| cell.bytes() - size_of::<Cell>() + 5).sum::<usize>();
        self.rows += 1;
        let open = self.open(deed, of);
        open.count += 1;
        open.last.array(row.len());
        row.iter().for_each(|cell| encode_cell(&mut open.last, cell.into()));
    }

    /// Adds rows that are packed already, likewise.
    pub fn add_packed(&mut self, deed: Deed, of: (&TableName, &[String]), rows: PackedRows) {
        self.bytes += rows.bytes();
        self.rows += rows.len() as u64;
        let open = self.open(deed, of);
        open.count += rows.len();
        let last = std::mem::take(&mut open.last);
        open.rows.extend([last, rows.writer]);
    }

    /// Clears a table.
    pub fn clear(&mut self, table: &TableName) {
        self.open(Deed::Clear, (table, &[]));
    }

    /// True if nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0 && self.open.is_none()
    }

    /// About its size when it is encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Encodes what was added and begins anew; gives it with the number of its rows.
    #[must_use]
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        self.close();
        let body = std::mem::take(self);
        let mut writer = Writer::with_room(body.closed.iter().map(Writer::len).sum::<usize>() + 9);
        writer.array(body.changes);
        body.closed.iter().for_each(|piece| _ = writer.raw(piece.as_bytes()));
        (writer.into_bytes(), body.rows)
    }

    /// The change that takes rows of this kind.
    fn open(&mut self, deed: Deed, (table, columns): (&TableName, &[String])) -> &mut Open {
        let goes_on = self.open.as_ref().is_some_and(|open| open.deed == deed && open.table == *table && open.columns == columns);
        if !goes_on || deed == Deed::Clear {
            self.close();
        }
        let fresh = || Open { deed, table: table.clone(), columns: columns.to_vec(), rows: Vec::new(), last: Writer::new(), count: 0 };
        self.open.get_or_insert_with(fresh)
    }

    fn close(&mut self) {
        let Some(Open { deed, table, columns, rows, last, count }) = self.open.take() else { return };
        let (kind, name) = match &table {
            TableName::Own(name) => (0, name),
            TableName::Collection(name) => (1, name),
        };
        let deed = match deed {
            Deed::Clear => 0,
            Deed::Drop => 1,
            Deed::Put => 2,
        };
        let mut head = Writer::new();
        head.array(5).u64(deed).u64(kind).text(name).array(columns.len());
        for column in &columns {
            head.text(column);
        }
        head.array(count);
        self.closed.push(head);
        self.closed.extend(rows);
        self.closed.push(last);
        self.changes += 1;
    }
}

fn encode_cell(writer: &mut Writer, cell: CellRef<'_>) {
    match cell {
        CellRef::Null => writer.null(),
        CellRef::Int(number) => writer.i64(number),
        CellRef::Real(number) => writer.array(1).f64(number),
        CellRef::Text(text) => writer.text(text),
        CellRef::Bytes(bytes) => writer.bytes(bytes),
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

    /// Rows that were packed on their way are the same bytes as the same rows one by one, and can be looked into.
    #[test]
    fn packed_rows_are_the_rows_that_they_were_made_of() {
        let (pumps, columns) = (TableName::Collection("pumps".into()), ["id".to_owned(), "_position".to_owned()]);
        let rows: Vec<Row> = (1..=300).map(|n| vec![Cell::Text(format!("p-{n}")), Cell::Int(n * 1_000)]).collect();
        let (mut one_by_one, mut at_once, mut packed) = (Body::default(), Body::default(), PackedRows::default());
        assert!(packed.is_empty() && at_once.is_empty());
        for row in &rows {
            packed.open(row.len());
            row.iter().for_each(|cell| packed.cell(cell.into()));
            packed.close();
            one_by_one.add(Deed::Put, (&pumps, &columns), row.clone());
        }
        let read = |mut row: Reader<'_>| (row.array().unwrap(), row.text().unwrap().to_owned(), row.i64().unwrap());
        let want = |n: i64| (2, format!("p-{n}"), n * 1_000);
        let packed = packed.take();
        assert_eq!(packed.rows().map(read).collect::<Vec<_>>(), (1..=300).map(want).collect::<Vec<_>>());
        // Rows of both ways share a change.
        let (first, rest) = rows.split_at(1);
        let mut behind = PackedRows::default();
        for row in rest {
            behind.open(row.len());
            row.iter().for_each(|cell| behind.cell(cell.into()));
            behind.close();
        }
        at_once.add(Deed::Put, (&pumps, &columns), first[0].clone());
        let least = behind.bytes();
        at_once.add_packed(Deed::Put, (&pumps, &columns), behind);
        assert!(!at_once.is_empty() && at_once.bytes() >= least);
        let (bytes, count) = one_by_one.take();
        assert_eq!(at_once.take(), (bytes.clone(), count));
        assert_eq!((count, decode(&bytes).unwrap().len(), packed.len()), (300, 1, 300));
    }
}
