//! Everything in a hub's database as of one moment: a read transaction that lives on a thread of its own.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::mpsc as blocking;

use mobo_core::future::BoxFuture;
use mobo_core::limits;
use mobo_core::schema::Kind;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{BACKUP_OWN, Cut, CutTable, Filter, StoreError, StoreFuture};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::intake;
use super::transfer::{collections, in_pages, name_in_sql, tables};
use crate::sqlite::error::Failure;
use crate::sqlite::open::open_reader_on;
use crate::sqlite::table::quoted;

type Pages = mpsc::Sender<Result<Vec<Row>, StoreError>>;

enum Ask {
    Tables(oneshot::Sender<Result<Vec<CutTable>, StoreError>>),
    Read(Table, Filter, Pages),
}

/// Ends with it: the thread, its transaction and its connection.
#[derive(Debug)]
pub(super) struct SqliteCut {
    asks: blocking::SyncSender<Ask>,
    pages: Option<mpsc::Receiver<Result<Vec<Row>, StoreError>>>,
}

impl SqliteCut {
    /// Begins one: the moment is before this returns.
    pub(super) async fn begin(place: (PathBuf, Option<String>)) -> Result<Self, StoreError> {
        // One is answered, and the next one waits: nobody asks for a third.
        let (asks, asked) = blocking::sync_channel(2);
        let (begun, begins) = oneshot::channel();
        let run = move || match open(&place) {
            Ok(connection) => {
                let _ = begun.send(Ok(()));
                serve(&connection, &asked);
            }
            Err(failure) => {
                let _ = begun.send(Err(failure.0));
            }
        };
        let thread = std::thread::Builder::new().name("cut".to_owned()).spawn(run);
        thread.map_err(|error| StoreError::Unavailable(format!("no thread can be started: {error}")))?;
        begins.await.map_err(|_| gone())??;
        Ok(Self { asks, pages: None })
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the reader of the backup has ended; it is begun again".to_owned())
}

fn open((path, vfs): &(PathBuf, Option<String>)) -> Result<Connection, Failure> {
    let connection = open_reader_on((path, vfs.as_deref()), limits::SQLITE_HUB_CACHE_KIB)?;
    connection.execute_batch("BEGIN")?;
    // The snapshot is taken by the first statement that reads.
    connection.query_row("SELECT count(*) FROM mobo_hub", [], |_| Ok(()))?;
    Ok(connection)
}

fn serve(connection: &Connection, asked: &blocking::Receiver<Ask>) {
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Tables(answer) => {
                let _ = answer.send(cut_tables(connection).map_err(|failure| failure.0));
            }
            Ask::Read(table, filter, pages) => {
                // Only an empty page is the end: a thread that dies in the middle of a table has not read all of it.
                let end = read(connection, (&table, &filter), &pages).map(|()| Vec::new()).map_err(|failure| failure.0);
                let _ = pages.blocking_send(end);
            }
        }
    }
}

impl Cut for SqliteCut {
    fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>> {
        Box::pin(async {
            let (answer, answered) = oneshot::channel();
            self.pages = None;
            self.asks.try_send(Ask::Tables(answer)).map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        })
    }

    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()> {
        let (pages, coming) = mpsc::channel(limits::MOVE_PAGES_MAX);
        self.pages = Some(coming);
        let asked = self.asks.try_send(Ask::Read(table, filter, pages)).map_err(|_| gone());
        Box::pin(async move { asked })
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async {
            let Some(pages) = &mut self.pages else { return Ok(Vec::new()) };
            let page = pages.recv().await.unwrap_or_else(|| Err(gone()));
            if page.as_ref().is_ok_and(Vec::is_empty) {
                self.pages = None;
            }
            page
        })
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        // The thread ends with the last who can ask it.
        self.pages = None;
        Box::pin(async { Ok(()) })
    }
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

fn read(connection: &Connection, (table, filter): (&Table, &Filter), pages: &Pages) -> Result<(), Failure> {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
    let columns_in_sql = columns.join(", ");
    // What SQL has written since is in no record yet, and no row that anybody can restore.
    let collection = collections(connection)?
        .into_iter()
        .find(|collection| matches!(&table.name, TableName::Collection(name) if *name == collection.name));
    let rows = match collection.filter(|collection| collection.kind == Kind::Table) {
        Some(collection) => intake::merged(connection, &collection, &columns_in_sql)?,
        None => name_in_sql(table),
    };
    let sql = format!("SELECT {columns_in_sql} FROM {rows}{}", condition(filter));
    let mut statement = connection.prepare_cached(&sql)?;
    for (place, value) in (1..).zip(values(filter)) {
        statement.raw_bind_parameter(place, super::transfer::Bound(&value))?;
    }
    // Whoever asked may have gone.
    in_pages(statement.raw_query(), columns.len(), |page| pages.blocking_send(Ok(page)).is_ok())
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
mod tests {
    use super::*;

    /// Only what was read to its end has ended.
    #[tokio::test]
    async fn a_reader_that_dies_in_a_table_is_no_end_of_it() {
        let (asks, _asked) = blocking::sync_channel(2);
        let (pages, coming) = mpsc::channel(4);
        let mut cut = SqliteCut { asks, pages: Some(coming) };
        pages.send(Ok(vec![vec![Cell::Int(1)]])).await.unwrap();
        drop(pages);
        assert_eq!(cut.next().await, Ok(vec![vec![Cell::Int(1)]]));
        assert_eq!(cut.next().await, Err(gone()));
        let (pages, coming) = mpsc::channel(4);
        cut.pages = Some(coming);
        pages.send(Ok(Vec::new())).await.unwrap();
        drop(pages);
        assert_eq!((cut.next().await, cut.next().await), (Ok(Vec::new()), Ok(Vec::new())));
    }
}
