//! The log of committed changes: each once, in the order of the commits, and never less than it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_core::live::{LiveChange, LiveHead, LivePoint};
use mobo_core::merge::LocalBody;
use serde_json::{Value as Json, json};

use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place, samples};

const LONG: Duration = Duration::from_secs(3_600);

impl World {
    async fn follow(&self, names: &[&str], lasts: Duration) -> LiveHead {
        let collections = names.iter().map(|name| self.collection(name).id).collect();
        self.store.follow(self.project, collections, lasts).await.unwrap()
    }

    /// All changes behind a number, read in pages of `rows`.
    async fn changes(&self, mut after: u64, rows: u32) -> Vec<LiveChange> {
        let mut changes = Vec::new();
        loop {
            let page = self.store.changes(self.project, after, rows).await.unwrap();
            changes.extend(page.changes);
            if page.read >= page.head.head {
                return changes;
            }
            assert!(page.read > after, "a page gets on");
            after = page.read;
        }
    }

    fn shown(&self, changes: &[LiveChange]) -> Vec<String> {
        let field = |row: Option<&serde_json::Map<String, Json>>| match row {
            Some(row) => row.get("title").or(row.get("cpu")).map_or("?".to_owned(), Json::to_string),
            None => "-".to_owned(),
        };
        let name = |change: &LiveChange| self.schema.get(change.collection).unwrap().name.clone();
        let show = |change: &LiveChange| {
            format!("{} {} {}>{}", change.kind().name(), name(change), field(change.before.as_ref()), field(change.after.as_ref()))
        };
        changes.iter().map(show).collect()
    }
}

/// Inserts, updates and deletes with the rows before and after, samples one by one; nothing of what changes nothing.
pub async fn tells_each_change_once(place: Box<dyn Place>) {
    let world = World::new(place, 61).await;
    let write = async |collection: &str, intent, id: &str, fields: Json| {
        world.answered(world.local(collection, intent, id, &fields)).await;
    };
    write("work_orders", Intent::Insert, "a", json!({"title": "early"})).await;
    let start = world.follow(&["work_orders", "notes", "vitals"], LONG).await;
    assert_eq!(world.changes(start.head, 10).await, []);

    write("work_orders", Intent::Patch, "a", json!({"title": "x", "done": true, "due": "2026-02-03T04:05:06Z"})).await;
    write("work_orders", Intent::Patch, "a", json!({"title": "x"})).await;
    write("work_orders", Intent::Insert, "b", json!({"title": "y", "hours": 2})).await;
    write("notes", Intent::Insert, "n", json!({"title": "z", "tags": ["t"]})).await;
    write("pumps", Intent::Insert, "p", json!({"site": "x"})).await;
    let lane = world.hub.lane(Lane::Telemetry);
    world.answered(world.local_write(world.collection("vitals").id, lane, LocalBody::Append(samples(&world, &[0.5, 0.25])))).await;
    write("work_orders", Intent::Delete, "a", json!({})).await;
    let mut device = Device::enrolled(&world, "d", &["all"]).await;
    device.write(&world, "work_orders", Intent::Merge, ("b", json!({"hours": {"$inc": 1}})));
    world.merged(device.push_all(&world)).await;

    let want = [
        r#"update work_orders "early">"x""#,
        r#"insert work_orders ->"y""#,
        r#"insert notes ->"z""#,
        "insert vitals ->0.5",
        "insert vitals ->0.25",
        r#"delete work_orders "x">-"#,
        r#"update work_orders "y">"y""#,
    ];
    for rows in [1, 2, 100] {
        let changes = world.changes(start.head, rows).await;
        assert_eq!(world.shown(&changes), want, "{rows} rows at once");
        let numbers: Vec<u64> = changes.iter().map(|change| change.n).collect();
        assert_eq!(numbers, (start.head + 1..=start.head + 7).collect::<Vec<_>>(), "without gaps");
    }
    let changes = world.changes(start.head, 100).await;
    assert_eq!(world.changes(start.head + 4, 100).await, changes[4..], "from the middle of the samples");
    let row = Json::Object(changes[6].after.clone().unwrap());
    assert_eq!(row, world.rows("work_orders").await[0], "a row as readers see it");
    assert!(changes.iter().all(|change| change.at.0 > 0 && change.bytes > 0));
}

/// What was committed while nobody followed is not passed over in silence.
pub async fn knows_what_it_does_not_hold(place: Box<dyn Place>) {
    let world = World::new(place, 62).await;
    let insert = async |id: &str| drop(world.merged(world.local("work_orders", Intent::Insert, id, &json!({"title": id}))).await);
    let (orders, notes) = (world.collection("work_orders").id, world.collection("notes").id);
    let first = world.follow(&["work_orders"], LONG).await;
    assert!(first.holds(orders, first.point()) && !first.holds(notes, first.point()));
    insert("a").await;
    let second = world.follow(&["work_orders", "notes"], LONG).await;
    assert_eq!(second.log, first.log);
    assert!(second.holds(orders, first.point()), "it was followed all the time");
    assert!(second.holds(notes, second.point()) && !second.holds(notes, first.point()));

    // It lapses, something happens that nobody logs, and somebody comes back.
    let before = world.follow(&["notes"], LONG).await.point();
    world.follow(&["work_orders"], Duration::ZERO).await;
    insert("b").await;
    let third = world.follow(&["work_orders"], LONG).await;
    assert!(!third.holds(orders, before), "b is missing between them");
    insert("c").await;
    assert_eq!(world.shown(&world.changes(third.head, 10).await), [r#"insert work_orders ->"c""#]);
    assert!(!third.holds(orders, LivePoint { log: third.log ^ 1, n: third.head }));
    assert!(!third.holds(orders, LivePoint { log: third.log, n: third.head + 1 }));
}

/// Many sides write at once: every change of a record continues the one before it, also where somebody begins to follow in between.
pub async fn is_in_order_from_many_sides(place: Box<dyn Place>) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 12;
    let world = Arc::new(World::new(place, 63).await);
    world.merged(world.local("work_orders", Intent::Insert, "shared", &json!({"n": 0}))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let mut device = Device::enrolled(&world, &format!("d{number}"), &["all"]).await;
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            for round in 1..=ROUNDS as u64 {
                device.write(&world, "work_orders", Intent::Merge, ("shared", json!({"hours": {"$inc": 1}})));
                world.merge(vec![device.push_from(&world, Lane::State, round)]).await;
            }
        });
    }
    let start = world.follow(&["work_orders"], LONG).await;
    tasks.join_all().await;
    let changes = world.changes(start.head, 5).await;
    let hours = |row: &Option<serde_json::Map<String, Json>>| row.as_ref().and_then(|row| row["hours"].as_i64());
    let mut last: BTreeMap<String, Option<i64>> = BTreeMap::new();
    for change in &changes {
        if let Some(was) = last.insert("shared".to_owned(), hours(&change.after)) {
            assert_eq!(hours(&change.before), was, "the row before is the row after the change before");
        }
        assert!(hours(&change.after) > hours(&change.before));
    }
    let total = (WRITERS * ROUNDS) as i64;
    match changes.last() {
        Some(change) => assert_eq!(hours(&change.after), Some(total)),
        None => assert_eq!(world.rows("work_orders").await[0]["hours"], json!(total), "all was committed before anybody followed"),
    }
    let numbers: Vec<u64> = changes.iter().map(|change| change.n).collect();
    assert_eq!(numbers, (start.head + 1..=start.head + numbers.len() as u64).collect::<Vec<_>>());
}
