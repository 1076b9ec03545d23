//! A hub's database on its way to another store, or as one that is filled from another: whole tables, page by page.
//!
//! Everything here blocks: it is for a command that does nothing else, on a thread of its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mobo_core::cbor::Reader;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::schema::Collection;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{BucketAudit, LaneAudit, StoreError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Rows, ToSql, params_from_iter};
use tokio::sync::mpsc;

use super::{audit, entries, schema};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::intake;
use crate::sqlite::open::{Role, open_reader, open_writer};
use crate::sqlite::table::{self, quoted};

/// Tables of ours that stay where they are: what they say is of the file, not of the hub.
const STAY: [&str; 16] = [
    "backup",
    "backup_head",
    "backup_tried",
    "flag",
    "ingest",
    "ingest_said",
    "ingest_taken",
    "intake",
    "intake_refused",
    "live",
    "live_follow",
    "live_log",
    "meta",
    "publisher",
    "trace",
    "traced",
];

/// A hub's database whose rows are read. Nobody may write to it meanwhile.
#[derive(Debug)]
pub struct Export {
    path: PathBuf,
}

impl Export {
    /// A hub's database in this file, which must be there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when it is something else, or of a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.is_file() {
            return Err(StoreError::Refused(format!("there is no hub's database at {}", path.display())));
        }
        // Brings it to the tables of this version, and looks whose it is.
        let writer = open_writer(path, Role::Hub, limits::SQLITE_HUB_CACHE_KIB)?;
        if intake::waits(&writer)? {
            let why = "SQL was written into its tables that no hub has taken in yet: start the hub on it once, and stop it";
            return Err(StoreError::Refused(format!("{}: {why}", path.display())));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// All tables that travel: mobo's own ones first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn tables(&self) -> Result<Vec<Table>, StoreError> {
        Ok(tables(&self.connect()?)?)
    }

    /// Reads all rows of a table and hands them on in pages; gives up when nobody takes them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn read(&self, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        Ok(read(&self.connect()?, table, pages)?)
    }

    fn connect(&self) -> Result<Connection, Failure> {
        open_reader(&self.path, limits::SQLITE_HUB_CACHE_KIB)
    }
}

/// A hub's database that is being filled, beside the place where it is to be: only a whole one gets its name.
#[derive(Debug)]
pub struct Import {
    pub(super) path: PathBuf,
    place: PathBuf,
    pub(super) connection: Connection,
}

impl Import {
    /// Begins to fill a database that is to be at `place`. What an earlier attempt left behind is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when a file is there already.
    pub fn begin(place: &Path) -> Result<Self, StoreError> {
        if place.exists() {
            let place = place.display();
            return Err(StoreError::Refused(format!("{place} is there already: move it away, with the -wal beside it if there is one")));
        }
        let path = beside(place, ".moving");
        for file in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(&file, &error)),
                _ => {}
            }
        }
        let connection = open_writer(&path, Role::Hub, limits::SQLITE_HUB_CACHE_KIB)?;
        // A file that a power cut catches half filled is filled anew: it is synced once, at the end.
        connection.execute_batch("PRAGMA synchronous = OFF").map_err(Failure::from)?;
        Ok(Self { path, place: place.to_owned(), connection })
    }

    /// The tables that it has: those of collections once they were [made](Self::make_collections).
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn tables(&self) -> Result<Vec<Table>, StoreError> {
        Ok(tables(&self.connection)?)
    }

    /// Makes the tables of the collections whose definitions have arrived.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] for a definition of a later version.
    pub fn make_collections(&mut self) -> Result<(), StoreError> {
        for collection in collections(&self.connection)? {
            table::create(&self.connection, &collection)?;
        }
        Ok(())
    }

    /// Writes all rows of a table as they come, one transaction for each page.
    ///
    /// # Errors
    ///
    /// What the database says of a row; nothing of this database counts then.
    pub fn write(&mut self, table: &Table, pages: &mut mpsc::Receiver<Vec<Row>>) -> Result<(), StoreError> {
        Ok(write(&mut self.connection, table, pages)?)
    }

    /// The rows that are there now, for a comparison.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn read(&self, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        Ok(read(&self.connection, table, pages)?)
    }

    /// Recomputes every digest from its rows and every chain from its entries.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn audit(&self) -> Result<(Vec<BucketAudit>, Vec<LaneAudit>), StoreError> {
        Ok(audits(&self.connection)?)
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    ///
    /// What the disk says; the database has no name then.
    pub fn settle(self) -> Result<(), StoreError> {
        self.connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)").map_err(Failure::from)?;
        self.connection.close().map_err(|(_, error)| Failure::from(error))?;
        let settle = || {
            File::open(&self.path)?.sync_all()?;
            std::fs::rename(&self.path, &self.place)?;
            let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        settle().map_err(|error| disk(&self.place, &error))
    }
}

fn audits(connection: &Connection) -> Result<(Vec<BucketAudit>, Vec<LaneAudit>), Failure> {
    let mut statement = connection.prepare("SELECT id FROM mobo_project")?;
    let projects: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let (mut buckets, mut lanes) = (Vec::new(), Vec::new());
    for project in projects {
        let project = known(ProjectId::from_sql(project), "project")?;
        buckets.extend(audit::buckets(connection, project, &*schema::Schemas::default().of(connection, project)?)?);
        lanes.extend(entries::audit(connection, project)?);
    }
    Ok((buckets, lanes))
}

pub(super) fn disk(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn name_in_sql(table: &Table) -> String {
    match &table.name {
        TableName::Own(name) => quoted(&format!("mobo_{name}")),
        TableName::Collection(name) => quoted(name),
    }
}

pub(super) fn tables(connection: &Connection) -> Result<Vec<Table>, Failure> {
    let mut statement = connection
        .prepare(r"SELECT substr(name, 6) FROM sqlite_schema WHERE type = 'table' AND name LIKE 'mobo\_%' ESCAPE '\' ORDER BY 1")?;
    let own: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let own = own.into_iter().filter(|name| !STAY.contains(&name.as_str()) && !name.starts_with("before_")).map(TableName::Own);
    let collections = collections(connection)?.into_iter().map(|collection| TableName::Collection(collection.name));
    let mut tables = Vec::new();
    for name in own.chain(collections) {
        let mut table = Table { name, columns: Vec::new() };
        let mut statement = connection.prepare(&format!("SELECT name FROM pragma_table_info({}) ORDER BY name", name_in_sql(&table)))?;
        table.columns = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if !table.columns.is_empty() || matches!(table.name, TableName::Own(_)) {
            tables.push(table);
        }
    }
    Ok(tables)
}

pub(super) fn collections(connection: &Connection) -> Result<Vec<Collection>, Failure> {
    let mut statement = connection.prepare("SELECT definition FROM mobo_collection ORDER BY name")?;
    let definitions: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    definitions.iter().map(|definition| Ok(Collection::decode(&mut Reader::new(definition))?)).collect()
}

fn read(connection: &Connection, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), Failure> {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
    let mut statement = connection.prepare(&format!("SELECT {} FROM {}", columns.join(", "), name_in_sql(table)))?;
    // Whoever takes them and does not has failed, and says so.
    in_pages(statement.query([])?, columns.len(), |page| pages.blocking_send(page).is_ok())
}

/// Gives rows away in pages of bounded size, until `take` wants no more.
pub(super) fn in_pages(mut rows: Rows<'_>, columns: usize, mut take: impl FnMut(Vec<Row>) -> bool) -> Result<(), Failure> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let cells: Row = (0..columns).map(|column| cell(row.get_ref(column)?)).collect::<Result<_, Failure>>()?;
        bytes += cells.iter().map(Cell::bytes).sum::<usize>();
        page.push(cells);
        if page.len() >= limits::MOVE_ROWS_MAX || bytes >= limits::MOVE_BYTES_MAX {
            bytes = 0;
            if !take(std::mem::take(&mut page)) {
                return Ok(());
            }
        }
    }
    if !page.is_empty() {
        take(page);
    }
    Ok(())
}

pub(super) fn cell(value: ValueRef<'_>) -> Result<Cell, Failure> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(bytes) => Cell::Text(known(std::str::from_utf8(bytes).ok().map(str::to_owned), "text")?),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
    })
}

pub(super) struct Bound<'c>(pub(super) &'c Cell);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn write(connection: &mut Connection, table: &Table, pages: &mut mpsc::Receiver<Vec<Row>>) -> Result<(), Failure> {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO {}({}) VALUES ({marks})", name_in_sql(table), columns.join(", "));
    while let Some(page) = pages.blocking_recv() {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(&insert)?;
            for row in &page {
                insert.execute(params_from_iter(row.iter().map(Bound)))?;
            }
        }
        transaction.commit()?;
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    }
    Ok(())
}
