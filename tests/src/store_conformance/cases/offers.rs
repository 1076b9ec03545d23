//! Offers: what devices give back to a hub that has lost it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::author::Intent;
use mobo_core::ids::{BucketId, Lane, Ordinal, Position, Seq, Timeline, Ver};
use mobo_core::message::{Item, ItemBody, Offer};
use mobo_core::record::RecordState;
use mobo_core::stamp::Stamp;
use mobo_core::store::{OfferBatch, OfferReport, PullItem};
use mobo_core::table::{Cell, TableState, Tally, counts_under};
use mobo_core::trust::OfferKey;
use mobo_core::value::Value;
use serde_json::json;

use super::pulling;
use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place};

const KEY: OfferKey = OfferKey([3; 32]);

/// A record's state under another name, as a hub delivered it on that timeline: what a hub that was put back knows nothing of.
fn delivered(world: &World, (id, timeline): (&str, Timeline), (ver, state): (Ver, &RecordState)) -> Item {
    let key = world.key("pumps", id);
    let (epoch, bytes) = state.encode();
    let mac = KEY.row(world.project, &key, (timeline, ver), state.state_hash());
    Item { collection: key.collection, id: key.id, ver, body: ItemBody::State { epoch, bytes }, mac }
}

async fn offer(world: &World, device: &Device, offer: Offer, timelines: Vec<Timeline>) -> OfferReport {
    let (device, schema, now, entropy) = (device.id(), Arc::clone(&world.schema), world.now(), world.draw());
    let batch = OfferBatch { device, offer, schema, timelines, key: KEY, now, entropy };
    world.store.join_offer(world.project, batch).await.unwrap()
}

/// What a device is told of a bucket from its start.
async fn told(world: &World, device: &Device, bucket: BucketId) -> Vec<PullItem> {
    let request = pulling::request(world, device, vec![(bucket, Position(0))]);
    world.store.pull(request).await.unwrap().buckets.remove(0).items
}

/// A deletion has no fields that say in which bucket it belongs. A hub that knows nothing of the record keeps it in the one that it is offered
/// in, so that whoever offers it is told of it and goes on holding it (R22); offered again, nothing changes.
pub async fn keep_a_deletion_where_it_is_offered(place: Box<dyn Place>) {
    let world = World::new(place, 41).await;
    let mut device = Device::enrolled(&world, "a", &["site:a", "site:b"]).await;
    for (id, site) in [("p", "a"), ("other", "b")] {
        device.write(&world, "pumps", Intent::Put, (id, json!({"site": site, "runs": {"$inc": 2}})));
    }
    device.write(&world, "pumps", Intent::Delete, ("p", json!({})));
    world.merged(device.push_all(&world)).await;
    let (a, b) = (world.bucket("site:a").await, world.bucket("site:b").await);
    let deleted = world.store.record(world.project, world.key("pumps", "p")).await.unwrap().unwrap();
    let row = delivered(&world, ("forgotten", world.timeline), (deleted.ver, &deleted.state));
    for round in 0..2 {
        let page = Offer { bucket: b, timeline: world.timeline, rows: vec![row.clone()], more: false };
        let report = offer(&world, &device, page, Vec::new()).await;
        assert_eq!((report.joined, report.refused), (1, vec![]), "round {round}");
        let ids = |items: Vec<PullItem>| items.into_iter().map(|item| item.key.id.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(told(&world, &device, b).await), ["other", "forgotten"], "round {round}");
        assert_eq!(ids(told(&world, &device, a).await), ["p"], "round {round}");
        let there = world.store.record(world.project, world.key("pumps", "forgotten")).await.unwrap().unwrap();
        assert_eq!(there.state.state_hash(), deleted.state.state_hash(), "round {round}");
        assert!(world.rows("pumps").await.iter().all(|row| row["id"] != "forgotten"), "it is deleted");
        world.is_sound().await;
    }
}

/// A row is taken that the hub delivered on a timeline that somebody names, and refused, on record, under any other (R19).
pub async fn are_judged_by_the_timelines_that_are_named(place: Box<dyn Place>) {
    let world = World::new(place, 42).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("p", json!({"site": "a", "speed": 1.5})));
    world.merged(device.push_all(&world)).await;
    let (bucket, forgotten) = (world.bucket("site:a").await, Timeline([4; 16]));
    let there = world.store.record(world.project, world.key("pumps", "p")).await.unwrap().unwrap();
    let row = delivered(&world, ("q", forgotten), (there.ver, &there.state));
    for (named, want) in [(vec![], 0), (vec![Timeline([5; 16])], 0), (vec![Timeline([5; 16]), forgotten], 1)] {
        let page = Offer { bucket, timeline: world.timeline, rows: vec![row.clone()], more: false };
        let report = offer(&world, &device, page, named.clone()).await;
        assert_eq!((report.joined, report.refused.len()), (want, 1 - want as usize), "{named:?}");
        assert_eq!(world.rows("pumps").await.len(), 1 + want as usize, "{named:?}");
    }
}

/// A hub that was put back is behind what it decided before, and what it learns of a device's clock is, too. What a device writes after it has
/// given back its rows is later than what it did in these (R5, I9), whether its log has begun or not.
pub async fn begin_what_comes_behind_them(place: Box<dyn Place>) {
    let world = World::new(place, 43).await;
    for (name, begins) in [("a", true), ("b", false)] {
        let mut device = Device::enrolled(&world, name, &["site:a"]).await;
        if begins {
            device.write(&world, "pumps", Intent::Put, ("other", json!({"site": "a"})));
            world.merged(device.push_all(&world)).await;
        }
        let eff = world.now().plus(10_000_000);
        let stamp = Stamp { eff, device: device.id(), ordinal: Ordinal(1), seq: Seq::FIRST, op: 0 };
        let deleted = RecordState::Table(TableState { delete: Some(stamp), ..TableState::default() });
        let (bucket, id) = (world.bucket("site:a").await, format!("of-{name}"));
        let rows = vec![delivered(&world, (&id, world.timeline), (Ver(2), &deleted))];
        for more in [true, false] {
            let page = Offer { bucket, timeline: world.timeline, rows: rows.clone(), more };
            assert_eq!(offer(&world, &device, page, Vec::new()).await.joined, 1);
        }
        device.write(&world, "pumps", Intent::Put, (&id, json!({"site": "a", "speed": 2.5})));
        world.merged(device.push_last(&world)).await;
        let there = world.store.record(world.project, world.key("pumps", &id)).await.unwrap();
        let RecordState::Table(state) = there.unwrap().state else { panic!("a row") };
        assert!(state.put.unwrap().eff > eff, "{name}: {:?} and {eff:?}", state.put);
        assert!(world.rows("pumps").await.iter().any(|row| row["id"] == *id), "{name}: it is written after it was deleted");
    }
}

/// A copy of a device has authored again what the device has pushed itself, to a hub that was put back since: the hub knows the entry as the device's
/// own, and the row that comes back counts it apart. It counts once, whichever comes first, and as often as the row is offered (R10, R15).
pub async fn count_once_what_a_copy_has_authored_again(place: Box<dyn Place>) {
    let world = World::new(place, 44).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    let schema = Arc::clone(&world.schema);
    let field = |name: &str| schema.by_name("pumps").unwrap().field(name).unwrap().id;
    for (number, row_first) in [(1, false), (2, true)] {
        let id = format!("p{number}");
        device.write(&world, "pumps", Intent::Put, (&id, json!({"site": "a", "runs": {"$inc": 2}})));
        let first = device.provenance(Lane::State, number);
        let stamp = Stamp { eff: world.now(), device: device.id(), ordinal: Ordinal(9), seq: Seq::FIRST, op: 0 };
        let tally = BTreeMap::from([(counts_under(device.id(), &first), Tally { sum: 2, last: first.seq })]);
        let cells = BTreeMap::from([(field("site"), Cell { stamp, value: Value::Text("a".to_owned()) })]);
        let counters = BTreeMap::from([(field("runs"), tally)]);
        let again = RecordState::Table(TableState { put: Some(stamp), cells, counters, ..TableState::default() });
        let rows = vec![delivered(&world, (&id, world.timeline), (Ver(2), &again))];
        if !row_first {
            world.merged(device.push_last(&world)).await;
        }
        let page = Offer { bucket: world.bucket("site:a").await, timeline: world.timeline, rows, more: false };
        assert_eq!(offer(&world, &device, page.clone(), Vec::new()).await.joined, 1);
        if row_first {
            world.merged(device.push_last(&world)).await;
        }
        for round in 0..2 {
            let rows = world.rows("pumps").await;
            let runs = rows.iter().find(|row| row["id"] == *id).map(|row| row["runs"].clone());
            assert_eq!(runs, Some(json!(2)), "the row comes first: {row_first}; round {round}");
            assert_eq!(offer(&world, &device, page.clone(), Vec::new()).await.joined, 1);
        }
    }
}
