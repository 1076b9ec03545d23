//! A crowd on one bucket of a hub on Postgres: everything counted, and every flipped byte found.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::postgres::Database;
use mobo_tests::seed::{Rng, Seed};
use mobo_tests::wire::WireDevice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const DEVICES: u64 = 20;
/// Entries of each device; one in five is on a document.
const ENTRIES: u64 = 120;
/// Rows that all of them write.
const SHARED: u64 = 10;

/// Goal: 20 devices push into one bucket at the same time; lanes, positions and digest are right, and one flipped byte is named.
/// Method: 20 sessions over QUIC with entries that they seal themselves: rows of their own, counters of shared rows, one shared document.
/// What the hub counts is compared with what was sent, and with SQL on its tables; then bytes are flipped behind its back.
// faults: H-12
#[test]
fn twenty_devices_push_into_one_bucket() {
    let seed = Seed::from_env();
    let cluster = Cluster::boot(Place::Postgres);
    cluster.create(&[
        &["work_orders", "title:text", "n:int", "hours:counter"],
        &["notes", "--kind", "document", "body:text", "tags:list", "likes:counter"],
    ]);
    let tokens: Vec<String> = (0..DEVICES).map(|n| cluster.invite(&format!("device-{n}"))).collect();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let mut crowd = JoinSet::new();
        for (n, token) in (0..).zip(tokens) {
            crowd.spawn(device(n, token, Seed::fixed(seed.number() ^ n).rng()));
        }
        while let Some(done) = crowd.join_next().await {
            done.unwrap();
        }
    });

    let database = cluster.database.as_ref().unwrap();
    counted(&cluster, database);
    let reader = cluster.device("reader");
    cluster.converge(&[&reader]);
    reader.cli().args(["health", "check"]).run().expect_success();
    flipped_bytes_are_found(&cluster, database);
}

/// One device: seals everything, then pushes it in pieces of random size, some of them twice.
async fn device(n: u64, token: String, mut rng: Rng) {
    let mut device = WireDevice::enrol(&token).await.unwrap();
    let mut session = device.connect().await.unwrap();
    for entry in 0..ENTRIES {
        if entry % 5 == 0 {
            let fields = json!({"body": format!("device {n} was here, at {entry}"), "tags": [n, entry], "likes": {"$inc": 1}});
            device.write("notes", Intent::Merge, ("shared", fields));
        } else if entry % 5 == 1 {
            device.write("work_orders", Intent::Merge, (&format!("own-{n}-{entry}"), json!({"title": "mine", "n": entry, "hours": 1})));
        } else {
            let shared = format!("shared-{}", rng.below(SHARED));
            device.write("work_orders", Intent::Merge, (&shared, json!({"title": format!("by {n}"), "hours": {"$inc": 1}})));
        }
    }
    let mut acked = 0;
    while acked < ENTRIES {
        let mut push = device.push(Lane::State, acked + 1);
        push.entries.truncate(1 + rng.below(12) as usize);
        push.head_chain = device.chain(Lane::State, acked + push.entries.len() as u64);
        push.signature = device.sign_head(&push);
        if rng.chance(10) {
            // The answer is lost, the link breaks, everything comes again.
            let sent = session.send(mobo_core::link::Channel::Lane(Lane::State), &mobo_core::message::Message::Push(push.clone())).await;
            sent.unwrap();
            session.close().await;
            session = device.connect().await.unwrap();
        }
        let pushed = session.push(push).await.unwrap();
        assert_eq!(pushed.rejects, []);
        acked = pushed.ack.acked.get();
    }
    assert_eq!(acked, ENTRIES);
    session.close().await;
}

/// What the hub has counted is what was sent, and what its tables say.
fn counted(cluster: &Cluster, database: &Database) {
    let report = cluster.healthy();
    let checks = report["checks"].as_array().unwrap();
    let lanes: Vec<(&Value, &Value)> = checks.iter().filter_map(|check| check.get("entries").zip(check.get("last"))).collect();
    assert_eq!(lanes.len() as u64, DEVICES);
    assert!(lanes.iter().all(|(entries, last)| **entries == ENTRIES && **last == ENTRIES), "R28: {lanes:?}");

    let bucket = checks.iter().find(|check| check["bucket"] == "all").unwrap();
    assert_eq!(bucket["stored"], bucket["computed"]);
    // A position is used once for each record and merge batch, which is what a record's version counts (R28).
    let versions = "select (select coalesce(sum(mobo_ver), 0) from work_orders) + (select sum(ver) from mobo.document)";
    assert_eq!(database.value(versions), bucket["head"].to_string(), "R28: positions without a gap");
    let positions = "select _position from work_orders union all select position from mobo.document";
    let count = |what: &str| database.value(&format!("select {what} from ({positions}) as used(position)"));
    assert_eq!(count("max(position)"), bucket["head"].to_string());
    assert_eq!(count("count(distinct position)"), count("count(*)"), "no position is used twice");

    let own = DEVICES * ENTRIES / 5;
    assert_eq!(database.value("select sum(hours) from work_orders where id like 'own-%'"), own.to_string());
    assert_eq!(database.value("select sum(hours) from work_orders where id like 'shared-%'"), (DEVICES * ENTRIES * 3 / 5).to_string());
    assert_eq!(database.value("select likes from notes"), (DEVICES * ENTRIES / 5).to_string());
    let status = cluster.hub().status();
    assert_eq!((&status["quarantined"], &status["records"]), (&json!(0), &json!(own + SHARED + 1)), "{status}");
}

/// One byte of one stored row is flipped by hand, then put right again.
fn flipped_bytes_are_found(cluster: &Cluster, database: &Database) {
    // Table, column, which row, and the words that name it.
    let own = "where id = 'own-7-1'";
    let note = "where id = 'shared'";
    let entry = "where seq = 5 and device = (select id from mobo.device where name = 'device-3')";
    let cases = [
        ("work_orders", "title", own, ["bucket all holds damaged records", "work_orders/own-7-1"]),
        ("work_orders", "_mobo", own, ["bucket all holds damaged records", "work_orders/own-7-1"]),
        ("mobo.document", "doc", note, ["bucket all holds damaged records", "notes/shared"]),
        ("mobo.entry", "payload", entry, ["lane 0 of", "the chain breaks at entry 5"]),
        ("mobo.bucket", "digest", "where key = 'all'", ["bucket all does not fit its digest", "stored"]),
    ];
    for (table, column, filter, words) in cases {
        let flip = match column {
            "title" => "overlay(title placing chr(ascii(title) # 1) from 1 for 1)".to_owned(),
            _ => format!("set_byte({column}, length({column}) / 2, get_byte({column}, length({column}) / 2) # 1)"),
        };
        let flip = format!("set mobo.applying = 'on'; update {table} set {column} = {flip} {filter} returning 1");
        assert_eq!(database.rows(&flip).len(), 1, "{flip}");
        let outcome = cluster.cli().args(["health", "check", "-o", "json"]).run().expect_code(1);
        let checks = outcome.json();
        let bad: Vec<&Value> = checks["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
        let told = format!("{bad:?}");
        assert!(bad.len() == 1 && words.iter().all(|word| told.contains(word)), "{table}.{column}: {checks}");
        database.rows(&flip);
        cluster.healthy();
    }
}
