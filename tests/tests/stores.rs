//! The hub's stores against the one suite that both must pass, and against each other.

use std::path::PathBuf;
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::future::BoxFuture;
use mobo_core::query::Page;
use mobo_core::schema::Kind;
use mobo_core::store::{HubStore, StoreError};
use mobo_tests::postgres::Database;
use mobo_tests::queries;
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::cases::schedule;
use mobo_tests::store_conformance::{Place, World};

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

// faults: S-9
/// A byte that flips in the file is found by a health check, or it has changed nothing that anybody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_the_file_is_found_or_harmless() {
    let seed = Seed::from_env();
    let place = sqlite_place();
    let file = place.file();
    let mut world = World::new(Box::new(place), seed.number()).await;
    schedule::Schedule::new(&world, &seed).await.run(&world, 15).await;
    let want = shown(&world).await.unwrap();
    world.store.close().await;
    let whole = std::fs::read(&file).unwrap();
    let (mut rng, mut found, mut flips) = (seed.rng(), 0, 0);
    // Many bytes of a database mean nothing, and how many differs from seed to seed: as many flips as it takes to find some.
    while found < 15 {
        flips += 1;
        assert!(flips <= 1_000, "only {found} of {flips} flips were found: most bytes of a database mean something");
        let mut bytes = whole.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
        std::fs::write(&file, &bytes).unwrap();
        let Ok(store) = SqliteHubStore::open(&file) else {
            found += 1;
            continue;
        };
        world.store = Arc::new(store);
        if passes_its_audits(&world).await {
            let got = shown(&world).await.expect("what is sound can be read");
            assert_eq!(got, want, "byte {at} of {} changed what is read, and nobody noticed", whole.len());
        } else {
            found += 1;
        }
        world.store.close().await;
    }
}

/// What readers see of all records.
async fn shown(world: &World) -> Result<Vec<Page>, StoreError> {
    let mut pages = Vec::new();
    for collection in world.schema.iter().filter(|collection| collection.kind != Kind::Stream) {
        pages.push(world.store.select(world.all(&collection.name)).await?);
    }
    Ok(pages)
}

async fn passes_its_audits(world: &World) -> bool {
    match (world.store.audit_buckets(world.project).await, world.store.audit_lanes(world.project).await) {
        (Ok(buckets), Ok(lanes)) => {
            buckets.iter().all(|bucket| bucket.damaged.is_empty() && bucket.stored == bucket.computed)
                && lanes.iter().all(|lane| lane.broken_at.is_none())
        }
        _ => false,
    }
}

/// Goal: a query means the same on both databases, and to the rule that policies and subscriptions are decided by.
/// Method: generated queries of all operators, paths, casts and orders over rows full of awkward values, on both stores and in memory.
/// `MOBO_QUERIES` says how many, `MOBO_SEED` which.
// faults: X-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_mean_the_same_on_both() {
    let seed = Seed::from_env();
    let count: usize = std::env::var("MOBO_QUERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    let (mut left, mut right) = (World::new(Box::new(sqlite_place()), 7).await, World::new(Box::new(Database::fresh()), 7).await);
    queries::prepare(&mut left).await;
    queries::prepare(&mut right).await;
    queries::fill(&left, &mut seed.rng()).await;
    queries::fill(&right, &mut seed.rng()).await;
    let with_rows = queries::agree(&left, &right, &mut seed.rng().fork(), count).await;
    assert!(with_rows * 5 > count, "seed {}: only {with_rows} of {count} queries had rows", seed.number());
}
