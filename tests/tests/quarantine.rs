//! Refused entries by hand: who refused what and why, on both nodes, and every way out of there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_core::message::Message;
use mobo_tests::cli::Cli;
use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use mobo_tests::wire::WireDevice;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);
const PUMPS: &[&str] = &["pumps", "site:text", "speed:float", "runs:counter", "--bucket", "site:{site}"];
const TASKS: &[&str] = &["tasks", "--kind", "document", "title:text", "rank:int", "likes:counter", "--bucket", "rank:{rank}"];

#[track_caller]
fn device(cluster: &Cluster) -> Node {
    let invite = ["device", "invite", "--name", "a", "--bucket", "site:a", "--bucket", "rank:1"];
    let token = cluster.cli().args(invite).run().expect_success().text();
    let folder = cluster.folder("a");
    Cli::edge(&folder).args(["join", &token]).run().expect_success();
    Launch::edge(folder).set("http.listen", &quiet_address()).boot()
}

#[track_caller]
fn run(device: &Node, words: &[&str]) -> Value {
    device.cli().args(words).args(["-o", "json"]).run().expect_success().json()
}

#[track_caller]
fn hub(cluster: &Cluster, words: &[&str]) -> Value {
    cluster.cli().args(words).args(["-o", "json"]).run().expect_success().json()
}

#[track_caller]
fn synced(device: &Node) {
    device.cli().args(["sync", "--timeout", "60"]).run().expect_success();
}

/// Goal: nothing that is refused is lost, and nothing of it counts twice: it can be retried or dropped at either end, once.
/// Method: a device writes where it may not, neighbours flow; then each way out, on both nodes, with counters that would tell.
// faults: H-15
#[test]
fn refused_entries_are_told_and_decided_about_on_sqlite() {
    both_ways(Place::Sqlite);
}

/// The same on Postgres.
// faults: H-15
#[test]
fn refused_entries_are_told_and_decided_about_on_postgres() {
    both_ways(Place::Postgres);
}

fn both_ways(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[PUMPS, TASKS]);
    let device = device(&cluster);
    synced(&device);
    for (id, site, runs) in [("p1", "b", 1), ("p2", "a", 2), ("p3", "b", 4), ("p4", "b", 8), ("p5", "a", 16)] {
        run(&device, &["put", "pumps", id, &json!({"site": site, "runs": runs}).to_string()]);
    }
    synced(&device);
    let status = device.status();
    assert_eq!((&status["rejected"], &status["pending"], &status["records"]), (&json!(3), &json!(0), &json!(2)), "its neighbours flow");
    assert_eq!(cluster.hub().status()["quarantined"], 3);

    // The device is told who refused what and why.
    let told = run(&device, &["quarantine", "list"]);
    let number = |id: &str| told.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap()["n"].to_string();
    let shown = run(&device, &["quarantine", "show", &number("p1")]);
    assert_eq!((&shown["code"], &shown["status"], &shown["collection"]), (&json!("forbidden"), &json!("open"), &json!("pumps")));
    assert_eq!(shown["edits"], json!([{"collection": "pumps", "id": "p1", "does": "put", "fields": {"site": "b", "runs": {"$inc": 1}}}]));
    let at_hub = hub(&cluster, &["quarantine", "list"]);
    let number_at_hub = |id: &str| at_hub.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap()["n"].to_string();
    let shown = hub(&cluster, &["quarantine", "show", &number_at_hub("p1")]);
    assert_eq!((&shown["name"], &shown["does"][0]["put"]["runs"]), (&json!("a"), &json!({"$inc": "1"})));

    // Corrected on the device.
    run(&device, &["quarantine", "retry", &number("p1"), r#"{"site": "a"}"#]);
    synced(&device);
    assert_eq!(run(&device, &["get", "pumps", "p1"])["runs"], 1);
    // At the hub, first in vain, then under other rights; and at the device as well, which adds nothing.
    let again = cluster.cli().args(["quarantine", "retry", &number_at_hub("p3"), "-o", "json"]).run().expect_code(1).json();
    assert_eq!((&again["status"], &again["code"]), (&json!("open"), &json!("forbidden")));
    hub(&cluster, &["device", "grant", "a", "--bucket", "site:b"]);
    assert_eq!(hub(&cluster, &["quarantine", "retry", &number_at_hub("p3")])["status"], "retried");
    wait::until("the retried record", SOON, || device.cli().args(["get", "pumps", "p3"]).run().code.filter(|code| *code == 0));
    run(&device, &["quarantine", "retry", &number("p3")]);
    synced(&device);
    // Until the hub's word arrives, the device shows its own writes on top of what it has.
    wait::until("it to count once", SOON, || (run(&device, &["get", "pumps", "p3"])["runs"] == 4).then_some(()));
    cluster.cli().args(["quarantine", "retry", &number_at_hub("p3")]).run().expect_code(2);
    // Let go, at both ends.
    run(&device, &["quarantine", "drop", &number("p4")]);
    hub(&cluster, &["quarantine", "drop", &number_at_hub("p4")]);
    device.cli().args(["quarantine", "drop", &number("p4")]).run().expect_code(2);
    cluster.cli().args(["quarantine", "drop", &number_at_hub("p4")]).run().expect_code(2);
    cluster.cli().args(["quarantine", "show", "404404"]).run().expect_code(4);
    device.cli().args(["quarantine", "show", "404404"]).run().expect_code(4);
    for (n, word) in [("p1", "retried"), ("p3", "retried"), ("p4", "dropped")] {
        assert_eq!(run(&device, &["quarantine", "show", &number(n)])["status"], word);
    }
    assert_eq!(device.status()["rejected"], 0);
    let status = hub(&cluster, &["quarantine", "show", &number_at_hub("p4")])["status"].clone();
    assert_eq!(status, "dropped");
    documents(&cluster, &device);
    cluster.healthy();
    run(&device, &["health", "check"]);
}

/// What was built on a refused change of a document is written again without it.
fn documents(cluster: &Cluster, device: &Node) {
    run(device, &["put", "tasks", "t", r#"{"title": "pump", "rank": 1, "likes": 1}"#]);
    synced(device);
    for fields in [r#"{"rank": 9, "likes": {"$inc": 5000}}"#, r#"{"likes": {"$inc": 10}}"#, r#"{"title": "pump 7"}"#] {
        run(device, &["patch", "tasks", "t", fields]);
    }
    wait::until("one refusal, and nothing on its way", SOON, || {
        let status = device.status();
        (status["rejected"] == 1 && status["pending"] == 0).then_some(())
    });
    synced(device);
    let task = run(device, &["get", "tasks", "t"]);
    assert_eq!((&task["title"], &task["rank"], &task["likes"]), (&json!("pump 7"), &json!(1), &json!(11)));
    let at_hub = cluster.api().get("/rest/v1/tasks?id=eq.t").unwrap().expect_status(200).json();
    assert_eq!((&at_hub[0]["title"], &at_hub[0]["likes"]), (&json!("pump 7"), &json!(11)));
}

/// Goal: of a push with more refused entries than a link's queue has places, each refusal is told before the ack, and each again to a device
/// that comes back without having kept any.
/// Method: a device of the test writes where it may not, pushes it at once, and hangs up; then it says hello as if it had heard nothing.
// faults: H-15
#[test]
fn more_refusals_than_a_queue_holds_are_all_told() {
    const ENTRIES: usize = 1_500;
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[PUMPS]);
    let token = cluster.cli().args(["device", "invite", "--name", "wire", "--bucket", "site:a"]).run().expect_success().text();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut device = WireDevice::enrol(&token).await.unwrap();
        let session = device.connect().await.unwrap();
        for n in 0..ENTRIES {
            device.write("pumps", Intent::Merge, (&format!("p{n}"), json!({"site": "b"})));
        }
        let pushed = session.push(device.push(Lane::State, 1)).await.unwrap();
        assert_eq!((pushed.rejects.len(), pushed.ack.acked.get()), (ENTRIES, ENTRIES as u64));
        session.close().await;
        let session = device.connect().await.unwrap();
        let mut told = Vec::new();
        while told.len() < ENTRIES {
            let next = session.next().await.unwrap();
            let Message::Reject(reject) = next else { panic!("after {}: {next:?}", told.len()) };
            told.push(reject.seq.get());
        }
        told.sort_unstable();
        assert_eq!(told, (1..=ENTRIES as u64).collect::<Vec<_>>());
        session.close().await;
    });
}
