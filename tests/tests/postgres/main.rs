//! What is Postgres' own: several hubs on one database, connections that break, servers that go away, and what each of these is called.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod crowds;
mod doors;
mod failures;
mod pages;
mod values;
mod waiting;

use std::sync::Arc;

use mobo_core::author::{Intent, RecordOp};
use mobo_core::merge::{Merged, Outcome};
use mobo_core::store::{HubStore, MergeReport};
use mobo_core::table::TableOp;
use mobo_tests::postgres::Database;
use mobo_tests::store_conformance::{Device, World};
use serde_json::{Value, json};

async fn world(seed: u64) -> Arc<World> {
    Arc::new(World::new(Box::new(Database::fresh()), seed).await)
}

/// Another hub on the same database.
async fn another_hub(world: &World) -> Arc<dyn HubStore> {
    world.place.open().await.unwrap()
}

/// The operation that adds one hour to a work order, and names its last author.
fn one_more_hour(world: &World, device: &mut Device, id: &str) -> TableOp {
    let fields = json!({"title": device.id().to_string(), "hours": {"$inc": 1}});
    match device.op(world, "work_orders", Intent::Put, (id, fields)) {
        Some(RecordOp::Table(op)) => op,
        other => panic!("not an operation on a row: {other:?}"),
    }
}

fn only(report: MergeReport) -> Merged {
    match <[Outcome; 1]>::try_from(report.outcomes).expect("one outcome for one submission") {
        [Outcome::Merged(merged)] => merged,
        [other] => panic!("not merged: {other:?}"),
    }
}

/// The hours of each work order, by id.
async fn hours(world: &World) -> Vec<(String, i64)> {
    let hours = |row: &Value| (row["id"].as_str().unwrap().to_owned(), row["hours"].as_i64().unwrap());
    world.rows("work_orders").await.iter().map(hours).collect()
}

/// What must hold after any schedule that only ever wrote work orders: everything sound, and each position of the bucket used once (R28):
/// a record's version counts the merges that touched it, and each of them used one position.
async fn is_sound(world: &World) {
    world.is_sound().await;
    let cases = [
        ("SELECT (SELECT sum(mobo_ver) FROM work_orders) = (SELECT sum(head) FROM mobo.bucket)", "positions are used without gaps"),
        ("SELECT count(*) = count(DISTINCT _position) FROM work_orders", "no position is used twice"),
        ("SELECT bool_and(l.last = (SELECT count(*) FROM mobo.entry e WHERE e.device = l.device)) FROM mobo.lane l", "heads count entries"),
    ];
    for (sql, what) in cases {
        assert_eq!(world.sql(sql).await, "t", "{what}");
    }
}
