//! A part of what a backup holds: records as they were at its moment, to be written into a hub that runs.
//!
//! A hub that goes back as a whole goes on under a new timeline. A part does not: what was is a later write by the hub that runs, which its
//! devices get like any other. So it may come out of any repository that can be opened, also that of another hub.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::entry::{Entry, Payload};
use mobo_core::ids::{Chain, ProjectId, RecordId, RecordKey, Seq};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::merge::prepare::{Content, prepare_entry};
use mobo_core::query::Select;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType, Kind};
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{DeviceRow, Filter, HubStore, StoreError};
use serde_json::{Map, Value, json};

use super::restore::{Restored, unpack};
use super::state::Cells;
use super::{BackupFailure, Point, Repository, Step};

/// Which records. Everything that is given must fit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Those of this project.
    pub project: Option<String>,
    /// Those of these collections; of all that are no streams, where there are none.
    pub collections: Vec<String>,
    /// Those that this device has written to, by its name or id.
    pub device: Option<String>,
}

/// Some records of a backup, unpacked into a folder of their own.
#[derive(Debug)]
pub struct Part {
    /// What was unpacked.
    pub restored: Restored,
    store: Arc<dyn HubStore>,
    project: ProjectId,
    collections: VecDeque<Collection>,
    /// Only these.
    only: Option<BTreeSet<RecordKey>>,
    offset: u64,
}

impl Part {
    /// Unpacks a moment of a repository into `folder`, which the caller removes. `progress` hears what it holds, and how far it is.
    ///
    /// # Errors
    ///
    /// [`BackupFailure`]; [`BackupFailure::Refused`] for what is not in it.
    pub async fn open(
        repository: &Repository,
        point: (Point, &[mobo_core::backup::manifest::Anchor]),
        wanted: &Wanted,
        folder: &Path,
        progress: impl FnMut(Step),
    ) -> Result<Self, BackupFailure> {
        let (restored, file) = unpack(repository, point, folder, progress).await?;
        let opened = tokio::task::spawn_blocking(move || SqliteHubStore::open(&file)).await;
        let opened = opened.map_err(|error| BackupFailure::Refused(error.to_string()))??;
        let store: Arc<dyn HubStore> = Arc::new(opened);
        let project = repository.keyring().project;
        let chosen = async {
            if let Some(name) = &wanted.project {
                is_its_name(store.as_ref(), project, name).await?;
            }
            let collections = choose(store.as_ref(), project, wanted).await?;
            let only = match &wanted.device {
                Some(name) => Some(written_by(store.as_ref(), project, name).await?),
                None => None,
            };
            Ok((collections, only))
        };
        match chosen.await {
            Ok((collections, only)) => Ok(Self { restored, store, project, collections, only, offset: 0 }),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// The collection at hand; `None` at the end of all.
    #[must_use]
    pub fn collection(&self) -> Option<Collection> {
        self.collections.front().cloned()
    }

    /// Some records of the collection at hand, as `{"id": …, "fields": {…}}`; `None` once, at the end of each collection.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, BackupFailure> {
        let Some(collection) = self.collection() else { return Ok(None) };
        let mut select = Select::all(self.project, Arc::new(collection.clone()));
        select.columns.retain(|column| column.alias == "id");
        (select.limit, select.offset) = (ROWS_AT_ONCE, self.offset);
        let page = self.store.select(select).await?.rows;
        self.offset += page.len() as u64;
        if page.is_empty() {
            self.collections.pop_front();
            self.offset = 0;
            return Ok(None);
        }
        let mut rows = Vec::new();
        for id in page.iter().filter_map(|row| row.get("id").and_then(Value::as_str)) {
            let id = RecordId::new(id).map_err(|error| StoreError::Damaged(error.to_string()))?;
            let key = RecordKey { collection: collection.id, id };
            if self.only.as_ref().is_some_and(|only| !only.contains(&key)) {
                continue;
            }
            let row = self.store.record(self.project, key.clone()).await?;
            if let Some(fields) = row.and_then(|row| fields(&collection, &row.state)) {
                rows.push(json!({ "id": key.id.as_str(), "fields": fields }));
            }
        }
        Ok(Some(rows))
    }

    /// Lets go of what was unpacked.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Records that are read at once.
const ROWS_AT_ONCE: u64 = 100;

/// The fields of a record by their names, as the records API shows them; `None` where it is not visible.
#[must_use]
pub fn fields(collection: &Collection, state: &RecordState) -> Option<Map<String, Value>> {
    let columns = state.project(collection)?;
    let mut fields = Map::new();
    for (field, value) in collection.fields.iter().zip(&columns).filter(|(field, _)| !field.retired) {
        let kind = if field.kind == FieldType::Counter { FieldType::Int } else { field.kind };
        fields.insert(field.name.clone(), value_to_json(value, kind));
    }
    Some(fields)
}

async fn choose(store: &dyn HubStore, project: ProjectId, wanted: &Wanted) -> Result<VecDeque<Collection>, BackupFailure> {
    let schema = store.schema(project).await?;
    if wanted.collections.is_empty() {
        return Ok(schema.iter().filter(|collection| collection.kind != Kind::Stream).cloned().collect());
    }
    let one = |name: &String| {
        let found = schema.by_name(name).ok_or_else(|| BackupFailure::Refused(format!("there is no collection {name} in this backup")))?;
        if found.kind == Kind::Stream {
            let why = "is a stream: its samples belong to the logs of the devices that took them, and come back with the whole hub";
            return Err(BackupFailure::Refused(format!("{name} {why}")));
        }
        Ok(Collection::clone(found))
    };
    wanted.collections.iter().map(one).collect()
}

async fn is_its_name(store: &dyn HubStore, project: ProjectId, wanted: &str) -> Result<(), BackupFailure> {
    let table = own("project", &["id", "name"]);
    let mut name = String::new();
    let named = |row: &Row| {
        name = Cells { columns: &table.columns, row }.text("name")?;
        Ok(())
    };
    each(store, &table, vec![("id".to_owned(), Cell::Int(project.sql()))], named).await?;
    if name == wanted { Ok(()) } else { Err(BackupFailure::Refused(format!("this backup holds the records of the project {name}"))) }
}

/// Every record that a device has ever written to, by the logs.
async fn written_by(store: &dyn HubStore, project: ProjectId, name: &str) -> Result<BTreeSet<RecordKey>, BackupFailure> {
    let devices = store.devices(project).await?;
    let is_it = |row: &&DeviceRow| row.name == name || row.id.to_string() == name;
    let unknown = || BackupFailure::Refused(format!("there is no device {name} in this backup"));
    let device = devices.iter().find(is_it).ok_or_else(unknown)?.id;
    let table = own("entry", &["header", "payload"]);
    let equal = vec![("project".to_owned(), Cell::Int(project.sql())), ("device".to_owned(), Cell::Bytes(device.0.to_vec()))];
    let mut keys = BTreeSet::new();
    let written = |row: &Row| {
        let cells = Cells { columns: &table.columns, row };
        // Of an entry that was lost there is a hash only.
        let (Ok(header), Ok(payload)) = (cells.bytes("header"), cells.bytes("payload")) else { return Ok(()) };
        let entry = Entry { header, payload: Payload::Present(payload) };
        match prepare_entry(Seq::FIRST, entry, Chain([0; 32])).content {
            Content::Table(ops) => keys.extend(ops.into_iter().map(|op| op.key)),
            Content::Document(ops) => keys.extend(ops.into_iter().map(|op| op.key)),
            Content::Stream | Content::Lost | Content::Poison(_) => {}
        }
        if keys.len() > limits::RESTORE_RECORDS_MAX {
            let why = format!("{name} has written to more than {} records: restore whole collections", limits::RESTORE_RECORDS_MAX);
            return Err(BackupFailure::Refused(why));
        }
        Ok(())
    };
    each(store, &table, equal, written).await?;
    Ok(keys)
}

fn own(name: &str, columns: &[&str]) -> Table {
    Table { name: TableName::Own(name.to_owned()), columns: columns.iter().map(|&column| column.to_owned()).collect() }
}

async fn each(
    store: &dyn HubStore,
    table: &Table,
    equal: Vec<(String, Cell)>,
    mut take: impl FnMut(&Row) -> Result<(), BackupFailure>,
) -> Result<(), BackupFailure> {
    let mut cut = store.cut().await?;
    cut.open(table.clone(), Filter { equal, ..Filter::default() }).await?;
    loop {
        let page = cut.next().await?;
        if page.is_empty() {
            return Ok(cut.end().await?);
        }
        page.iter().try_for_each(&mut take)?;
    }
}
