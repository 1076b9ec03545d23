//! SQL by hand on the database of a node: an ordinary connection, as any other program has one. What it writes into the tables of a device is
//! taken in like theirs.

use std::path::Path;

use mobo_core::limits;
use mobo_core::store::StoreError;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, OpenFlags, Row, Statement};
use serde_json::{Map, Value as Json, json};

use super::error::Failure;

/// A connection for people.
#[derive(Debug)]
pub struct SqlShell(Connection);

/// What a statement answered.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlAnswer {
    /// Rows, each by column. Bytes are shown as `x'00ff'`.
    Rows(Vec<Map<String, Json>>),
    /// So many rows were changed; 0 for what changes none.
    Changed(u64),
}

impl SqlShell {
    /// Opens the database in `path`, which must be there.
    ///
    /// # Errors
    ///
    /// A [`StoreError`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || -> Result<Self, Failure> {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(limits::SQLITE_BUSY_TIMEOUT)?;
            // The node carries its log over by itself.
            connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")?;
            Ok(Self(connection))
        };
        open().map_err(StoreError::from)
    }

    /// Runs statements, one after the other; the answers of those before one that fails are given with its error.
    pub fn run(&self, sql: &str) -> (Vec<SqlAnswer>, Option<String>) {
        let (mut answers, mut batch) = (Vec::new(), Batch::new(&self.0, sql));
        loop {
            match batch.next().map(|statement| statement.map(|mut statement| self.answer(&mut statement))) {
                Ok(None) => return (answers, None),
                Ok(Some(Ok(answer))) => answers.push(answer),
                Ok(Some(Err(error))) | Err(error) => return (answers, Some(error.to_string())),
            }
        }
    }

    fn answer(&self, statement: &mut Statement<'_>) -> rusqlite::Result<SqlAnswer> {
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        if names.is_empty() {
            let before = self.0.total_changes();
            statement.raw_execute()?;
            return Ok(SqlAnswer::Changed(if self.0.total_changes() == before { 0 } else { self.0.changes() }));
        }
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(
                names.iter().enumerate().map(|(index, name)| Ok((name.clone(), shown(row, index)?))).collect::<rusqlite::Result<_>>()?,
            );
        }
        Ok(SqlAnswer::Rows(found))
    }
}

fn shown(row: &Row<'_>, index: usize) -> rusqlite::Result<Json> {
    Ok(match row.get_ref(index)? {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => json!(format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_answer_in_order_up_to_the_one_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        assert!(SqlShell::open(&path).is_err(), "it makes no database");
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap();
        let shell = SqlShell::open(&path).unwrap();
        let sql = "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, x'00ff'), (NULL, 'ä'); SELECT a, b FROM t; SELECT c FROM t; SELECT 1";
        let (answers, error) = shell.run(sql);
        let row = |a: Json, b: &str| Map::from_iter([("a".to_owned(), a), ("b".to_owned(), json!(b))]);
        let rows = SqlAnswer::Rows(vec![row(json!(1), "x'00ff'"), row(Json::Null, "ä")]);
        assert_eq!(answers, [SqlAnswer::Changed(0), SqlAnswer::Changed(2), rows]);
        assert!(error.unwrap().contains("no such column: c"));
    }
}
