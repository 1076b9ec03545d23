//! What a node says of itself to Prometheus, and that the dashboard and the alerts ask for nothing that it does not say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobo_tests::cluster::{Cluster, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node, Signal};
use mobo_tests::wait;
use serde_json::{Value, json};

const LISTEN: (&str, &str) = ("metrics.listen", "127.0.0.1:0");
/// What only a device says; the dashboard has a place for devices that are scraped, too.
const OF_DEVICES: [&str; 2] = ["mobo_sync_pending_changes", "mobo_sync_lag_seconds"];

/// The metrics of a node as text.
fn scrape(node: &Node, path: &str) -> String {
    let answer = Client::new(&node.address("metrics")).get(path).unwrap().expect_status(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text()
}

/// The value of the series with exactly these labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn at_least(text: &str, series: &str, min: f64) {
    let found = value(text, series);
    assert!(found.is_some_and(|found| found >= min), "{series} is {found:?}, not {min} or more, in\n{text}");
}

/// The names of all metrics on a page.
fn names(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

/// Goal: counters come from where things happen, names are those of the contract, and each metric is there once.
/// Method: one of each thing is done, with a conflict between a device that is cut off and the hub, and the pages are read.
#[test]
fn a_node_counts_what_happens() {
    let database = Database::fresh();
    let cluster = Cluster::boot_with(&database.url(), None, &[LISTEN]);
    cluster.create(&[&["work_orders", "title:text", "hours:counter"]]);
    let launch = cluster.joined("one").set(LISTEN.0, LISTEN.1);
    let mut device = launch.clone().boot();
    device.cli().args(["sync"]).run().expect_success();
    device.cli().args(["put", "work_orders", "wo-1", &json!({"title": "first"}).to_string()]).run().expect_success();
    cluster.converge(&[&device]);
    let text = scrape(&device, "/metrics");
    at_least(&text, "mobo_sync_changes_sent_total", 1.0);
    at_least(&text, "mobo_sync_sessions_total", 1.0);
    at_least(&text, "mobo_sync_last_success_timestamp_seconds", 1.7e9);
    assert_eq!((value(&text, "mobo_sync_pending_changes"), value(&text, "mobo_sync_lag_seconds")), (Some(0.0), Some(0.0)));
    assert_eq!((value(&text, "mobo_up"), value(&text, "mobo_sync_peers{state=\"live\"}")), (Some(1.0), Some(1.0)));

    device.terminate();
    let mut api = cluster.api();
    api.patch("/rest/v1/work_orders?id=eq.wo-1", &json!({"title": "of the hub"})).unwrap().expect_status(204);
    // A hub that stands still hears of nothing.
    cluster.hub().signal(Signal::STOP);
    let cut_off = launch.clone().boot();
    cut_off.cli().args(["patch", "work_orders", "wo-1", &json!({"title": "of the device"}).to_string()]).run().expect_success();
    at_least(&scrape(&cut_off, "/metrics"), "mobo_sync_pending_changes", 1.0);
    drop(cut_off);
    cluster.hub().signal(Signal::CONT);
    let device = launch.boot();
    cluster.converge(&[&device]);
    api.post("/rest/v1/work_orders", &json!({"id": "wo-2", "title": "more"})).unwrap().expect_status(201);
    cluster.converge(&[&device]);
    at_least(&scrape(&device, "/metrics"), "mobo_sync_changes_received_total", 1.0);
    Client::new(&cluster.hub().address("http"))
        .with_header("apikey", "mobo_sec_nobody")
        .get("/rest/v1/work_orders")
        .unwrap()
        .expect_status(401);

    let text = scrape(cluster.hub(), "/metrics");
    let route = "route=\"/rest/v1/{collection}\"";
    at_least(&text, &format!("mobo_http_requests_total{{method=\"POST\",{route},status=\"201\"}}"), 1.0);
    at_least(&text, &format!("mobo_http_requests_total{{method=\"PATCH\",{route},status=\"204\"}}"), 1.0);
    at_least(&text, &format!("mobo_http_request_duration_seconds_count{{method=\"POST\",{route}}}"), 1.0);
    assert_eq!(value(&text, "mobo_http_requests_in_flight"), Some(0.0));
    at_least(&text, "mobo_auth_attempts_total{method=\"key\"}", 3.0);
    at_least(&text, "mobo_auth_failures_total{method=\"key\",reason=\"refused\"}", 1.0);
    at_least(&text, "mobo_sync_sessions_total", 2.0);
    at_least(&text, "mobo_sync_sessions_ended_total{reason=\"left\"}", 1.0);
    at_least(&text, "mobo_sync_changes_received_total", 2.0);
    at_least(&text, "mobo_sync_changes_sent_total", 1.0);
    assert_eq!(value(&text, "mobo_sync_conflicts_total{collection=\"work_orders\"}"), Some(1.0), "{text}");
    for operation in ["merge", "pull", "select"] {
        at_least(&text, &format!("mobo_store_operation_duration_seconds_count{{operation=\"{operation}\"}}"), 1.0);
    }
    at_least(&text, "mobo_db_pool_connections{state=\"max\"}", 2.0);
    at_least(&text, "mobo_records", 2.0);
    assert_eq!(value(&text, "mobo_sync_conflicts_open"), Some(1.0));
    assert_eq!(value(&text, "mobo_sync_peers{state=\"live\"}"), Some(1.0));
    assert_eq!(value(&text, "mobo_component_state{component=\"store\",state=\"running\"}"), Some(1.0));
    assert!(text.contains("mobo_build_info{version=\""), "{text}");
    at_least(&text, "mobo_bus_events_total", 5.0);
    assert_eq!(value(&text, "mobo_bus_dropped_total"), Some(0.0));
    at_least(&text, "process_resident_memory_bytes", 1e6);
    let types = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(types, names(&text).len(), "each metric is written once");

    let devices = scrape(cluster.hub(), "/metrics/devices");
    assert!(devices.contains("name=\"one\"} 1\n") && devices.contains("mobo_device_seen_timestamp_seconds{device=\""), "{devices}");
    assert!(!text.contains("name=\"one\""), "no device is named where the fleet is measured");
    cluster.healthy();
}

/// A collector that takes one request, answers 200, and gives its path and body.
fn collect_once(collector: &std::net::TcpListener) -> (String, Value) {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let (stream, _) = collector.accept().unwrap();
    let mut reader = BufReader::new(&stream);
    let mut head = Vec::new();
    while head.last().is_none_or(|line: &String| !line.trim_end().is_empty()) {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the head ends early: {head:?}");
        head.push(line);
    }
    let length = head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap()];
    reader.read_exact(&mut body).unwrap();
    (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
    (head[0].split(' ').nth(1).unwrap().to_owned(), serde_json::from_slice(&body).unwrap())
}

/// Goal: an OpenTelemetry collector gets what `/metrics` shows, and one that goes away costs the hub nothing.
#[test]
fn a_collector_gets_the_metrics_and_may_go_away() {
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::hub(folder.path().join("hub")).set(LISTEN.0, LISTEN.1).set("quic.listen", &quiet_address());
    let hub = launch.set("otlp.endpoint", &endpoint).set("otlp.every", "1s").boot();

    // What the store must count comes a moment after the first others.
    let sent = wait::until("everything to be sent", Duration::from_secs(60), || {
        let (path, body) = collect_once(&collector);
        assert_eq!(path, "/v1/metrics");
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let sent: BTreeSet<String> = metrics.iter().map(|metric| metric["name"].as_str().unwrap().to_owned()).collect();
        sent.contains("mobo_records").then_some(sent)
    });
    assert_eq!(sent, names(&scrape(&hub, "/metrics")), "the same on both ways");
    drop(collector);
    wait::until("the hub to notice", Duration::from_secs(60), || {
        value(&scrape(&hub, "/metrics"), "mobo_otlp_failed_total{reason=\"unreachable\"}").filter(|count| *count >= 2.0)
    });
    assert_eq!(hub.status()["health"], "healthy");
}

/// Goal: the dashboard and the alert rules load, and ask for what a hub on Postgres says.
#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let database = Database::fresh();
    let vault = tempfile::tempdir().unwrap();
    let cluster = Cluster::boot_with(&database.url(), None, &[LISTEN, ("backup.url", vault.path().to_str().unwrap())]);
    cluster.cli().args(["backup", "create"]).run().expect_success();
    cluster.cli().args(["backup", "drill"]).run().expect_success();
    // What the store must count comes a moment after the hub is ready.
    let known = wait::until("the hub's metrics", Duration::from_secs(60), || {
        let known = names(&scrape(cluster.hub(), "/metrics"));
        known.contains("mobo_records").then_some(known)
    });
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()) && panel["gridPos"]["w"].is_u64() && panel["title"].is_string(), "{panel}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
    assert_eq!((dashboard["uid"].as_str(), dashboard["schemaVersion"].is_u64()), (Some("mobo"), true));
    // JSON is YAML, too: the rules are written so that they can be read here.
    let alerts: Value = serde_json::from_str(&read("alerts.yml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    let mut alerted = BTreeSet::new();
    for rule in rules {
        assert!(alerted.insert(rule["alert"].as_str().unwrap()), "{rule}");
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
        assert!(
            rule["annotations"]["summary"].is_string() && rule["annotations"]["action"].is_string() && rule["for"].is_string(),
            "{rule}"
        );
    }
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()).map(|target| target["expr"].as_str().unwrap());
    let mut asked = 0;
    for expression in targets.chain(rules.iter().map(|rule| rule["expr"].as_str().unwrap())) {
        assert!(is_balanced(expression), "{expression}");
        for name in metrics_in(expression) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(known.contains(name) || known.contains(family) || OF_DEVICES.contains(&name), "nobody says {name}: {expression}");
            asked += 1;
        }
    }
    assert!(asked > 30, "only {asked} metrics are asked for");
}

fn read(name: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    std::fs::read_to_string(root.join("hub/observe").join(name)).unwrap()
}

/// The names of ours, and of the process, in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("mobo_") || word.starts_with("process_"))
}

fn is_balanced(expression: &str) -> bool {
    let mut open = Vec::new();
    for letter in expression.chars() {
        match letter {
            '(' | '[' | '{' => open.push(letter),
            ')' if open.pop() != Some('(') => return false,
            ']' if open.pop() != Some('[') => return false,
            '}' if open.pop() != Some('{') => return false,
            _ => {}
        }
    }
    open.is_empty()
}
