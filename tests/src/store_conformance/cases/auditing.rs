//! What a health check finds, and what a store keeps.

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, Seq};
use mobo_core::message::Code;
use mobo_core::store::PullRequest;
use serde_json::json;

use super::schedule::Schedule;
use crate::seed::Seed;
use crate::store_conformance::world::{World, only_code};
use crate::store_conformance::{Device, Place};

/// After any schedule the digests are what the rows say, the heads what was used, the chains what was sealed (R28, R29).
pub async fn recomputes_what_random_schedules_leave(place: Box<dyn Place>) {
    let seed = Seed::from_env();
    let world = World::new(place, seed.number()).await;
    let mut schedule = Schedule::new(&world, &seed).await;
    for _ in 0..10 {
        schedule.run(&world, 4).await;
        world.is_sound().await;
    }
    let buckets = world.store.counts(world.project).await.unwrap().buckets;
    assert!(buckets.iter().any(|bucket| bucket.2.0 > 0));
}

// faults: H-12
/// One value that somebody changes by hand is found, and the record and its bucket are named; it is neither delivered nor merged over.
pub async fn finds_one_changed_value(place: Box<dyn Place>) {
    let world = World::new(place, 50).await;
    let mut device = Device::enrolled(&world, "a", &["all", "site:x"]).await;
    device.write(&world, "work_orders", Intent::Put, ("w-1", json!({"title": "a", "hours": 3, "ratio": 1.5})));
    device.write(&world, "work_orders", Intent::Put, ("w-2", json!({"title": "b"})));
    device.write(&world, "notes", Intent::Put, ("n", json!({"rank": 1})));
    device.write(&world, "pumps", Intent::Put, ("p", json!({"site": "x"})));
    device.write(&world, "work_orders", Intent::Put, ("h", json!({"title": "hidden"})));
    device.write(&world, "work_orders", Intent::Delete, ("h", json!({})));
    world.merged(device.push_all(&world)).await;
    world.is_sound().await;
    let damages = [
        ("UPDATE work_orders SET title = 'b' WHERE id = 'w-1'", "title = 'a'", "w-1"),
        ("UPDATE work_orders SET ratio = 1.25 WHERE id = 'w-1'", "ratio = 1.5", "w-1"),
        ("UPDATE work_orders SET n = 0 WHERE id = 'w-1'", "n = NULL", "w-1"),
        ("UPDATE work_orders SET hours = 4 WHERE id = 'w-1'", "hours = 3", "w-1"),
        ("UPDATE work_orders SET mobo_ver = 9 WHERE id = 'w-2'", "mobo_ver = 1", "w-2"),
        ("UPDATE notes SET rank = 2 WHERE id = 'n'", "rank = 1", "n"),
    ];
    for (damage, right, id) in damages {
        world.place.repair(damage).await.unwrap();
        let audits = world.store.audit_buckets(world.project).await.unwrap();
        let found: Vec<_> = audits.iter().filter(|audit| !audit.damaged.is_empty()).collect();
        assert_eq!(found.len(), 1, "{damage}: {audits:?}");
        assert_eq!((found[0].key.as_str(), found[0].damaged[0].id.as_str()), ("all", id), "{damage}");
        let table = damage.split(' ').nth(1).unwrap();
        world.place.repair(&format!("UPDATE {table} SET {right} WHERE id = '{id}'")).await.unwrap();
        world.is_sound().await;
    }

    world.place.repair("UPDATE work_orders SET title = 'evil' WHERE id = 'w-1'").await.unwrap();
    let all = world.bucket("all").await;
    let audit = world.store.audit_buckets(world.project).await.unwrap().into_iter().find(|audit| audit.bucket == all).unwrap();
    assert_ne!(audit.stored, audit.computed);
    let wants = vec![(all, Default::default())];
    let request = PullRequest { project: world.project, device: device.id(), wants, items_max: 100, bytes_max: 1 << 20 };
    let page = world.store.pull(request).await.unwrap().buckets.remove(0);
    assert_eq!(page.damaged, [world.key("work_orders", "w-1")]);
    assert_eq!((page.items.len(), page.to), (3, page.head), "all the others are delivered");
    device.write(&world, "work_orders", Intent::Merge, ("w-1", json!({"n": 1})));
    let answer = world.answered(device.push_last(&world)).await;
    assert_eq!(only_code(&answer), Code::CORRUPT_RECORD);
    assert!(world.store.record(world.project, world.key("work_orders", "w-1")).await.is_err());
    // A record that is gone is missed.
    world.place.repair("UPDATE work_orders SET title = 'a' WHERE id = 'w-1'").await.unwrap();
    world.is_sound().await;
    world.place.repair("DELETE FROM {own}hidden WHERE id = 'h'").await.unwrap();
    let audits = world.store.audit_buckets(world.project).await.unwrap();
    let wrong: Vec<_> = audits.iter().filter(|audit| audit.stored != audit.computed).map(|audit| audit.key.as_str()).collect();
    assert_eq!(wrong, ["all"]);
}

// faults: H-12
/// An entry that was changed or removed breaks its lane's chain where it stood; one without payload does not.
pub async fn finds_a_broken_chain(place: Box<dyn Place>) {
    let world = World::new(place, 51).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    for n in 0..6 {
        device.write(&world, "work_orders", Intent::Put, ("w", json!({"n": n})));
    }
    let lost = Device::lost(&device.lanes[&Lane::State][1]);
    device.lanes.get_mut(&Lane::State).unwrap()[1] = lost;
    assert_eq!(world.answered(device.push_all(&world)).await.rejects.len(), 1);
    world.is_sound().await;
    let broken = || async { world.store.audit_lanes(world.project).await.unwrap()[0].broken_at.map(Seq::get) };
    for (damage, at) in [
        ("UPDATE {own}entry SET header = payload WHERE seq = 6", 6),
        ("UPDATE {own}entry SET payload = chain WHERE seq = 5", 5),
        ("UPDATE {own}entry SET payload = chain WHERE seq = 2", 2),
        ("DELETE FROM {own}entry WHERE seq = 1", 1),
    ] {
        world.place.repair(damage).await.unwrap();
        assert_eq!(broken().await, Some(at), "{damage}");
    }
    assert_eq!(world.store.audit_lanes(world.project).await.unwrap()[0].entries, 5);
}

/// What was committed is there when the store is opened again, also when nobody closed it.
pub async fn keeps_everything_when_reopened(place: Box<dyn Place>) {
    let seed = Seed::from_env();
    let mut world = World::new(place, seed.number()).await;
    let mut schedule = Schedule::new(&world, &seed).await;
    for round in 0..4 {
        schedule.run(&world, 4).await;
        let (counts, rows) = (world.store.counts(world.project).await.unwrap(), world.rows("work_orders").await);
        let devices = world.store.devices(world.project).await.unwrap();
        if round % 2 == 0 {
            world.store.close().await;
            assert!(world.store.counts(world.project).await.is_err(), "a closed store says so");
        }
        world.store = world.place.open().await.unwrap();
        assert_eq!(world.store.counts(world.project).await.unwrap(), counts);
        assert_eq!(world.rows("work_orders").await, rows);
        assert_eq!(world.store.devices(world.project).await.unwrap(), devices);
        assert_eq!(world.store.schema(world.project).await.unwrap(), *world.schema);
        world.is_sound().await;
    }
}
