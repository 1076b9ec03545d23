//! What rows were, from the entries that are kept.

use std::collections::BTreeMap;

use mobo_core::author::Intent;
use mobo_core::ids::{Lane, RecordKey, Seq, Ver};
use mobo_core::limits;
use mobo_core::merge::{Prepared, Retry, Rights};
use mobo_core::message::{Code, PushedEntry};
use mobo_core::record::RecordState;
use mobo_core::table::past::{self, Known, Was};
use mobo_core::table::{Action, TableOp};
use mobo_core::time::Eff;
use mobo_core::value::Value;
use serde_json::json;

use crate::store_conformance::world::{World, only_code};
use crate::store_conformance::{Device, Place};

/// The columns of a row at a time, as text.
async fn was(world: &World, key: &RecordKey, at: Eff) -> String {
    let collection = world.schema.get(key.collection).unwrap();
    let record = world.store.record(world.project, key.clone()).await.unwrap().unwrap();
    let RecordState::Table(state) = record.state else { panic!("no row") };
    let log = world.store.past(world.project, key.clone()).await.unwrap();
    match past::at(collection, &state, &log, at) {
        Was::Row(None) => "-".to_owned(),
        Was::Row(Some(values)) => {
            let shown = |(field, value): (&mobo_core::schema::Field, _)| {
                let kind = if field.kind == mobo_core::schema::FieldType::Counter { mobo_core::schema::FieldType::Int } else { field.kind };
                mobo_core::json::value_to_json(value, kind).to_string()
            };
            collection.fields.iter().zip(&values).map(shown).collect::<Vec<_>>().join(" ")
        }
        other @ (Was::NoVersion | Was::Unknown(_)) => format!("{other:?}"),
    }
}

/// A push of what a device wrote last, as made just now.
fn now(world: &World, device: &Device) -> Prepared {
    let entries = &device.lanes[&Lane::State];
    let entry = entries.last().unwrap().clone();
    device.push_entries(world, Lane::State, (entries.len() as u64, vec![PushedEntry { entry, eff: Some(world.now()) }]))
}

/// Devices that do not know of each other, the hub, a delete, a refused entry that is merged after all: each moment is told, whenever it came.
pub async fn is_told_from_the_log(place: Box<dyn Place>) {
    let world = World::new(place, 90).await;
    let buckets = ["site:a", "line:1", "line:7"];
    let (mut a, mut b) = (Device::enrolled(&world, "a", &buckets).await, Device::enrolled(&world, "b", &buckets).await);
    let key = world.key("pumps", "p");
    let mut moments = Vec::new();
    a.write(&world, "pumps", Intent::Put, ("p", json!({"site": "a", "line": 1, "runs": 2})));
    moments.push((world.merged(now(&world, &a)).await.effs[0], r#""a" 1 null 2"#));
    assert_eq!(world.traced().await, 1);
    moments.push((world.merged(world.local("pumps", Intent::Patch, "p", &json!({"speed": 0.5}))).await.effs[0], r#""a" 1 0.5 2"#));
    let field = |name: &str| world.collection("pumps").field(name).unwrap().id;
    // As a device does that was told of the row.
    b.rows(
        &world,
        &[TableOp {
            key: key.clone(),
            action: Action::Patch,
            before_us: 0,
            base_ver: Ver(0),
            fields: BTreeMap::from([(field("line"), Value::Int(7).to_cbor())]),
            deltas: BTreeMap::from([(field("runs"), 5)]),
        }],
    );
    moments.push((world.merged(now(&world, &b)).await.effs[0], r#""a" 7 0.5 7"#));
    // It may not write there, for now.
    a.write(&world, "pumps", Intent::Patch, ("p", json!({"site": "c", "runs": {"$inc": 10}})));
    let refused = world.answered(now(&world, &a)).await;
    assert_eq!(only_code(&refused), Code::FORBIDDEN);
    moments.push((refused.effs[0], r#""c" 7 0.5 17"#));
    moments.push((world.merged(world.local("pumps", Intent::Delete, "p", &json!({}))).await.effs[0], "-"));
    moments.push((world.merged(world.local("pumps", Intent::Put, "p", &json!({"site": "a"}))).await.effs[0], r#""a" null null 10"#));
    world.traced().await;
    let rights = Rights::Buckets(["site:a".to_owned(), "site:c".to_owned()].into());
    let retry = Retry { lane: a.lane(Lane::State), seq: Seq::new(2).unwrap(), rights };
    assert_eq!(world.answered(Prepared::Retry(Box::new(retry))).await.rejects, []);
    world.traced().await;
    assert!(moments.is_sorted_by_key(|moment| moment.0), "{moments:?}");
    for (nth, (at, want)) in moments.iter().enumerate() {
        assert_eq!(was(&world, &key, *at).await, *want, "moment {nth}");
    }
    assert_eq!(was(&world, &key, Eff(moments[0].0.0 - 1)).await, "-", "nobody had written it");
    world.is_sound().await;
    // The same after everything was closed, and with the index made anew.
    world.store.close().await;
    let store = world.place.open().await.unwrap();
    let log = store.past(world.project, key.clone()).await.unwrap();
    assert_eq!((log.writes.len(), log.is_cut, log.restored), (6, false, None));
    assert!(store.past(world.project, world.key("pumps", "never")).await.unwrap().writes.is_empty());
    store.close().await;
}

/// A long log is taken in step by step; and what is too long to be told as a whole is told from its end.
pub async fn is_traced_in_steps(place: Box<dyn Place>) {
    let world = World::new(place, 91).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    let writes = limits::TRACE_ENTRIES_MAX + 20;
    for n in 0..writes {
        device.write(&world, "work_orders", Intent::Merge, ("w", json!({"n": n, "title": "x"})));
    }
    world.merged(device.push_all(&world)).await;
    assert_eq!(world.traced().await, 2);
    let key = world.key("work_orders", "w");
    let RecordState::Table(state) = world.store.record(world.project, key.clone()).await.unwrap().unwrap().state else { panic!("no row") };
    let mut log = world.store.past(world.project, key).await.unwrap();
    let collection = world.collection("work_orders");
    let told = past::steps(collection, &state, &log, (None, 10));
    assert_eq!((log.writes.len(), told.steps.len(), told.more, told.known), (writes, 10, true, Known::Whole));
    // As if the older ones were kept no more.
    log.writes.truncate(50);
    log.is_cut = true;
    let told = past::steps(collection, &state, &log, (None, 100));
    let Known::Since(since) = told.known else { panic!("{:?}", told.known) };
    assert!(told.steps.iter().all(|step| step.rows.is_none() || step.stamp.eff > since), "what is not known is not told");
}
