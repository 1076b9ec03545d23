//! What a backup needs of a hub's store: everything that is in it, as of one moment, and a place for the hub's own record of its backups.

use std::fmt;
use std::time::Duration;

use super::StoreFuture;
use super::transfer::{Cell, Row, Table};
use crate::backup::RepositoryId;
use crate::backup::manifest::Anchor;
use crate::backup::packed::PackedRows;
use crate::ids::{BucketId, LaneKey, Position, ProjectId, Seq};

/// Tables that stay out of backups, by name: they are about the backups themselves, and a restored hub begins them anew.
pub const BACKUP_OWN: [&str; 3] = ["backup", "backup_head", "backup_tried"];

/// The part of a hub's store that backups need.
pub trait BackupStore: fmt::Debug + Send + Sync {
    /// Everything as of now: what is committed later is not in it. It keeps no writer waiting.
    fn cut(&self) -> StoreFuture<'_, Box<dyn Cut>>;

    /// The hub's own record of its backups; `None` before the first one.
    fn backup(&self) -> StoreFuture<'_, Option<BackupRow>>;

    /// The right to write into this store's repository and to remove from it, for one hub of the store at a time: at once, or within
    /// `patience`. `None` where another one has it longer than that.
    fn turn(&self, patience: Duration) -> StoreFuture<'_, Option<Box<dyn Turn>>>;

    /// Keeps that this manifest is about to be written. Whoever finds it in the vault later, and it is not noted, knows by this that a hub of
    /// this store wrote it, out of what the store holds. The last [`crate::limits::BACKUP_TRIED_MAX`] of them are kept.
    fn try_backup(&self, repository: RepositoryId, anchor: Anchor) -> StoreFuture<'_, ()>;

    /// Keeps the record of a manifest that was tried, and raises what counts as safe, in one transaction; those that were tried before it are
    /// forgotten. False, and nothing is kept, where another hub of this store has noted one as new or newer since it was tried.
    fn note_backup(&self, project: ProjectId, row: BackupRow, safe: Vec<(LaneKey, Seq)>) -> StoreFuture<'_, bool>;
}

/// A turn of one hub at the repository of its store. Dropped, it ends.
pub trait Turn: fmt::Debug + Send + Sync {
    /// True while nobody else can have a turn.
    fn holds(&mut self) -> StoreFuture<'_, bool>;

    /// Ends it. One that is dropped without this may cost a connection.
    fn end(&mut self) -> StoreFuture<'_, ()>;
}

/// The turn of a hub that has its store to itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoleTurn;

impl Turn for SoleTurn {
    fn holds(&mut self) -> StoreFuture<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn end(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
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

    /// What as many of these readings give, from the first one on, as fits into one page together: what is small costs one question. Whoever
    /// asked opens the one behind them by itself; what another reading has left is dropped.
    fn read_small(&mut self, readings: Vec<(Table, Filter)>) -> StoreFuture<'_, Vec<Vec<Row>>>;

    /// Begins to read these columns of the rows of a table; what another reading has left is dropped.
    fn open(&mut self, table: Table, filter: Filter) -> StoreFuture<'_, ()>;

    /// The next rows of what was opened; none at the end.
    fn next(&mut self) -> StoreFuture<'_, Vec<Row>>;

    /// Begins the same for [`Self::next_packed`], for whoever carries the rows away as they are: those of the first filter, then those of the
    /// next, as many questions as there are in one.
    fn pack(&mut self, table: Table, filters: Vec<Filter>) -> StoreFuture<'_, ()>;

    /// The next rows of what was begun so, in pages of a bounded size; none at the end.
    fn next_packed(&mut self) -> StoreFuture<'_, PackedRows>;

    /// Lets the moment go; nothing can be read after it. A cut that is dropped without it may cost a connection.
    fn end(&mut self) -> StoreFuture<'_, ()>;
}
