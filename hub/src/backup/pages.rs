//! Rows of several readings of a cut, one after the other.

use std::collections::VecDeque;

use mobo_core::store::transfer::{Row, Table};
use mobo_core::store::{Cut, Filter, StoreError};

/// Readings under way: what is small of them is asked for together, what is not is read page by page. Nothing else may be asked of the cut
/// meanwhile.
#[derive(Debug)]
pub(super) struct Pages {
    readings: Vec<(Table, Filter)>,
    /// The reading whose rows come next.
    at: usize,
    /// All rows of that one and of those behind it, as far as they were small.
    small: VecDeque<Vec<Row>>,
    /// The next reading was not small enough to come with the others.
    is_large: bool,
    is_open: bool,
}

impl Pages {
    /// Of these readings. Nothing is asked yet.
    pub(super) const fn of(readings: Vec<(Table, Filter)>) -> Self {
        Self { readings, at: 0, small: VecDeque::new(), is_large: false, is_open: false }
    }

    /// The next rows, with the number of their reading; `None` at the end of all.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(super) async fn next(&mut self, cut: &mut dyn Cut) -> Result<Option<(usize, Vec<Row>)>, StoreError> {
        loop {
            if self.is_open {
                let page = cut.next().await?;
                if !page.is_empty() {
                    return Ok(Some((self.at, page)));
                }
                (self.is_open, self.at) = (false, self.at + 1);
            } else if let Some(rows) = self.small.pop_front() {
                self.at += 1;
                if !rows.is_empty() {
                    return Ok(Some((self.at - 1, rows)));
                }
            } else if let Some(left) = self.readings.get(self.at..).filter(|left| !left.is_empty()) {
                if let Some((table, filter)) = left.first().filter(|_| std::mem::take(&mut self.is_large)) {
                    cut.open(table.clone(), filter.clone()).await?;
                    self.is_open = true;
                } else {
                    self.small = cut.read_small(left.to_vec()).await?.into();
                    self.is_large = self.small.len() < left.len();
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// All rows of each of them.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(super) async fn all(mut self, cut: &mut dyn Cut) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut all: Vec<Vec<Row>> = self.readings.iter().map(|_| Vec::new()).collect();
        while let Some((at, rows)) = self.next(cut).await? {
            if let Some(of) = all.get_mut(at) {
                of.extend(rows);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use mobo_core::backup::packed::PackedRows;
    use mobo_core::limits;
    use mobo_core::store::transfer::{Cell, TableName};
    use mobo_core::store::{CutTable, StoreFuture};

    use super::*;

    /// Tables by their number of rows, read as a store reads them; counts what it is asked.
    #[derive(Debug, Default)]
    struct Shelf {
        open: VecDeque<Row>,
        asked: usize,
    }

    fn rows(table: &Table) -> Vec<Row> {
        let TableName::Own(count) = &table.name else { return Vec::new() };
        (0..count.parse().unwrap()).map(|n| vec![Cell::Int(n)]).collect()
    }

    impl Cut for Shelf {
        fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>> {
            unreachable!("nothing asks for them")
        }

        fn read_small(&mut self, readings: Vec<(Table, Filter)>) -> StoreFuture<'_, Vec<Vec<Row>>> {
            self.asked += 1;
            let mut held = 0;
            let fits = |rows: &Vec<Row>| {
                held += rows.len();
                held < limits::MOVE_ROWS_MAX
            };
            let found = readings.iter().map(|(table, _)| rows(table)).take_while(fits).collect();
            Box::pin(async { Ok(found) })
        }

        fn open(&mut self, table: Table, _: Filter) -> StoreFuture<'_, ()> {
            self.asked += 1;
            self.open = rows(&table).into();
            Box::pin(async { Ok(()) })
        }

        fn next(&mut self) -> StoreFuture<'_, Vec<Row>> {
            let page = self.open.drain(..self.open.len().min(limits::MOVE_ROWS_MAX)).collect();
            Box::pin(async { Ok(page) })
        }

        fn pack(&mut self, _: Table, _: Vec<Filter>) -> StoreFuture<'_, ()> {
            unreachable!("nothing is packed")
        }

        fn next_packed(&mut self) -> StoreFuture<'_, PackedRows> {
            unreachable!("nothing is packed")
        }

        fn end(&mut self) -> StoreFuture<'_, ()> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn every_reading_gives_all_of_its_rows_and_small_ones_share_a_question() {
        for (sizes, asked) in [
            (&[][..], 0),
            (&[0, 0], 1),
            (&[3, 0, 7], 1),
            // What is large is asked for twice: whether it is small, and then for its rows.
            (&[450], 2),
            (&[1, 450, 2], 3),
            (&[450, 0, 450], 4),
            // Each is small, and both are not.
            (&[150, 150, 5], 3),
        ] {
            let table = |size: &usize| Table { name: TableName::Own(size.to_string()), columns: vec!["n".to_owned()] };
            let readings: Vec<_> = sizes.iter().map(|size| (table(size), Filter::default())).collect();
            let mut shelf = Shelf::default();
            let found = Pages::of(readings.clone()).all(&mut shelf).await.unwrap();
            let want: Vec<Vec<Row>> = readings.iter().map(|(table, _)| rows(table)).collect();
            assert!(found == want, "{sizes:?}: {:?}", found.iter().map(Vec::len).collect::<Vec<_>>());
            assert_eq!(shelf.asked, asked, "{sizes:?}");
        }
    }
}
