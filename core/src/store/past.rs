//! What a store tells of the past of rows.

use std::fmt;

use super::StoreFuture;
use crate::ids::{ProjectId, RecordKey};
use crate::table::past::RowLog;

/// The part of a hub's store that knows which entries wrote which rows of tables.
///
/// The index follows the log when somebody asks, and not when somebody writes: a merge pays nothing for it.
pub trait PastStore: fmt::Debug + Send + Sync {
    /// Takes the next entries into the index, in one transaction; true when more are left than it took.
    fn trace(&self, project: ProjectId) -> StoreFuture<'_, bool>;

    /// The writes of a row that are kept, as far as the index knows them: all that were merged before [`trace`](Self::trace) last said that
    /// nothing was left.
    fn past(&self, project: ProjectId, key: RecordKey) -> StoreFuture<'_, RowLog>;
}
