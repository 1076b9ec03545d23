//! Moves everything that a hub keeps from one store to another, while the hub is stopped.
//!
//! Rows travel as they are, so that keys, histories, positions and digests are the same on the other side, and a device notices nothing.
//! What arrives is read again and compared, cell by cell, with what left; then every digest is recomputed from its rows and every chain
//! from its entries, and only then the target is a store. Until that moment it is as empty as it was, so a move that was cut short is
//! simply run again. The old store is only read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_adapters::sqlite::hub::transfer as sqlite;
use mobo_core::limits;
use mobo_core::store::transfer::{Content, Row, Table, TableName};
use mobo_core::store::{BucketAudit, LaneAudit, StoreError};
use tokio::sync::mpsc;

use crate::postgres;

/// Where a hub keeps its rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres database, by its URL.
    Postgres(String),
}

impl Place {
    /// Reads `sqlite` (the file in the data folder), `sqlite://PATH`, or `postgres://…`; `None` for anything else.
    #[must_use]
    pub fn parse(url: &str, file: &Path) -> Option<Self> {
        if url == "sqlite" {
            return Some(Self::Sqlite(file.to_owned()));
        }
        if let Some(path) = url.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            return Some(Self::Sqlite(PathBuf::from(path)));
        }
        (url.starts_with("postgres://") || url.starts_with("postgresql://")).then(|| Self::Postgres(url.to_owned()))
    }
}

/// How far a move is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// So many rows of a table are under way.
    Moving(TableName, u64),
    /// All rows of a table have arrived and are what they were.
    Arrived(TableName, u64),
    /// Digests and chains are being recomputed.
    Auditing,
}

/// What was moved.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Moved {
    /// Each table with its rows.
    pub tables: Vec<(TableName, u64)>,
    /// Buckets whose digests were recomputed.
    pub buckets: usize,
    /// Lanes whose chains were recomputed.
    pub lanes: usize,
}

/// Moves everything. Nobody may use either store meanwhile.
///
/// # Errors
///
/// [`StoreError::Refused`] when the target is not empty, or the tables at both ends differ. [`StoreError::Damaged`] when what arrived is
/// not what left, or does not pass its audit. Whatever the error, the target is as it was.
pub async fn migrate(from: &Place, to: &Place, mut progress: impl FnMut(Progress)) -> Result<Moved, StoreError> {
    let mut source = Source::open(from).await?;
    let mut target = Target::begin(to).await?;
    let tables = source.tables().await?;
    let (own, collections): (Vec<Table>, Vec<Table>) = tables.into_iter().partition(|table| matches!(table.name, TableName::Own(_)));
    let mut contents = Vec::new();
    fits(&own, &target.tables().await?)?;
    for table in own {
        contents.push(carry(&mut source, &mut target, table, &mut progress).await?);
    }
    target.make_collections().await?;
    fits(&collections, &target.tables().await?)?;
    for table in collections {
        contents.push(carry(&mut source, &mut target, table, &mut progress).await?);
    }
    let mut moved = Moved::default();
    for (table, json, content) in contents {
        let arrived = target.content(&table, &json).await?;
        if arrived != content {
            let (name, left, came) = (&table.name, content.rows, arrived.rows);
            return Err(StoreError::Damaged(format!(
                "{name} has not arrived as it left ({left} rows left, {came} arrived): please report it"
            )));
        }
        progress(Progress::Arrived(table.name.clone(), content.rows));
        moved.tables.push((table.name, content.rows));
    }
    progress(Progress::Auditing);
    let (buckets, lanes) = target.audit().await?;
    sound(&buckets, &lanes)?;
    (moved.buckets, moved.lanes) = (buckets.len(), lanes.len());
    target.settle().await?;
    Ok(moved)
}

/// Every table has a place on the other side, with the same columns.
fn fits(leaving: &[Table], places: &[Table]) -> Result<(), StoreError> {
    for table in leaving {
        if !places.contains(table) {
            let name = &table.name;
            let why = format!("the two stores do not have the same table {name}: boot a hub of this version on the old one first");
            return Err(StoreError::Refused(why));
        }
    }
    Ok(())
}

/// Nothing was found wrong.
pub(crate) fn sound(buckets: &[BucketAudit], lanes: &[LaneAudit]) -> Result<(), StoreError> {
    let advice = "it was so before: run `mobo-hub health check` on the old store";
    let bucket = buckets.iter().find(|bucket| bucket.stored != bucket.computed || !bucket.damaged.is_empty());
    if let Some(bucket) = bucket {
        return Err(StoreError::Damaged(format!("the digest of bucket {} does not fit its rows; {advice}", bucket.key)));
    }
    match lanes.iter().find(|lane| lane.broken_at.is_some()) {
        Some(lane) => Err(StoreError::Damaged(format!("the chain of a log of {} does not fit its entries; {advice}", lane.lane.device))),
        None => Ok(()),
    }
}

/// Takes one table across; gives what left, and which of its columns are JSON on either side.
async fn carry(
    source: &mut Source,
    target: &mut Target,
    table: Table,
    progress: &mut impl FnMut(Progress),
) -> Result<(Table, Vec<bool>, Content), StoreError> {
    let json = either(source.json(&table).await?, target.json(&table).await?);
    let (leaving, mut left) = mpsc::channel::<Vec<Row>>(limits::MOVE_PAGES_MAX);
    let (arriving, arrived) = mpsc::channel(limits::MOVE_PAGES_MAX);
    let counting = async {
        let mut content = Content::default();
        while let Some(page) = left.recv().await {
            page.iter().for_each(|row| content.add(row, &json));
            progress(Progress::Moving(table.name.clone(), content.rows));
            if arriving.send(page).await.is_err() {
                break;
            }
        }
        // Both ends of the way are closed with it: nobody waits for anybody.
        drop((left, arriving));
        content
    };
    let (read, content, written) = tokio::join!(source.read(&table, leaving), counting, target.write(&table, arrived));
    written?;
    read?;
    Ok((table, json, content))
}

fn either(one: Vec<bool>, other: Vec<bool>) -> Vec<bool> {
    let (long, short) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    let short = short.into_iter().chain(std::iter::repeat(false));
    long.into_iter().zip(short).map(|(one, other)| one || other).collect()
}

enum Source {
    Sqlite(Arc<sqlite::Export>),
    Postgres(Box<postgres::Export>),
}

impl Source {
    async fn open(place: &Place) -> Result<Self, StoreError> {
        Ok(match place {
            Place::Sqlite(path) => {
                let path = path.clone();
                Self::Sqlite(Arc::new(apart(move || sqlite::Export::open(&path)).await?))
            }
            Place::Postgres(url) => Self::Postgres(Box::new(postgres::Export::open(url).await?)),
        })
    }

    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        match self {
            Self::Sqlite(export) => {
                let export = Arc::clone(export);
                apart(move || export.tables()).await
            }
            Self::Postgres(export) => export.tables().await,
        }
    }

    async fn json(&mut self, table: &Table) -> Result<Vec<bool>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(export) => export.json(table).await,
        }
    }

    async fn read(&mut self, table: &Table, pages: mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(export) => {
                let (export, table) = (Arc::clone(export), table.clone());
                apart(move || export.read(&table, &pages)).await
            }
            Self::Postgres(export) => export.read(table, &pages).await,
        }
    }
}

enum Target {
    /// Absent while a thread has it, and for good when that one panicked.
    Sqlite(Option<Box<sqlite::Import>>),
    Postgres(Box<postgres::Import>),
}

impl Target {
    async fn begin(place: &Place) -> Result<Self, StoreError> {
        Ok(match place {
            Place::Sqlite(path) => {
                let path = path.clone();
                Self::Sqlite(Some(Box::new(apart(move || sqlite::Import::begin(&path)).await?)))
            }
            Place::Postgres(url) => Self::Postgres(Box::new(postgres::Import::begin(url).await?)),
        })
    }

    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        match self {
            Self::Sqlite(import) => lent(import, |import| import.tables()).await,
            Self::Postgres(import) => import.tables().await,
        }
    }

    async fn json(&mut self, table: &Table) -> Result<Vec<bool>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(import) => import.json(table).await,
        }
    }

    async fn make_collections(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(import) => lent(import, sqlite::Import::make_collections).await,
            Self::Postgres(import) => import.make_collections().await,
        }
    }

    async fn write(&mut self, table: &Table, mut pages: mpsc::Receiver<Vec<Row>>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(import) => {
                let table = table.clone();
                lent(import, move |import| import.write(&table, &mut pages)).await
            }
            Self::Postgres(import) => import.write(table, &mut pages).await,
        }
    }

    /// What a table holds now.
    async fn content(&mut self, table: &Table, json: &[bool]) -> Result<Content, StoreError> {
        let (sender, mut pages) = mpsc::channel::<Vec<Row>>(limits::MOVE_PAGES_MAX);
        let counting = async {
            let mut content = Content::default();
            while let Some(page) = pages.recv().await {
                page.iter().for_each(|row| content.add(row, json));
            }
            content
        };
        let reading = async {
            match self {
                Self::Sqlite(import) => {
                    let table = table.clone();
                    lent(import, move |import| import.read(&table, &sender)).await
                }
                Self::Postgres(import) => {
                    let read = import.read(table, &sender).await;
                    drop(sender);
                    read
                }
            }
        };
        let (read, content) = tokio::join!(reading, counting);
        read.map(|()| content)
    }

    async fn audit(&mut self) -> Result<(Vec<BucketAudit>, Vec<LaneAudit>), StoreError> {
        match self {
            Self::Sqlite(import) => lent(import, |import| import.audit()).await,
            Self::Postgres(import) => import.audit().await,
        }
    }

    async fn settle(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(Some(import)) => apart(move || import.settle()).await,
            Self::Sqlite(None) => Err(gone()),
            Self::Postgres(import) => import.settle().await,
        }
    }
}

/// Work that blocks, on a thread of its own.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(gone()))
}

/// The same, with a database that comes back afterwards.
async fn lent<T, W>(import: &mut Option<Box<sqlite::Import>>, work: W) -> Result<T, StoreError>
where
    T: Send + 'static,
    W: FnOnce(&mut sqlite::Import) -> Result<T, StoreError> + Send + 'static,
{
    let mut own = import.take().ok_or_else(gone)?;
    let (own, done) = apart(move || {
        let done = work(&mut own);
        Ok((own, done))
    })
    .await?;
    *import = Some(own);
    done
}

fn gone() -> StoreError {
    StoreError::Damaged("the move met a defect in mobo and was given up: please report it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_urls() {
        let file = Path::new("dir/hub.db");
        let sqlite = |path: &str| Some(Place::Sqlite(PathBuf::from(path)));
        for (url, want) in [
            ("sqlite", sqlite("dir/hub.db")),
            ("sqlite:///a/b.db", sqlite("/a/b.db")),
            ("sqlite://b.db", sqlite("b.db")),
            ("sqlite://", None),
            ("postgres://db/x", Some(Place::Postgres("postgres://db/x".to_owned()))),
            ("mysql://db/x", None),
        ] {
            assert_eq!(Place::parse(url, file), want, "{url}");
        }
    }

    #[test]
    fn json_on_either_side_is_json() {
        assert_eq!(either(vec![], vec![false, true]), [false, true]);
        assert_eq!(either(vec![true, false, false], vec![false, true, false]), [true, true, false]);
    }
}
