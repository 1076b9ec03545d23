//! What a backup needs of a hub's store: everything that is in it, as of one moment, and a place for the hub's own record of its backups.

use std::fmt;

use super::StoreFuture;
use super::transfer::{Cell, Row, Table};
use crate::backup::RepositoryId;
use crate::backup::manifest::Anchor;
use crate::ids::{BucketId, LaneKey, Position, ProjectId, Seq};

/// Tables that stay out of backups, by name: they are about the backups themselves, and a restored hub begins them anew.
pub const BACKUP_OWN: [&str; 2] = ["backup", "backup_head"];

/// The part of a hub's store that backups need.
pub trait BackupStore: fmt::Debug + Send + Sync {
    /// Everything as of now: what is committed later is not in it. It keeps no writer waiting.
    fn cut(&self) -> StoreFuture<'_, Box<dyn Cut>>;

    /// The hub's own record of its backups; `None` before the first one.
    fn backup(&self) -> StoreFuture<'_, Option<BackupRow>>;

    /// Keeps the record and raises what counts as safe, in one transaction.
    fn note_backup(&self, project: ProjectId, row: BackupRow, safe: Vec<(LaneKey, Seq)>) -> StoreFuture<'_, ()>;
}

/// What a hub knows of its own backups, besides what the vault says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackupRow {
    /// The repository.
    pub repository: RepositoryId,
    /// Where it is.
    pub place: String,
    /// The newest manifest.
    pub anchor: Anchor,
    /// When it was taken, by the hub's time.
    pub taken_us: i64,
    /// The manifest with the snapshot that it builds on.
    pub base: u64,
    /// How far each bucket is in it. When a row is kept, those that are named; others stay as they are, unless the repository is another one.
    pub heads: Vec<(BucketId, Position)>,
}

/// A table, and the columns that tell its rows apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CutTable {
    /// The table with all its columns.
    pub table: Table,
    /// The columns of its primary key, in its order.
    pub key: Vec<String>,
}

/// Which rows of a table: all that fit every part that is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Columns with their values.
    pub equal: Vec<(String, Cell)>,
    /// A column whose number is greater; the rows come in its order.
    pub above: Option<(String, i64)>,
    /// A column whose text is one of these.
    pub among: Option<(String, Vec<String>)>,
    /// A column that is null.
    pub absent: Option<String>,
    /// At most so many rows.
    pub limit: Option<usize>,
}

/// A store as of one moment.
pub trait Cut: fmt::Debug + Send {
    /// All tables that travel; mobo's own ones first, without [`BACKUP_OWN`].
    fn tables(&mut self) -> StoreFuture<'_, Vec<CutTable>>;

    /// Begins to read these columns of the rows of a table; what another reading has left is dropped.
    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()>;

    /// The next rows of what was opened; none at the end.
    fn next(&mut self) -> StoreFuture<'_, Vec<Row>>;

    /// Lets the moment go; nothing can be read after it. A cut that is dropped without it may cost a connection.
    fn end(&mut self) -> StoreFuture<'_, ()>;
}
