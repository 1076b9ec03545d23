//! Local writes: what is acknowledged is on disk, visible at once, and one entry.

use mobo_adapters::sqlite::edge::{Change, EdgeCounts, WriteError};
use mobo_core::author::{EditError, Intent};
use mobo_core::ids::{CollectionId, Lane};
use serde_json::json;

use crate::world::{Device, World, edit, seq};

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    let mut changes = device.store.watch();
    let written =
        device.write(&world, "orders", Intent::Put, "o1", json!({"title": "pump", "hours": 3, "due": "2026-02-03T04:05:06Z"})).await;
    assert_eq!(written.entry.unwrap().seq, seq(1));
    assert_eq!(written.changed, [world.key("orders", "o1")]);
    assert_eq!(changes.recv().await.unwrap(), Change::RecordsChanged([world.key("orders", "o1")].as_slice().into()));
    assert_eq!(changes.recv().await.unwrap(), Change::LaneAppended(Lane::State));
    device.write(&world, "orders", Intent::Patch, "o1", json!({"hours": {"$inc": 4}, "n": 9})).await;
    device.append(&world, &[0.5, 0.25]).await;
    // The file may grow by what a boot writes into it; nothing else may change.
    let counts = async |device: &Device| EdgeCounts { used_bytes: 0, ..device.store.counts().await.unwrap() };
    let before = (device.rows(&world, "orders").await, device.rows(&world, "vitals").await, counts(&device).await);
    device.reopen();
    let after = (device.rows(&world, "orders").await, device.rows(&world, "vitals").await, counts(&device).await);
    assert_eq!(before, after);
    let want = json!({"id": "o1", "title": "pump", "hours": 7, "n": 9, "done": null, "due": "2026-02-03T04:05:06.000000Z"});
    assert_eq!(after.0, [want]);
    assert_eq!((after.2.pending, after.2.records, after.1.len()), (3, 1, 2));
    let record = device.store.record(world.key("orders", "o1")).await.unwrap().unwrap();
    assert!(record.pending && record.ver.0 == 0);
    device.is_sound().await;
    device.sync(&world).await;
    assert_eq!(world.rows("orders").await, after.0);
}

#[tokio::test]
async fn all_edits_of_one_write_are_one_entry_or_none() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let orders = world.collection("orders").id;
    let edits = vec![
        edit(Intent::Put, "a", json!({"hours": 2})),
        edit(Intent::Put, "b", json!({"title": "b"})),
        edit(Intent::Patch, "a", json!({"hours": 10})),
        edit(Intent::Patch, "a", json!({"hours": {"$inc": 1}, "title": "twice"})),
        edit(Intent::Delete, "b", json!({})),
        edit(Intent::Patch, "nobody", json!({"n": 1})),
        edit(Intent::Ensure, "a", json!({"n": 1})),
    ];
    let written = device.store.write(orders, edits, Some("ann".to_owned())).await.unwrap();
    assert_eq!((written.entry.unwrap().seq, written.changed.len()), (seq(1), 2));
    let a = device.row(&world, "orders", "a").await;
    assert_eq!((&a["hours"], &a["title"]), (&json!(11), &json!("twice")));
    assert_eq!(device.row(&world, "orders", "b").await, json!(null));
    let bad = vec![edit(Intent::Put, "c", json!({})), edit(Intent::Put, "d", json!({"titel": "x"}))];
    match device.store.write(orders, bad, None).await {
        Err(WriteError::Edit(EditError::UnknownField { near, .. })) => assert_eq!(near.as_deref(), Some("title")),
        other => panic!("{other:?}"),
    }
    let nothing = vec![
        edit(Intent::Patch, "a", json!({})),
        edit(Intent::Delete, "nobody", json!({})),
        edit(Intent::Patch, "a", json!({"hours": 11})),
    ];
    assert_eq!(device.store.write(orders, nothing, None).await.unwrap().entry, None);
    assert_eq!(device.store.counts().await.unwrap().pending, 1);
    device.sync(&world).await;
    assert_eq!(world.rows("orders").await, [a]);
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_by_a_sentence_and_leaves_nothing() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let (orders, vitals) = (world.collection("orders").id, world.collection("vitals").id);
    let text = "x".repeat(60_000);
    let large = (0..6).map(|n| edit(Intent::Put, &format!("r{n}"), json!({ "title": text }))).collect();
    let many = (0..5_001).map(|n| edit(Intent::Put, &format!("r{n}"), json!({}))).collect();
    let insert = || vec![edit(Intent::Insert, "there", json!({}))];
    device.store.write(orders, insert(), None).await.unwrap();
    let cases = [
        (orders, large, "split it"),
        (orders, many, "split it"),
        (orders, insert(), "exists already"),
        (orders, vec![edit(Intent::Put, "x", json!({"n": "seven"}))], "field \"n\""),
        (vitals, vec![edit(Intent::Put, "x", json!({}))], "is a stream"),
        (CollectionId::new(99).unwrap(), insert(), "does not know"),
    ];
    for (collection, edits, want) in cases {
        let error = device.store.write(collection, edits, None).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert_eq!((device.store.counts().await.unwrap().pending, device.count("SELECT count(*) FROM mobo_base")), (1, 1));
    device.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_share_a_sync_and_lose_nothing() {
    const WRITERS: usize = 64;
    const WRITES: usize = 20;
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    let orders = world.collection("orders").id;
    let (commits, jobs) = device.store.commits();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = device.store.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let own = edit(Intent::Put, &format!("{writer}-{n}"), json!({ "n": n }));
                    let shared = edit(Intent::Merge, "shared", json!({"hours": {"$inc": 1}}));
                    store.write(orders, vec![own, shared], None).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (after, done) = device.store.commits();
    assert_eq!(done - jobs, (WRITERS * WRITES) as u64);
    assert!(after - commits < (WRITERS * WRITES) as u64 / 2, "{} commits for {} writes", after - commits, WRITERS * WRITES);
    device.reopen();
    assert_eq!(device.row(&world, "orders", "shared").await["hours"], WRITERS * WRITES);
    assert_eq!(device.store.counts().await.unwrap().records as usize, WRITERS * WRITES + 1);
    device.is_sound().await;
    device.sync(&world).await;
    assert_eq!(world.rows("orders").await, device.rows(&world, "orders").await);
}

#[tokio::test]
async fn a_plain_sql_tool_reads_typed_rows_and_is_told_why_it_cannot_write() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.write(&world, "orders", Intent::Put, "o1", json!({"title": "pump", "done": true})).await;
    let row = device.raw().query_row("SELECT title, done, hours FROM orders WHERE id = 'o1'", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    assert_eq!(row.unwrap(), ("pump".to_owned(), 1, 0));
    // What is no table, no program can write by SQL.
    let error = device.raw().execute("INSERT INTO notes(id, mobo_ver, _mobo) VALUES ('x', 1, x'00')", []).unwrap_err().to_string();
    assert!(error.contains("would not be synced"), "{error}");
}

#[tokio::test]
async fn r4_samples_get_their_real_times_with_the_ack() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    device.append(&world, &[0.5, 0.25, 0.75]).await;
    let before = device.rows(&world, "vitals").await;
    assert!(before[0]["at"].as_str().unwrap().starts_with("2025-02"), "the device's own clock: {}", before[0]);
    device.push_all(&world).await;
    let after = device.rows(&world, "vitals").await;
    assert!(after[0]["at"].as_str().unwrap().starts_with("2026-02"), "the hub's: {}", after[0]);
    assert_eq!(after, world.rows("vitals").await);
}
