//! SQL that waits to be taken in, and what else may meet it there; and what somebody's open transaction keeps out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Position};
use mobo_core::merge::Outcome;
use mobo_core::store::transfer::TableName;
use mobo_core::store::{Filter, PullPage, PullRequest, RebucketBatch, StoreError};
use mobo_hub::postgres::Export;
use mobo_tests::postgres::Database;
use mobo_tests::store_conformance::{Device, World};
use mobo_tests::wait;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::world;

/// Three pumps on one site; then a program changes the second of them, takes the third away and adds one, and nobody takes that in.
async fn written(world: &World) -> Device {
    let mut device = Device::enrolled(world, "a", &["site:a", "site:b", "line:1"]).await;
    for id in ["p1", "p2", "p3"] {
        device.write(world, "pumps", Intent::Put, (id, json!({"site": "a", "line": 1, "speed": 0.5})));
    }
    world.merged(device.push_all(world)).await;
    sql(world, "UPDATE pumps SET site = 'b', speed = 1e-7 WHERE id = 'p2'").await;
    sql(world, "DELETE FROM pumps WHERE id = 'p3'").await;
    sql(world, "INSERT INTO pumps(id, site, line) VALUES ('p4', 'a', 1)").await;
    device
}

async fn sql(world: &World, statement: &str) {
    world.place.sql(statement).await.unwrap();
}

async fn pull(world: &World, device: &Device, from: u64) -> PullPage {
    let wants = vec![(world.bucket("site:a").await, Position(from))];
    let request = PullRequest { project: world.project, device: device.id(), wants, items_max: 1_000, bytes_max: 1 << 20 };
    world.store.pull(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_change_place_what_sql_has_written_too() {
    let mut world = World::new(Box::new(Database::fresh()), 61).await;
    written(&world).await;
    let pumps = world.collection("pumps").id;
    world.schema = world.store.alter_rules(world.project, pumps, vec!["kind:{site}".to_owned()]).await.unwrap().into();
    let mut hints = 0;
    loop {
        let (schema, now, entropy) = (world.schema.clone(), world.now(), world.draw());
        let batch = RebucketBatch { project: world.project, schema, timeline: world.timeline, now, entropy, records_max: 2 };
        let Some(step) = world.store.rebucket(batch).await.unwrap() else { break };
        hints += step.hints.len();
    }
    assert!(hints > 0, "whoever listens is told");
    assert_eq!(world.sql("SELECT count(*) FROM mobo.intake").await, "0");
    let placed = "SELECT string_agg(p.id || ' ' || b.key, ', ' ORDER BY p.id) FROM pumps p JOIN mobo.bucket b ON b.id = p._bucket";
    assert_eq!(world.sql(placed).await, "p1 kind:a, p2 kind:b, p4 kind:a");
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_ends_before_what_waits_and_calls_nothing_damaged() {
    let world = world(62).await;
    let device = written(&world).await;
    let page = pull(&world, &device, 0).await;
    let bucket = &page.buckets[0];
    assert_eq!(bucket.items.iter().map(|item| item.key.id.to_string()).collect::<Vec<_>>(), ["p1"]);
    assert_eq!((bucket.to.0, bucket.head.0, bucket.damaged.len()), (1, 3, 0), "there is more to come");
    let again = pull(&world, &device, 1).await;
    assert_eq!((again.buckets[0].to.0, again.buckets[0].items.len()), (1, 0), "and not before it is taken in");
    world.store.take_in(world.batch(Vec::new())).await.unwrap().unwrap();
    let page = pull(&world, &device, 1).await;
    let mut left: Vec<_> = page.buckets[0].items.iter().map(|item| (item.key.id.to_string(), item.state.is_some())).collect();
    left.sort_unstable();
    assert_eq!(left, [("p2".to_owned(), false), ("p3".to_owned(), true), ("p4".to_owned(), true)]);
    assert_eq!(page.buckets[0].to, page.buckets[0].head);
    world.is_sound().await;
}

/// A call may take in again and again, until nothing waits in its way: it has one moment and one draw of random bytes for all of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_says_twice_in_one_call_counts_twice() {
    let world = world(69).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("p1", json!({"site": "a", "runs": 3})));
    world.merged(device.push_all(&world)).await;
    let batch = world.batch(Vec::new());
    for _ in 0..2 {
        sql(&world, "UPDATE pumps SET runs = runs + 2 WHERE id = 'p1'").await;
        world.store.take_in(batch.clone()).await.unwrap().unwrap();
    }
    assert_eq!(world.sql("SELECT runs FROM pumps WHERE id = 'p1'").await, "7");
    world.is_sound().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_holds_the_rows_as_they_were_merged_last() {
    let world = world(63).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    for (id, speed) in [("p1", 0.1), ("p2", 1e-7), ("p3", 3e300)] {
        device.write(&world, "pumps", Intent::Put, (id, json!({"site": "a", "speed": speed, "runs": 3})));
    }
    world.merged(device.push_all(&world)).await;
    let before = rows(&world).await;
    sql(&world, "UPDATE pumps SET site = 'b', speed = 2, runs = 9 WHERE id = 'p2'").await;
    sql(&world, "UPDATE pumps SET site = 'c' WHERE id = 'p2'").await;
    sql(&world, "DELETE FROM pumps WHERE id = 'p3'").await;
    sql(&world, "INSERT INTO pumps(id, site) VALUES ('p4', 'a')").await;
    assert_eq!(rows(&world).await, before);
}

/// The pumps as a backup takes them, in the order of their ids.
async fn rows(world: &World) -> Vec<String> {
    let mut cut = world.store.cut().await.unwrap();
    let tables = cut.tables().await.unwrap();
    let pumps = tables.into_iter().find(|table| table.table.name == TableName::Collection("pumps".to_owned())).unwrap();
    cut.open(pumps.table, Filter::default()).await.unwrap();
    let mut rows = Vec::new();
    loop {
        let page = cut.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        rows.extend(page.into_iter().map(|row| format!("{row:?}")));
    }
    cut.end().await.unwrap();
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_sql_that_waits_is_not_moved() {
    let place = Database::fresh();
    let url = place.url();
    let world = World::new(Box::new(place), 64).await;
    written(&world).await;
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
            let sql = "BEGIN; SELECT 1 FROM work_orders WHERE id = 'w0' FOR UPDATE; SELECT pg_sleep(120) /* holder */";
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
