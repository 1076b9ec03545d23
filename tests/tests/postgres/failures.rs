//! Connections that break, servers that go away, refusals of all kinds: what was acknowledged stays, and a retry does nothing twice.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::ids::Timeline;
use mobo_core::merge::Prepared;
use mobo_core::store::{Fork, HubStore, StoreError};
use mobo_hub::postgres::PostgresHubStore;
use mobo_tests::postgres::{Database, Server};
use mobo_tests::store_conformance::{Device, World};
use mobo_tests::wait;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{hours, is_sound, one_more_hour, only, world};

const LONG: Duration = Duration::from_secs(60);

/// What somebody else does with SQL meanwhile.
fn elsewhere(world: &Arc<World>, sql: &'static str) -> JoinHandle<Result<Option<String>, String>> {
    let world = Arc::clone(world);
    spawn_blocking(move || Handle::current().block_on(world.place.sql(sql)))
}

/// A statement that ends the connections to this database of which a condition holds, and gives a row for each.
fn end(condition: &str) -> String {
    // First whom, then how: a condition that stood beside the deed might be looked at after it.
    format!(
        "WITH whom AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}) \
         SELECT 1 FROM whom WHERE pg_terminate_backend(pid)"
    )
}

/// Asks the database until it answers with a row.
async fn until(world: &Arc<World>, what: &'static str, sql: &str) {
    let (world, sql) = (Arc::clone(world), sql.to_owned());
    let look = move || Handle::current().block_on(world.place.sql(&sql)).expect("it runs").filter(|answer| !answer.is_empty());
    spawn_blocking(move || wait::until(what, LONG, look)).await.unwrap();
}

/// A device that has sealed one more hour for the record `w`.
async fn writer(world: &World) -> Device {
    let mut device = Device::enrolled(world, "device", &["all"]).await;
    one_more(world, &mut device);
    device
}

fn one_more(world: &World, device: &mut Device) {
    let op = one_more_hour(world, device, "w");
    device.rows(world, &[op]);
}

/// Pushes until the store takes it, as a device does.
async fn insist(world: &Arc<World>, push: Prepared) {
    let world = Arc::clone(world);
    let again = move || match Handle::current().block_on(world.store.merge(world.batch(vec![push.clone()]))) {
        Ok(report) => Some(only(report)),
        Err(StoreError::Unavailable(_)) => None,
        Err(other) => panic!("{other}"),
    };
    let merged = spawn_blocking(move || wait::until("a store that takes it", LONG, again)).await.unwrap();
    assert_eq!(merged.rejects, []);
}

// faults: H-1, H-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_is_ended_in_the_middle_of_a_merge_harms_nothing() {
    let world = world(1).await;
    let mut device = writer(&world).await;
    world.merged(device.push_all(&world)).await;

    // Records and buckets are written when the merge comes to this lock, and nothing is committed.
    let holder = elsewhere(&world, "BEGIN; LOCK TABLE mobo.entry IN SHARE MODE; SELECT pg_sleep(600) /* holder */");
    until(&world, "the lock", "SELECT 1 FROM pg_locks WHERE relation = 'mobo.entry'::regclass AND mode = 'ShareLock' AND granted").await;
    one_more(&world, &mut device);
    let merge = tokio::spawn({
        let (world, batch) = (Arc::clone(&world), world.batch(vec![device.push_last(&world)]));
        async move { world.store.merge(batch).await }
    });
    until(&world, "a merge that waits for the lock", &end("application_name = 'mobo-hub' AND wait_event_type = 'Lock'")).await;
    let error = merge.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    until(&world, "the holder", &end("query LIKE 'BEGIN%holder%'")).await;
    assert!(holder.await.unwrap().is_err(), "it was ended");

    assert_eq!(hours(&world).await, [("w".to_owned(), 1)], "nothing of it happened");
    insist(&world, device.push_last(&world)).await;
    insist(&world, device.push_last(&world)).await;
    assert_eq!(hours(&world).await, [("w".to_owned(), 2)], "it happened once");
    is_sound(&world).await;
}

// faults: H-1, H-4
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_under_load_comes_back_with_everything_that_was_acknowledged() {
    let server = Arc::new(Server::durable());
    let world = Arc::new(World::new(Box::new(Database::fresh_on(&server)), 2).await);
    let mut devices = Vec::new();
    for number in 0..4 {
        devices.push(Device::enrolled(&world, &format!("device {number}"), &["all"]).await);
    }
    let tasks: Vec<_> = devices
        .into_iter()
        .map(|mut device| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for _ in 0..25 {
                    one_more(&world, &mut device);
                    insist(&world, device.push_last(&world)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let server = Arc::clone(&server);
        let again = move || {
            server.crash();
            server.start_again();
        };
        spawn_blocking(again).await.unwrap();
        // Some of them get through before the next crash.
        let merged = world.store.audit_lanes(world.project).await.map_or(0, |lanes| lanes.iter().map(|lane| lane.entries).sum::<u64>());
        let world = Arc::clone(&world);
        let more = move || {
            let lanes = Handle::current().block_on(world.store.audit_lanes(world.project)).ok()?;
            let entries = lanes.iter().map(|lane| lane.entries).sum::<u64>();
            (entries > merged || entries == 100).then_some(())
        };
        spawn_blocking(move || wait::until("another merge", LONG, more)).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(hours(&world).await, [("w".to_owned(), 100)], "each entry counts once");
    is_sound(&world).await;
}

/// Makes each of the next `times` attempts to put entries on record fail with an error of Postgres' own.
async fn fail(world: &World, times: u32, code: &str) {
    let sql = format!(
        "DROP SEQUENCE IF EXISTS attempts; CREATE SEQUENCE attempts; \
         CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF nextval('attempts') <= {times} THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}'; END IF; RETURN NULL; END $$; \
         CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON mobo.entry FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    );
    world.place.sql(&sql).await.unwrap();
}

// faults: H-3, H-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_the_database_is_called_by_what_to_do_next() {
    let world = world(3).await;
    let mut device = writer(&world).await;
    let cases = [
        ("53100", 1, "the store is full"),
        ("25006", 1, "read-only"),
        ("57014", 1, "not available"),
        ("57P01", 1, "not available"),
        ("42501", 1, "give the hub's user its tables back"),
        ("XX001", 1, "the store is damaged"),
        ("22003", 1, "made to fail"),
        ("40001", 3, "others hold the same records"),
        ("40P01", 3, "others hold the same records"),
    ];
    for (code, times, want) in cases {
        fail(&world, times, code).await;
        let error = world.store.merge(world.batch(vec![device.push_all(&world)])).await.unwrap_err();
        assert!(error.to_string().contains(want), "{code}: {error}");
        assert_eq!(world.rows("work_orders").await, [] as [serde_json::Value; 0], "{code}: nothing of it happened");
    }
    fail(&world, 2, "40001").await;
    world.merged(device.push_all(&world)).await;
    one_more(&world, &mut device);
    world.merged(device.push_last(&world)).await;
    assert_eq!(hours(&world).await, [("w".to_owned(), 2)]);
    is_sound(&world).await;
}

// faults: H-3, H-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_others_keep_out_is_left_whole_for_the_hub_to_part() {
    let world = world(4).await;
    let mut device = writer(&world).await;
    for _ in 0..4 {
        one_more(&world, &mut device);
    }
    let entries = device.lanes[&mobo_core::ids::Lane::State].clone();
    let push = |seq: usize| device.push(&world, mobo_core::ids::Lane::State, (seq as u64, &entries[seq - 1..seq]));
    let batch = |seqs: std::ops::RangeInclusive<usize>| world.batch(seqs.map(push).collect());
    for code in ["40001", "40P01", "23505"] {
        // A seventh attempt, by parts, would get through.
        fail(&world, 6, code).await;
        let error = world.store.merge(batch(1..=5)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Contended(_)), "{code}: {error}");
        assert_eq!(world.sql("SELECT last_value FROM attempts").await, "6", "{code}: the batch was tried as a whole each time");
        assert_eq!(hours(&world).await, [], "{code}: nothing of it happened");
    }
    for part in [1..=2, 3..=5] {
        let report = world.store.merge(batch(part.clone())).await.unwrap();
        let merged: Vec<usize> = report.outcomes.into_iter().map(|outcome| only_outcome(outcome).eff_first.get() as usize).collect();
        assert_eq!(merged, part.collect::<Vec<_>>(), "in the order of submission");
    }
    assert_eq!(hours(&world).await, [("w".to_owned(), 5)]);
    is_sound(&world).await;
}

fn only_outcome(outcome: mobo_core::merge::Outcome) -> mobo_core::merge::Merged {
    only(mobo_core::store::MergeReport { outcomes: vec![outcome], ..Default::default() })
}

// faults: H-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_closed_to_writes_is_read_on() {
    let world = world(5).await;
    let mut device = writer(&world).await;
    world.merged(device.push_all(&world)).await;
    world
        .place
        .sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
        .await
        .unwrap();
    let hub = world.place.open().await.unwrap();
    one_more(&world, &mut device);
    let error = hub.merge(world.batch(vec![device.push_last(&world)])).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("standby")), "{error}");
    assert_eq!(hub.counts(world.project).await.unwrap().records, 1);
    assert_eq!(hub.select(world.all("work_orders")).await.unwrap().rows.len(), 1);
}

// faults: H-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_requests_than_connections_wait_for_their_turn() {
    let world = world(6).await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.store.counts(world.project).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mobo-hub' AND datname = current_database()";
    let connections: u32 = world.sql(connections).await.parse().unwrap();
    assert!(connections <= mobo_core::limits::POSTGRES_CONNECTIONS_MAX, "{connections}");
}

/// Somebody puts the database back under a running hub, or a standby without the last commits takes its server's place: before it gives a position
/// out again that a device holds already, the hub begins a new timeline.
// faults: H-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_put_back_gives_no_position_out_twice() {
    let world = world(8).await;
    let mut device = writer(&world).await;
    world.merged(device.push_all(&world)).await;
    assert!(!world.store.has_gone_back());
    world.place.sql("UPDATE mobo.bucket SET head = head - 1").await.unwrap();
    one_more(&world, &mut device);
    for _ in 0..2 {
        let error = world.store.merge(world.batch(vec![device.push_last(&world)])).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("holds less")), "{error}");
    }
    assert!(world.store.has_gone_back());
    assert_eq!(hours(&world).await, [("w".to_owned(), 1)], "nothing of it happened");
    let hub = world.store.current().await.unwrap();
    let fork = Fork { from: hub.timeline.timeline, fresh: Timeline([7; 16]), incarnation: hub.incarnation, foreign: vec![], now: hub.time };
    world.store.fork_timeline(world.project, fork).await.unwrap();
    assert!(!world.store.has_gone_back());
    world.merged(device.push_last(&world)).await;
    assert_eq!(hours(&world).await, [("w".to_owned(), 2)]);
}

/// A standby shows commits later than its primary, and whoever follows both of them would step over some: it is no place for a hub.
// faults: H-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_refused() {
    let server = Server::start();
    let database = Database::fresh_on(&server);
    PostgresHubStore::open(&database.url()).await.unwrap().close().await;
    server.stand_by();
    match PostgresHubStore::open(&database.url()).await {
        Err(StoreError::Refused(why)) => assert!(why.contains("standby") && why.contains("store.url"), "{why}"),
        other => panic!("{other:?}"),
    }
}
