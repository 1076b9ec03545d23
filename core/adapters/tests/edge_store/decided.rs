//! What merges decided about the records of a device: told with them, in place of what was told before, and gone with them.

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_core::message::Decision;
use serde_json::json;

use crate::world::{Device, World, edit};

/// What is open on a device: the record, the field, what won and what lost.
async fn open(world: &World, device: &Device) -> Vec<String> {
    let line = |one: Decision| {
        let collection = world.schema_of(one.collection);
        let field = collection.fields.iter().find(|field| field.id.get() == one.field).map_or("-", |field| field.name.as_str());
        let value = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        format!("{}/{} {field}: {} over {}", collection.name, one.id, value(one.winner), value(one.loser))
    };
    let found = device.store.decisions(None, 100).await.unwrap();
    assert_eq!(found.len() as u64, device.store.decisions_count().await.unwrap());
    found.into_iter().map(line).collect()
}

/// Both devices make the same row, without knowing of each other; gives what won over what.
async fn both_write(world: &World, devices: [&Device; 2]) -> String {
    for (device, speed) in devices.into_iter().zip([1.5, 2.5]) {
        device.write(world, "pumps", Intent::Put, "p", json!({ "site": "x", "speed": speed })).await;
    }
    for device in devices {
        device.push_all(world).await;
    }
    for device in devices {
        device.catch_up(world).await;
    }
    let won = devices[0].row(world, "pumps", "p").await["speed"].as_f64().unwrap();
    format!("pumps/p speed: {won} over {}", 4.0 - won)
}

#[tokio::test]
async fn decisions_come_with_their_rows_and_go_when_somebody_writes_who_knows() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["site:x"]).await, world.device("b", &["site:x"]).await);
    let want = [both_write(&world, [&a, &b]).await];
    assert_eq!((open(&world, &a).await, open(&world, &b).await), (want.to_vec(), want.to_vec()));
    let sql = "SELECT count(*) FROM mobo_conflicts WHERE collection = 'pumps' AND id = 'p' AND field = 'speed' AND status = 'open'";
    assert_eq!(a.count(sql), 1);
    // Others of the bucket change: what is open stays so.
    world.write("pumps", vec![edit(Intent::Put, "q", json!({"site": "x", "speed": 7.0}))]).await;
    a.catch_up(&world).await;
    assert_eq!(open(&world, &a).await, want);
    b.write(&world, "pumps", Intent::Patch, "p", json!({"speed": 3.5})).await;
    b.push_all(&world).await;
    a.catch_up(&world).await;
    assert_eq!((open(&world, &a).await.len(), a.count("SELECT count(*) FROM mobo_decision")), (0, 0));
    assert_eq!(open(&world, &b).await, want, "what it has not heard of");
    b.catch_up(&world).await;
    assert_eq!(open(&world, &b).await.len(), 0);
    a.is_sound().await;
}

#[tokio::test]
async fn decisions_go_with_the_records_that_leave() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["site:x"]).await, world.device("b", &["site:x"]).await);
    both_write(&world, [&a, &b]).await;
    assert_eq!(open(&world, &a).await.len(), 1);
    world.write("pumps", vec![edit(Intent::Patch, "p", json!({"site": "y"}))]).await;
    a.catch_up(&world).await;
    assert_eq!((a.rows(&world, "pumps").await.len(), a.count("SELECT count(*) FROM mobo_decision")), (0, 0));
    a.is_sound().await;
}

/// A write that settles a decision here and is refused by the hub settles nothing.
#[tokio::test]
async fn what_a_refused_write_settled_is_open_again() {
    let world = World::new().await;
    let (a, b) = (world.device("a", &["site:x"]).await, world.device("b", &["site:x"]).await);
    let want = both_write(&world, [&a, &b]).await;
    let found = a.store.decisions(Some(world.key("pumps", "p")), 10).await.unwrap();
    a.write(&world, "pumps", Intent::Patch, "p", json!({"site": "forbidden", "speed": 9.5})).await;
    assert_eq!(a.store.settle_decisions(world.key("pumps", "p"), found[0].field).await.unwrap(), 1);
    assert_eq!(open(&world, &a).await.len(), 0);
    let answer = a.push(&world, Lane::State, a.acked(Lane::State).await, 50).await.unwrap();
    assert_eq!(answer.rejects.len(), 1);
    a.take(answer).await;
    assert_eq!(open(&world, &a).await, [want]);
}
