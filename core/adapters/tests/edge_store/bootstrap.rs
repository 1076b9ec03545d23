//! The first pull of a bucket is the pull from position 0, and goes on where it was cut.

use mobo_core::author::Intent;
use mobo_core::message::ItemBody;
use serde_json::json;

use crate::world::{World, edit};

/// Goal: whatever cuts a first pull off, what has come is not sent again, and at the end the device holds what its hub holds.
/// Method: the power goes after every batch in turn, then after every one of them; one row changes in the middle, and comes once more for it.
// faults: N-15
#[tokio::test]
async fn i19_a_first_pull_goes_on_where_it_was_cut() {
    const ROWS: usize = 60;
    for cut in 0..12 {
        let world = World::new().await;
        for n in 0..ROWS {
            let (collection, fields) = match n % 3 {
                0 => ("orders", json!({"n": n})),
                1 => ("notes", json!({"title": format!("note {n}"), "likes": n})),
                _ => ("pumps", json!({"site": "x", "line": n % 2})),
            };
            world.write(collection, vec![edit(Intent::Put, &format!("r{n:02}"), fields)]).await;
        }
        world.write("orders", vec![edit(Intent::Delete, "r03", json!({}))]).await;
        let mut device = world.device("a", &["all", "site:x", "line:0"]).await;
        let (mut states, mut batches_seen, mut changed) = (0, 0, false);
        loop {
            let (batches, checkpoint) = device.pull(&world, 7).await;
            for batch in batches {
                states += batch.items.iter().filter(|item| matches!(item.body, ItemBody::State { .. })).count();
                device.store.apply(batch).await.unwrap();
                batches_seen += 1;
                if cut == 0 || batches_seen == cut {
                    device.reopen();
                    device.hello(&world).await;
                    // What is left of this page is lost with the link.
                    break;
                }
            }
            if !changed && !device.row(&world, "orders", "r00").await.is_null() {
                changed = true;
                world.write("orders", vec![edit(Intent::Patch, "r00", json!({"title": "changed"}))]).await;
            }
            let counts = device.store.counts().await.unwrap();
            let done = checkpoint.as_ref().filter(|checkpoint| {
                let at = |head: &(_, _, _)| counts.buckets.iter().any(|bucket| bucket.grant.bucket == head.0 && bucket.cursor == head.1);
                checkpoint.heads.iter().all(at)
            });
            if let Some(checkpoint) = done
                && changed
            {
                assert!(device.store.checkpoint(checkpoint.clone()).await.unwrap().equal(), "cut after batch {cut}");
                break;
            }
        }
        // A pump on line 0 is in two buckets, and comes with each.
        let twice = (0..ROWS).filter(|n| n % 3 == 2 && n % 2 == 0).count();
        assert_eq!(states, ROWS + twice + 1, "cut after batch {cut}: each once, and what changed once more");
        for collection in ["orders", "notes", "pumps"] {
            assert_eq!(device.rows(&world, collection).await, world.rows(collection).await, "{collection}, cut after batch {cut}");
        }
        device.is_sound().await;
    }
}
