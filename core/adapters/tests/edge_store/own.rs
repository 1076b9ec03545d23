//! Rows that the hub names in place of sending them: they end as if they had come, or the device says that it cannot make them.

use mobo_adapters::sqlite::edge::ApplyError;
use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane, RecordKey};
use mobo_core::message::{Batch, ItemBody};
use mobo_core::record::RecordState;
use mobo_core::store::{PullItem, PullState};
use mobo_core::table::own::{Naming, OwnLog};
use serde_json::json;

use crate::world::{Device, Rng, World, edit};

/// The batch as a session sends it to a device that takes its own rows by name.
pub(crate) async fn named(device: &Device, world: &World, batch: Batch) -> Batch {
    let node = device.store.node().await.unwrap();
    let log = OwnLog { device: device.keys.device(), incarnation: node.incarnation.unwrap(), ordinal: node.ordinal.unwrap() };
    let (mut naming, mut items) = (Naming::of(log), Vec::new());
    for (place, item) in (0..).zip(batch.items) {
        let key = RecordKey { collection: item.collection, id: item.id.clone() };
        let state = match &item.body {
            ItemBody::State { epoch, bytes } => {
                let state = RecordState::decode(world.schema_of(item.collection), &key, *epoch, bytes).unwrap();
                Some(PullState { epoch: *epoch, bytes: bytes.clone(), hash: state.hash_of(bytes) })
            }
            ItemBody::Leave => None,
        };
        if !naming.take(place, &PullItem { key, ver: item.ver, state }, item.mac) {
            items.push(item);
        }
    }
    Batch { items, own: naming.finish(), ..batch }
}

/// Applies a batch with names, and spelled out where the device cannot make what is named. Says how many rows it made.
pub(crate) async fn apply(device: &Device, world: &World, batch: Batch) -> usize {
    let by_name = named(device, world, batch.clone()).await;
    let made = by_name.own.as_ref().map_or(0, |own| own.rows());
    match device.store.apply(by_name).await {
        Ok(_) => made,
        Err(ApplyError::NeedsSpelling(_)) => {
            device.store.apply(batch).await.unwrap();
            0
        }
        Err(error) => panic!("{error}"),
    }
}

/// All that is said of records, but for what a delivery leaves alone.
const SAID: [&str; 6] = [
    "SELECT * FROM orders ORDER BY id",
    "SELECT * FROM pumps ORDER BY id",
    "SELECT * FROM mobo_hidden ORDER BY collection, id",
    "SELECT * FROM mobo_base ORDER BY collection, id",
    "SELECT * FROM mobo_overlay ORDER BY collection, id, incarnation, lane, seq",
    "SELECT * FROM mobo_bucket ORDER BY key",
];

/// New records, edits of old ones, with and without counters, several in an entry, on both sides.
async fn write(world: &World, device: &Device, rng: &mut Rng, round: u64) {
    let orders = world.collection("orders").id;
    for n in 0..3 + rng.below(5) {
        let counts = rng.chance(50);
        let new = |nth: u64| {
            let fields = json!({"title": format!("{nth}"), "n": nth, "done": nth > 3});
            let counted = json!({"title": "counted", "hours": nth});
            edit(Intent::Put, &format!("r{round}-{n}-{nth:02}"), if counts { counted } else { fields })
        };
        let many = (0..1 + rng.below(20)).map(new).collect();
        device.store.write(orders, many, None).await.unwrap();
        let id = format!("o{:02}", rng.below(20));
        match rng.below(5) {
            0 => world.write("orders", vec![edit(Intent::Merge, &id, json!({"n": n}))]).await,
            1 => _ = device.write(world, "orders", Intent::Delete, &id, json!({})).await,
            2 => _ = device.write(world, "orders", Intent::Put, &id, json!({"hours": 3})).await,
            3 => _ = device.write(world, "orders", Intent::Put, &id, json!({"title": "again"})).await,
            _ => {
                let site = ["x", "y"][rng.below(2) as usize];
                device.write(world, "pumps", Intent::Put, &id, json!({"site": site, "line": 0})).await;
            }
        }
    }
}

#[tokio::test]
async fn r14_a_row_made_is_as_a_row_sent() {
    let mut made = 0;
    for seed in 1..=6 {
        let mut rng = Rng(seed);
        let world = World::new().await;
        let device = world.device("a", &["all", "site:x", "line:0"]).await;
        device.hello(&world).await;
        for round in 0..4 {
            write(&world, &device, &mut rng, round).await;
            // Some of its entries are merged; the others stay over what comes.
            let entries = 1 + usize::try_from(rng.below(12)).unwrap();
            if let Some(answer) = device.push(&world, Lane::State, device.acked(Lane::State).await, entries).await
                && rng.chance(80)
            {
                device.take(answer).await;
            }
            let spelled = device.clone_to(&world, &format!("{seed}-{round}")).await;
            let items_max = [3, 30, 1_000][rng.below(3) as usize];
            loop {
                let (batches, checkpoint) = device.pull(&world, items_max).await;
                for batch in batches {
                    spelled.store.apply(batch.clone()).await.unwrap();
                    made += apply(&device, &world, batch).await;
                    assert_eq!(device.found(&SAID), spelled.found(&SAID), "seed {seed}, round {round}");
                }
                if checkpoint.is_some() {
                    break;
                }
            }
            device.is_sound().await;
        }
        device.sync(&world).await;
        assert_eq!(device.rows(&world, "orders").await, world.rows("orders").await, "seed {seed}");
    }
    assert!(made > 500, "{made}");
}

/// What it cannot make it does not take, and nothing else of the batch: an entry that is not decided, or trimmed, or of another log, or that
/// says something else than the hub has.
#[tokio::test]
async fn a_row_that_cannot_be_made_is_asked_for() {
    const SPOIL: [(&str, &str); 6] = [
        ("not decided", "UPDATE mobo_outbox SET eff = NULL"),
        ("decided otherwise", "UPDATE mobo_outbox SET eff = eff + 1"),
        ("trimmed", "DELETE FROM mobo_outbox WHERE seq = 2"),
        ("lost", "UPDATE mobo_outbox SET payload = NULL WHERE seq = 2"),
        ("another entry", "UPDATE mobo_outbox SET payload = (SELECT payload FROM mobo_outbox WHERE seq = 1) WHERE seq = 2"),
        ("without a number", "DELETE FROM mobo_meta WHERE key = 'ordinal'"),
    ];
    for (why, spoil) in SPOIL {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        device.hello(&world).await;
        for id in ["o1", "o2"] {
            device.write(&world, "orders", Intent::Put, id, json!({"title": id})).await;
        }
        device.push_all(&world).await;
        let (batches, _) = device.pull(&world, 100).await;
        let [batch] = batches.as_slice() else { panic!("{}", batches.len()) };
        let by_name = named(&device, &world, batch.clone()).await;
        assert_eq!(by_name.own.as_ref().unwrap().rows(), 2);
        let before = device.found(&SAID);
        device.raw().execute(spoil, []).unwrap();
        let refused = device.store.apply(by_name.clone()).await;
        assert!(matches!(refused, Err(ApplyError::NeedsSpelling(_))), "{why}: {refused:?}");
        assert_eq!(device.found(&SAID), before, "{why}");
        let mut others = by_name;
        others.own.as_mut().unwrap().incarnation = Incarnation::new(7).unwrap();
        assert!(matches!(device.store.apply(others).await, Err(ApplyError::NeedsSpelling(_))));
        device.store.apply(batch.clone()).await.unwrap();
        assert_eq!(device.row(&world, "orders", "o2").await["title"], "o2", "{why}");
    }
}
