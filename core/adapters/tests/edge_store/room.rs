//! Bounded disk: who gives way, who is told, and that the books add up.

use std::collections::BTreeMap;

use mobo_adapters::sqlite::edge::{EdgeStore, FullPolicy, Reached, Room, WriteError};
use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_core::limits;
use mobo_core::message::Code;
use mobo_core::schema::Kind;
use mobo_core::store::{HubStore, StoreError};
use mobo_core::stream::{Column, Segment};
use mobo_core::value::Value;
use serde_json::json;

use crate::world::{Device, World, collection, edit};

const MIB: u64 = 1 << 20;
/// Samples in one entry of these tests.
const SAMPLES: u64 = 100;

/// Gives samples a MiB on top of what is used now, and records half a one more.
async fn tighten(store: &EdgeStore, policy: FullPolicy) -> Room {
    let used = store.counts().await.unwrap().used_bytes;
    let room = Room { bytes_max: used + MIB + MIB / 2, reserve_bytes: MIB / 2, streams: BTreeMap::new(), others: policy };
    store.set_room(room.clone());
    room
}

async fn try_append(world: &World, device: &Device) -> Result<mobo_adapters::sqlite::edge::Written, WriteError> {
    try_append_to(world, device, ("vitals", SAMPLES)).await
}

async fn try_append_to(
    world: &World,
    device: &Device,
    (stream, samples): (&str, u64),
) -> Result<mobo_adapters::sqlite::edge::Written, WriteError> {
    let collection = world.collection(stream);
    let column = Column::Typed((0..samples).map(|n| Value::Float(f64::from(u32::try_from(n).unwrap()) * 1.37)).collect());
    let before_us = (0..samples).rev().map(|second| second * 1_000_000).collect();
    let columns = BTreeMap::from([(collection.fields[0].id, column)]);
    device.store.append(Segment { collection: collection.id, before_us, columns, author: None }).await
}

/// What the hub and the operator know of what was lost: rows there, samples that a notice names.
async fn books(world: &World) -> (u64, u64) {
    let rows = world.rows("vitals").await.len() as u64;
    let mut lost = 0;
    for row in world.hub.quarantine(world.project, None, 10_000).await.unwrap() {
        assert_eq!((Code(row.code), row.lane.lane), (Code::LOST, Lane::Telemetry));
        assert!(row.detail.contains("samples of \"vitals\""), "{}", row.detail);
        lost += row.detail.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("the sentence begins with a number");
    }
    (rows, lost)
}

async fn fill(policy: FullPolicy) {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let room = tighten(&device.store, policy).await;
    let first = try_append(&world, &device).await.unwrap().entry.unwrap();
    for _ in 0..299 {
        try_append(&world, &device).await.unwrap();
    }
    let counts = device.store.counts().await.unwrap();
    assert!(counts.used_bytes <= room.bytes_max, "{} bytes of {}", counts.used_bytes, room.bytes_max);
    let [loss] = counts.losses[..] else { panic!("{:?}", counts.losses) };
    assert!(loss.samples > 0 && loss.entries > 0);
    let lost = device.store.level(first).await.unwrap();
    assert!(matches!(lost, Reached::Refused { code: Code::LOST, .. }), "its writer can learn of it: {lost:?}");
    // Records find room in the reserve.
    device.write(&world, "orders", Intent::Put, "o", json!({ "title": "oil" })).await;
    assert!(device.store.audit().await.unwrap().is_clean(), "the chains are whole");
    device.sync(&world).await;
    let (rows, told) = books(&world).await;
    assert_eq!(told, loss.samples, "all of it reaches the hub");
    assert_eq!(rows + told, 300 * SAMPLES, "each sample is there, or is told to be lost");
    let after = device.store.counts().await.unwrap();
    assert_eq!((after.pending, after.rejected), (0, 0), "the hub's word for it is no news to the device");
    // What the hub has gives way without a loss.
    for _ in 0..50 {
        try_append(&world, &device).await.unwrap();
        device.sync(&world).await;
    }
    assert_eq!(device.store.counts().await.unwrap().losses, counts.losses);
    assert_eq!(books(&world).await, (rows + 50 * SAMPLES, told));
}

// faults: S-7, SR-12
#[tokio::test]
async fn the_oldest_samples_give_way_and_the_hub_is_told() {
    fill(FullPolicy::DropOldest).await;
}

// faults: S-7, SR-12
#[tokio::test]
async fn samples_are_thinned_and_the_hub_is_told() {
    fill(FullPolicy::Thin).await;
}

// faults: S-7
#[tokio::test]
async fn a_stream_that_stops_refuses_and_goes_on_by_itself() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    tighten(&device.store, FullPolicy::Stop).await;
    let mut taken = 0;
    let refused = loop {
        match try_append(&world, &device).await {
            Ok(_) => taken += SAMPLES,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, WriteError::Store(StoreError::Full(_))), "{refused:?}");
    assert!(refused.to_string().contains("store.bytes_max"), "{refused}");
    device.write(&world, "orders", Intent::Put, "o", json!({ "title": "oil" })).await;
    device.sync(&world).await;
    assert_eq!(books(&world).await, (taken, 0), "nothing is lost");
    // Raised, it takes samples again.
    let room = device.store.room();
    device.store.set_room(Room { bytes_max: room.bytes_max + 4 * MIB, ..(*room).clone() });
    try_append(&world, &device).await.unwrap();
}

// faults: S-7
#[tokio::test]
async fn records_are_refused_at_the_very_end_and_taken_again_once_the_hub_has_them() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    tighten(&device.store, FullPolicy::DropOldest).await;
    let orders = world.collection("orders").id;
    // The same record again and again: what takes room is what waits for the hub.
    let write =
        |n: usize| device.store.write(orders, vec![edit(Intent::Put, "o", json!({ "title": format!("{n}{}", "x".repeat(20_000)) }))], None);
    let mut n = 0;
    let refused = loop {
        n += 1;
        if let Err(error) = write(n).await {
            break error;
        }
    };
    assert!(matches!(refused, WriteError::Store(StoreError::Full(_))), "{refused:?}");
    assert_eq!(device.rows(&world, "orders").await.len(), 1, "reading goes on");
    device.sync(&world).await;
    write(n).await.unwrap();
}

/// Samples that may not give way do not stand in front of those that may.
///
/// What broke: only the oldest thousand entries of a lane were looked at; where these were of a stream that stops, another one was refused as
/// well, though samples of its own could have gone.
// faults: S-7
#[tokio::test]
async fn a_stream_that_stops_does_not_hold_up_another_one() {
    let mut world = World::new().await;
    world.create(collection(6, "alarms", Kind::Stream, "cpu:float", &[])).await;
    let device = world.device("a", &["all"]).await;
    for _ in 0..limits::RELIEF_ENTRIES_MAX + 20 {
        try_append_to(&world, &device, ("alarms", 1)).await.unwrap();
    }
    for _ in 0..200 {
        try_append(&world, &device).await.unwrap();
    }
    let used = device.store.counts().await.unwrap().used_bytes;
    let streams = BTreeMap::from([("alarms".to_owned(), FullPolicy::Stop)]);
    let others = FullPolicy::DropOldest;
    device.store.set_room(Room { bytes_max: used + MIB / 2 - 4096, reserve_bytes: MIB / 2, streams, others });
    let refused = try_append_to(&world, &device, ("alarms", 1)).await;
    assert!(matches!(&refused, Err(WriteError::Store(StoreError::Full(_)))), "{refused:?}");
    try_append(&world, &device).await.unwrap();
    let losses = device.store.counts().await.unwrap().losses;
    let lost: Vec<_> = losses.iter().map(|loss| (loss.collection, loss.entries > 0)).collect();
    assert_eq!(lost, [(world.collection("vitals").id, true)], "its own samples give way, and no alarm does");
    device.sync(&world).await;
    assert_eq!(world.rows("alarms").await.len(), limits::RELIEF_ENTRIES_MAX as usize + 20);
}

/// Whoever makes room does not look at the same entries again, and does once they may go.
///
/// What broke: the whole backlog of a stream that stops was walked through for each entry of another one.
// faults: S-7
#[tokio::test]
async fn what_may_not_go_is_passed_once_and_goes_when_it_may() {
    let mut world = World::new().await;
    world.create(collection(6, "alarms", Kind::Stream, "cpu:float", &[])).await;
    let device = world.device("a", &["all"]).await;
    let alarm = async || try_append_to(&world, &device, ("alarms", 1)).await.unwrap().entry.unwrap().seq.get();
    let mut last = 0;
    for _ in 0..200 {
        last = alarm().await;
    }
    let tighten = async |policy: FullPolicy| {
        let used = device.store.counts().await.unwrap().used_bytes;
        let streams = BTreeMap::from([("alarms".to_owned(), policy)]);
        let bytes_max = used + MIB / 2 - 4096;
        device.store.set_room(Room { bytes_max, reserve_bytes: MIB / 2, streams, others: FullPolicy::DropOldest });
    };
    let lost = async || -> BTreeMap<_, _> {
        device.store.counts().await.unwrap().losses.iter().map(|loss| (loss.collection, loss.entries)).collect()
    };
    let passed = || -> u64 {
        let sql = "SELECT value FROM mobo_meta WHERE key = 'room_passed_2'";
        let kept: String = device.raw().query_row(sql, [], |row| row.get(0)).unwrap();
        kept.split(' ').next().unwrap().parse().unwrap()
    };
    let (vitals, alarms) = (world.collection("vitals").id, world.collection("alarms").id);
    try_append(&world, &device).await.unwrap();
    tighten(FullPolicy::Stop).await;
    let mut before = 0;
    for _ in 0..100 {
        try_append(&world, &device).await.unwrap();
        assert!(passed() >= before, "it never goes back");
        before = passed();
    }
    assert!(before >= last, "{before} is behind all {last} alarms");
    assert!(lost().await.get(&vitals).is_some_and(|entries| *entries > 0));
    assert_eq!(lost().await.get(&alarms), None);
    // What was passed is the oldest, and gives way first where it may.
    tighten(FullPolicy::DropOldest).await;
    while !lost().await.contains_key(&alarms) {
        try_append(&world, &device).await.unwrap();
    }
    assert!(device.store.audit().await.unwrap().is_clean(), "the chains are whole");
}
