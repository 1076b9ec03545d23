//! What a page of a bucket costs, whatever the database believes of its tables.

use mobo_core::author::{Intent, RecordOp};
use mobo_core::ids::{BucketId, Position};
use mobo_core::store::PullRequest;
use mobo_core::table::TableOp;
use mobo_tests::store_conformance::{Device, World};
use serde_json::json;

use crate::world;

const ROWS: usize = 2_000;

/// Work orders that take so much room that the database, which has not counted them, takes them for too many to be read by an index one by one.
async fn fill(world: &World, device: &mut Device) {
    for part in 0..ROWS / 100 {
        let op = |n: usize| {
            let fields = json!({"title": "x".repeat(1_500), "n": n});
            match device.op(world, "work_orders", Intent::Put, (&format!("o{part:02}-{n:02}"), fields)) {
                Some(RecordOp::Table(op)) => op,
                other => panic!("not an operation on a row: {other:?}"),
            }
        };
        let ops: Vec<TableOp> = (0..100).map(op).collect();
        device.rows(world, &ops);
    }
    assert_eq!(world.merged(device.push_all(world)).await.effs.len(), ROWS / 100);
}

/// How many rows were found by the index of positions, as far as the connections have told that were closed.
async fn read(world: &World) -> usize {
    let sql = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE indexrelname LIKE 'mobo_position_%'";
    world.sql(sql).await.parse().unwrap()
}

/// What broke: of a table that Postgres has not looked at yet, each connection read for its first pages all rows that were still to come, and
/// sorted them: for a newcomer to 50,000 rows, up to 13 ms of CPU for a page that takes 0.6 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_new_table_reads_what_it_holds() {
    let world = world(73).await;
    world.place.sql("ALTER TABLE work_orders SET (autovacuum_enabled = off)").await.unwrap();
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    fill(&world, &mut device).await;
    let fresh = BucketId::from_entropy(world.draw());
    let bucket = world.store.ensure_buckets(world.project, vec![("all".to_owned(), fresh)]).await.unwrap()[0].1;
    let request =
        PullRequest { project: world.project, device: device.id(), wants: vec![(bucket, Position(0))], items_max: 100, bytes_max: 1 << 20 };
    let page = world.store.pull(request).await.unwrap();
    assert_eq!(page.buckets[0].items.len(), 100);
    // A connection that ends tells what it has read.
    world.store.close().await;
    let mut found = 0;
    for _ in 0..2_000 {
        found = read(&world).await;
        if found > 0 {
            break;
        }
    }
    assert!((100..=300).contains(&found), "{found} rows were read for 100");
}
