//! A database on its way to another store, or as one that is filled from another: whole tables, page by page.
//!
//! What is filled is one transaction: the database is empty or complete, whenever the hub is killed.

pub(super) mod binary;

use mobo_core::cbor::Reader;
use mobo_core::limits;
use mobo_core::schema::Collection;
use mobo_core::store::transfer::{Row, Table, TableName};
use mobo_core::store::{BucketAudit, LaneAudit, StoreError};
use sqlx::{AssertSqlSafe, Connection, Row as _};
use tokio::sync::mpsc;

use super::address::Address;
use super::error::{Failure, known};
use super::session::{Purpose, Tx};
use super::table::quoted;
use super::{audit, intake, migrate, schemas, table};
use binary::{Encoder, Form};

/// Tables of ours that stay where they are: what they say is of the database, not of the hub.
pub(super) const STAY: [&str; 16] = [
    "backup",
    "backup_head",
    "backup_tried",
    "ingest",
    "ingest_said",
    "ingest_taken",
    "intake",
    "intake_refused",
    "intake_seen",
    "live",
    "live_follow",
    "live_log",
    "migration",
    "publisher",
    "trace",
    "traced",
];
/// Any number but that of the migrations, as long as it is the same in every hub.
const LOCK: i64 = 0x6d6f_626f_6d6f_7665;
/// How often to look whether another hub, or another move, has gone, and how long to wait in between.
const OTHERS_LOOKS: u32 = 50;
const OTHERS_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A hub's database whose rows are read, all in one snapshot.
#[derive(Debug)]
pub struct Export {
    tx: Tx,
}

impl Export {
    /// The database at this URL, brought to the tables of this version.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when a hub uses it: what that one writes from now on would be left behind; and when there is SQL in it that was
    /// not taken in. Else as for a store.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let mut tx = begin(url, Purpose::Audit).await?;
        let others = others(&mut tx).await?;
        if others > 0 {
            return Err(StoreError::Refused(format!(
                "{others} connections of a hub are open to this database: stop every hub that uses it"
            )));
        }
        if intake::waits(&mut tx).await? {
            let why = "SQL was written into this database that no hub has taken in yet: boot the hub on it once more, and stop it";
            return Err(StoreError::Refused(why.to_owned()));
        }
        Ok(Self { tx })
    }

    /// All tables that travel: mobo's own ones first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        Ok(tables(&mut self.tx).await?)
    }

    /// Reads all rows of a table and hands them on in pages; gives up when nobody takes them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn read(&mut self, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        Ok(read(&mut self.tx, table, pages).await?)
    }

    /// Which columns of a table hold JSON.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn json(&mut self, table: &Table) -> Result<Vec<bool>, StoreError> {
        Ok(forms(&mut self.tx, table).await?.into_iter().map(|form| form == Form::Json).collect())
    }
}

/// A database that is being filled. Dropped, it is as empty as it was.
#[derive(Debug)]
pub struct Import {
    tx: Tx,
}

impl Import {
    /// Begins to fill the database at this URL, which must be an empty one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when there is a hub in it, or somebody else fills it. Else as for a store.
    pub async fn begin(url: &str) -> Result<Self, StoreError> {
        let mut tx = begin(url, Purpose::Write).await?;
        if !lock(&mut tx).await? {
            return Err(StoreError::Refused("another move into this database is under way: wait until it has ended".to_owned()));
        }
        for table in tables(&mut tx).await? {
            let look = format!("SELECT EXISTS (SELECT FROM {})", name_in_sql(&table));
            let row = known(tx.row(sqlx::query(AssertSqlSafe(look))).await?, "answer")?;
            if row.try_get(0).map_err(Failure::from)? {
                let why = format!("the target is not empty (there are rows in {}): give the hub a database of its own", table.name);
                return Err(StoreError::Refused(why));
            }
        }
        Ok(Self { tx })
    }

    /// The tables that it has: those of collections once they were [made](Self::make_collections).
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        Ok(tables(&mut self.tx).await?)
    }

    /// Makes the tables of the collections whose definitions have arrived.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when the name of one is taken, or a definition is of a later version.
    pub async fn make_collections(&mut self) -> Result<(), StoreError> {
        for collection in collections(&mut self.tx).await? {
            let made = self.tx.script(table::create(&collection)).await;
            made.map_err(|failure| schemas::name_taken(failure, &collection))?;
        }
        Ok(())
    }

    /// Writes all rows of a table as they come.
    ///
    /// # Errors
    ///
    /// What the database says of them; nothing of this transaction will count then.
    pub async fn write(&mut self, table: &Table, pages: &mut mpsc::Receiver<Vec<Row>>) -> Result<(), StoreError> {
        Ok(write(&mut self.tx, table, pages).await?)
    }

    /// The rows that are there now, for a comparison.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn read(&mut self, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        Ok(read(&mut self.tx, table, pages).await?)
    }

    /// Which columns of a table hold JSON.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn json(&mut self, table: &Table) -> Result<Vec<bool>, StoreError> {
        Ok(forms(&mut self.tx, table).await?.into_iter().map(|form| form == Form::Json).collect())
    }

    /// Recomputes every digest from its rows and every chain from its entries.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit(&mut self) -> Result<(Vec<BucketAudit>, Vec<LaneAudit>), StoreError> {
        Ok(audits(&mut self.tx).await?)
    }

    /// Makes everything durable, at once.
    ///
    /// # Errors
    ///
    /// When the database does not say that it has; look at it before anything else then.
    pub async fn settle(mut self) -> Result<(), StoreError> {
        let settled = settle(&mut self.tx).await;
        Ok(self.tx.finish(settled).await?)
    }
}

async fn begin(url: &str, purpose: Purpose) -> Result<Tx, StoreError> {
    let address = Address::parse(url)?;
    let (mut connection, _) = address.connect().await?;
    migrate::migrate(&mut connection, &address.shown).await?;
    // It has done its work; the transaction has a connection of its own.
    let _ = connection.close().await;
    let mut tx = Tx::begin(&address.pool(), purpose).await?;
    tx.patient().await?;
    Ok(tx)
}

/// Takes the lock of those who fill this database. The database takes a moment to notice that one who had it was killed.
async fn lock(tx: &mut Tx) -> Result<bool, Failure> {
    let mut looks = 0;
    loop {
        let row = tx.row(sqlx::query("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK)).await?;
        let is_ours: bool = known(row, "lock")?.try_get(0)?;
        looks += 1;
        if is_ours || looks == OTHERS_LOOKS {
            return Ok(is_ours);
        }
        tokio::time::sleep(OTHERS_PAUSE).await;
    }
}

/// Connections of hubs besides this one. One that has just been closed takes a moment to go.
async fn others(tx: &mut Tx) -> Result<i64, Failure> {
    const LOOK: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND application_name = 'mobo-hub' AND pid <> pg_backend_pid()";
    let mut looks = 0;
    loop {
        // What is active is looked at once for each transaction, unless told otherwise.
        tx.row(sqlx::query("SELECT pg_stat_clear_snapshot()::text")).await?;
        let others: i64 = known(tx.row(sqlx::query(LOOK)).await?, "answer")?.try_get(0)?;
        looks += 1;
        if others == 0 || looks == OTHERS_LOOKS {
            return Ok(others);
        }
        tokio::time::sleep(OTHERS_PAUSE).await;
    }
}

pub(super) fn name_in_sql(table: &Table) -> String {
    match &table.name {
        TableName::Own(name) => format!("mobo.{}", quoted(name)),
        TableName::Collection(name) => format!("public.{}", quoted(name)),
    }
}

pub(super) async fn tables(tx: &mut Tx) -> Result<Vec<Table>, Failure> {
    let mut names = Vec::new();
    for row in tx.rows(sqlx::query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'mobo' ORDER BY 1")).await? {
        let name: String = row.try_get(0)?;
        if !STAY.contains(&name.as_str()) {
            names.push(TableName::Own(name));
        }
    }
    names.extend(collections(tx).await?.into_iter().map(|collection| TableName::Collection(collection.name)));
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let mut table = Table { name, columns: Vec::new() };
        table.columns = columns(tx, &table).await?.into_iter().map(|(name, _)| name).collect();
        if !table.columns.is_empty() || matches!(table.name, TableName::Own(_)) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// The columns of a table with their types, by name; none when there is no such table.
async fn columns(tx: &mut Tx, table: &Table) -> Result<Vec<(String, String)>, Failure> {
    const LOOK: &str = "SELECT a.attname::text COLLATE \"C\", t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
                        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1";
    let rows = tx.rows(sqlx::query(LOOK).bind(name_in_sql(table))).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// How each of the table's columns is written.
pub(super) async fn forms(tx: &mut Tx, table: &Table) -> Result<Vec<Form>, Failure> {
    let types = columns(tx, table).await?;
    let form = |column: &String| {
        let of_column = types.iter().find(|(name, _)| name == column);
        let form = of_column.and_then(|(_, kind)| Form::of(kind));
        form.ok_or_else(|| Failure::refused(format!("{} has no column {column} that this version can fill", table.name)))
    };
    table.columns.iter().map(form).collect()
}

async fn collections(tx: &mut Tx) -> Result<Vec<Collection>, Failure> {
    let rows = tx.rows(sqlx::query("SELECT definition FROM mobo.collection ORDER BY name")).await?;
    let decode = |definition: Vec<u8>| Ok(Collection::decode(&mut Reader::new(&definition))?);
    rows.iter().map(|row| decode(row.try_get(0)?)).collect()
}

async fn read(tx: &mut Tx, table: &Table, pages: &mpsc::Sender<Vec<Row>>) -> Result<(), Failure> {
    let forms = forms(tx, table).await?;
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
    tx.script(format!("DECLARE moving NO SCROLL CURSOR FOR SELECT {} FROM {}", columns.join(", "), name_in_sql(table))).await?;
    let fetch = format!("FETCH {} FROM moving", limits::MOVE_ROWS_MAX);
    loop {
        // Each table's cursor has the same name and other columns: no plan of it may be kept.
        let rows = tx.rows(sqlx::query(AssertSqlSafe(fetch.clone())).persistent(false)).await?;
        let is_last = rows.len() < limits::MOVE_ROWS_MAX;
        let page = rows.iter().map(|row| binary::decode(row, &forms, &table.name)).collect::<Result<Vec<Row>, Failure>>()?;
        if (!page.is_empty() && pages.send(page).await.is_err()) || is_last {
            break;
        }
    }
    tx.script("CLOSE moving".to_owned()).await
}

async fn write(tx: &mut Tx, table: &Table, pages: &mut mpsc::Receiver<Vec<Row>>) -> Result<(), Failure> {
    let forms = forms(tx, table).await?;
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
    let copy = format!("COPY {}({}) FROM STDIN (FORMAT binary)", name_in_sql(table), columns.join(", "));
    let mut copy = tx.connection().copy_in_raw(&copy).await?;
    let mut encoder = Encoder::new(&forms);
    while let Some(page) = pages.recv().await {
        for row in &page {
            if let Err(column) = encoder.add(row) {
                let column = table.columns.get(column).map_or("", String::as_str);
                let why = format!("the column {column} of {} holds what Postgres has no place for", table.name);
                // The whole transaction ends with it.
                let _ = copy.abort(why.as_str()).await;
                return Err(Failure::damaged(why));
            }
        }
        copy.send(encoder.take()).await?;
    }
    copy.send(encoder.finish()).await?;
    copy.finish().await?;
    Ok(())
}

async fn audits(tx: &mut Tx) -> Result<(Vec<BucketAudit>, Vec<LaneAudit>), Failure> {
    let (mut buckets, mut lanes) = (Vec::new(), Vec::new());
    for row in tx.rows(sqlx::query("SELECT id FROM mobo.project")).await? {
        let project = known(mobo_core::ids::ProjectId::from_sql(row.try_get(0)?), "project")?;
        let schema = schemas::current(tx, &super::Known::default(), project).await?;
        buckets.extend(audit::buckets(tx, project, &schema).await?);
        lanes.extend(audit::lanes(tx, project).await?);
    }
    Ok((buckets, lanes))
}

/// Lets every sequence go on behind the numbers that have arrived, and tells the planner what there is.
async fn settle(tx: &mut Tx) -> Result<(), Failure> {
    const LOOK: &str = "SELECT quote_ident(table_name), quote_ident(column_name), pg_get_serial_sequence('mobo.' || quote_ident(table_name), column_name) \
                        FROM information_schema.columns WHERE table_schema = 'mobo' AND is_identity = 'YES'";
    for row in tx.rows(sqlx::query(LOOK)).await? {
        let (table, column, sequence): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let next = format!("SELECT setval($1::text::regclass, coalesce(max({column}), 0) + 1, false) FROM mobo.{table}");
        tx.row(sqlx::query(AssertSqlSafe(next)).bind(sequence)).await?;
    }
    let names: Vec<String> = tables(tx).await?.iter().map(name_in_sql).collect();
    tx.script(format!("ANALYZE {}", names.join(", "))).await
}
