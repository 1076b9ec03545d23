//! Rows of a batch that are taken in together end as each would by itself.

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use serde_json::json;

use crate::world::{Device, Rng, World, edit};

/// Everything that a delivery changes, but for the positions, which come by the page.
const SAID: [&str; 5] = [
    "SELECT id, mobo_ver, _mobo, _extra, _bucket, title, hours, n, done, due FROM orders ORDER BY id",
    "SELECT id, ver, row, bucket FROM mobo_hidden ORDER BY id",
    "SELECT collection, id, row, epoch, ver, state_hash, mac FROM mobo_base ORDER BY collection, id",
    "SELECT collection, id, incarnation, lane, seq FROM mobo_overlay ORDER BY collection, id, incarnation, lane, seq",
    "SELECT key, cursor, digest, diverged FROM mobo_bucket ORDER BY key",
];

/// Takes in everything, in pages of so many records.
async fn catch_up(device: &Device, world: &World, items_max: usize) {
    loop {
        let (batches, checkpoint) = device.pull(world, items_max).await;
        for batch in batches {
            device.store.apply(batch).await.unwrap();
        }
        if checkpoint.is_some() {
            return;
        }
    }
}

/// Writes on both sides to some of 60 records, or to each of many new ones.
async fn write(world: &World, device: &Device, rng: &mut Rng, (deletes, round): (bool, u64)) {
    for n in 0..10 + rng.below(40) {
        let id = if rng.chance(40) { format!("r{round}-{n:03}") } else { format!("o{:02}", rng.below(60)) };
        let fields = json!({"title": format!("{round} {n}"), "hours": {"$inc": 1}, "n": n});
        match rng.below(4) {
            0 => world.write("orders", vec![edit(Intent::Merge, &id, fields)]).await,
            1 if deletes && n % 8 == 0 => _ = device.write(world, "orders", Intent::Delete, &id, json!({})).await,
            _ => _ = device.write(world, "orders", Intent::Merge, &id, fields).await,
        }
    }
}

#[tokio::test]
async fn r14_many_rows_at_once_are_taken_in_as_one_by_one() {
    for seed in 1..=6 {
        let mut rng = Rng(seed);
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        for round in 0..4 {
            write(&world, &device, &mut rng, (seed % 3 == 0, round)).await;
            // Some of its entries are merged; the others stay over what comes.
            let entries = 1 + usize::try_from(rng.below(40)).unwrap();
            if let Some(answer) = device.push(&world, Lane::State, device.acked(Lane::State).await, entries).await
                && rng.chance(50)
            {
                device.take(answer).await;
            }
            let single = device.clone_to(&world, &format!("{seed}-{round}")).await;
            catch_up(&device, &world, 1_000).await;
            catch_up(&single, &world, 5).await;
            assert_eq!(device.found(&SAID), single.found(&SAID), "seed {seed}, round {round}");
            device.is_sound().await;
        }
        device.sync(&world).await;
        assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await, "seed {seed}");
    }
}
