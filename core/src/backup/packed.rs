//! Rows that are carried from a store into an object as they are, and the memory that they are carried in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::encode_cell;
use crate::cbor::{Reader, Writer};
use crate::limits;
use crate::store::transfer::CellRef;

/// Rows as a change holds them, one behind the other: whoever only carries them from a store into an object need not take them apart, cell by
/// cell.
#[derive(Debug, Default)]
pub struct PackedRows {
    writer: Writer,
    ends: Vec<usize>,
    /// Where their memory goes when they are done with.
    home: Option<Rooms>,
}

impl PackedRows {
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

    /// All rows, one behind the other.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.writer.as_bytes()
    }

    /// Each row, as a reader of its array of cells.
    pub fn rows(&self) -> impl Iterator<Item = Reader<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| Reader::new(self.writer.as_bytes().get(start..*end).unwrap_or_default()))
    }
}

impl Drop for PackedRows {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.take_back((std::mem::take(&mut self.writer), std::mem::take(&mut self.ends)));
        }
    }
}

/// Memory for packed rows, which is used again and again: what comes fresh from the system is cleared by it first, page by page, and that
/// takes about as long as packing rows into it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Rooms(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    rooms: Vec<(Writer, Vec<usize>)>,
    /// So many of them, the first ones, have not been used since the last clearing out.
    unused: usize,
}

impl Rooms {
    /// No rows yet, and room for some. It comes back when they are dropped.
    #[must_use]
    pub fn page(&self) -> PackedRows {
        let mut free = self.free();
        let (writer, ends) = free.rooms.pop().unwrap_or_default();
        free.unused = free.unused.min(free.rooms.len());
        drop(free);
        PackedRows { writer, ends, home: Some(self.clone()) }
    }

    /// Gives up what was not used since this was called last.
    pub fn clear_out(&self) {
        let mut free = self.free();
        let unused = free.unused;
        free.rooms.drain(..unused);
        free.unused = free.rooms.len();
    }

    fn take_back(&self, (mut writer, mut ends): (Writer, Vec<usize>)) {
        // One row may have been as large as many.
        if writer.len() <= 2 * limits::PACKED_BYTES {
            writer.clear();
            ends.clear();
            let mut free = self.free();
            if free.rooms.len() < limits::PACKED_ROOMS_MAX {
                free.rooms.push((writer, ends));
            }
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::{Body, Deed, decode};
    use super::*;
    use crate::store::transfer::{Cell, Row, TableName};

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
        let (mut bytes, mut same) = (Vec::new(), Vec::new());
        assert_eq!((one_by_one.encode(&mut bytes), at_once.encode(&mut same)), (300, 300));
        assert_eq!((decode(&bytes).unwrap().len(), packed.len(), bytes == same), (1, 300, true));
    }

    /// Memory comes back empty when its rows are dropped, and what a round leaves unused goes behind the next.
    #[test]
    fn the_memory_of_pages_is_used_again_while_it_is_used() {
        let rooms = Rooms::default();
        let page = |bytes: usize| {
            let mut page = rooms.page();
            assert!(page.is_empty() && page.bytes() == 0);
            page.open(1);
            page.cell(CellRef::Bytes(&vec![7; bytes]));
            page.close();
            page
        };
        let free = || rooms.free().rooms.iter().map(|(writer, ends)| writer.len() + ends.len()).collect::<Vec<_>>();
        let most = limits::PACKED_ROOMS_MAX;
        drop((0..=most).map(|_| page(100)).collect::<Vec<_>>());
        assert_eq!(free(), vec![0; most], "no more than so many wait, all of them empty");
        rooms.clear_out();
        drop([page(100), page(2 * limits::PACKED_BYTES), page(100)]);
        assert_eq!(free().len(), most - 1, "one that is too large is given up");
        for (round, left) in [2, 2, 0].into_iter().enumerate() {
            rooms.clear_out();
            assert_eq!(free().len(), left, "round {round}");
            if round == 0 {
                drop([page(1), page(1)]);
            }
        }
    }
}
