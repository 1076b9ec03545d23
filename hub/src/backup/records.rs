//! The rows of logs and records that are new.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::backup::change::Deed;
use mobo_core::cbor::{Malformed, Reader};
use mobo_core::ids::{DeviceId, Lane};
use mobo_core::schema::Kind;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{Filter, StoreError};

use super::BackupFailure;
use super::gather::{CONFLICT, DOCUMENT, Gather, LOGS, OF_RECORDS};
use super::marks::{Belonging, LaneId};
use super::pages::Pages;
use super::state::Cells;

/// Tables with the places of records in buckets.
const PLACED: [&str; 3] = ["hidden", "document", "member"];
/// Their columns that say so.
const PLACE: [&str; 3] = ["collection", "id", "position"];
/// Buckets that are looked into at once.
const BUCKETS_AT_ONCE: usize = 16;
/// Tables with one row at the most of each record.
const ONE_EACH: [&str; 2] = ["hidden", DOCUMENT];
/// What was decided a moment before a cut may be committed after it: it is looked for so far back.
const OVERLAP_US: i64 = 60_000_000;
/// Records whose rows are read at once.
const RECORDS_AT_ONCE: usize = 500;
/// Rows of a collection that are carried before what belongs to their records.
const ROWS_AT_ONCE: usize = 4 * RECORDS_AT_ONCE;
/// The columns that carrying a row of a collection needs.
const LOOKED_AT: [&str; 2] = ["id", "_position"];

impl Gather<'_, '_> {
    /// The rows of lanes that are further than before.
    pub(super) async fn logs(&mut self) -> Result<(), BackupFailure> {
        let further: Vec<(LaneId, i64)> = self
            .heads
            .lanes
            .iter()
            .map(|(lane, (last, _))| (lane.clone(), *last, self.known.lanes.get(lane).copied().unwrap_or(0)))
            .filter(|(_, last, known)| known < last)
            .map(|(lane, _, known)| (lane, known))
            .collect();
        let streams: Vec<Table> = self.collections.iter().filter(|of| of.kind == Kind::Stream).filter_map(|of| self.of(of)).collect();
        let (mut of_logs, mut of_streams) = (Vec::new(), Vec::new());
        for ((project, device, incarnation, lane), known) in further {
            let text = |name: &str| name.to_owned();
            let has_rows = lane == i64::from(Lane::Events.number()) || lane == i64::from(Lane::Telemetry.number());
            if has_rows {
                let nobody = |_| StoreError::Damaged("a lane of the store is of no device".to_owned());
                let device = <[u8; 16]>::try_from(device.clone()).map_err(nobody)?;
                let equal = vec![
                    (text("device"), Cell::Text(DeviceId(device).to_string())),
                    (text("_incarnation"), Cell::Int(incarnation)),
                    (text("_lane"), Cell::Int(lane)),
                ];
                of_streams.push(Filter { equal, above: Some((text("_seq"), known)), ..Filter::default() });
            }
            let equal = vec![
                (text("project"), Cell::Int(project)),
                (text("device"), Cell::Bytes(device)),
                (text("incarnation"), Cell::Int(incarnation)),
                (text("lane"), Cell::Int(lane)),
            ];
            of_logs.push(Filter { equal, above: Some((text("seq"), known)), ..Filter::default() });
        }
        for table in LOGS.iter().filter_map(|log| self.own(log)).collect::<Vec<_>>() {
            self.carry(table, of_logs.clone()).await?;
        }
        for table in streams {
            self.carry(table, of_streams.clone()).await?;
        }
        Ok(())
    }

    /// Refused entries that were retried or dropped since, and what became of them.
    pub(super) async fn settled(&mut self) -> Result<(), BackupFailure> {
        let (Some(quarantine), Some(entry)) = (self.own("quarantine"), self.own("entry")) else { return Ok(()) };
        let above = Some(("settled_us".to_owned(), self.known.taken_us - OVERLAP_US));
        let rows = self.read(quarantine.clone(), Filter { above, ..Filter::default() }).await?;
        for row in rows {
            let cells = Cells { columns: &quarantine.columns, row: &row };
            let names = ["project", "device", "incarnation", "lane", "seq"];
            let equal = names.iter().map(|name| Ok(((*name).to_owned(), cells.cell(name)?.clone()))).collect::<Result<_, StoreError>>()?;
            self.packer.add(Deed::Put, (&quarantine.name, &quarantine.columns), row).await?;
            self.carry(entry.clone(), vec![Filter { equal, ..Filter::default() }]).await?;
        }
        Ok(())
    }

    /// Decisions on the ledger that changed no record.
    pub(super) async fn decided(&mut self) -> Result<(), BackupFailure> {
        let Some(conflict) = self.own(CONFLICT) else { return Ok(()) };
        let projects: BTreeSet<i64> = self.heads.lanes.keys().map(|lane| lane.0).collect();
        let of_project = |project| {
            let equal = vec![("project".to_owned(), Cell::Int(project)), ("status".to_owned(), Cell::Int(0))];
            let above = Some(("at_us".to_owned(), self.known.taken_us - OVERLAP_US));
            (conflict.clone(), Filter { equal, above, ..Filter::default() })
        };
        let mut pages = Pages::of(projects.into_iter().map(of_project).collect());
        while let Some((_, page)) = pages.next(self.cut).await? {
            for row in page {
                self.filled.insert((CONFLICT, Cells { columns: &conflict.columns, row: &row }.int("collection")?), true);
                self.packer.add(Deed::Put, (&conflict.name, &conflict.columns), row).await?;
            }
        }
        Ok(())
    }

    /// Records that have a new place in a bucket.
    pub(super) async fn records(&mut self) -> Result<(), BackupFailure> {
        let further: Vec<(i64, i64)> = self
            .heads
            .buckets
            .iter()
            .map(|(bucket, (head, _))| (*bucket, *head, self.known.heads.get(bucket).copied().unwrap_or(0)))
            .filter(|(_, head, known)| known < head)
            .map(|(bucket, _, known)| (bucket, known))
            .collect();
        for further in further.chunks(BUCKETS_AT_ONCE) {
            let own = further.iter().flat_map(|bucket| PLACED.map(|name| (name, *bucket)));
            let first = Pages::of(own.clone().map(|(name, bucket)| placed_in(name, bucket)).collect()).all(self.cut).await?;
            for ((name, bucket), rows) in own.zip(first) {
                self.placed(name, bucket, rows).await?;
            }
            for bucket in further {
                for of in self.tables_of_records() {
                    self.placed_rows(of, *bucket).await?;
                }
            }
        }
        Ok(())
    }

    /// The tables of collections whose rows have places themselves.
    fn tables_of_records(&self) -> Vec<(i64, Table)> {
        let tables = self.collections.iter().filter(|of| of.kind == Kind::Table);
        tables.filter_map(|of| Some((of.id.sql(), self.of(of)?))).collect()
    }

    /// Ships the rows of a collection that have a new place in a bucket, with what belongs to their records.
    async fn placed_rows(&mut self, (collection, mut table): (i64, Table), (bucket, mut known): (i64, i64)) -> Result<(), BackupFailure> {
        let in_bucket = |known: i64, limit: Option<usize>| {
            let equal = vec![("_bucket".to_owned(), Cell::Int(bucket))];
            Filter { equal, above: Some(("_position".to_owned(), known)), limit, ..Filter::default() }
        };
        if self.is_alone(collection).await? {
            return self.carry(table, vec![in_bucket(known, None)]).await;
        }
        // What is looked at comes first in each row.
        table.columns.retain(|column| !LOOKED_AT.contains(&column.as_str()));
        table.columns.splice(0..0, LOOKED_AT.map(str::to_owned));
        loop {
            self.cut.pack(table.clone(), vec![in_bucket(known, Some(ROWS_AT_ONCE))]).await?;
            let mut ids: Vec<String> = Vec::new();
            loop {
                let page = self.cut.next_packed().await?;
                if page.is_empty() {
                    break;
                }
                for row in page.rows() {
                    let (id, position) = looked_at(row).map_err(|error| StoreError::Damaged(format!("{}: {error}", table.name)))?;
                    ids.push(id);
                    known = known.max(position);
                }
                self.packer.add_packed((&table.name, &table.columns), page).await?;
            }
            for ids in ids.chunks(RECORDS_AT_ONCE) {
                self.belongings(collection, ids).await?;
            }
            if ids.len() < ROWS_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Ships the records that one of our own tables gives a new place in a bucket, of which the first are known.
    async fn placed(&mut self, name: &str, (bucket, mut known): (i64, i64), mut rows: Vec<Row>) -> Result<(), BackupFailure> {
        loop {
            let columns = PLACE.map(str::to_owned);
            let count = rows.len();
            let mut changed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for row in &rows {
                let cells = Cells { columns: &columns, row };
                changed.entry(cells.int("collection")?).or_default().push(cells.text("id")?);
                known = known.max(cells.int("position")?);
            }
            for (of, ids) in changed {
                self.ship(of, &ids).await?;
            }
            if count < RECORDS_AT_ONCE {
                return Ok(());
            }
            let (table, filter) = placed_in(name, (bucket, known));
            rows = self.read(table, filter).await?;
        }
    }

    /// Records that are in no bucket, by their versions.
    pub(super) async fn unplaced(&mut self, compare: bool) -> Result<BTreeMap<i64, Vec<String>>, BackupFailure> {
        let own = ["hidden", "document"].map(|name| (TableName::Own(name.to_owned()), None, "bucket", "ver"));
        let tables = self.collections.iter().filter(|of| of.kind == Kind::Table);
        let tables = tables.map(|of| (TableName::Collection(of.name.clone()), Some(of.id.sql()), "_bucket", "mobo_ver"));
        let sources: Vec<_> = own.into_iter().chain(tables).collect();
        let mut changed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let reading = |(name, collection, bucket, ver): &(TableName, Option<i64>, &str, &str)| {
            let mut columns = vec!["id".to_owned(), (*ver).to_owned()];
            columns.extend(collection.is_none().then(|| "collection".to_owned()));
            (Table { name: name.clone(), columns }, Filter { absent: Some((*bucket).to_owned()), ..Filter::default() })
        };
        let readings: Vec<_> = sources.iter().map(reading).collect();
        let mut pages = Pages::of(readings.clone());
        while let Some((at, page)) = pages.next(self.cut).await? {
            let Some(((_, collection, _, ver), (table, _))) = sources.get(at).zip(readings.get(at)) else { continue };
            for row in page {
                let cells = Cells { columns: &table.columns, row: &row };
                let of = collection.map_or_else(|| cells.int("collection"), Ok)?;
                let (id, ver) = (cells.text("id")?, cells.int(ver)?);
                if compare && self.known.unplaced.get(&(of, id.clone())) != Some(&ver) {
                    changed.entry(of).or_default().push(id.clone());
                }
                self.done.marks.unplaced.insert((of, id), ver);
            }
        }
        Ok(changed)
    }

    /// Ships some records with everything that belongs to them, in place of what they had.
    pub(super) async fn ship(&mut self, collection: i64, ids: &[String]) -> Result<(), BackupFailure> {
        for ids in ids.chunks(RECORDS_AT_ONCE) {
            self.belongings(collection, ids).await?;
            let Some(table) = self.collections.iter().find(|of| of.id.sql() == collection).and_then(|of| self.of(of)) else { continue };
            self.replace(table, Vec::new(), ids).await?;
        }
        Ok(())
    }

    /// True where nothing belongs to any record of a table besides its row, neither here nor in what was shipped.
    async fn is_alone(&mut self, collection: i64) -> Result<bool, BackupFailure> {
        for name in of_rows().filter(|name| self.own(name).is_some()).collect::<Vec<_>>() {
            if !self.stays_bare((name, collection)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ships what belongs to some records besides their rows.
    async fn belongings(&mut self, collection: i64, ids: &[String]) -> Result<(), BackupFailure> {
        let is_table = self.collections.iter().any(|of| of.id.sql() == collection && of.kind == Kind::Table);
        let names: Vec<_> = if is_table { of_rows().collect() } else { OF_RECORDS.to_vec() };
        for name in names {
            let Some(table) = self.own(name) else { continue };
            if ids.is_empty() || self.stays_bare((name, collection)).await? {
                continue;
            }
            let equal = self.of_collection(&table, collection);
            if ONE_EACH.contains(&name) {
                self.replace(table, equal, ids).await?;
                continue;
            }
            // A record has any number of these.
            let key = ["collection".to_owned(), "id".to_owned()];
            for id in ids {
                self.packer.add(Deed::Drop, (&table.name, &key), vec![Cell::Int(collection), Cell::Text(id.clone())]).await?;
            }
            let among = Some(("id".to_owned(), ids.to_vec()));
            self.carry(table, vec![Filter { equal, among, ..Filter::default() }]).await?;
        }
        if is_table { Ok(()) } else { self.changes(collection, ids).await }
    }

    /// True where a table holds nothing of a collection, neither here nor in what was shipped.
    async fn stays_bare(&mut self, of: Belonging) -> Result<bool, BackupFailure> {
        if !self.filled.contains_key(&of) {
            self.look_into(of.1).await?;
        }
        Ok(self.filled.get(&of) == Some(&false) && self.known.bare.contains(&of))
    }

    /// Finds out which tables hold anything of a collection, as far as it is not known.
    async fn look_into(&mut self, collection: i64) -> Result<(), BackupFailure> {
        let unknown = OF_RECORDS.into_iter().filter(|name| !self.filled.contains_key(&(*name, collection)));
        let tables: Vec<_> = unknown.filter_map(|name| Some((name, self.own(name)?))).collect();
        let look = |(_, table): &(&str, Table)| {
            let filter = Filter { equal: self.of_collection(table, collection), limit: Some(1), ..Filter::default() };
            (Table { name: table.name.clone(), columns: vec!["id".to_owned()] }, filter)
        };
        let found = Pages::of(tables.iter().map(look).collect()).all(self.cut).await?;
        self.filled.extend(tables.iter().zip(found).map(|((name, _), rows)| ((*name, collection), !rows.is_empty())));
        Ok(())
    }

    /// Puts the rows of some records, of which each has one at the most, and drops those of the others.
    async fn replace(&mut self, table: Table, equal: Vec<(String, Cell)>, ids: &[String]) -> Result<(), BackupFailure> {
        let of = equal.iter().find(|(column, _)| column == "collection").cloned();
        let mut gone: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        self.cut.open(table.clone(), Filter { equal, among: Some(("id".to_owned(), ids.to_vec())), ..Filter::default() }).await?;
        loop {
            let page = self.cut.next().await?;
            if page.is_empty() {
                break;
            }
            for row in page {
                gone.remove(Cells { columns: &table.columns, row: &row }.text("id")?.as_str());
                self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?;
            }
        }
        let (mut key, start): (Vec<String>, Row) = of.into_iter().unzip();
        key.push("id".to_owned());
        for id in gone {
            let mut row = start.clone();
            row.push(Cell::Text(id.to_owned()));
            self.packer.add(Deed::Drop, (&table.name, &key), row).await?;
        }
        Ok(())
    }

    async fn read(&mut self, table: Table, filter: Filter) -> Result<Vec<Row>, BackupFailure> {
        Ok(Pages::of(vec![(table, filter)]).all(self.cut).await?.pop().unwrap_or_default())
    }

    async fn carry(&mut self, table: Table, filters: Vec<Filter>) -> Result<(), BackupFailure> {
        let (packed, others): (Vec<_>, Vec<_>) = filters.into_iter().partition(|of| self.packer.takes_packed(&table.name, &of.equal));
        for filter in others {
            self.carry_each(table.clone(), filter).await?;
        }
        if packed.is_empty() {
            return Ok(());
        }
        self.cut.pack(table.clone(), packed).await?;
        loop {
            let page = self.cut.next_packed().await?;
            if page.is_empty() {
                return Ok(());
            }
            self.packer.add_packed((&table.name, &table.columns), page).await?;
        }
    }

    /// The same, where each row may be of another project.
    async fn carry_each(&mut self, table: Table, filter: Filter) -> Result<(), BackupFailure> {
        self.cut.open(table.clone(), filter).await?;
        loop {
            let page = self.cut.next().await?;
            if page.is_empty() {
                return Ok(());
            }
            for row in page {
                self.packer.add(Deed::Put, (&table.name, &table.columns), row).await?;
            }
        }
    }
}

/// The tables of what belongs to a record that is a row itself.
fn of_rows() -> impl Iterator<Item = &'static str> {
    OF_RECORDS.into_iter().filter(|name| *name != DOCUMENT)
}

/// The next places that one of our own tables has in a bucket.
fn placed_in(name: &str, (bucket, known): (i64, i64)) -> (Table, Filter) {
    let table = Table { name: TableName::Own(name.to_owned()), columns: PLACE.map(str::to_owned).to_vec() };
    let equal = vec![("bucket".to_owned(), Cell::Int(bucket))];
    (table, Filter { equal, above: Some(("position".to_owned(), known)), limit: Some(RECORDS_AT_ONCE), ..Filter::default() })
}

/// The cells of [`LOOKED_AT`].
fn looked_at(mut row: Reader<'_>) -> Result<(String, i64), Malformed> {
    row.array()?;
    Ok((row.text()?.to_owned(), row.i64()?))
}
