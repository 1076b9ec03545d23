//! Everything in a database as of one moment: a transaction that only reads, with a cursor for what is being read.
//!
//! There is one every second or oftener, and each question is a round trip. So the catalog is asked again only when it has changed, a table that
//! fits into a page is read without a cursor, and the first rows of any other come with the words that declare it. A binary cursor gives the
//! same bytes as a statement of its own would, which has to be prepared each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::backup::packed::{PackedRows, Rooms};
use mobo_core::limits;
use mobo_core::store::transfer::{Cell, Row, Table, TableName};
use mobo_core::store::{BACKUP_OWN, Cut, CutTable, Filter, StoreFuture};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::Failure;
use super::session::Tx;
use super::table::quoted;
use super::transfer::binary::{self, Form};
use super::transfer::{STAY, name_in_sql};

#[derive(Debug)]
pub(super) struct PostgresCut {
    tx: Tx,
    /// Where the shape of the tables is kept for the next cut.
    shapes: Arc<Shapes>,
    catalog: Option<Catalog>,
    /// A cursor stands.
    is_declared: bool,
    open: Option<Reading>,
    /// What is read behind it, the last first.
    behind: Vec<(Table, Filter)>,
}

/// Rows on their way, as they came from the database.
#[derive(Debug)]
struct Reading {
    name: TableName,
    forms: Vec<Form>,
    rows: std::vec::IntoIter<PgRow>,
    /// There are no more behind these.
    is_last: bool,
}

impl PostgresCut {
    pub(super) fn new(tx: Tx, shapes: Arc<Shapes>) -> Self {
        shapes.rooms.clear_out();
        Self { tx, shapes, catalog: None, is_declared: false, open: None, behind: Vec::new() }
    }

    async fn catalog(&mut self) -> Result<&Catalog, Failure> {
        if self.catalog.is_none() {
            self.catalog = Some(Catalog::read(&mut self.tx, &self.shapes).await?);
        }
        self.catalog.as_ref().ok_or_else(|| Failure::damaged("the catalog was read, and is not there"))
    }

    /// Begins a reading, and has its first rows with the same words.
    async fn begin(&mut self, table: Table, filter: &Filter) -> Result<(), Failure> {
        self.open = None;
        let catalog = self.catalog().await?;
        let (forms, source) = (catalog.forms(&table)?, catalog.merged(&table));
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
        let select = format!("SELECT {} FROM {source}{}", columns.join(", "), condition(filter));
        let is_small = *filter == Filter::default() && matches!(table.name, TableName::Own(_));
        if is_small {
            // It is asked in each cut, in the same words: the database knows how.
            let limit = limits::MOVE_ROWS_MAX + 1;
            let rows = self.tx.rows(sqlx::query(AssertSqlSafe(format!("{select} LIMIT {limit}")))).await?;
            if rows.len() < limit {
                self.open = Some(Reading { name: table.name, forms, rows: rows.into_iter(), is_last: true });
                return Ok(());
            }
        }
        let shut = if std::mem::replace(&mut self.is_declared, true) { "CLOSE cut; " } else { "" };
        let rows = self.tx.script_rows(format!("{shut}DECLARE cut BINARY NO SCROLL CURSOR FOR {select}; {}", fetch())).await?;
        let is_last = rows.len() < limits::MOVE_ROWS_MAX;
        self.open = Some(Reading { name: table.name, forms, rows: rows.into_iter(), is_last });
        Ok(())
    }

    /// What is being read, with more rows where those that came are taken and there are more; `None` at its end.
    async fn reading(&mut self) -> Result<Option<&mut Reading>, Failure> {
        let Some(reading) = &mut self.open else { return Ok(None) };
        if reading.rows.len() == 0 && !reading.is_last {
            let rows = self.tx.script_rows(fetch()).await?;
            reading.is_last = rows.len() < limits::MOVE_ROWS_MAX;
            reading.rows = rows.into_iter();
        }
        Ok(Some(reading).filter(|reading| reading.rows.len() > 0))
    }

    async fn read_small(&mut self, readings: Vec<(Table, Filter)>) -> Result<Vec<Vec<Row>>, Failure> {
        self.behind.clear();
        let (mut found, mut held) = (Vec::with_capacity(readings.len()), 0);
        for (table, filter) in readings {
            self.begin(table, &filter).await?;
            held += self.open.as_ref().map_or(0, |reading| reading.rows.len());
            if held >= limits::MOVE_ROWS_MAX || self.open.as_ref().is_some_and(|reading| !reading.is_last) {
                break;
            }
            found.push(self.page().await?);
        }
        self.open = None;
        Ok(found)
    }

    async fn page(&mut self) -> Result<Vec<Row>, Failure> {
        let Some(Reading { name, forms, rows, .. }) = self.reading().await? else { return Ok(Vec::new()) };
        rows.map(|row| binary::decode(&row, forms, name)).collect()
    }

    async fn packed(&mut self) -> Result<PackedRows, Failure> {
        let mut page = self.shapes.rooms.page();
        while page.bytes() < limits::PACKED_BYTES {
            if let Some(Reading { name, forms, rows, .. }) = self.reading().await? {
                for row in rows {
                    binary::pack(&row, (forms, name), &mut page)?;
                    if page.bytes() >= limits::PACKED_BYTES {
                        break;
                    }
                }
                continue;
            }
            let Some((table, filter)) = self.behind.pop() else { break };
            self.begin(table, &filter).await?;
        }
        Ok(page)
    }
}

impl Cut for PostgresCut {
    fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>> {
        Box::pin(async {
            let catalog = self.catalog().await?;
            Ok(catalog.tables.iter().map(|(found, _)| found).filter(|found| is_copied(&found.table.name)).cloned().collect())
        })
    }

    fn read_small(&mut self, readings: Vec<(Table, Filter)>) -> StoreFuture<'_, Vec<Vec<Row>>> {
        Box::pin(async move {
            let found = self.read_small(readings).await;
            Ok(self.shapes.kept_if(found)?)
        })
    }

    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.behind.clear();
            let begun = self.begin(table, &filter).await;
            Ok(self.shapes.kept_if(begun)?)
        })
    }

    fn next(&mut self) -> StoreFuture<'_, Vec<Row>> {
        Box::pin(async {
            let page = self.page().await;
            Ok(self.shapes.kept_if(page)?)
        })
    }

    fn pack(&mut self, table: Table, filters: Vec<Filter>) -> StoreFuture<'_, ()> {
        (self.open, self.behind) = (None, filters.into_iter().rev().map(|filter| (table.clone(), filter)).collect());
        Box::pin(async { Ok(()) })
    }

    fn next_packed(&mut self) -> StoreFuture<'_, PackedRows> {
        Box::pin(async {
            let page = self.packed().await;
            Ok(self.shapes.kept_if(page)?)
        })
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.open = None;
            Ok(self.tx.reset().await?)
        })
    }
}

fn fetch() -> String {
    format!("FETCH {} FROM cut", limits::MOVE_ROWS_MAX)
}

/// What one cut keeps for the next.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// What the tables looked like, and what says when they do not any more: asking for each column of each table costs more than all else that
    /// an idle cut asks.
    known: Mutex<Option<(Shape, Arc<Tables>)>>,
    /// Memory for packed rows.
    rooms: Rooms,
}

/// The version of mobo's own tables, and each collection with its id and revision. A table changes with one of them.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Shape {
    version: i32,
    collections: Vec<(String, i64, i64)>,
}

/// Mobo's own ones first, with the form of each column.
type Tables = Vec<(CutTable, Vec<Option<Form>>)>;

impl Shapes {
    fn of(&self, shape: &Shape) -> Option<Arc<Tables>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(known, _)| known == shape).map(|(_, tables)| Arc::clone(tables))
    }

    /// What could not be read by them may have been changed by hand: the next cut asks again.
    fn kept_if<T>(&self, read: Result<T, Failure>) -> Result<T, Failure> {
        if read.is_err() {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        read
    }

    fn keep(&self, shape: Shape, tables: &Arc<Tables>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((shape, Arc::clone(tables)));
    }
}

/// What the database says of its tables, as of the moment of the cut.
#[derive(Debug)]
struct Catalog {
    tables: Arc<Tables>,
    /// The collections that SQL has written into since they were merged last, with their ids.
    written: BTreeMap<String, i64>,
}

impl Catalog {
    async fn read(tx: &mut Tx, shapes: &Shapes) -> Result<Self, Failure> {
        const COLLECTIONS: &str = "SELECT name, id, rev, EXISTS (SELECT FROM mobo.intake i WHERE i.collection = c.id), \
                                   (SELECT max(version) FROM mobo.migration) FROM mobo.collection c ORDER BY name";
        let (mut shape, mut written) = (None, BTreeMap::new());
        for row in tx.rows(sqlx::query(COLLECTIONS)).await? {
            let (name, id, rev, is_written): (String, i64, i64, bool) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            written.extend(is_written.then_some((name.clone(), id)));
            let shape = shape.get_or_insert(Shape { version: row.try_get(4)?, collections: Vec::new() });
            shape.collections.push((name, id, rev));
        }
        // Without a collection nothing says the version, and there is little to ask for.
        let Some(shape) = shape else { return Ok(Self { tables: Arc::new(tables(tx, Vec::new()).await?), written }) };
        if let Some(tables) = shapes.of(&shape) {
            return Ok(Self { tables, written });
        }
        let tables = Arc::new(tables(tx, shape.collections.iter().map(|(name, ..)| name.clone()).collect()).await?);
        shapes.keep(shape, &tables);
        Ok(Self { tables, written })
    }

    fn forms(&self, table: &Table) -> Result<Vec<Form>, Failure> {
        let found = self.tables.iter().find(|(found, _)| found.table.name == table.name);
        let form = |column: &String| {
            let (known, forms) = found?;
            let place = known.table.columns.iter().position(|name| name == column)?;
            forms.get(place).copied().flatten()
        };
        let unknown = |column: &String| Failure::refused(format!("{} has no column {column} that this version can read", table.name));
        table.columns.iter().map(|column| form(column).ok_or_else(|| unknown(column))).collect()
    }

    /// The rows of a table as they were merged last. What SQL has written into them since is in no record yet, and no row that anybody can
    /// restore.
    fn merged(&self, table: &Table) -> String {
        let name = name_in_sql(table);
        let TableName::Collection(collection) = &table.name else { return name };
        let Some(id) = self.written.get(collection) else { return name };
        format!(
            "(SELECT r.* FROM {name} r WHERE NOT EXISTS (SELECT FROM mobo.intake i WHERE i.collection = {id} AND i.id = r.id) UNION ALL \
             SELECT (jsonb_populate_record(NULL::{name}, f.old)).* FROM (SELECT DISTINCT ON (i.id) i.old FROM mobo.intake i \
             WHERE i.collection = {id} ORDER BY i.id, i.n) f WHERE f.old IS NOT NULL) merged"
        )
    }
}

/// All tables, of ours and of these collections, with their columns.
async fn tables(tx: &mut Tx, names: Vec<String>) -> Result<Tables, Failure> {
    const COLUMNS: &str = "SELECT n.nspname::text, c.relname::text, a.attname::text, t.typname::text, coalesce(k.place, 0) \
                           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                           JOIN pg_type t ON t.oid = a.atttypid \
                           LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary \
                           LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) ON k.attnum = a.attnum \
                           WHERE c.relkind IN ('r', 'p') AND (n.nspname = 'mobo' OR n.nspname = 'public' AND c.relname = ANY($1)) \
                           ORDER BY n.nspname, c.relname COLLATE \"C\", a.attname COLLATE \"C\"";
    let mut found: BTreeMap<TableName, Found> = BTreeMap::new();
    for row in tx.rows(sqlx::query(COLUMNS).bind(&names)).await? {
        let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let name = if schema == "mobo" { TableName::Own(name) } else { TableName::Collection(name) };
        found.entry(name).or_default().add(row.try_get(2)?, (row.try_get(3)?, row.try_get(4)?));
    }
    let own: Vec<TableName> = found.keys().filter(|name| matches!(name, TableName::Own(_))).cloned().collect();
    let all = own.into_iter().chain(names.into_iter().map(TableName::Collection));
    Ok(all.filter_map(|name| found.remove(&name).map(|found| found.table(name))).collect())
}

/// False for what is of the database, or of its backups: that is read, and in no copy.
fn is_copied(name: &TableName) -> bool {
    !matches!(name, TableName::Own(name) if STAY.contains(&name.as_str()) || BACKUP_OWN.contains(&name.as_str()))
}

/// The columns of a table with their forms, and the place that each has in its key.
#[derive(Debug, Default)]
struct Found {
    columns: Vec<String>,
    forms: Vec<Option<Form>>,
    key: BTreeMap<i64, String>,
}

impl Found {
    fn add(&mut self, column: String, (kind, place): (String, i64)) {
        if place > 0 {
            self.key.insert(place, column.clone());
        }
        self.columns.push(column);
        self.forms.push(Form::of(&kind));
    }

    fn table(self, name: TableName) -> (CutTable, Vec<Option<Form>>) {
        (CutTable { table: Table { name, columns: self.columns }, key: self.key.into_values().collect() }, self.forms)
    }
}

/// The WHERE, with its values in it: a cursor takes none from outside.
fn condition(filter: &Filter) -> String {
    let mut parts: Vec<String> = filter.equal.iter().map(|(column, value)| format!("{} = {}", quoted(column), literal(value))).collect();
    parts.extend(filter.above.iter().map(|(column, number)| format!("{} > {number}", quoted(column))));
    parts.extend(filter.among.iter().map(|(column, texts)| {
        let texts: Vec<String> = texts.iter().map(|text| literal(&Cell::Text(text.clone()))).collect();
        format!("{} IN ({})", quoted(column), if texts.is_empty() { "NULL".to_owned() } else { texts.join(", ") })
    }));
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

/// A value in SQL, whatever `standard_conforming_strings` says.
fn literal(value: &Cell) -> String {
    match value {
        Cell::Null => "NULL".to_owned(),
        Cell::Int(number) => number.to_string(),
        Cell::Real(number) => format!("'{number:?}'::float8"),
        Cell::Text(text) => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        Cell::Bytes(bytes) => format!("decode('{}', 'hex')", mobo_core::backup::hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        let filter = Filter {
            equal: vec![("a\"b".into(), Cell::Bytes(vec![0, 255])), ("c".into(), Cell::Int(-1))],
            above: Some(("p".into(), 7)),
            among: Some(("id".into(), vec!["it's".into(), "\\'; DROP TABLE x; --".into()])),
            absent: None,
            limit: Some(5),
        };
        let want = " WHERE \"a\"\"b\" = decode('00ff', 'hex') AND \"c\" = -1 AND \"p\" > 7 AND \
                    \"id\" IN (E'it''s', E'\\\\''; DROP TABLE x; --') ORDER BY \"p\" LIMIT 5";
        assert_eq!(condition(&filter), want);
        assert_eq!(condition(&Filter::default()), "");
    }
}
