//! Buckets that a device offers to a hub that has gone back (rule R18).

use std::sync::Arc;

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Position, Timeline};
use mobo_core::merge::Rights;
use mobo_core::message::{Code, TimelineParent};
use mobo_core::store::{OfferBatch, RecoveryStore};
use mobo_core::trust::OfferKey;
use serde_json::{Value as Json, json};

use crate::going_back::{named, put};
use crate::world::{World, edit};

/// What broke: a hub that goes back again while a bucket is being offered may have lost what it had joined of that, and the device offered on from
/// where it had got to, or from where the bucket stood on the timeline between the two. And one that goes back when all of it was offered, and
/// nothing pulled yet, was not offered what stood below that: it was gone.
#[tokio::test]
async fn r18_a_hub_that_goes_back_while_it_is_offered_a_bucket_is_offered_all_of_it_again() {
    // Where the bucket stood when each timeline ended, as the last hub knows it; how many of eight rows that hub may have lost; and whether the hub
    // before it had joined all of them.
    type Heads = &'static [(u8, u64)];
    let cases: [(Heads, usize, bool); 6] = [
        (&[(1, 9), (9, 0)], 8, false),
        (&[(9, 0)], 8, false),
        (&[], 8, false),
        (&[(9, 7)], 1, false),
        (&[(1, 9), (9, 0)], 8, true),
        (&[(1, 3), (9, 0)], 8, true),
    ];
    for (heads, lost, is_joined) in cases {
        let mut world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let bucket = device.grants[0].bucket;
        for id in named("o", 1..=8) {
            device.write(&world, "orders", Intent::Put, &id, json!({"title": "x".repeat(60_000)})).await;
        }
        device.sync(&world).await;
        let parent =
            |(timeline, head): (u8, u64)| TimelineParent { timeline: Timeline([timeline; 16]), heads: vec![(bucket, Position(head))] };
        assert_eq!(world.timeline, parent((9, 0)).timeline);
        (world.timeline, world.parents) = (Timeline([1; 16]), vec![parent((9, 0))]);
        device.hello(&world).await;
        let (offer, more) = device.store.offer(bucket, None).await.unwrap();
        assert_eq!((offer.rows.len(), more), (7, Some(Position(7))));
        assert_eq!(device.store.offer(bucket, more).await.unwrap().0.rows.len(), 1, "the first page is joined");
        if is_joined {
            device.store.offered(bucket).await.unwrap();
        }
        (world.timeline, world.parents) = (Timeline([2; 16]), heads.iter().copied().map(parent).collect());
        device.hello(&world).await;
        let (mut after, mut offered) = (None, 0);
        loop {
            let (offer, more) = device.store.offer(bucket, after).await.unwrap();
            (after, offered) = (more, offered + offer.rows.len());
            if more.is_none() {
                break;
            }
        }
        assert_eq!(offered, lost, "{heads:?}");
    }
}

/// What broke: a device knows in which order rows stand in a bucket, and not at which positions. One that stood above the fork here, and below it at
/// the hub, was to be offered; the hub went back once more before that, to a later time, and had not lost it. Nobody named it any more.
#[tokio::test]
async fn r18_a_row_that_stands_higher_here_is_offered_to_a_hub_that_has_not_lost_it() {
    let mut world = World::new().await;
    let (writer, device) = (world.device("a", &["all"]).await, world.device("b", &["all"]).await);
    let bucket = device.grants[0].bucket;
    put(&world, &writer, named("o", 1..=2)).await;
    for _ in 0..3 {
        writer.push_all(&world).await;
        writer.write(&world, "orders", Intent::Patch, "o2", json!({"title": "again"})).await;
    }
    writer.push_all(&world).await;
    // The hub has the first at position 1, and the second at 5: here they stand at 4 and 5.
    device.sync(&world).await;
    let parent = |timeline, head| TimelineParent { timeline, heads: vec![(bucket, Position(head))] };
    let before = world.timeline;
    for (timeline, head, want) in [(1, 2, 2), (2, 9, 2)] {
        (world.timeline, world.parents) = (Timeline([timeline; 16]), vec![parent(before, head)]);
        device.hello(&world).await;
        let (offer, more) = device.store.offer(bucket, None).await.unwrap();
        assert_eq!((offer.rows.len(), more), (want, None), "forked at {head}");
    }
}

/// What broke: once one copy of a device had come back, and there was no other device, recovery was over. What another copy had changed since in
/// records that only it held was refused for good, because it pushes before it offers them.
#[tokio::test]
async fn r18_what_builds_on_rows_that_a_device_has_yet_to_offer_is_taken_though_recovery_is_over() {
    for owes_offers in [true, false] {
        let mut world = World::new().await;
        let device = world.device("a", &["site:x"]).await;
        let copy = world.copy_of_hub();
        world.write("pumps", vec![edit(Intent::Put, "p", json!({"site": "x", "runs": 1}))]).await;
        device.catch_up(&world).await;
        device.write(&world, "pumps", Intent::Patch, "p", json!({"runs": {"$inc": 3}})).await;

        let delivered_on = world.timeline;
        world.goes_back(&copy).await;
        device.hello(&world).await;
        let rights = Rights::Buckets(["site:x".to_owned()].into_iter().collect());
        let rights = if owes_offers { rights.owing_offers() } else { rights };
        let answer = device.push_as(&world, Lane::State, None, rights).await.unwrap();
        let codes: Vec<Code> = answer.rejects.iter().map(|reject| reject.code).collect();
        assert_eq!(codes, vec![Code::FORBIDDEN; usize::from(!owes_offers)]);
        assert_eq!(world.rows("pumps").await, Vec::<Json>::new(), "nobody sees what nobody has made");

        let (offer, _) = device.store.offer(device.grants[0].bucket, None).await.unwrap();
        let (device, key, timelines) = (device.keys.device(), OfferKey([4; 32]), vec![delivered_on]);
        let (schema, now, entropy) = (Arc::clone(&world.schema), world.now(), world.draw());
        let batch = OfferBatch { device, offer, schema, timelines, key, now, entropy };
        let report = world.hub.join_offer(world.project, batch).await.unwrap();
        assert_eq!((report.joined, report.refused.len()), (1, 0));
        assert_eq!(world.rows("pumps").await[0]["runs"], if owes_offers { 4 } else { 1 });
    }
}
