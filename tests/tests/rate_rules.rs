//! Rate rules and timings as an operator sets them, on a hub and on a device.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use mobo_tests::cluster::Cluster;
use mobo_tests::http::Client;
use mobo_tests::process::Node;
use serde_json::json;

const SETTINGS: [(&str, &str); 2] = [("http.rate_rules", "orders:create=2/1h, /rest/v1/notes=1000/1h"), ("http.server_timing", "true")];

/// What a caller with this key is told.
fn check(node: &Node, key: &str, status_of_a_row: u16) {
    let mut api = Client::new(&node.address("http")).with_header("apikey", key);
    for n in 0..2 {
        let made = api.post("/rest/v1/orders", &json!({ "title": format!("{n}") })).unwrap();
        assert_eq!(made.status, status_of_a_row, "{}", made.text());
    }
    let over = api.post("/rest/v1/orders", &json!({ "title": "3" })).unwrap().expect_status(429);
    assert_eq!(over.json()["violated-policies"], json!(["orders:create"]));
    let policies = over.header("ratelimit-policy").unwrap();
    assert!(policies.ends_with(", \"orders:create\";q=2;w=3600"), "{policies}");
    let read = api.get("/rest/v1/orders").unwrap().expect_status(200);
    let timing = read.header("server-timing").unwrap();
    let stages: Vec<&str> = timing.split(", ").filter_map(|stage| stage.split_once(";dur=")).map(|(name, _)| name).collect();
    assert_eq!(stages, ["jwt", "parse", "plan", "db", "response"], "{timing}");
    assert!(timing.split(", ").all(|stage| stage.rsplit('=').next().unwrap().parse::<f64>().unwrap() < 60_000.0), "{timing}");
}

/// Goal: both nodes hold callers to the rules by their labels, and say how long an answer took.
#[test]
fn rules_and_timings_hold_on_both_nodes() {
    let cluster = Cluster::boot_with("sqlite", None, &SETTINGS);
    cluster.create(&[&["orders", "title:text"], &["notes", "text:text"]]);
    let key = cluster.cli().args(["key", "create", "--role", "service", "--name", "api"]).run().expect_success().text();
    check(cluster.hub(), &key, 201);
    let device = SETTINGS.iter().fold(cluster.joined("pi"), |device, (name, value)| device.set(name, value)).boot();
    device.wait_collection("orders");
    cluster.converge(&[&device]);
    check(&device, &key, 201);
}

/// Goal: nobody who has not asked for it is told how long an answer took.
#[test]
fn timings_are_off_unless_they_are_asked_for() {
    let cluster = Cluster::boot_with("sqlite", None, &[]);
    let answer = cluster.hub().http().get("/livez").unwrap().expect_status(200);
    assert_eq!(answer.header("server-timing"), None);
}
