//! Pulls: what a device reads of its buckets.

use std::collections::BTreeMap;

use mobo_core::author::Intent;
use mobo_core::ids::{BucketId, Lane, Position, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::store::{BucketPage, PullPage, PullRequest};
use serde_json::json;

use super::schedule;
use crate::seed::Seed;
use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place};

/// A reader: what it holds of each bucket, and how far it has read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reader {
    held: BTreeMap<BucketId, BTreeMap<RecordKey, Vec<u8>>>,
    cursors: BTreeMap<BucketId, Position>,
}

/// All that a device asks of these buckets at once.
pub(super) fn request(world: &World, device: &Device, wants: Vec<(BucketId, Position)>) -> PullRequest {
    PullRequest { project: world.project, device: device.id(), wants, items_max: 1_000, bytes_max: 1 << 20 }
}

impl Reader {
    fn apply(&mut self, page: &BucketPage) {
        assert_eq!(self.cursors.get(&page.bucket).copied().unwrap_or_default(), page.from);
        assert_eq!(page.damaged, []);
        let held = self.held.entry(page.bucket).or_default();
        for item in &page.items {
            match &item.state {
                Some(state) => held.insert(item.key.clone(), state.bytes.clone()),
                None => held.remove(&item.key),
            };
        }
        self.cursors.insert(page.bucket, page.to);
    }

    /// Reads on until nothing is left.
    async fn read(&mut self, world: &World, device: &Device, items_max: usize) -> PullPage {
        loop {
            let counts = world.store.counts(world.project).await.unwrap();
            let want = |bucket: &BucketId| (*bucket, self.cursors.get(bucket).copied().unwrap_or_default());
            let wants = counts.buckets.iter().map(|bucket| want(&bucket.0)).collect();
            let page = world.store.pull(PullRequest { items_max, ..request(world, device, wants) }).await.unwrap();
            page.buckets.iter().for_each(|bucket| self.apply(bucket));
            if page.buckets.iter().all(|bucket| bucket.to == bucket.head) {
                return page;
            }
        }
    }
}

/// Reading on from any cursor, in pages of any size, ends where reading from the start ends (I19).
pub async fn gives_the_same_from_any_cursor(place: Box<dyn Place>) {
    let seed = Seed::from_env();
    let world = World::new(place, seed.number()).await;
    let mut schedule = schedule::Schedule::new(&world, &seed).await;
    let mut rng = seed.rng();
    let (mut steady, mut paged) = (Reader::default(), Reader::default());
    for _ in 0..12 {
        schedule.run(&world, 3).await;
        steady.read(&world, &schedule.devices[0], 1_000).await;
        if rng.chance(50) {
            paged.read(&world, &schedule.devices[0], 1 + rng.below(3) as usize).await;
        }
        let mut fresh = Reader::default();
        let page = fresh.read(&world, &schedule.devices[0], 1_000).await;
        let emptied = |reader: &Reader| {
            let mut reader = reader.clone();
            reader.held.retain(|_, held| !held.is_empty());
            reader.held
        };
        assert_eq!(emptied(&steady), emptied(&fresh));
        let own: BTreeMap<Lane, Seq> = page.own_merged.iter().map(|(lane, _, seq)| (*lane, *seq)).collect();
        let device = &schedule.devices[0];
        let want = device.lanes.iter().filter(|(_, entries)| !entries.is_empty());
        let want: BTreeMap<Lane, Seq> = want.map(|(lane, entries)| (*lane, Seq::new(entries.len() as u64).unwrap())).collect();
        assert_eq!(own, want, "R14: how far its own lanes are merged, in the same snapshot");
    }
    paged.read(&world, &schedule.devices[0], 2).await;
    assert_eq!(paged.cursors, steady.cursors);
    // The digest of each bucket is the sum over what its reader holds.
    for bucket in world.store.audit_buckets(world.project).await.unwrap() {
        let count = steady.held.get(&bucket.bucket).map_or(0, BTreeMap::len);
        assert_eq!(bucket.computed == mobo_core::digest::Digest::default(), count == 0, "{bucket:?}");
    }
    world.is_sound().await;
}

/// A record that changes its bucket leaves one and enters the other, at the next position of each (D5).
pub async fn moves_records_between_buckets(place: Box<dyn Place>) {
    let world = World::new(place, 31).await;
    let mut device = Device::enrolled(&world, "a", &["site:a", "site:b", "line:1", "line:2"]).await;
    let mut steps = vec![
        (Intent::Put, json!({"site": "a", "line": 1}), vec!["line:1", "site:a"]),
        (Intent::Patch, json!({"site": "b"}), vec!["line:1", "site:b"]),
        (Intent::Patch, json!({"line": 2, "site": "a"}), vec!["line:2", "site:a"]),
        (Intent::Patch, json!({"site": null}), vec!["line:2"]),
        (Intent::Patch, json!({"site": "b"}), vec!["line:2", "site:b"]),
    ];
    steps.push((Intent::Delete, json!({}), vec!["line:2", "site:b"]));
    let mut reader = Reader::default();
    for (intent, fields, want) in steps {
        device.write(&world, "pumps", intent, ("p", fields.clone()));
        world.merged(device.push_last(&world)).await;
        reader.read(&world, &device, 1_000).await;
        let counts = world.store.counts(world.project).await.unwrap();
        let holding = counts.buckets.iter().filter(|bucket| reader.held.get(&bucket.0).is_some_and(|held| !held.is_empty()));
        assert_eq!(holding.map(|bucket| bucket.1.clone()).collect::<Vec<_>>(), want, "{fields}; a deleted record stays where it was (R20)");
        world.is_sound().await;
    }
    let record = world.store.record(world.project, world.key("pumps", "p")).await.unwrap().unwrap();
    for held in reader.held.values().filter(|held| !held.is_empty()) {
        assert_eq!(held.values().next(), Some(&record.state.encode().1), "its last state");
    }
}

/// A page is not larger than asked, and never empty when there is something; what it does not hold comes with the next.
pub async fn keeps_to_its_limits(place: Box<dyn Place>) {
    let world = World::new(place, 32).await;
    let mut device = Device::enrolled(&world, "a", &["all", "site:x"]).await;
    let large = "x".repeat(5_000);
    for n in 0..10 {
        device.write(&world, "work_orders", Intent::Put, (&format!("w{n}"), json!({"title": large})));
    }
    device.write(&world, "pumps", Intent::Put, ("p", json!({"site": "x"})));
    world.merged(device.push_all(&world)).await;
    let (all, site) = (world.bucket("all").await, world.bucket("site:x").await);
    let from = |cursor| vec![(all, Position(cursor)), (site, Position(0)), (BucketId::new(404).unwrap(), Position(0))];
    let ask = |items_max, bytes_max, cursor| {
        let request = PullRequest { items_max, bytes_max, ..request(&world, &device, from(cursor)) };
        world.store.pull(request)
    };
    let lengths = |page: &PullPage| page.buckets.iter().map(|bucket| (bucket.items.len(), bucket.to.0)).collect::<Vec<_>>();
    let cases = [
        ((1_000, 1 << 20, 0), vec![(10, 10), (1, 1)]),
        ((4, 1 << 20, 0), vec![(4, 4), (0, 0)]),
        ((1_000, 11_000, 0), vec![(2, 2), (1, 1)]),
        ((1_000, 1, 0), vec![(1, 1), (0, 0)]),
        ((1_000, 1 << 20, 9), vec![(1, 10), (1, 1)]),
        ((1_000, 1 << 20, 10), vec![(0, 10), (1, 1)]),
    ];
    for ((items_max, bytes_max, cursor), want) in cases {
        let page = ask(items_max, bytes_max, cursor).await.unwrap();
        let mut got = lengths(&page);
        // Where the first bucket was cut off for its size, a small record of the second may still fit.
        if got.len() == 2 && bytes_max < 1 << 20 && got[1] != want[1] {
            assert_eq!(got[1], (0, 0));
            got[1] = want[1];
        }
        assert_eq!(got, want, "{items_max} records, {bytes_max} bytes, from {cursor}; a bucket that is not there is left out");
        assert!(page.buckets.iter().all(|bucket| bucket.head.0 == if bucket.bucket == all { 10 } else { 1 }));
    }
}

/// A device that was replaced again and again has more logs than a page can name: its youngest are told, and every page can be read.
pub async fn tells_of_the_youngest_logs(place: Box<dyn Place>) {
    let world = World::new(place, 33).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    let mut logs = Vec::new();
    for log in 0..=limits::OWN_MERGED_MAX {
        if log > 0 {
            device.refence(&world, Seq::new(1)).await;
        }
        device.write(&world, "work_orders", Intent::Merge, ("w", json!({"n": log})));
        world.merged(device.push_all(&world)).await;
        logs.push((Lane::State, device.incarnation, Seq::FIRST));
    }
    let all = world.bucket("all").await;
    let page = world.store.pull(request(&world, &device, vec![(all, Position(0))])).await.unwrap();
    logs.reverse();
    assert_eq!(page.own_merged, logs[..limits::OWN_MERGED_MAX], "of {} logs", logs.len());
}
