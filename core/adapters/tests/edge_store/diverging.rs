//! What a device finds out about a bucket that is not what the hub has.

use mobo_adapters::sqlite::edge::Standing;
use mobo_core::author::Intent;
use mobo_core::message::Batch;
use serde_json::json;

use crate::world::{World, edit};

/// The pull that a divergence starts tells which records it was about.
#[tokio::test]
async fn r13_the_records_that_differ_are_named() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    world.write("orders", (0..6).map(|n| edit(Intent::Put, &format!("o{n}"), json!({ "n": n }))).collect()).await;
    let (mut batches, checkpoint) = device.pull(&world, 100).await;
    let body = |batches: &[Batch], id: &str| batches[0].items.iter().find(|item| item.id.as_str() == id).unwrap().body.clone();
    let other = body(&batches, "o5");
    batches[0].items.iter_mut().find(|item| item.id.as_str() == "o2").unwrap().body = other;
    for batch in batches {
        device.store.apply(batch).await.unwrap();
    }
    let compared = device.store.checkpoint(checkpoint.unwrap()).await.unwrap();
    assert_eq!(compared.buckets[0].1, Standing::Diverged);
    let (batches, checkpoint) = device.pull(&world, 100).await;
    let mut differed = Vec::new();
    for batch in batches {
        differed.extend(device.store.apply(batch).await.unwrap().differed);
    }
    assert_eq!(differed.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["o2"]);
    assert!(device.store.checkpoint(checkpoint.unwrap()).await.unwrap().equal());
    assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await);
}
