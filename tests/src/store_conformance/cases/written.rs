//! What other programs write into the tables by SQL: it waits, and is taken in as writes of the hub's own (rule R24).

use std::sync::Arc;

use mobo_core::author::Intent;
use mobo_core::ids::{Position, RecordId, StateHash};
use mobo_core::limits;
use mobo_core::query::{Condition, Filter as Only, Op, Select};
use mobo_core::store::transfer::TableName;
use mobo_core::store::{Filter, PullPage, PullRequest, RebucketBatch, Shown, SqlRefused};
use mobo_core::value::Value;
use serde_json::json;

use crate::store_conformance::Place;
use crate::store_conformance::device::Device;
use crate::store_conformance::world::World;

/// Three pumps on one site; then a program changes the second of them, takes the third away and adds one, and nobody takes that in.
async fn pumps(world: &World) -> Device {
    let mut device = Device::enrolled(world, "a", &["site:a", "site:b", "line:1"]).await;
    for id in ["p1", "p2", "p3"] {
        device.write(world, "pumps", Intent::Put, (id, json!({"site": "a", "line": 1, "speed": 0.5})));
    }
    world.merged(device.push_all(world)).await;
    sql(world, "UPDATE pumps SET site = 'b', speed = 1e-7 WHERE id = 'p2'").await;
    sql(world, "DELETE FROM pumps WHERE id = 'p3'").await;
    sql(world, "INSERT INTO pumps(id, site, line) VALUES ('p4', 'a', 1)").await;
    device
}

async fn sql(world: &World, statement: &str) {
    world.place.sql(statement).await.unwrap();
}

async fn pull(world: &World, device: &Device, from: u64) -> PullPage {
    let wants = vec![(world.bucket("site:a").await, Position(from))];
    let request = PullRequest { project: world.project, device: device.id(), wants, items_max: 1_000, bytes_max: 1 << 20 };
    world.store.pull(request).await.unwrap()
}

/// It is a write like any other: merged beside those of devices, delivered, told where it is stale, and refused where it cannot be.
pub async fn is_taken_in(place: Box<dyn Place>) {
    let world = World::new(place, 60).await;
    let mut device = pumps(&world).await;
    assert!(world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some_and(|report| !report.hints.is_empty()));
    assert!(world.store.take_in(world.batch(Vec::new())).await.unwrap().is_none(), "and only once");
    // A push finds what was written just before it, and comes behind it.
    sql(&world, "UPDATE pumps SET runs = runs + 3 WHERE id = 'p1'").await;
    device.write(&world, "pumps", Intent::Patch, ("p1", json!({"runs": {"$inc": 4}, "speed": 2})));
    world.merged(device.push_last(&world)).await;
    assert_eq!(world.sql("SELECT runs + line + speed FROM pumps WHERE id = 'p1'").await.trim_end_matches(".0"), "10");
    // Somebody who had read the row before that.
    let seen = world.sql("SELECT mobo_ver - 1 FROM pumps WHERE id = 'p1'").await;
    sql(&world, &format!("UPDATE pumps SET speed = 7, mobo_ver = {seen} WHERE id = 'p1'")).await;
    // What was deleted comes back, and counts from zero; what comes and goes was never there.
    sql(&world, "INSERT INTO pumps(id, site, runs) VALUES ('p3', 'a', 5), ('p5', 'a', 1)").await;
    sql(&world, "DELETE FROM pumps WHERE id = 'p5'").await;
    world.store.take_in(world.batch(Vec::new())).await.unwrap().unwrap();
    assert_eq!(world.sql("SELECT string_agg(id || runs || coalesce(line, 0), ' ' ORDER BY id) FROM pumps").await, "p171 p201 p350 p401");
    assert_eq!(world.sql("SELECT count(*) FROM mobo_conflicts WHERE field = 'speed' AND id = 'p1'").await, "1");
    assert_eq!(world.sql("SELECT count(*) FROM {own}intake_refused").await, "0");
    world.is_sound().await;
}

/// Rules that change place it, too.
pub async fn is_placed_by_new_rules(place: Box<dyn Place>) {
    let mut world = World::new(place, 61).await;
    pumps(&world).await;
    let pumps = world.collection("pumps").id;
    world.schema = world.store.alter_rules(world.project, pumps, vec!["kind:{site}".to_owned()]).await.unwrap().into();
    let mut hints = 0;
    loop {
        let (schema, now, entropy) = (world.schema.clone(), world.now(), world.draw());
        let batch = RebucketBatch { project: world.project, schema, timeline: world.timeline, now, entropy, records_max: 2 };
        let Some(step) = world.store.rebucket(batch).await.unwrap() else { break };
        hints += step.hints.len();
    }
    assert!(hints > 0, "whoever listens is told");
    assert_eq!(world.sql("SELECT count(*) FROM {own}intake").await, "0");
    let placed = "SELECT string_agg(p.id || ' ' || b.key, ', ' ORDER BY p.id) FROM pumps p JOIN {own}bucket b ON b.id = p._bucket";
    assert_eq!(world.sql(placed).await, "p1 kind:a, p2 kind:b, p4 kind:a");
    world.is_sound().await;
}

/// A page ends before what waits, and calls nothing damaged.
pub async fn ends_a_page_while_it_waits(place: Box<dyn Place>) {
    let world = World::new(place, 62).await;
    let device = pumps(&world).await;
    let page = pull(&world, &device, 0).await;
    let bucket = &page.buckets[0];
    assert_eq!(bucket.items.iter().map(|item| item.key.id.to_string()).collect::<Vec<_>>(), ["p1"]);
    assert_eq!((bucket.to.0, bucket.head.0, bucket.damaged.len()), (1, 3, 0), "there is more to come");
    let again = pull(&world, &device, 1).await;
    assert_eq!((again.buckets[0].to.0, again.buckets[0].items.len()), (1, 0), "and not before it is taken in");
    world.store.take_in(world.batch(Vec::new())).await.unwrap().unwrap();
    let page = pull(&world, &device, 1).await;
    let mut left: Vec<_> = page.buckets[0].items.iter().map(|item| (item.key.id.to_string(), item.state.is_some())).collect();
    left.sort_unstable();
    assert_eq!(left, [("p2".to_owned(), false), ("p3".to_owned(), true), ("p4".to_owned(), true)]);
    assert_eq!(page.buckets[0].to, page.buckets[0].head);
    world.is_sound().await;
}

/// A call may take in again and again, until nothing waits in its way: it has one moment and one draw of random bytes for all of that.
pub async fn counts_twice_when_it_says_so_twice(place: Box<dyn Place>) {
    let world = World::new(place, 69).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    device.write(&world, "pumps", Intent::Put, ("p1", json!({"site": "a", "runs": 3})));
    world.merged(device.push_all(&world)).await;
    let batch = world.batch(Vec::new());
    for _ in 0..2 {
        sql(&world, "UPDATE pumps SET runs = runs + 2 WHERE id = 'p1'").await;
        world.store.take_in(batch.clone()).await.unwrap().unwrap();
    }
    assert_eq!(world.sql("SELECT runs FROM pumps WHERE id = 'p1'").await, "7");
    world.is_sound().await;
}

/// What cannot be taken in is taken back, and nobody has to read a log to know of it.
///
/// What broke: the program's statement had succeeded, its row was gone, and a line of the log was all that said so.
pub async fn is_counted_when_it_is_refused(place: Box<dyn Place>) {
    let world = World::new(place, 70).await;
    assert_eq!(world.store.sql_refused().await.unwrap(), SqlRefused::default());
    // What the triggers of neither store can see: an id that is no text, a value that is no number.
    let is_file = world.store.info().await.unwrap().kind == "sqlite";
    let bad = |n: u64| if is_file { format!("(CAST(x'fc' AS TEXT) || '{n}', 'a', 1)") } else { format!("('q{n}', 'a', 'NaN')") };
    sql(&world, "INSERT INTO pumps(id, site, speed) VALUES ('p1', 'a', 1)").await;
    sql(&world, &format!("INSERT INTO pumps(id, site, speed) VALUES {}", bad(0))).await;
    while world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some() {}
    assert_eq!(world.sql("SELECT string_agg(id, ' ') FROM pumps").await, "p1");
    let refused = world.store.sql_refused().await.unwrap();
    assert_eq!((refused.count, refused.last.is_some()), (1, true));
    // A program that repeats itself fills nothing.
    let most = limits::INTAKE_REFUSED_MAX;
    let rows: Vec<String> = (1..most + 6).map(bad).collect();
    sql(&world, &format!("INSERT INTO pumps(id, site, speed) VALUES {}", rows.join(", "))).await;
    while world.store.take_in(world.batch(Vec::new())).await.unwrap().is_some() {}
    assert_eq!(world.store.sql_refused().await.unwrap().count, most);
    world.is_sound().await;
}

/// Whoever reads a record by its key gets its row and the hash of its state; of one that waits, the row as SQL left it and no hash: it has no
/// state yet.
///
/// What broke: a reader of such a row was told that the store is damaged.
pub async fn is_shown_without_a_state_while_it_waits(place: Box<dyn Place>) {
    let world = World::new(place, 71).await;
    pumps(&world).await;
    let told = |ids: [&'static str; 5]| {
        let world = &world;
        async move {
            let mut told = Vec::new();
            for id in ids {
                let (site, shown) = shown(world, ("pumps", id), Op::IsNull).await;
                let state = match shown {
                    Shown::State(hash) => {
                        assert_eq!(hash, state_hash(world, ("pumps", id)).await, "{id}");
                        "state"
                    }
                    Shown::Unsettled => "unsettled",
                    Shown::Nothing => "nothing",
                };
                told.push(format!("{site} {state}"));
            }
            told
        }
    };
    let ids = ["p1", "p2", "p3", "p4", "p9"];
    assert_eq!(told(ids).await, ["a state", "b unsettled", "- nothing", "a unsettled", "- nothing"]);
    world.store.take_in(world.batch(Vec::new())).await.unwrap().unwrap();
    assert_eq!(told(ids).await, ["a state", "b state", "- nothing", "a state", "- nothing"]);
    // Another filter keeps the row out, and the record is what it is.
    let (site, shown_apart) = shown(&world, ("pumps", "p1"), Op::Eq(Value::Text("elsewhere".to_owned()))).await;
    assert_eq!((site.as_str(), shown_apart), ("-", Shown::State(state_hash(&world, ("pumps", "p1")).await)));
    // Documents are not loaded for it.
    world.merged(world.local("notes", Intent::Insert, "n", &json!({"title": "x"}))).await;
    let (_, before) = shown(&world, ("notes", "n"), Op::IsNull).await;
    assert_eq!(before, Shown::State(state_hash(&world, ("notes", "n")).await));
    world.merged(world.local("notes", Intent::Patch, "n", &json!({"title": "y"}))).await;
    let (_, after) = shown(&world, ("notes", "n"), Op::IsNull).await;
    assert_eq!((after, after == before), (Shown::State(state_hash(&world, ("notes", "n")).await), false));
    world.merged(world.local("notes", Intent::Delete, "n", &json!({}))).await;
    assert_eq!(shown(&world, ("notes", "n"), Op::IsNull).await, ("-".to_owned(), Shown::Nothing));
    world.is_sound().await;
}

/// What is told of a record, by both ways, and its site; another filter than `IsNull` is one of the site.
async fn shown(world: &World, (collection, id): (&str, &str), op: Op) -> (String, Shown) {
    let key = world.order(collection, "id", false).operand;
    let named = Only::Is(Condition { operand: key, op: Op::Eq(Value::Text(id.to_owned())) });
    let site = |op| Only::Is(Condition { operand: world.order(collection, "site", false).operand, op });
    let other = if op == Op::IsNull { Only::all() } else { site(op) };
    let select = Select { filter: Only::And(vec![named]).and(other), limit: 10, ..world.all(collection) };
    let id = RecordId::new(id).unwrap();
    let counted = Select { count: true, ..select.clone() };
    let (page, shown) = world.store.rows_and_shown(select, id.clone()).await.unwrap();
    let again = world.store.rows_and_shown(counted, id.clone()).await.unwrap();
    assert_eq!((&again.0.rows, again.0.total, again.1), (&page.rows, Some(page.rows.len() as u64), shown));
    let alone = world.store.shown(world.project, Arc::new(world.collection(collection).clone()), id).await.unwrap();
    assert_eq!(alone, shown, "by either way");
    let site = page.rows.first().map(|row| row.get("site").and_then(|site| site.as_str()).unwrap_or("?").to_owned());
    (site.unwrap_or_else(|| "-".to_owned()), shown)
}

async fn state_hash(world: &World, (collection, id): (&str, &str)) -> StateHash {
    let record = world.store.record(world.project, world.key(collection, id)).await.unwrap().unwrap();
    record.state.state_hash()
}

/// A backup holds the rows as they were merged last.
pub async fn is_in_no_backup_while_it_waits(place: Box<dyn Place>) {
    let world = World::new(place, 63).await;
    let mut device = Device::enrolled(&world, "a", &["site:a"]).await;
    for (id, speed) in [("p1", 0.1), ("p2", 1e-7), ("p3", 3e300)] {
        device.write(&world, "pumps", Intent::Put, (id, json!({"site": "a", "speed": speed, "runs": 3})));
    }
    world.merged(device.push_all(&world)).await;
    let before = rows(&world).await;
    sql(&world, "UPDATE pumps SET site = 'b', speed = 2, runs = 9 WHERE id = 'p2'").await;
    sql(&world, "UPDATE pumps SET site = 'c' WHERE id = 'p2'").await;
    sql(&world, "DELETE FROM pumps WHERE id = 'p3'").await;
    sql(&world, "INSERT INTO pumps(id, site) VALUES ('p4', 'a')").await;
    assert_eq!(rows(&world).await, before);
}

/// The pumps as a backup takes them, in the order of their ids.
async fn rows(world: &World) -> Vec<String> {
    let mut cut = world.store.cut().await.unwrap();
    let tables = cut.tables().await.unwrap();
    let pumps = tables.into_iter().find(|table| table.table.name == TableName::Collection("pumps".to_owned())).unwrap();
    cut.open(pumps.table, Filter::default()).await.unwrap();
    let mut rows = Vec::new();
    loop {
        let page = cut.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        rows.extend(page.into_iter().map(|row| format!("{row:?}")));
    }
    cut.end().await.unwrap();
    rows.sort_unstable();
    rows
}
