//! Everything in a hub's database as of one moment: a read transaction that lives on a thread of its own.
//!
//! There is one every second or oftener. So the thread waits for the next one, and its connection with it, with its statements and what the
//! tables look like.

mod desk;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as blocking;

use mobo_core::backup::packed::{PackedRows, Rooms};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind};
use mobo_core::store::transfer::{Cell, CellRef, Row, Table, TableName};
use mobo_core::store::{BACKUP_OWN, Cut, CutTable, Filter, StoreError, StoreFuture};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};
use tokio::sync::{mpsc, oneshot};

use super::intake;
use super::transfer::{collections, in_pages, name_in_sql, tables};
use crate::sqlite::error::{Failure, known};
use crate::sqlite::open::open_reader_on;
use crate::sqlite::table::quoted;

pub(super) use desk::Cuts;
use desk::Kept;

/// Rows, and whether they are the last ones.
type Page<R> = Result<(R, bool), StoreError>;
type Pages<R> = mpsc::Sender<Page<R>>;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Ask {
    Tables(Answer<Vec<CutTable>>),
    Small(Vec<(Table, Filter)>, Answer<Vec<Vec<Row>>>),
    Read(Table, Filter, Pages<Vec<Row>>),
    Pack(Table, Vec<Filter>, Pages<PackedRows>),
}

/// Ends with it: its transaction.
#[derive(Debug)]
pub(super) struct SqliteCut {
    asks: blocking::SyncSender<Ask>,
    pages: Option<mpsc::Receiver<Page<Vec<Row>>>>,
    packed: Option<mpsc::Receiver<Page<PackedRows>>>,
}

impl SqliteCut {
    /// Begins one: the moment is before this returns.
    pub(super) async fn begin(cuts: Arc<Cuts>, place: (PathBuf, Option<String>)) -> Result<Self, StoreError> {
        // One is answered, and the next one waits: nobody asks for a third.
        let (asks, asked) = blocking::sync_channel(2);
        let (begun, begins) = oneshot::channel();
        // In a file system of the caller's, a connection may not outlive what it was opened for.
        let is_kept = place.1.is_none();
        let rooms = cuts.rooms.clone();
        cuts.run(move |kept| match Serving::begin((kept, rooms), &place) {
            Ok(mut serving) => {
                let _ = begun.send(Ok(()));
                let is_sound = serving.serve(&asked);
                // After a failure the connection is closed and not used again.
                let is_whole = is_kept && is_sound && serving.kept.connection.execute_batch("ROLLBACK").is_ok();
                is_whole.then_some(serving.kept)
            }
            Err(failure) => {
                let _ = begun.send(Err(failure.0));
                None
            }
        })?;
        begins.await.map_err(|_| gone())??;
        Ok(Self { asks, pages: None, packed: None })
    }
}

impl SqliteCut {
    /// Asks what has one answer.
    fn ask<T: Send + 'static>(&mut self, ask: impl FnOnce(Answer<T>) -> Ask) -> StoreFuture<'_, T> {
        let (answer, answered) = oneshot::channel();
        (self.pages, self.packed) = (None, None);
        let asked = self.asks.try_send(ask(answer)).map_err(|_| gone());
        Box::pin(async move {
            asked?;
            answered.await.map_err(|_| gone())?
        })
    }
}

/// Answers what has one answer; true if nothing has failed.
fn reply<T>(answer: Answer<T>, found: Result<T, Failure>) -> bool {
    let is_sound = found.is_ok();
    let _ = answer.send(found.map_err(|failure| failure.0));
    is_sound
}

fn gone() -> StoreError {
    StoreError::Unavailable("the reader of the backup has ended; it is begun again".to_owned())
}

/// The next page of a reading; an empty one at its end.
async fn next<R: Default>(pages: &mut Option<mpsc::Receiver<Page<R>>>) -> Result<R, StoreError> {
    let Some(coming) = pages else { return Ok(R::default()) };
    let (page, is_last) = coming.recv().await.unwrap_or_else(|| Err(gone()))?;
    if is_last {
        *pages = None;
    }
    Ok(page)
}

impl Cut for SqliteCut {
    fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>> {
        self.ask(Ask::Tables)
    }

    fn read_small(&mut self, readings: Vec<(Table, Filter)>) -> StoreFuture<'_, Vec<Vec<Row>>> {
        self.ask(|answer| Ask::Small(readings, answer))
    }

    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()> {
        let (pages, coming) = mpsc::channel(limits::MOVE_PAGES_MAX);
        (self.pages, self.packed) = (Some(coming), None);
        let asked = self.asks.try_send(Ask::Read(table, filter, pages)).map_err(|_| gone());
        Box::pin(async move { asked })
    }

    fn next(&mut self) -> StoreFuture<'_, Vec<Row>> {
        Box::pin(next(&mut self.pages))
    }

    fn pack(&mut self, table: Table, filters: Vec<Filter>) -> StoreFuture<'_, ()> {
        let (pages, coming) = mpsc::channel(limits::MOVE_PAGES_MAX);
        (self.pages, self.packed) = (None, Some(coming));
        let asked = self.asks.try_send(Ask::Pack(table, filters, pages)).map_err(|_| gone());
        Box::pin(async move { asked })
    }

    fn next_packed(&mut self) -> StoreFuture<'_, PackedRows> {
        Box::pin(next(&mut self.packed))
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        // The thread ends with the last who can ask it.
        (self.pages, self.packed) = (None, None);
        Box::pin(async { Ok(()) })
    }
}

/// A cut on its thread.
struct Serving {
    kept: Kept,
    /// The collections that SQL has written into since they were merged last.
    written: Vec<Collection>,
    rooms: Rooms,
}

impl Serving {
    fn begin((kept, rooms): (Option<Kept>, Rooms), (path, vfs): &(PathBuf, Option<String>)) -> Result<Self, Failure> {
        rooms.clear_out();
        let kept = match kept {
            Some(kept) => kept,
            None => Kept { connection: open_reader_on((path, vfs.as_deref()), limits::SQLITE_HUB_CACHE_KIB)?, tables: None },
        };
        kept.connection.execute_batch("BEGIN")?;
        // The snapshot is taken by the first statement that reads.
        let mut statement = kept.connection.prepare_cached("SELECT collection FROM mobo_intake")?;
        let waiting: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(statement);
        let written = match waiting.is_empty() {
            true => Vec::new(),
            false => collections(&kept.connection)?.into_iter().filter(|of| waiting.contains(&of.id.sql())).collect(),
        };
        Ok(Self { kept, written, rooms })
    }

    /// Answers until nobody asks any more; true if nothing has failed.
    fn serve(&mut self, asked: &blocking::Receiver<Ask>) -> bool {
        let mut is_sound = true;
        while let Ok(ask) = asked.recv() {
            match ask {
                Ask::Tables(answer) => is_sound &= reply(answer, self.tables()),
                Ask::Small(readings, answer) => is_sound &= reply(answer, self.read_small(&readings)),
                Ask::Read(table, filter, pages) => {
                    // Only what is called the last page is the end: a thread that dies in the middle of a table has not read all of it.
                    if let Err(failure) = self.read((&table, &filter), &pages) {
                        is_sound = false;
                        let _ = pages.blocking_send(Err(failure.0));
                    }
                }
                Ask::Pack(table, filters, pages) => {
                    if let Err(failure) = self.pack((&table, &filters), &pages) {
                        is_sound = false;
                        let _ = pages.blocking_send(Err(failure.0));
                    }
                }
            }
        }
        is_sound
    }

    fn tables(&mut self) -> Result<Vec<CutTable>, Failure> {
        let connection = &self.kept.connection;
        let version: i64 = connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if let Some((_, tables)) = self.kept.tables.as_ref().filter(|(known, _)| *known == version) {
            return Ok(tables.clone());
        }
        let tables = cut_tables(connection)?;
        self.kept.tables = Some((version, tables.clone()));
        Ok(tables)
    }

    fn read_small(&self, readings: &[(Table, Filter)]) -> Result<Vec<Vec<Row>>, Failure> {
        let (mut found, mut held) = (Vec::with_capacity(readings.len()), 0);
        for (table, filter) in readings {
            let mut statement = self.statement(table, filter)?;
            let (mut rows, mut is_small) = (Vec::new(), true);
            in_pages(statement.raw_query(), table.columns.len(), |page| {
                held += page.len();
                // A whole page is followed by another one, for all that is known.
                is_small = held < limits::MOVE_ROWS_MAX && rows.is_empty();
                rows = page;
                is_small
            })?;
            if !is_small {
                break;
            }
            found.push(rows);
        }
        Ok(found)
    }

    fn read(&self, (table, filter): (&Table, &Filter), pages: &Pages<Vec<Row>>) -> Result<(), Failure> {
        let mut statement = self.statement(table, filter)?;
        // Whoever asked may have gone. A page is told when the next one is there, or when it is known to be the last.
        let mut before: Option<Vec<Row>> = None;
        in_pages(statement.raw_query(), table.columns.len(), |page| {
            before.replace(page).is_none_or(|page| pages.blocking_send(Ok((page, false))).is_ok())
        })?;
        let _ = pages.blocking_send(Ok((before.unwrap_or_default(), true)));
        Ok(())
    }

    fn pack(&self, (table, filters): (&Table, &[Filter]), pages: &Pages<PackedRows>) -> Result<(), Failure> {
        let mut page = self.rooms.page();
        for filter in filters {
            let mut statement = self.statement(table, filter)?;
            // What a column must be equal to need not be read of it.
            let told = |column: &String| filter.equal.iter().find(|(name, _)| name == column).map(|(_, cell)| cell.into());
            let told: Vec<Option<CellRef<'_>>> = table.columns.iter().map(told).collect();
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                page.open(told.len());
                for (column, told) in told.iter().enumerate() {
                    page.cell(told.map_or_else(|| cell(row.get_ref(column)?), Ok)?);
                }
                page.close();
                if page.bytes() >= limits::PACKED_BYTES {
                    let full = std::mem::replace(&mut page, self.rooms.page());
                    if pages.blocking_send(Ok((full, false))).is_err() {
                        // Whoever asked has gone.
                        return Ok(());
                    }
                }
            }
        }
        let _ = pages.blocking_send(Ok((page, true)));
        Ok(())
    }

    /// What gives these columns of these rows.
    fn statement(&self, table: &Table, filter: &Filter) -> Result<CachedStatement<'_>, Failure> {
        let connection = &self.kept.connection;
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
        let columns_in_sql = columns.join(", ");
        // What SQL has written since is in no record yet, and no row that anybody can restore.
        let is_it = |of: &&Collection| of.kind == Kind::Table && matches!(&table.name, TableName::Collection(name) if *name == of.name);
        let rows = match self.written.iter().find(is_it) {
            Some(collection) => intake::merged(connection, collection, &columns_in_sql)?,
            None => name_in_sql(table),
        };
        let sql = format!("SELECT {columns_in_sql} FROM {rows}{}", condition(filter));
        let mut statement = connection.prepare_cached(&sql)?;
        for (place, value) in (1..).zip(values(filter)) {
            statement.raw_bind_parameter(place, super::transfer::Bound(&value))?;
        }
        Ok(statement)
    }
}

fn cell(value: ValueRef<'_>) -> Result<CellRef<'_>, Failure> {
    Ok(match value {
        ValueRef::Null => CellRef::Null,
        ValueRef::Integer(number) => CellRef::Int(number),
        ValueRef::Real(number) => CellRef::Real(number),
        ValueRef::Text(bytes) => CellRef::Text(known(std::str::from_utf8(bytes).ok(), "text")?),
        ValueRef::Blob(bytes) => CellRef::Bytes(bytes),
    })
}

fn cut_tables(connection: &Connection) -> Result<Vec<CutTable>, Failure> {
    let mut found = Vec::new();
    for table in tables(connection)? {
        if matches!(&table.name, TableName::Own(name) if BACKUP_OWN.contains(&name.as_str())) {
            continue;
        }
        let sql = format!("SELECT name FROM pragma_table_info({}) WHERE pk > 0 ORDER BY pk", name_in_sql(&table));
        let mut statement = connection.prepare(&sql)?;
        let key = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        found.push(CutTable { table, key });
    }
    Ok(found)
}

/// The WHERE, with a mark for each of [`values`].
fn condition(filter: &Filter) -> String {
    let mut parts: Vec<String> = filter.equal.iter().map(|(column, _)| format!("{} = ?", quoted(column))).collect();
    parts.extend(filter.above.iter().map(|(column, _)| format!("{} > ?", quoted(column))));
    parts.extend(filter.among.iter().map(|(column, _)| format!("{} IN (SELECT value FROM json_each(?))", quoted(column))));
    parts.extend(filter.absent.iter().map(|column| format!("{} IS NULL", quoted(column))));
    let mut sql = if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) };
    if let Some((column, _)) = &filter.above {
        let _ = write!(sql, " ORDER BY {}", quoted(column));
    }
    if let Some(limit) = filter.limit {
        let _ = write!(sql, " LIMIT {limit}");
    }
    sql
}

fn values(filter: &Filter) -> Vec<Cell> {
    let mut values: Vec<Cell> = filter.equal.iter().map(|(_, value)| value.clone()).collect();
    values.extend(filter.above.iter().map(|(_, number)| Cell::Int(*number)));
    values.extend(filter.among.iter().map(|(_, texts)| Cell::Text(serde_json::json!(texts).to_string())));
    values
}

#[cfg(test)]
mod tests;
