//! The lists of who wrote which change of a document, as far as they are new.
//!
//! A list only grows: an author's changes come in the order of their numbers, and a row that stands, stands. So the last number of each author
//! and the count of rows say what was shipped; where the count does not fit them, the list is shipped as a whole.

use std::collections::BTreeMap;

use mobo_core::backup::change::Deed;
use mobo_core::limits;
use mobo_core::store::Filter;
use mobo_core::store::transfer::{Cell, Table};

use super::BackupFailure;
use super::gather::{CHANGES, Gather};
use super::state::Cells;

/// A document: collection and id.
pub(super) type DocumentId = (i64, String);

/// What was shipped of the list of one document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listed {
    /// The last change of each author.
    last: BTreeMap<Vec<u8>, i64>,
    /// How many rows there were.
    rows: u64,
}

impl Listed {
    fn has(&self, author: &[u8], seq: i64) -> bool {
        self.last.get(author).is_some_and(|last| seq <= *last)
    }

    fn add(&mut self, author: Vec<u8>, seq: i64) {
        let last = self.last.entry(author).or_insert(seq);
        *last = seq.max(*last);
        self.rows += 1;
    }
}

/// What is remembered of all documents; those of a busy moment, and then it begins anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists(BTreeMap<DocumentId, Listed>);

impl Lists {
    /// What was remembered before, with what was shipped since.
    pub(super) fn and(mut self, new: Self) -> Self {
        self.0.extend(new.0);
        let authors: usize = self.0.values().map(|list| list.last.len()).sum();
        if authors > limits::BACKUP_CHANGES_MAX { Self::default() } else { self }
    }

    fn get(&self, collection: i64, id: &str) -> Option<&Listed> {
        self.0.get(&(collection, id.to_owned()))
    }
}

impl Gather<'_, '_> {
    /// Ships what is new of the lists of some documents.
    pub(super) async fn changes(&mut self, collection: i64, ids: &[String]) -> Result<(), BackupFailure> {
        let Some(table) = self.own(CHANGES) else { return Ok(()) };
        let known = self.known;
        let (mut whole, grown): (Vec<String>, Vec<String>) =
            ids.iter().cloned().partition(|id| known.changes.get(collection, id).is_none());
        let mut lists = self.put_changes(&table, (collection, &grown), true).await?;
        for id in grown {
            let fits = match (known.changes.get(collection, &id), lists.get(&id)) {
                (Some(known), Some((_, old))) => known.rows == *old,
                (Some(known), None) => known.rows == 0,
                (None, _) => false,
            };
            if !fits {
                lists.remove(&id);
                whole.push(id);
            }
        }
        for id in &whole {
            let key = ["collection".to_owned(), "id".to_owned()];
            self.packer.add(Deed::Drop, (&table.name, &key), vec![Cell::Int(collection), Cell::Text(id.clone())]).await?;
        }
        lists.extend(self.put_changes(&table, (collection, &whole), false).await?);
        self.done.marks.changes.0.extend(lists.into_iter().map(|(id, (list, _))| ((collection, id), list)));
        Ok(())
    }

    /// Puts the rows of these documents, only the new ones if wanted so. Gives what each list is now, and how many of its rows were known.
    async fn put_changes(
        &mut self,
        table: &Table,
        (collection, ids): (i64, &[String]),
        only_new: bool,
    ) -> Result<BTreeMap<String, (Listed, u64)>, BackupFailure> {
        let mut lists: BTreeMap<String, (Listed, u64)> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(lists);
        }
        let equal = self.of_collection(table, collection);
        self.cut.open(table.clone(), Filter { equal, among: Some(("id".to_owned(), ids.to_vec())), ..Filter::default() }).await?;
        loop {
            let page = self.cut.next().await?;
            if page.is_empty() {
                return Ok(lists);
            }
            for row in page {
                let cells = Cells { columns: &table.columns, row: &row };
                let (id, author, seq) = (cells.text("id")?, cells.bytes("actor")?, cells.int("seq")?);
                let is_known = only_new && self.known.changes.get(collection, &id).is_some_and(|known| known.has(&author, seq));
                let (list, old) = lists.entry(id).or_default();
                list.add(author, seq);
                *old += u64::from(is_known);
                if !is_known {
                    self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_knows_its_rows_and_too_many_lists_are_forgotten() {
        let mut list = Listed::default();
        for seq in [1, 2, 3] {
            list.add(vec![1], seq);
        }
        for (author, seq, has) in [(1, 3, true), (1, 4, false), (2, 1, false)] {
            assert_eq!(list.has(&[author], seq), has, "{author} {seq}");
        }
        let of = |count: usize| Lists((0..count).map(|n| ((1, n.to_string()), list.clone())).collect());
        let both = of(2).and(of(3));
        assert_eq!((both.0.len(), both.get(1, "2"), both.get(2, "2")), (3, Some(&list), None));
        assert_eq!(of(limits::BACKUP_CHANGES_MAX).and(of(limits::BACKUP_CHANGES_MAX + 1)).0.len(), 0);
    }
}
