//! Failures inside a job of the writer or a reader.

use rusqlite::{Row, Rows};

use crate::sqlite::error::Failure;

/// A job's answer.
pub(super) type Try<T> = Result<T, Failure>;

/// What was read is not what was written.
pub(super) fn damaged(what: &str) -> Failure {
    Failure::damaged(what)
}

/// The first row, if there is one.
pub(super) fn first<T>(mut rows: Rows<'_>, read: impl FnOnce(&Row<'_>) -> Try<T>) -> Try<Option<T>> {
    rows.next()?.map(read).transpose()
}

/// All rows.
pub(super) fn all<T>(mut rows: Rows<'_>, mut read: impl FnMut(&Row<'_>) -> Try<T>) -> Try<Vec<T>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}
