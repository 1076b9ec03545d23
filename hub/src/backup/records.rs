//! The rows of logs and records that are new.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::backup::change::Deed;
use mobo_core::ids::{DeviceId, Lane};
use mobo_core::schema::{Collection, Kind};
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{Filter, StoreError};

use super::BackupFailure;
use super::gather::{Gather, LOGS, OF_RECORDS};
use super::marks::LaneId;
use super::state::Cells;

/// Tables with the places of records in buckets.
const PLACED: [&str; 3] = ["hidden", "document", "member"];
/// What was decided a moment before a cut may be committed after it: it is looked for so far back.
const OVERLAP_US: i64 = 60_000_000;
/// Records whose rows are read at once.
const RECORDS_AT_ONCE: usize = 500;

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
        for ((project, device, incarnation, lane), known) in further {
            let text = |name: &str| name.to_owned();
            let equal = vec![
                (text("project"), Cell::Int(project)),
                (text("device"), Cell::Bytes(device.clone())),
                (text("incarnation"), Cell::Int(incarnation)),
                (text("lane"), Cell::Int(lane)),
            ];
            for log in LOGS {
                let Some(table) = self.own(log) else { continue };
                let above = Some((text("seq"), known));
                self.carry(table, Filter { equal: equal.clone(), above, ..Filter::default() }).await?;
            }
            let Ok(device) = <[u8; 16]>::try_from(device) else { continue };
            for table in streams.iter().filter(|_| lane == i64::from(Lane::Events.number()) || lane == i64::from(Lane::Telemetry.number()))
            {
                let equal = vec![
                    (text("device"), Cell::Text(DeviceId(device).to_string())),
                    (text("_incarnation"), Cell::Int(incarnation)),
                    (text("_lane"), Cell::Int(lane)),
                ];
                let above = Some((text("_seq"), known));
                self.carry(table.clone(), Filter { equal, above, ..Filter::default() }).await?;
            }
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
            self.carry(entry.clone(), Filter { equal, ..Filter::default() }).await?;
        }
        Ok(())
    }

    /// Decisions on the ledger that changed no record.
    pub(super) async fn decided(&mut self) -> Result<(), BackupFailure> {
        let Some(conflict) = self.own("conflict") else { return Ok(()) };
        let projects: BTreeSet<i64> = self.heads.lanes.keys().map(|lane| lane.0).collect();
        for project in projects {
            let equal = vec![("project".to_owned(), Cell::Int(project)), ("status".to_owned(), Cell::Int(0))];
            let above = Some(("at_us".to_owned(), self.known.taken_us - OVERLAP_US));
            self.carry(conflict.clone(), Filter { equal, above, ..Filter::default() }).await?;
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
        for (bucket, known) in further {
            for name in PLACED {
                let names = ["collection", "id", "position"].map(str::to_owned);
                let table = Table { name: TableName::Own(name.to_owned()), columns: names.to_vec() };
                self.placed(table, None, ("bucket", bucket), ("position", known)).await?;
            }
            let tables: Vec<Collection> = self.collections.iter().filter(|of| of.kind == Kind::Table).cloned().collect();
            for of in tables {
                let table = Table { name: TableName::Collection(of.name.clone()), columns: vec!["id".to_owned(), "_position".to_owned()] };
                self.placed(table, Some(of.id.sql()), ("_bucket", bucket), ("_position", known)).await?;
            }
        }
        Ok(())
    }

    async fn placed(
        &mut self,
        table: Table,
        collection: Option<i64>,
        (bucket, id): (&str, i64),
        (position, mut known): (&str, i64),
    ) -> Result<(), BackupFailure> {
        loop {
            let equal = vec![(bucket.to_owned(), Cell::Int(id))];
            let above = Some((position.to_owned(), known));
            let filter = Filter { equal, above, limit: Some(RECORDS_AT_ONCE), ..Filter::default() };
            let rows = self.read(table.clone(), filter).await?;
            let count = rows.len();
            let mut changed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for row in &rows {
                let cells = Cells { columns: &table.columns, row };
                let of = collection.map_or_else(|| cells.int("collection"), Ok)?;
                changed.entry(of).or_default().push(cells.text("id")?);
                known = known.max(cells.int(position)?);
            }
            for (of, ids) in changed {
                self.ship(of, &ids).await?;
            }
            if count < RECORDS_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Records that are in no bucket, by their versions.
    pub(super) async fn unplaced(&mut self, compare: bool) -> Result<BTreeMap<i64, Vec<String>>, BackupFailure> {
        let own = ["hidden", "document"].map(|name| (TableName::Own(name.to_owned()), None, "bucket", "ver"));
        let tables = self.collections.iter().filter(|of| of.kind == Kind::Table);
        let tables = tables.map(|of| (TableName::Collection(of.name.clone()), Some(of.id.sql()), "_bucket", "mobo_ver"));
        let sources: Vec<_> = own.into_iter().chain(tables).collect();
        let mut changed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (name, collection, bucket, ver) in sources {
            let mut columns = vec!["id".to_owned(), ver.to_owned()];
            columns.extend(collection.is_none().then(|| "collection".to_owned()));
            let table = Table { name, columns };
            let filter = Filter { absent: Some(bucket.to_owned()), ..Filter::default() };
            for row in self.read(table.clone(), filter).await? {
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

    /// Ships everything that belongs to some records, in place of what they had.
    pub(super) async fn ship(&mut self, collection: i64, ids: &[String]) -> Result<(), BackupFailure> {
        for ids in ids.chunks(RECORDS_AT_ONCE) {
            for name in OF_RECORDS {
                let Some(table) = self.own(name) else { continue };
                let key = ["collection".to_owned(), "id".to_owned()];
                for id in ids {
                    let row = vec![Cell::Int(collection), Cell::Text(id.clone())];
                    self.packer.add(Deed::Drop, (&table.name, &key), row).await?;
                }
                let mut equal = vec![("collection".to_owned(), Cell::Int(collection))];
                if let Some(project) = self.project().filter(|_| table.columns.iter().any(|column| column == "project")) {
                    equal.push(("project".to_owned(), Cell::Int(project)));
                }
                let among = Some(("id".to_owned(), ids.to_vec()));
                self.carry(table, Filter { equal, among, ..Filter::default() }).await?;
            }
            self.changes(collection, ids).await?;
            let Some(table) = self.collections.iter().find(|of| of.id.sql() == collection).and_then(|of| self.of(of)) else { continue };
            let key = ["id".to_owned()];
            for id in ids {
                self.packer.add(Deed::Drop, (&table.name, &key), vec![Cell::Text(id.clone())]).await?;
            }
            let among = Some(("id".to_owned(), ids.to_vec()));
            self.carry(table, Filter { among, ..Filter::default() }).await?;
        }
        Ok(())
    }

    async fn read(&mut self, table: Table, filter: Filter) -> Result<Vec<Row>, BackupFailure> {
        let mut rows = Vec::new();
        self.cut.open(table, filter).await?;
        loop {
            let page = self.cut.next().await?;
            if page.is_empty() {
                return Ok(rows);
            }
            rows.extend(page);
        }
    }

    async fn carry(&mut self, table: Table, filter: Filter) -> Result<(), BackupFailure> {
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
