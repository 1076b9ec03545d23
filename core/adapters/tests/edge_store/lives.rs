//! What each run of the program writes counts under a name of its own (rule R10).

use mobo_core::author::Intent;
use mobo_core::entry::Header;
use mobo_core::ids::Lane;
use mobo_core::message::RefenceReason;
use serde_json::json;

use crate::going_back::{come_back, new_log, order};
use crate::world::{Device, World};

/// Adds to the counter of one order so often so much.
async fn count(world: &World, device: &Device, (times, hours): (i64, i64)) {
    for _ in 0..times {
        device.write(world, "orders", Intent::Merge, "o", json!({"hours": {"$inc": hours}})).await;
    }
}

/// The number of the life that an entry of the log that is written now was written in.
async fn life(device: &Device, at: i64) -> u32 {
    let log = device.store.node().await.unwrap().incarnation.unwrap().sql();
    let sql = "SELECT header FROM mobo_outbox WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
    let header: Vec<u8> = device.raw().query_row(sql, (log, Lane::State.number(), at), |row| row.get(0)).unwrap();
    Header::decode(&header).unwrap().life.map_or(0, |life| life.number())
}

#[tokio::test]
async fn r10_each_run_that_writes_is_a_life_of_the_log() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    count(&world, &device, (2, 1)).await;
    // A start after which nothing is written is none.
    device.reopen();
    device.reopen();
    count(&world, &device, (1, 10)).await;
    device.sync(&world).await;
    count(&world, &device, (1, 10)).await;
    device.reopen();
    assert_eq!(device.row(&world, "orders", "o").await["hours"], 22, "entries of two lives are laid over it");
    count(&world, &device, (1, 100)).await;
    let found = [life(&device, 1).await, life(&device, 2).await, life(&device, 3).await, life(&device, 4).await, life(&device, 5).await];
    assert_eq!(found, [0, 0, 1, 1, 2]);
    assert_eq!(device.row(&world, "orders", "o").await["hours"], 122);
    device.sync(&world).await;
    assert_eq!(device.row(&world, "orders", "o").await["hours"], 122);
    assert_eq!(world.rows("orders").await[0]["hours"], 122);
}

/// What broke: a copy of a device went on with the device's log at a hub that had lost what the device had written there. A tally says how far a
/// log was counted, and not which entries that were: what the device authored again was taken to be in the tally that the copy had made.
// faults: H-5, I-1
#[tokio::test]
async fn r10_what_a_copy_writes_at_a_restored_hub_counts_beside_what_the_device_wrote() {
    for (own, theirs) in [(3, 5), (5, 3)] {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        count(&world, &device, (1, 1)).await;
        device.sync(&world).await;
        let (copy, clone) = (world.copy_of_hub(), device.clone_to(&world, "clone").await);
        count(&world, &device, (own, 1)).await;
        device.sync(&world).await;
        count(&world, &clone, (theirs, 10)).await;
        world.goes_back(&copy).await;
        come_back(&world, &clone).await;
        count(&world, &clone, (1, 100)).await;
        clone.sync(&world).await;
        assert_eq!(clone.row(&world, "orders", "o").await["hours"], 1 + theirs * 10 + 100);

        let refence = order(&world, &device, RefenceReason::Forked).await;
        new_log(&world, &device, Some(refence)).await;
        come_back(&world, &device).await;
        assert_eq!(world.rows("orders").await[0]["hours"], 1 + own + theirs * 10 + 100);
        assert_eq!(device.row(&world, "orders", "o").await["hours"], 1 + own + theirs * 10 + 100);
    }
}

/// Two copies of a device that has joined, and written nothing: neither of them is the run that has begun the log.
// faults: I-1
#[tokio::test]
async fn r10_copies_of_a_log_without_an_entry_count_apart() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let (one, other) = (device.clone_to(&world, "one").await, device.clone_to(&world, "other").await);
    count(&world, &one, (1, 1)).await;
    count(&world, &one, (1, 1)).await;
    one.sync(&world).await;
    count(&world, &other, (1, 10)).await;
    assert_eq!((life(&one, 1).await, life(&other, 1).await), (1, 1));
    let refence = order(&world, &other, RefenceReason::Forked).await;
    new_log(&world, &other, Some(refence)).await;
    other.hello(&world).await;
    other.sync(&world).await;
    assert_eq!(world.rows("orders").await[0]["hours"], 12);
}
