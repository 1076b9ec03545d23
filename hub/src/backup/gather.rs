//! What is new in a store since the last time, as of one moment.
//!
//! Tables are found new in three ways. *Logs* (entries, samples, refused entries, what was done to the hub) grow behind their end. *Records* get the next
//! position of their bucket whenever they change, and whatever belongs to one, in several tables, goes along as a whole: what it had is
//! dropped, what it has is put; but for the list of a document's changes, which only grows, and of which its end is put. All other tables are *small*: every row is compared with what was shipped. So a table that this module does
//! not know is shipped rightly, if slowly.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::backup::change::Deed;
use mobo_core::backup::manifest::Totals;
use mobo_core::cbor::Reader;
use mobo_core::ids::{Chain, DeviceId, Incarnation, Lane, LaneKey, Seq, Timeline};
use mobo_core::schema::Collection;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{Cut, CutTable, Filter, StoreError};

use super::BackupFailure;
use super::marks::{Belonging, LaneId, Mark, Marks};
use super::pack::Packer;
use super::pages::Pages;
use super::state::{Cells, StateHash};

/// Tables whose rows belong to a record and go along with it.
pub(super) const OF_RECORDS: [&str; 4] = ["hidden", DOCUMENT, "member", CONFLICT];
/// The stored documents: of a collection of another kind there are none.
pub(super) const DOCUMENT: &str = "document";
/// Decisions of merges.
pub(super) const CONFLICT: &str = "conflict";
/// Who wrote each change of a document: it grows with every edit, and only its end is shipped.
pub(super) const CHANGES: &str = "change";
/// Logs that are rows of a lane.
pub(super) const LOGS: [&str; 2] = ["entry", "quarantine"];
/// What was done to the hub: it only grows, and its lines are numbered in each project.
pub(super) const AUDIT: &str = "audit";

/// What a cut holds, besides its rows.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// What to remember once it is durable.
    pub(super) marks: Marks,
    /// The history that it is of.
    pub(super) timeline: Option<Timeline>,
    /// Figures.
    pub(super) totals: Totals,
    /// The heads of all lanes and buckets.
    pub(super) state: [u8; 32],
    /// The lanes that are further than before, with their ends.
    pub(super) lanes: Vec<(LaneKey, Seq, Chain)>,
    /// True if more has changed than that somebody was seen.
    pub(super) is_news: bool,
}

impl Gathered {
    /// Takes note of a row of a small table, at its place.
    fn mark(&mut self, name: &str, (place, mark): (Vec<u8>, Mark)) {
        if let Some(marks) = self.marks.small.get_mut(name) {
            marks.insert(place, mark);
        }
    }
}

/// A gathering under way.
pub(super) struct Gather<'a, 'r> {
    pub(super) cut: &'a mut dyn Cut,
    pub(super) packer: &'a mut Packer<'r>,
    pub(super) known: &'a Marks,
    tables: Vec<CutTable>,
    pub(super) collections: Vec<Collection>,
    pub(super) heads: StateHash,
    /// All projects.
    projects: BTreeSet<i64>,
    /// The project of each collection, so that a key that begins with it is found by its index.
    owners: BTreeMap<i64, i64>,
    /// Whether a table holds anything of a collection, as far as it was looked at.
    pub(super) filled: BTreeMap<Belonging, bool>,
    pub(super) done: Gathered,
    /// Changed rows of small tables: written only if something has happened.
    waiting: Vec<(Deed, TableName, Vec<String>, Row)>,
}

impl<'a, 'r> Gather<'a, 'r> {
    pub(super) async fn begin(cut: &'a mut dyn Cut, packer: &'a mut Packer<'r>, known: &'a Marks) -> Result<Self, BackupFailure> {
        let tables = cut.tables().await?;
        let (collections, heads, done) = (Vec::new(), StateHash::default(), Gathered::default());
        let (projects, owners, filled) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { cut, packer, known, tables, collections, heads, projects, owners, filled, done, waiting: Vec::new() })
    }

    /// Everything, for a snapshot.
    pub(super) async fn everything(mut self, now_us: i64) -> Result<Gathered, BackupFailure> {
        let mut tables = self.tables.clone();
        // What the tables of collections look like comes before their rows.
        tables.sort_by_key(|table| (matches!(table.table.name, TableName::Collection(_)), !is_own(&table.table.name, "collection")));
        for CutTable { table, key } in tables {
            if let Some(name) = small(&table.name) {
                self.done.marks.small.entry(name.to_owned()).or_default();
            }
            if is_own(&table.name, AUDIT) {
                self.done.marks.audit = Some(BTreeMap::new());
            }
            self.cut.open(table.clone(), Filter::default()).await?;
            loop {
                let page = self.cut.next().await?;
                if page.is_empty() {
                    break;
                }
                for row in page {
                    if let (Some(mark), Some(name)) = (self.look(&table, &key, &row)?, small(&table.name)) {
                        self.done.mark(name, mark);
                    }
                    self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?;
                }
            }
        }
        self.unplaced(false).await?;
        self.done.is_news = true;
        // All rows were seen.
        for of in &self.collections {
            OF_RECORDS.iter().chain([&CHANGES]).for_each(|name| _ = self.filled.entry((name, of.id.sql())).or_insert(false));
        }
        self.finish(now_us)
    }

    /// What is new. Nothing is written when nothing has happened, unless `quiet` is so long ago that it is time.
    pub(super) async fn news(mut self, now_us: i64, quiet_is_due: bool) -> Result<Gathered, BackupFailure> {
        self.all_small().await?;
        self.audit().await?;
        let unplaced = self.unplaced(true).await?;
        self.done.is_news |= self.has_moved() || !unplaced.is_empty();
        if self.done.is_news || quiet_is_due {
            for (deed, table, columns, row) in std::mem::take(&mut self.waiting) {
                self.packer.add(deed, (&table, &columns), row).await?;
            }
        }
        if self.done.is_news || quiet_is_due {
            // What a person decides makes no news by itself.
            self.settled().await?;
            self.decided().await?;
        }
        if self.done.is_news {
            self.logs().await?;
            self.records().await?;
            for (collection, ids) in unplaced {
                self.ship(collection, &ids).await?;
            }
        }
        self.finish(now_us)
    }

    /// True if a lane or a bucket is further than before.
    fn has_moved(&self) -> bool {
        let lanes = self.heads.lanes.iter().any(|(lane, (last, _))| self.known.lanes.get(lane).copied().unwrap_or(0) < *last);
        lanes || self.heads.buckets.iter().any(|(bucket, (head, _))| self.known.heads.get(bucket).copied().unwrap_or(0) < *head)
    }

    fn finish(mut self, now_us: i64) -> Result<Gathered, BackupFailure> {
        for (lane, (last, chain)) in &self.heads.lanes {
            self.done.marks.lanes.insert(lane.clone(), *last);
            if self.known.lanes.get(lane).copied().unwrap_or(0) < *last {
                let unknown = || StoreError::Damaged(format!("a lane of the store is none that this version knows: {lane:?}"));
                self.done.lanes.push(lane_end(lane, *last, chain).ok_or_else(unknown)?);
            }
        }
        self.done.marks.heads = self.heads.buckets.iter().map(|(bucket, (head, _))| (*bucket, *head)).collect();
        self.done.marks.taken_us = now_us;
        // Nothing comes into one of these tables or goes out of it without its record being shipped.
        let untouched = self.known.bare.iter().filter(|of| !self.filled.contains_key(*of)).copied();
        self.done.marks.bare = untouched.chain(self.filled.iter().filter(|(_, filled)| !**filled).map(|(of, _)| *of)).collect();
        (self.done.totals, self.done.state) = (self.heads.totals(), self.heads.hash());
        Ok(self.done)
    }

    /// Takes note of a row on its way; of one of a small table, gives its place and what it is.
    fn look(&mut self, table: &Table, key: &[String], row: &Row) -> Result<Option<(Vec<u8>, Mark)>, BackupFailure> {
        if is_own(&table.name, AUDIT) {
            self.done.marks.audited(&Cells { columns: &table.columns, row })?;
        }
        if let Some(name) = of_records(&table.name) {
            self.filled.insert((name, Cells { columns: &table.columns, row }.int("collection")?), true);
        }
        let Some(name) = small(&table.name) else { return Ok(None) };
        self.heads.add(name, &table.columns, row)?;
        let cells = Cells { columns: &table.columns, row };
        match name {
            "project" => self.projects.extend([cells.int("id")?]),
            "hub" => self.done.timeline = cells.bytes("timeline")?.try_into().ok().map(Timeline),
            "collection" => {
                let definition = cells.bytes("definition")?;
                let collection = Collection::decode(&mut Reader::new(&definition));
                let collection = collection.map_err(|error| StoreError::Damaged(error.to_string()))?;
                self.owners.insert(collection.id.sql(), cells.int("project")?);
                self.collections.push(collection);
            }
            _ => {}
        }
        Ok(Some(Mark::of(name, (&table.columns, key), row)))
    }

    /// Compares all small tables with what was shipped. Most hold a few rows, and are read many at a time.
    async fn all_small(&mut self) -> Result<(), BackupFailure> {
        let all: Vec<CutTable> = self.tables.iter().filter(|table| small(&table.table.name).is_some()).cloned().collect();
        let mut left = all.as_slice();
        while !left.is_empty() {
            let read = self.cut.read_small(left.iter().map(|table| (table.table.clone(), Filter::default())).collect()).await?;
            let (at_once, behind) = left.split_at(read.len().min(left.len()));
            for (table, rows) in at_once.iter().zip(read) {
                self.begin_small(table);
                self.compare(table, rows).await?;
                self.end_small(table);
            }
            left = behind;
            let Some((large, behind)) = left.split_first() else { break };
            self.begin_small(large);
            self.cut.open(large.table.clone(), Filter::default()).await?;
            loop {
                let page = self.cut.next().await?;
                if page.is_empty() {
                    break;
                }
                self.compare(large, page).await?;
            }
            self.end_small(large);
            left = behind;
        }
        Ok(())
    }

    fn begin_small(&mut self, CutTable { table, .. }: &CutTable) {
        let Some(name) = small(&table.name) else { return };
        if !self.known.small.contains_key(name) && name != "collection" {
            // After a restart it is not known what was shipped of it: all of it takes the place of whatever there is.
            self.packer.clear(&table.name);
            self.done.is_news = true;
        }
        self.done.marks.small.entry(name.to_owned()).or_default();
    }

    /// Compares rows of a small table with what was shipped.
    async fn compare(&mut self, CutTable { table, key }: &CutTable, rows: Vec<Row>) -> Result<(), BackupFailure> {
        let Some(name) = small(&table.name) else { return Ok(()) };
        let known = self.known.small.get(name);
        for row in rows {
            let Some((place, mark)) = self.look(table, key, &row)? else { continue };
            match known.map(|known| known.get(&place)) {
                None => self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?,
                Some(Some(shipped)) if shipped.all == mark.all => {}
                Some(shipped) => {
                    self.done.is_news |= shipped.is_none_or(|shipped| shipped.news != mark.news);
                    self.waiting.push((Deed::Put, table.name.clone(), table.columns.clone(), row));
                }
            }
            self.done.mark(name, (place, mark));
        }
        Ok(())
    }

    /// All rows of a small table were compared: what was shipped and is not among them is gone.
    fn end_small(&mut self, CutTable { table, key }: &CutTable) {
        let Some(name) = small(&table.name) else { return };
        let now = self.done.marks.small.get(name);
        let known = self.known.small.get(name);
        let gone = known.into_iter().flatten().filter(|(place, _)| now.is_none_or(|now| !now.contains_key(*place)));
        let columns = if key.is_empty() { &table.columns } else { key };
        let gone: Vec<Row> = gone.map(|(_, mark)| mark.key.clone()).collect();
        self.done.is_news |= !gone.is_empty();
        // What goes, goes first: a row with another key may have taken its place in another index.
        let gone = gone.into_iter().map(|row| (Deed::Drop, table.name.clone(), columns.clone(), row));
        self.waiting.splice(0..0, gone);
    }

    /// The lines that came since; all of them where nobody knows which ones were shipped.
    async fn audit(&mut self) -> Result<(), BackupFailure> {
        let Some(table) = self.own(AUDIT) else { return Ok(()) };
        let mut filters: Vec<Filter> = Vec::new();
        match &self.known.audit {
            Some(known) => {
                // The lines of an erased project stay, and one more comes.
                let projects: BTreeSet<i64> = self.projects.iter().chain(known.keys()).copied().collect();
                filters.extend(projects.into_iter().map(|project| {
                    let above = Some(("n".to_owned(), known.get(&project).copied().unwrap_or(0)));
                    Filter { equal: vec![("project".to_owned(), Cell::Int(project))], above, ..Filter::default() }
                }));
                self.done.marks.audit = Some(known.clone());
            }
            None => {
                self.packer.clear(&table.name);
                self.done.is_news = true;
                self.done.marks.audit = Some(BTreeMap::new());
                filters.push(Filter::default());
            }
        }
        let mut pages = Pages::of(filters.into_iter().map(|filter| (table.clone(), filter)).collect());
        while let Some((_, page)) = pages.next(self.cut).await? {
            for row in page {
                self.done.marks.audited(&Cells { columns: &table.columns, row: &row })?;
                self.done.is_news = true;
                self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?;
            }
        }
        Ok(())
    }

    /// What finds the rows of a collection in one of our tables by its index.
    pub(super) fn of_collection(&self, table: &Table, collection: i64) -> Vec<(String, Cell)> {
        let mut equal = vec![("collection".to_owned(), Cell::Int(collection))];
        let owner = self.owners.get(&collection).filter(|_| table.columns.iter().any(|column| column == "project"));
        equal.extend(owner.map(|project| ("project".to_owned(), Cell::Int(*project))));
        equal
    }

    pub(super) fn own(&self, name: &str) -> Option<Table> {
        self.tables.iter().find(|table| is_own(&table.table.name, name)).map(|table| table.table.clone())
    }

    pub(super) fn of(&self, collection: &Collection) -> Option<Table> {
        let is_it = |table: &&CutTable| matches!(&table.table.name, TableName::Collection(name) if *name == collection.name);
        self.tables.iter().find(is_it).map(|table| table.table.clone())
    }
}

/// The name of a table whose rows are compared one by one; `None` for what is found new in another way.
fn small(table: &TableName) -> Option<&str> {
    match table {
        TableName::Own(name) if OF_RECORDS.contains(&name.as_str()) || LOGS.contains(&name.as_str()) => None,
        TableName::Own(name) if name != CHANGES && name != AUDIT => Some(name),
        TableName::Own(_) | TableName::Collection(_) => None,
    }
}

/// The name of a table whose rows belong to records.
fn of_records(table: &TableName) -> Option<&'static str> {
    OF_RECORDS.into_iter().chain([CHANGES]).find(|name| is_own(table, name))
}

fn is_own(table: &TableName, name: &str) -> bool {
    matches!(table, TableName::Own(own) if own == name)
}

pub(super) fn lane_end((_, device, incarnation, lane): &LaneId, last: i64, chain: &[u8]) -> Option<(LaneKey, Seq, Chain)> {
    let lane = LaneKey {
        device: DeviceId(device.as_slice().try_into().ok()?),
        incarnation: Incarnation::from_sql(*incarnation)?,
        lane: Lane::from_number(u8::try_from(*lane).ok()?)?,
    };
    Some((lane, Seq::new(last.cast_unsigned())?, Chain(chain.try_into().ok()?)))
}
