//! How safe a write is, and waiting for it: local → hub.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::{Duration, Instant};

use mobo_tests::cli::{Cli, Outcome};
use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::http::{Answer, Client};
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::json;

const ORDERS: &str = "/rest/v1/work_orders";
const SOON: Duration = Duration::from_secs(60);

fn put(device: &Node, id: &str, waiting: &[&str]) -> Outcome {
    device.cli().args(["put", "work_orders", id, r#"{"title":"Pump"}"#, "-o", "json"]).args(waiting.iter().copied()).run()
}

fn post(client: &mut Client, id: &str, prefer: &str) -> Answer {
    let body = json!({ "id": id, "title": "Pump" }).to_string();
    let headers = [("content-type", "application/json"), ("prefer", prefer)];
    client.send("POST", ORDERS, &headers, body.as_bytes()).unwrap()
}

#[track_caller]
fn check(answer: &Answer, status: u16, ack: &str, applied: Option<&str>) {
    let got = (answer.status, answer.header("mobo-ack"), answer.header("preference-applied"));
    assert_eq!(got, (status, Some(ack), applied), "{}", answer.text());
}

/// Goal: who waits for the hub is told the truth: how far the write has come, at once when it is there, and after the patience when it is not.
/// The write itself is never refused for it.
#[test]
fn a_writer_may_wait_for_the_hub() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"], &["readings", "--kind", "stream", "celsius:float"]]);
    let device = cluster.device("one");
    cluster.converge(&[&device]);
    let mut client = device.http();

    assert_eq!(put(&device, "a", &[]).expect_success().json()["ack"], "local");
    assert_eq!(put(&device, "b", &["--wait", "hub"]).expect_success().json()["ack"], "hub");
    check(&post(&mut client, "c", "wait=hub, wait=20"), 201, "hub", Some("wait=20, wait=hub"));
    let sample = device.cli().args(["append", "readings", r#"{"celsius":21.5}"#, "--wait", "hub", "-o", "json"]).run();
    assert_eq!(sample.expect_success().json()["ack"], "hub");
    // No backup is made here: nothing is ever safe. It is at the hub long before that patience ends.
    check(&post(&mut client, "d", "wait=safe, wait=20"), 201, "hub", Some("wait=20"));

    cluster.stop_hub();
    let refused = put(&device, "e", &["--wait", "hub", "--timeout", "1"]).expect_code(1);
    assert_eq!(refused.json()["ack"], "local");
    assert!(refused.stderr.contains("kept here") && refused.stderr.contains("it is local, not hub"), "{}", refused.stderr);
    check(&post(&mut client, "f", "wait=hub, wait=1"), 201, "local", Some("wait=1"));

    // It is waited for across a hub that comes back, and nothing else has to wait with it.
    let address = device.address("http");
    let waiting = std::thread::spawn(move || post(&mut Client::new(&address), "g", "wait=hub, wait=60"));
    wait::until("the write", SOON, || {
        let found = client.get(&format!("{ORDERS}?id=eq.g")).unwrap().json();
        (found.as_array().unwrap().len() == 1).then_some(())
    });
    check(&post(&mut client, "h", "return=minimal"), 201, "local", Some("return=minimal"));
    cluster.start_hub();
    check(&waiting.join().unwrap(), 201, "hub", Some("wait=60, wait=hub"));
    cluster.converge(&[&device]);
}

/// Goal: who waits hears at once that the hub has refused the write, and why; it is not there any more then.
#[test]
fn a_writer_who_waits_hears_of_a_refusal() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    // Of bucket `other` only: what it writes into `all` is refused.
    let folder = cluster.folder("one");
    let token = cluster.cli().args(["device", "invite", "--name", "one", "--bucket", "other"]).run().expect_success().text();
    Cli::edge(&folder).args(["join", &token]).run().expect_success();
    let device = Launch::edge(folder).set("http.listen", &quiet_address()).boot();
    let mut client = device.http();
    wait::until("the collection", SOON, || (client.get(ORDERS).unwrap().status == 200).then_some(()));

    let began = Instant::now();
    let told = post(&mut client, "a", "wait=hub, wait=60").expect_status(409).json();
    assert!(began.elapsed() < Duration::from_secs(50), "it was told at once");
    assert!(told["message"].as_str().unwrap().contains("the hub refused this write"), "{told}");
    assert_eq!(client.get(ORDERS).unwrap().expect_status(200).json(), json!([]), "it is taken back");
    let refused = put(&device, "b", &["--wait", "hub"]).expect_code(1);
    assert!(refused.stderr.contains("the hub refused this write"), "{}", refused.stderr);
    assert_eq!(device.status()["rejected"], 2);
}
