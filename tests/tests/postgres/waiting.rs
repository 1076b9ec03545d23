//! SQL that waits to be taken in, and what else may meet it there; and what somebody's open transaction keeps out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Position};
use mobo_core::merge::Outcome;
use mobo_core::store::StoreError;
use mobo_hub::postgres::Export;
use mobo_tests::postgres::Database;
use mobo_tests::store_conformance::{Device, World};
use mobo_tests::wait;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::{another_hub, world};

async fn sql(world: &World, statement: &str) {
    world.place.sql(statement).await.unwrap();
}

/// One hub of a store at a time has its turn at the repository; the next one has it when that one ends it, or dies.
// faults: B-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_take_turns_at_their_repository() {
    const LONG: Duration = Duration::from_secs(60);
    let world = world(72).await;
    let other = another_hub(&world).await;
    let mut turn = world.store.turn(Duration::ZERO).await.unwrap().expect("nobody else has it");
    for patience in [Duration::ZERO, Duration::from_millis(50)] {
        assert!(other.turn(patience).await.unwrap().is_none(), "{patience:?}");
    }
    assert!(turn.holds().await.unwrap());
    let waiting = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.turn(LONG).await.unwrap().is_some_and(|turn| format!("{turn:?}").contains("Turn")) }
    });
    turn.end().await.unwrap();
    assert!(waiting.await.unwrap(), "whoever waits has it next");
    // That one was dropped, as by a hub that dies: its connection goes with it.
    assert!(world.store.turn(LONG).await.unwrap().is_some());
}

/// Two programs count on one row while it is taken in again and again: each step is there once, and the row fits what was merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_sql_is_taken_in_counts_once() {
    const STEPS: u64 = 100;
    let world = world(70).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("p1", json!({"site": "a", "runs": 0})));
    world.merged(device.push_all(&world)).await;
    let is_over = AtomicBool::new(false);
    let count = async || {
        for _ in 0..STEPS {
            sql(&world, "UPDATE pumps SET runs = runs + 1 WHERE id = 'p1'").await;
        }
    };
    let counting = async {
        tokio::join!(count(), count());
        is_over.store(true, Ordering::Relaxed);
    };
    let taking = async {
        while !is_over.load(Ordering::Relaxed) {
            world.store.take_in(world.batch(Vec::new())).await.unwrap();
        }
    };
    tokio::join!(counting, taking);
    while world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some() {}
    assert_eq!(world.sql("SELECT runs FROM pumps WHERE id = 'p1'").await, (2 * STEPS).to_string());
    assert_eq!(world.sql("SELECT count(*) FROM mobo.intake_refused").await, "0");
    world.is_sound().await;
}

/// A program inserts rows and changes each of them at once, over and over, while SQL is taken in again and again: it finds every row that it has
/// made.
///
/// What broke: the intake took such a row away and made it again, and an UPDATE that waited for it found nothing, and changed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_sql_is_there_while_it_is_taken_in() {
    const ROUNDS: u64 = 150;
    let world = world(71).await;
    let is_over = AtomicBool::new(false);
    let writing = async {
        let script = format!(
            "DO $$ BEGIN FOR n IN 1..{ROUNDS} LOOP \
             INSERT INTO pumps(id, site, runs) VALUES ('p' || n, 'a', 0); COMMIT; \
             UPDATE pumps SET runs = runs + 1 WHERE id = 'p' || n; \
             IF NOT FOUND THEN RAISE EXCEPTION 'p% is lost', n; END IF; COMMIT; \
             IF n % 3 = 0 THEN DELETE FROM pumps WHERE id = 'p' || n; \
             IF NOT FOUND THEN RAISE EXCEPTION 'p% is lost later', n; END IF; COMMIT; \
             INSERT INTO pumps(id, site, runs) VALUES ('p' || n, 'b', 1); COMMIT; END IF; END LOOP; END $$"
        );
        let place = world.clone();
        let done = spawn_blocking(move || Handle::current().block_on(place.place.sql(&script))).await.unwrap();
        is_over.store(true, Ordering::Relaxed);
        done.unwrap();
    };
    let taking = async {
        while !is_over.load(Ordering::Relaxed) {
            world.store.take_in(world.batch(Vec::new())).await.unwrap();
        }
    };
    tokio::join!(writing, taking);
    while world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some() {}
    assert_eq!(world.sql("SELECT count(*) FROM pumps WHERE runs = 1").await, ROUNDS.to_string());
    assert_eq!(world.sql("SELECT count(*) FROM mobo.intake_refused").await, "0");
    world.is_sound().await;
}

/// What SQL has made of a record that was deleted before, or cannot be: the row goes in the end, or the record is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_stand_for_no_record_only_while_they_are_taken_in() {
    let world = world(72).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    for id in ["p1", "p2"] {
        device.write(&world, "pumps", Intent::Put, (id, json!({"site": "a", "runs": 3})));
        device.write(&world, "pumps", Intent::Delete, (id, json!({})));
    }
    world.merged(device.push_all(&world)).await;
    sql(&world, "INSERT INTO pumps(id, site, runs) VALUES ('p1', 'a', 1)").await;
    sql(&world, "INSERT INTO pumps(id, site, runs, _mobo) SELECT id, site, runs, '\\x00' FROM pumps ON CONFLICT DO NOTHING").await;
    sql(&world, "INSERT INTO pumps(id, site, speed, _mobo) VALUES ('p3', 'a', 'NaN', '\\x00')").await;
    sql(&world, "UPDATE pumps SET id = 'p4' WHERE id = 'p1'").await;
    sql(&world, "INSERT INTO pumps(id, site) VALUES ('p1', 'b'), ('p5', 'a')").await;
    sql(&world, "DELETE FROM pumps WHERE id = 'p5'").await;
    while world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some() {}
    assert_eq!(world.sql("SELECT string_agg(id || site || runs, ' ' ORDER BY id) FROM pumps").await, "p1b0 p4a1");
    assert_eq!(world.sql("SELECT string_agg(id, ' ') FROM mobo.intake_refused").await, "p3");
    world.is_sound().await;
}

/// Somebody inserts rows by SQL and does not commit: whoever makes other records of the collection waits for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_open_insert_keeps_out_only_who_makes_its_rows() {
    let world = world(73).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("other", json!({"site": "a"})));
    let holder = spawn_blocking({
        let world = world.clone();
        move || {
            let sql = "BEGIN; INSERT INTO pumps(id, site) VALUES ('p1', 'sql'); SELECT pg_sleep(600) /* holder */";
            Handle::current().block_on(world.place.sql(sql))
        }
    });
    let looking = world.clone();
    let held = move || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        Handle::current().block_on(looking.place.sql(sql)).unwrap()
    };
    spawn_blocking(move || wait::until("the open transaction", Duration::from_secs(60), held)).await.unwrap();
    // It would have waited for as long as a merge waits at all, and failed.
    world.merged(device.push_all(&world)).await;
    device.write(&world, "pumps", Intent::Put, ("p1", json!({"site": "a"})));
    let error = world.store.merge(world.batch(vec![device.push_last(&world)])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "and this one comes again: {error}");
    sql(&world, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
        .await;
    holder.await.unwrap().unwrap_err();
    world.merged(device.push_last(&world)).await;
    assert_eq!(world.sql("SELECT string_agg(id || ' ' || site, ', ' ORDER BY id) FROM pumps").await, "other a, p1 a");
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_sql_that_waits_is_not_moved() {
    let place = Database::fresh();
    let url = place.url();
    let world = World::new(Box::new(place), 64).await;
    sql(&world, "INSERT INTO pumps(id, site) VALUES ('p4', 'a')").await;
    let World { place, store, .. } = world;
    drop(store);
    let error = Export::open(&url).await.unwrap_err().to_string();
    assert!(error.contains("no hub has taken in yet"), "{error}");
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_open_transaction_keeps_out_only_who_needs_its_rows() {
    let world = world(65).await;
    let mut devices = Vec::new();
    for id in ["w0", "w1"] {
        let mut device = Device::enrolled(&world, id, &["all"]).await;
        for n in 0..2 {
            device.write(&world, "work_orders", Intent::Put, (id, json!({"n": n})));
        }
        world.merged(device.push(&world, Lane::State, (1, &device.lanes[&Lane::State][..1]))).await;
        devices.push(device);
    }
    let holder = tokio::task::spawn_blocking({
        let world = world.clone();
        move || {
            let sql = "BEGIN; SELECT 1 FROM work_orders WHERE id = 'w0' FOR UPDATE; SELECT pg_sleep(600) /* holder */";
            Handle::current().block_on(world.place.sql(sql))
        }
    });
    let looking = world.clone();
    let held = move || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        Handle::current().block_on(looking.place.sql(sql)).unwrap()
    };
    spawn_blocking(move || wait::until("the open transaction", Duration::from_secs(60), held)).await.unwrap();
    let pushes = || devices.iter().map(|device| device.push_last(&world)).collect::<Vec<_>>();
    let began = Instant::now();
    let error = world.store.merge(world.batch(pushes())).await.unwrap_err();
    assert!(matches!(error, StoreError::Contended(_)), "the batch is parted: {error}");
    let alone = world.store.merge(world.batch(vec![pushes().remove(1)])).await.unwrap();
    assert!(matches!(alone.outcomes[0], Outcome::Merged(_)), "{alone:?}");
    let error = world.store.merge(world.batch(vec![pushes().remove(0)])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "and this one comes again: {error}");
    assert!(began.elapsed() < Duration::from_secs(60), "the transaction is still open: {:?}", began.elapsed());
    sql(&world, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
        .await;
    holder.await.unwrap().unwrap_err();
    world.merged(pushes().remove(0)).await;
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_hub_changes_is_seen_by_one_look() {
    let world = world(66).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    device.write(&world, "work_orders", Intent::Put, ("w", json!({"n": 1})));
    world.merged(device.push_all(&world)).await;
    let bucket = world.bucket("all").await;
    let look = async || world.store.elsewhere(world.project, vec![device.id()], vec![bucket]).await.unwrap().unwrap();
    let mut seen = look().await;
    assert_eq!(look().await, seen, "nothing has changed");
    assert_eq!((seen.rights.len(), seen.heads[0].head), (1, Position(1)));
    let (project, id) = (world.project, device.id());
    world.store.grant(project, id, "more".to_owned(), false).await.unwrap();
    for step in ["a grant", "another right", "no right", "a revocation"] {
        let now = look().await;
        assert_ne!(now.rights, seen.rights, "{step}");
        seen = now;
        match step {
            "a grant" => drop(world.store.grant(project, id, "more".to_owned(), true).await.unwrap()),
            "another right" => drop(world.store.ungrant(project, id, "more".to_owned(), world.now()).await.unwrap()),
            _ => drop(world.store.revoke(project, id, world.now()).await.unwrap()),
        }
    }
}
