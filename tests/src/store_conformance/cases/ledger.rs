//! What people are told of merges: each loser once and by its real author, in pages; and who wrote what in a document.

use std::collections::BTreeMap;

use mobo_core::author::Intent;
use mobo_core::document::{Actor, conflict, hands};
use mobo_core::ids::{DeviceId, Lane, Ordinal};
use mobo_core::merge::Merged;
use mobo_core::record::RecordState;
use mobo_core::schema::Kind;
use mobo_core::stamp::{Origin, Stamp};
use serde_json::json;

use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place};

/// The order in which three devices' writes are merged, each in a batch of its own.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A write that loses in a document is on the ledger once, under the stamp that the hub gave it, whatever was merged first (R12).
pub async fn names_each_loser_of_a_document_once(place: Box<dyn Place>) {
    let world = World::new(place, 70).await;
    let mut devices = Vec::new();
    for name in ["a", "b", "c"] {
        devices.push(Device::enrolled(&world, name, &["all"]).await);
    }
    // At equal counters the greater actor wins.
    devices.sort_by_key(|device| Actor::of(Origin { device: device.id(), incarnation: device.incarnation }));
    for (record, order) in ORDERS.iter().enumerate() {
        let id = format!("n-{record}");
        for (rank, device) in devices.iter_mut().enumerate() {
            device.write(&world, "notes", Intent::Put, (&id, json!({"rank": rank})));
        }
        let mut stamps = BTreeMap::new();
        for index in order {
            let merged = world.merged(devices[*index].push_last(&world)).await;
            stamps.insert(*index, stamp_of(&devices[*index], &merged));
        }
        let conflicts = world.store.conflicts(world.project, None, 1_000).await.unwrap();
        let of_record: Vec<_> = conflicts.iter().filter(|row| row.id == id).collect();
        let mut losers: Vec<Stamp> = of_record.iter().map(|row| row.loser_stamp).collect();
        losers.sort_unstable();
        let mut want = vec![stamps[&0], stamps[&1]];
        want.sort_unstable();
        assert_eq!(losers, want, "merged in the order {order:?}");
        assert!(of_record.iter().all(|row| stamps.values().any(|stamp| *stamp == row.winner_stamp)), "{order:?}");
    }
    world.is_sound().await;
}

/// A delete that hides a write, and a write that a delete hides: both sides are known by their stamps.
pub async fn names_both_sides_of_a_delete(place: Box<dyn Place>) {
    let world = World::new(place, 71).await;
    for (id, deleter_first) in [("first", true), ("second", false)] {
        let mut deleter = Device::enrolled(&world, &format!("deletes-{id}"), &["all"]).await;
        let mut writer = Device::enrolled(&world, &format!("writes-{id}"), &["all"]).await;
        deleter.write(&world, "notes", Intent::Put, (id, json!({"rank": 1})));
        deleter.write(&world, "notes", Intent::Delete, (id, json!({})));
        writer.write(&world, "notes", Intent::Put, (id, json!({"rank": 1})));
        let (mut winner, mut loser) = (None, None);
        for deletes in [deleter_first, !deleter_first] {
            if deletes {
                winner = Some(stamp_of(&deleter, &world.merged(deleter.push_all(&world)).await));
            } else {
                loser = Some(stamp_of(&writer, &world.merged(writer.push_all(&world)).await));
            }
        }
        let conflicts = world.store.conflicts(world.project, None, 1_000).await.unwrap();
        let sides: Vec<_> = conflicts.iter().filter(|row| row.id == id).map(|row| (row.field, row.loser_stamp, row.winner_stamp)).collect();
        assert_eq!(sides, [(0, loser.unwrap(), winner.unwrap())], "{id}");
    }
    world.is_sound().await;
}

/// The stamp that the hub gave the last entry of a push.
fn stamp_of(device: &Device, merged: &Merged) -> Stamp {
    let eff = *merged.effs.last().unwrap();
    Stamp { eff, device: device.id(), ordinal: Ordinal(1), seq: merged.acked, op: 0 }
}

/// A list of any length is read in pages, which together say what the whole says.
pub async fn is_read_in_pages(place: Box<dyn Place>) {
    let world = World::new(place, 72).await;
    let (mut a, mut b) = (Device::enrolled(&world, "a", &["all"]).await, Device::enrolled(&world, "b", &["all"]).await);
    for n in 0..12 {
        let id = format!("w-{}", n % 5);
        a.write(&world, "work_orders", Intent::Put, (&id, json!({"title": format!("a{n}"), "n": n})));
        b.write(&world, "work_orders", Intent::Put, (&id, json!({"title": format!("b{n}"), "n": n + 100})));
        if n % 3 == 2 {
            // Several rows of one time, and several times.
            world.merge(vec![a.push_from(&world, Lane::State, n - 1), b.push_from(&world, Lane::State, n - 1)]).await;
        }
    }
    for _ in 0..5 {
        a.seal(&world, Kind::Table, vec![0xff]);
    }
    world.answered(a.push_from(&world, Lane::State, 13)).await;
    let all = world.store.conflicts(world.project, None, 10_000).await.unwrap();
    let refused = world.store.quarantine(world.project, None, 10_000).await.unwrap();
    assert!(all.len() > 20 && refused.len() == 5, "{} {}", all.len(), refused.len());
    assert!(all.is_sorted_by_key(|row| std::cmp::Reverse(row.at)), "newest first");
    for size in [1, 2, 7, 1_000] {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = world.store.conflicts(world.project, after, size).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.place().to_string().parse().unwrap());
            pages.extend(page);
        }
        assert_eq!(pages, all, "conflicts in pages of {size}");
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = world.store.quarantine(world.project, after, size).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.n);
            pages.extend(page);
        }
        assert_eq!(pages, refused, "quarantine in pages of {size}");
    }
}

/// Each change of a document keeps the stamp of the operation that brought it: who wrote what, and when.
pub async fn knows_who_wrote_a_document(place: Box<dyn Place>) {
    let world = World::new(place, 73).await;
    let (mut a, mut b) = (Device::enrolled(&world, "a", &["all"]).await, Device::enrolled(&world, "b", &["all"]).await);
    a.write(&world, "notes", Intent::Put, ("n", json!({"title": "by a", "likes": 2, "rank": 1})));
    let first = world.merged(a.push_all(&world)).await;
    a.write(&world, "notes", Intent::Patch, ("n", json!({"rank": 3, "likes": {"$inc": 5}})));
    b.write(&world, "notes", Intent::Put, ("m", json!({"rank": 1})));
    b.write(&world, "notes", Intent::Merge, ("n", json!({"tags": ["b"], "likes": {"$inc": 1}})));
    let second = world.merged(a.push_from(&world, Lane::State, 2)).await;
    let third = world.merged(b.push_all(&world)).await;
    world.merged(b.push_all(&world)).await;
    let row = world.store.record(world.project, world.key("notes", "n")).await.unwrap().unwrap();
    let RecordState::Document(document) = &row.state else { panic!("a document") };
    let notes = world.collection("notes");
    let by = |name: &str| -> Vec<(DeviceId, i64, Option<i64>)> {
        let field = notes.fields.iter().find(|field| field.name == name).unwrap().id;
        let of_field = hands::of(notes, document).unwrap().into_iter().filter(|hand| hand.field == field);
        let mut parts: Vec<_> =
            of_field.map(|hand| (row.changes[&hand.change].device, row.changes[&hand.change].eff.0, hand.added)).collect();
        parts.sort_by_key(|part| part.1);
        parts
    };
    let at = |merged: &Merged| merged.effs.last().unwrap().0;
    assert_eq!(by("title"), [(a.id(), at(&first), None)]);
    assert_eq!(by("tags"), [(b.id(), at(&third), None)]);
    assert_eq!(by("rank").len(), 1, "a register is by whoever wrote what it reads as");
    let mut likes = vec![(a.id(), at(&first), Some(2)), (a.id(), at(&second), Some(5)), (b.id(), at(&third), Some(1))];
    likes.sort_by_key(|part| part.1);
    assert_eq!(by("likes"), likes);
    assert_eq!(row.changes.len(), 3, "each change once, however often it is pushed");
    // Where no stamp is known, the log is found by its actor.
    let logs = world.store.logs(world.project).await.unwrap();
    for (change, stamp) in &row.changes {
        assert_eq!(conflict::origin_of(change.actor, logs.iter().copied()).map(|log| log.device), Some(stamp.device));
    }
}
