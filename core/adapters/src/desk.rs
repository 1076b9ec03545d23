//! Small tables that are the same on both stores of a hub: accounts, policies, the audit log.
//!
//! Their statements are written once, in the SQL that SQLite and Postgres have in common, with `$1` for values and `mobo_` in front of our
//! tables; each store reads them in its own dialect. A value that may be NULL stands in a `CAST`, so that Postgres knows its type.

use std::fmt;

use mobo_core::merge::Outcome as Merged;
pub use mobo_core::store::transfer::Cell;
use mobo_core::store::{MergeBatch, MergeReport, StoreError, StoreFuture};

/// A statement with its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Its text; never made of what anybody sent.
    pub sql: &'static str,
    /// Its values, `$1` first.
    pub cells: Vec<Cell>,
    /// True: unless it changes or gives a row, nothing of what was asked happens.
    pub must: bool,
}

impl Statement {
    /// A statement that may find nothing.
    #[must_use]
    pub fn new(sql: &'static str, cells: impl IntoIterator<Item = Cell>) -> Self {
        Self { sql, cells: cells.into_iter().collect(), must: false }
    }

    /// One without which the others do not happen.
    #[must_use]
    pub fn must(sql: &'static str, cells: impl IntoIterator<Item = Cell>) -> Self {
        Self { must: true, ..Self::new(sql, cells) }
    }
}

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// The rows that it gave.
    pub rows: Vec<Vec<Cell>>,
    /// How many rows it changed or gave.
    pub changed: u64,
}

/// What became of some statements.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// They happened, all of them.
    Done(Vec<Done>),
    /// The one at this place found nothing, and must: nothing happened.
    Missed(usize),
}

/// A store that keeps such tables.
pub trait Desk: fmt::Debug + Send + Sync {
    /// Runs statements in one transaction, durable when the future is ready.
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Outcome>;
}

/// What became of a merge with notes.
#[derive(Clone, Debug, PartialEq)]
pub enum Noted {
    /// All of it is durable, merge and notes.
    Done(MergeReport),
    /// The note at this place found nothing, and must: nothing happened.
    Missed(usize),
    /// The submission at this place was not merged as it is, and why: nothing happened.
    Refused(usize, String),
}

/// A store that notes beside a merge where that came from.
pub trait NotingDesk: Desk {
    /// Merges a batch and runs statements in the same transaction: all of it or nothing. An error that leaves it unknown which is
    /// [`StoreError::Unavailable`], as for a merge.
    fn merge_noting(&self, batch: MergeBatch, notes: Vec<Statement>) -> StoreFuture<'_, Noted>;
}

/// The first submission of a merge that was not merged as it is, and why; `None` where all were.
///
/// # Errors
///
/// [`StoreError::Unavailable`] where the node's own log is not open.
pub fn first_refused(outcomes: &[Merged]) -> Result<Option<(usize, String)>, StoreError> {
    for (at, outcome) in outcomes.iter().enumerate() {
        let why = match outcome {
            Merged::Merged(merged) => merged.rejects.first().map(|reject| reject.detail.clone()),
            Merged::Refused(error) => Some(error.to_string()),
            Merged::Nack { .. } | Merged::Refence { .. } => {
                return Err(StoreError::Unavailable("the hub's own log is not open".to_owned()));
            }
        };
        if let Some(why) = why {
            return Ok(Some((at, why)));
        }
    }
    Ok(None)
}
