//! Many devices and several hubs at once: nothing is lost, nothing is done twice, nobody sees a deadlock.

use std::sync::Arc;

use mobo_core::ids::Lane;
use mobo_core::ids::Position;
use mobo_core::store::{HubStore, MergeReport, PullRequest};
use mobo_tests::seed::Seed;
use mobo_tests::store_conformance::{Device, World};
use serde_json::json;

use crate::{another_hub, hours, is_sound, one_more_hour, only, world};

const DEVICES: u64 = 20;
const ROUNDS: u64 = 8;

/// Writes records of its own and, in an order of its own, records that all share; each entry through the next of `hubs`.
async fn write_and_push(world: Arc<World>, hubs: Vec<Arc<dyn HubStore>>, number: u64, seed: u64) {
    let mut rng = Seed::fixed(seed ^ number).rng();
    let mut device = Device::enrolled(&world, &format!("device {number}"), &["all"]).await;
    for round in 0..ROUNDS {
        let mut ids = vec![format!("own-{number}-{round}"), format!("new-{round}"), "shared-1".to_owned(), "shared-2".to_owned()];
        rng.shuffle(&mut ids);
        let ops: Vec<_> = ids.iter().map(|id| one_more_hour(&world, &mut device, id)).collect();
        device.rows(&world, &ops);
        let hub = &hubs[rng.below(hubs.len() as u64) as usize];
        let report = hub.merge(world.batch(vec![device.push_last(&world)])).await.expect("no conflict of locks comes to light");
        assert_eq!(only(report).rejects, []);
    }
}

async fn crowd(world: &Arc<World>, hubs: &[Arc<dyn HubStore>], seed: u64) {
    let tasks: Vec<_> = (0..DEVICES).map(|number| tokio::spawn(write_and_push(Arc::clone(world), hubs.to_vec(), number, seed))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    for (id, hours) in hours(world).await {
        let want = match id.as_str() {
            "shared-1" | "shared-2" => DEVICES * ROUNDS,
            id if id.starts_with("new-") => DEVICES,
            _ => 1,
        };
        assert_eq!(hours, want as i64, "{id}: each increment counts once");
    }
    is_sound(world).await;
}

// faults: H-3, H-7
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_devices_write_into_one_bucket() {
    let seed = Seed::from_env();
    let world = world(seed.number()).await;
    crowd(&world, &[Arc::clone(&world.store)], seed.number()).await;
    assert_eq!(world.sql("SELECT count(*) FROM work_orders").await, (DEVICES * ROUNDS + ROUNDS + 2).to_string());
}

// faults: H-6
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_hubs_share_a_database() {
    let seed = Seed::from_env();
    let world = world(seed.number()).await;
    let hubs = [Arc::clone(&world.store), another_hub(&world).await, another_hub(&world).await];
    crowd(&world, &hubs, seed.number()).await;
}

// faults: H-6, N-16
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_push_that_reaches_two_hubs_is_merged_once() {
    let world = world(3).await;
    let other = another_hub(&world).await;
    let mut device = Device::enrolled(&world, "device", &["all"]).await;
    for round in 0..12 {
        let op = one_more_hour(&world, &mut device, &format!("w-{}", round % 3));
        device.rows(&world, &[op]);
        let push = || world.batch(vec![device.push_last(&world)]);
        let (left, right) = tokio::join!(world.store.merge(push()), other.merge(push()));
        let (left, right) = (only(left.unwrap()), only(right.unwrap()));
        assert_eq!((left.acked, left.chain, &left.effs), (right.acked, right.chain, &right.effs), "R7: one decision, told twice");
    }
    assert!(hours(&world).await.iter().all(|(_, hours)| *hours == 4));
    is_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collection_that_another_hub_has_made_is_known_at_once() {
    let world = world(4).await;
    let other = another_hub(&world).await;
    let mut fresh = world.collection("work_orders").clone();
    (fresh.id, fresh.name) = (mobo_core::ids::CollectionId::new(99).unwrap(), "valves".to_owned());
    other.create_collection(world.project, fresh.clone()).await.unwrap();
    let mut device = Device::enrolled(&world, "device", &["all"]).await;
    let mut op = one_more_hour(&world, &mut device, "v-1");
    op.key.collection = fresh.id;
    device.rows(&world, &[op]);
    // The world still hands the schema of before to its own hub.
    let report: MergeReport = world.store.merge(world.batch(vec![device.push_all(&world)])).await.unwrap();
    assert_eq!(only(report).rejects, []);
    assert_eq!(world.sql("SELECT hours FROM valves").await, "1");
}

/// A page is one snapshot: what it says of the reader's own lanes is what its rows and digests show, whatever is merged meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_is_one_snapshot_under_fire() {
    let world = world(5).await;
    let mut device = Device::enrolled(&world, "device", &["all"]).await;
    let op = one_more_hour(&world, &mut device, "w");
    device.rows(&world, &[op]);
    world.merged(device.push_all(&world)).await;
    let bucket = world.bucket("all").await;
    let request =
        PullRequest { project: world.project, device: device.id(), wants: vec![(bucket, Position(0))], items_max: 100, bytes_max: 1 << 20 };
    let writer = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            for _ in 0..30 {
                let op = one_more_hour(&world, &mut device, "w");
                device.rows(&world, &[op]);
                world.merged(device.push_last(&world)).await;
            }
        }
    });
    let mut pages = 0;
    while !writer.is_finished() || pages == 0 {
        let page = world.store.pull(request.clone()).await.unwrap();
        let (only, merged) = (&page.buckets[0], page.own_merged[0].2.get());
        assert_eq!(page.own_merged[0].0, Lane::State);
        assert_eq!((only.head.0, only.items.len(), only.items[0].ver.0), (merged, 1, merged), "one merge, one position, one version");
        pages += 1;
    }
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_bucket_of_a_record_moves_with_it_under_fire() {
    let world = world(6).await;
    let tasks: Vec<_> = (0..6_i64)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for round in 0..8_i64 {
                    let fields = json!({"site": format!("s{}", (number + round) % 3), "line": round % 2, "runs": {"$inc": 1}});
                    let write = world.local("pumps", mobo_core::author::Intent::Put, &format!("p-{}", round % 4), &fields);
                    assert_eq!(world.answered(write).await.rejects, []);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    world.is_sound().await;
    assert_eq!(world.sql("SELECT sum(runs) FROM pumps").await, "48");
}
