//! The hub's stores against the one suite that both must pass, and against each other.

use std::path::PathBuf;
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::future::BoxFuture;
use mobo_core::store::{HubStore, StoreError};
use mobo_tests::postgres::Database;
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::Place;
use mobo_tests::store_conformance::cases::schedule;

/// A folder with a SQLite file.
#[derive(Debug)]
struct SqlitePlace {
    folder: tempfile::TempDir,
}

fn sqlite_place() -> SqlitePlace {
    SqlitePlace { folder: tempfile::tempdir().expect("a temporary folder") }
}

impl SqlitePlace {
    fn file(&self) -> PathBuf {
        self.folder.path().join("hub.db")
    }

    /// A connection of somebody else's.
    fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file()).expect("anybody may open it")
    }
}

impl Place for SqlitePlace {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn HubStore>, StoreError>> {
        Box::pin(async { SqliteHubStore::open(&self.file()).map(|store| Arc::new(store) as Arc<dyn HubStore>) })
    }

    fn sql<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        let run = || -> rusqlite::Result<Option<String>> {
            let connection = self.connection();
            let mut statement = connection.prepare(&statement.replace("{own}", "mobo_"))?;
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let value: rusqlite::types::Value = row.get(0)?;
            Ok(Some(match value {
                rusqlite::types::Value::Null => String::new(),
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Real(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Blob(bytes) => format!("{bytes:02x?}"),
            }))
        };
        let done = run().map_err(|error| error.to_string());
        Box::pin(async { done })
    }

    fn repair<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let statement = statement.replace("{own}", "mobo_");
        let sql = format!("UPDATE mobo_flag SET applying = 1; {statement}; UPDATE mobo_flag SET applying = 0");
        let done = self.connection().execute_batch(&sql).map_err(|error| error.to_string());
        Box::pin(async { done })
    }
}

mod sqlite {
    use super::sqlite_place;

    mobo_tests::store_conformance!(sqlite_place);
}

mod postgres {
    use mobo_tests::postgres::Database;

    mobo_tests::store_conformance!(Database::fresh);
}

/// The same schedule leaves the same rows, digests, positions and decisions in both databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_alike() {
    let seed = Seed::from_env();
    for round in 0..3 {
        let seed = seed.number().wrapping_add(round);
        let sqlite = schedule::answers(Box::new(sqlite_place()), seed).await;
        let postgres = schedule::answers(Box::new(Database::fresh()), seed).await;
        for (sqlite, postgres) in sqlite.iter().zip(&postgres) {
            assert_eq!(sqlite, postgres);
        }
        assert_eq!(sqlite.len(), postgres.len());
    }
}
