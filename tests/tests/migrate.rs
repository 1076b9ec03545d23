//! A hub changes its store: everything arrives as it was, and both hub and devices go on where they were.
//!
//! Method: a random schedule fills a store, by devices and by the hub itself; the store is moved, and moved back; after each step it must
//! say the same, pass its audits, and take the rest of the schedule.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::path::Path;
use std::sync::Arc;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_adapters::sqlite::hub::transfer as sqlite;
use mobo_core::author::Intent;
use mobo_core::future::BoxFuture;
use mobo_core::ids::{Lane, Seq};
use mobo_core::merge::Outcome;
use mobo_core::message::Code;
use mobo_core::store::transfer::TableName;
use mobo_core::store::{ApiKeyRow, HubStore, Invite, StoreError};
use mobo_core::time::Eff;
use mobo_hub::migrate::{Place, Progress, migrate};
use mobo_hub::postgres;
use mobo_tests::cli::Cli;
use mobo_tests::cluster::digest;
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node};
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::cases::schedule::{self, Schedule};
use mobo_tests::store_conformance::{self, Device, World};
use serde_json::json;

/// Somewhere to keep a store, by name.
#[derive(Debug)]
enum Ground {
    File(tempfile::TempDir),
    Base(Database),
}

impl Ground {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    fn base() -> Self {
        Self::Base(Database::fresh())
    }

    fn place(&self) -> Place {
        match self {
            Self::File(folder) => Place::Sqlite(folder.path().join("hub.db")),
            Self::Base(database) => Place::Postgres(database.url()),
        }
    }

    async fn store(&self) -> Arc<dyn HubStore> {
        match self.place() {
            Place::Sqlite(path) => Arc::new(SqliteHubStore::open(&path).unwrap()),
            Place::Postgres(url) => Arc::new(postgres::PostgresHubStore::open(&url).await.unwrap()),
        }
    }
}

/// The first place of a world: later ones are put into it by hand.
#[derive(Debug)]
struct First(Place);

impl store_conformance::Place for First {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn HubStore>, StoreError>> {
        Box::pin(async {
            Ok(match &self.0 {
                Place::Sqlite(path) => Arc::new(SqliteHubStore::open(path)?) as Arc<dyn HubStore>,
                Place::Postgres(url) => Arc::new(postgres::PostgresHubStore::open(url).await?),
            })
        })
    }

    fn sql<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async { Err("nobody looks at this place by hand".to_owned()) })
    }

    fn repair<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Err("nobody repairs this place by hand".to_owned()) })
    }
}

async fn world(ground: &Ground, seed: &Seed) -> (World, Schedule) {
    let world = World::new(Box::new(First(ground.place())), seed.number()).await;
    let mut schedule = Schedule::new(&world, seed).await;
    schedule.run(&world, 12).await;
    let key = ApiKeyRow {
        id: 7,
        name: "app".to_owned(),
        prefix: "mobo_sec_abc".to_owned(),
        hash: [7; 32],
        role: "service".to_owned(),
        scopes: vec!["read:work_orders".to_owned()],
        created: Eff(1),
        expires: None,
        revoked: None,
    };
    world.store.create_key(world.project, key).await.unwrap();
    let invite = Invite {
        secret_hash: [8; 32],
        name: "later".to_owned(),
        buckets: vec!["all".to_owned()],
        claims: Vec::new(),
        expires: Eff(i64::MAX),
    };
    world.store.invite(world.project, invite).await.unwrap();
    (world, schedule)
}

/// Everything that a store says, in words.
async fn told(world: &World) -> Vec<String> {
    let mut told: Vec<String> = schedule::told(world).await.iter().map(|(what, answer)| format!("{what}: {answer}")).collect();
    told.push(format!("{:?}", world.store.devices(world.project).await.unwrap()));
    told.push(format!("{:?}", world.store.keys(world.project).await.unwrap()));
    told.push(format!("{:?}", world.store.quarantine(world.project, None, 1_000).await.unwrap()));
    told.push(format!("{:?}", world.store.invite_state(world.project, [8; 32], Eff(0)).await.unwrap()));
    told
}

async fn moves(first: Ground, second: Ground, third: Ground) {
    let seed = Seed::from_env();
    let (mut world, mut schedule) = world(&first, &seed).await;
    let mut from = first;
    for to in [second, third] {
        let before = told(&world).await;
        world.store.close().await;
        let mut said = Vec::new();
        let moved = migrate(&from.place(), &to.place(), |progress| said.push(progress)).await.unwrap();
        let rows: u64 = moved.tables.iter().map(|(_, rows)| rows).sum();
        assert!(rows > 100 && moved.buckets >= 4 && moved.lanes >= 3, "{moved:?}");
        let arrived = |(table, rows): &(TableName, u64)| said.contains(&Progress::Arrived(table.clone(), *rows));
        assert!(moved.tables.iter().all(arrived) && said.last() == Some(&Progress::Auditing), "{said:?}");
        world.store = to.store().await;
        assert_eq!(told(&world).await, before);
        world.is_sound().await;
        // Lanes, positions, sequences and sessions go on.
        schedule.run(&world, 12).await;
        world.is_sound().await;
        from = to;
    }
    world.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sqlite_to_postgres_and_back() {
    moves(Ground::file(), Ground::base(), Ground::file()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_postgres_to_sqlite_and_back() {
    moves(Ground::base(), Ground::file(), Ground::base()).await;
}

/// Postgres makes the row of a lane before its first entry, to have something to lock; it stays when no entry comes. A SQLite hub that found one
/// said that the database was damaged, and such a hub could not be moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_has_no_entry_yet_moves_too() {
    let (base, file) = (Ground::base(), Ground::file());
    let (mut world, mut schedule) = world(&base, &Seed::from_env()).await;
    let mut device = Device::enrolled(&world, "nothing yet", &["all"]).await;
    for n in 0..2 {
        device.write(&world, "work_orders", Intent::Put, ("from nothing", json!({ "n": n })));
    }
    let gap = world.outcome(device.push_from(&world, Lane::State, 2)).await;
    assert_eq!(gap, Outcome::Nack { expect: Seq::FIRST, code: Code::GAP });
    let before = told(&world).await;
    world.store.close().await;
    migrate(&base.place(), &file.place(), |_| {}).await.unwrap();
    world.store = file.store().await;
    assert_eq!(told(&world).await, before);
    world.is_sound().await;
    world.merged(device.push_all(&world)).await;
    schedule.run(&world, 12).await;
    world.is_sound().await;
}

fn is_there<T>(moved: &Result<T, StoreError>) -> bool {
    matches!(moved, Err(StoreError::Refused(why)) if why.contains("is there already"))
}

/// Goal: a move that ends anywhere leaves the target as it was, and is run again.
/// Method: the move is dropped after each of its first steps and at its last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_cut_short_is_run_again() {
    let (file, base) = (Ground::file(), Ground::base());
    let (world, _) = world(&file, &Seed::from_env()).await;
    world.store.close().await;
    drop(world);
    let mut steps = 0;
    migrate(&file.place(), &Ground::file().place(), |_| steps += 1).await.unwrap();
    for (from, to) in [(&file, &base), (&base, &Ground::file())] {
        for cut in [1, 2, steps / 3, steps / 2, steps - 1, steps] {
            let (tell, told) = tokio::sync::oneshot::channel();
            let (mut tell, mut left) = (Some(tell), cut);
            let (source, target) = (from.place(), to.place());
            let moving = migrate(&source, &target, |_| {
                left -= 1;
                // The step is announced, and does not come to its end.
                if left == 0
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(());
                    left = usize::MAX;
                }
            });
            tokio::select! {
                biased;
                _ = told => {}
                // The last step is one that nothing can take back: where it had begun, the move before this one came to its end.
                moved = moving => assert!(cut == steps && is_there(&moved), "it was not cut at {cut}: {moved:?}"),
            }
        }
        let moved = migrate(&from.place(), &to.place(), |_| {}).await;
        assert!(moved.is_ok() || is_there(&moved), "{moved:?}");
        to.store().await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_empty_and_a_source_in_use_are_refused() {
    let (file, base) = (Ground::file(), Ground::base());
    let (first, _) = world(&file, &Seed::from_env()).await;
    let (second, _) = world(&base, &Seed::from_env()).await;
    let before = (told(&first).await, told(&second).await);
    let refusal = async |from: &Ground, to: &Ground| match migrate(&from.place(), &to.place(), |_| {}).await {
        Err(StoreError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refusal(&base, &Ground::file()).await;
    assert!(why.contains("stop every hub that uses it"), "{why}");
    first.store.close().await;
    second.store.close().await;
    let why = refusal(&file, &base).await;
    assert!(why.contains("the target is not empty"), "{why}");
    let why = refusal(&base, &file).await;
    assert!(why.contains("is there already: move it away"), "{why}");
    let why = refusal(&Ground::file(), &Ground::base()).await;
    assert!(why.contains("there is no hub's database"), "{why}");
    let (mut first, mut second) = (first, second);
    (first.store, second.store) = (file.store().await, base.store().await);
    assert_eq!((told(&first).await, told(&second).await), before);
}

/// A damaged record is not passed on as a sound one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_pass_its_audit_is_not_moved() {
    let (file, base) = (Ground::file(), Ground::base());
    let (world, _) = world(&file, &Seed::from_env()).await;
    world.store.close().await;
    let Place::Sqlite(path) = file.place() else { panic!("a file") };
    spoil(&path);
    for target in [&base, &Ground::file()] {
        match migrate(&file.place(), &target.place(), |_| {}).await {
            Err(StoreError::Damaged(why)) => assert!(why.contains("run `mobo-hub health check` on the old store"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let Place::Postgres(url) = base.place() else { panic!("a database") };
    postgres::Import::begin(&url).await.expect("the target is empty");
}

fn spoil(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let changed = connection.execute_batch(
        "UPDATE mobo_flag SET applying = 1; UPDATE work_orders SET n = coalesce(n, 0) + 1; UPDATE pumps SET line = coalesce(line, 0) + 1; \
         UPDATE mobo_flag SET applying = 0;",
    );
    changed.unwrap();
}

/// Goal: an operator changes the store of a hub, there and back, and its devices notice nothing.
/// Method: the verbs as people type them, with a device that writes while the hub is away; digests are compared at each step.
#[test]
fn an_operator_changes_the_store_and_devices_notice_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, database) = (folder.path().join("hub"), Database::fresh());
    let quic = mobo_tests::cluster::quiet_address();
    let launch = Launch::hub(&data).set("quic.listen", &quic);
    let mut hub = launch.clone().boot();
    hub.cli().args(["collection", "create", "work_orders", "title:text", "hours:counter"]).run().expect_success();
    let token = hub.cli().args(["device", "invite", "--name", "one"]).run().expect_success().text();
    let edge = folder.path().join("one");
    Cli::edge(&edge).args(["join", &token]).run().expect_success();
    let device = Launch::edge(&edge).boot();
    device.cli().args(["sync"]).run().expect_success();
    let put = |id: &str| drop(device.cli().args(["put", "work_orders", id, r#"{"title":"x","hours":{"$inc":1}}"#]).run().expect_success());
    put("wo-1");
    let agree = |hub: &Node| {
        device.cli().args(["sync"]).run().expect_success();
        let (hub, device) = (hub.status(), device.status());
        assert_eq!((digest(&hub), &hub["records"]), (digest(&device), &device["records"]), "{hub} {device}");
        (hub["timeline"].clone(), hub["records"].clone())
    };
    let (timeline, _) = agree(&hub);
    let running = hub.cli().args(["store", "migrate", "--to", &database.url()]).run().expect_code(1);
    assert!(running.stderr.contains("in use by process"), "{}", running.stderr);
    assert!(hub.terminate().success());

    put("wo-2");
    let secret = launch.cli().args(["store", "migrate", "--to", "postgres://u:canary-sekret@db/x"]).run().expect_code(2);
    assert!(secret.stderr.contains("@FILE") && !secret.stderr.contains("canary-sekret"), "{}", secret.stderr);
    let moved = launch.cli().args(["store", "migrate", "--to", &database.url(), "-o", "json"]).run().expect_success();
    assert!(moved.json()["rows"].as_u64().unwrap() > 10, "{}", moved.stdout);
    assert!(moved.stderr.contains("arrived  work_orders: 1 rows") && moved.stderr.contains("next: set store.url"), "{}", moved.stderr);
    let mut hub = launch.clone().set("store.url", &database.url()).boot();
    assert_eq!(agree(&hub), (timeline.clone(), 2.into()));
    assert!(hub.terminate().success());

    put("wo-3");
    let taken = launch.cli().env("MOBO_STORE__URL", &database.url()).args(["store", "migrate", "--to", "sqlite"]).run().expect_code(1);
    assert!(taken.stderr.contains("hub.db is there already: move it away"), "{}", taken.stderr);
    std::fs::rename(data.join("hub.db"), data.join("hub.db.old")).unwrap();
    launch.cli().env("MOBO_STORE__URL", &database.url()).args(["store", "migrate", "--to", "sqlite"]).run().expect_success();
    let hub = launch.boot();
    assert_eq!(agree(&hub), (timeline, 3.into()));
}

/// Both stores have the same tables of their own, with the same columns: a table that is added to one alone would not travel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_have_the_same_tables() {
    let (file, base) = (Ground::file(), Ground::base());
    file.store().await.close().await;
    base.store().await.close().await;
    let (Place::Sqlite(path), Place::Postgres(url)) = (file.place(), base.place()) else { panic!("one of each") };
    let of_file = tokio::task::spawn_blocking(move || sqlite::Export::open(&path).unwrap().tables().unwrap()).await.unwrap();
    let of_base = postgres::Export::open(&url).await.unwrap().tables().await.unwrap();
    assert!(of_file.len() > 15, "{of_file:?}");
    for (file, base) in of_file.iter().zip(&of_base) {
        assert_eq!(file, base);
    }
    assert_eq!(of_file.len(), of_base.len());
}
