//! A device whose room is used up: who gives way, who is told, and what goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::net::TcpStream;
use std::time::Duration;

use mobo_tests::cli::Cli;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster, Place, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::process::{Launch, Node, binary};
use mobo_tests::wait;
use serde_json::{Value, json};

/// Samples of one request.
const SAMPLES: usize = 1_000;

fn append(device: &Node, times: usize) {
    let mut api = device.http();
    let rows: Vec<Value> = (0..SAMPLES).map(|n| json!({ "cpu": n as f64 * 1.37 })).collect();
    for _ in 0..times {
        let answer = api.post("/rest/v1/vitals", &json!(rows)).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// Writes large orders until one is refused; says how many were taken.
fn write_until_refused(device: &Node) -> usize {
    let mut api = device.http();
    let title = "x".repeat(60_000);
    for n in 0..1_000 {
        let answer = api.post("/rest/v1/work_orders", &json!({ "id": format!("w-{n}"), "title": title })).unwrap();
        if answer.status != 201 {
            assert_eq!(answer.status, 507, "{}", answer.text());
            assert!(answer.text().contains("store.bytes_max"), "it says what to do: {}", answer.text());
            return n;
        }
    }
    panic!("a device of 3 MiB takes 60 MB")
}

/// Goal: samples that find no room give way and the hub learns how many; records are refused at the very end, with a sentence that says what to
/// do; reading, syncing and health go on; and once the hub has what was waiting, the device takes writes again, by itself.
// faults: S-7, SR-12, SR-17
#[test]
fn a_full_device_says_so_and_recovers_by_itself() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"], &["vitals", "--kind", "stream", "cpu:float"]]);
    let launch = cluster.joined("pump").set("store.bytes_max", "4MiB").set("store.reserve", "2MiB");
    let device = launch.boot();
    device.wait_collection("vitals");
    cluster.kill_hub();

    append(&device, 40);
    let room = device.status()["room"].clone();
    let lost = room["lost"][0]["samples"].as_u64().unwrap_or_else(|| panic!("nothing gave way: {room}"));
    assert_eq!(room["lost"][0]["stream"], "vitals", "{room}");
    let taken = write_until_refused(&device);
    assert!(taken > 0, "records find room in the reserve");
    let shown = device.http().get("/rest/v1/work_orders?select=id&limit=1000").unwrap();
    assert_eq!((shown.status, shown.json().as_array().unwrap().len()), (200, taken), "reading goes on");
    device.cli().args(["health", "check"]).run().expect_success();

    cluster.start_hub();
    wait::until_every("everything to be at the hub", CONVERGENCE_TIMEOUT, Duration::from_millis(200), || {
        (device.status()["pending"] == 0).then_some(())
    });
    let more = device.http().post("/rest/v1/work_orders", &json!({ "id": "after", "title": "it goes on" })).unwrap();
    assert_eq!(more.status, 201, "{}", more.text());
    let status = device.status();
    assert_eq!(status["rejected"], 0, "that samples were lost is no news to the device: {status}");

    let told = cluster.cli().args(["quarantine", "list", "-o", "json"]).run().expect_success().json();
    let text = told.to_string();
    assert!(text.contains("samples of \\\"vitals\\\"") && text.contains("drop_oldest"), "{told}");
    let mut api = cluster.api();
    let mut rows = 0;
    loop {
        let page = api.get(&format!("/rest/v1/vitals?select=cpu&limit=1000&offset={rows}")).unwrap().expect_status(200).json();
        let found = page.as_array().unwrap().len();
        rows += found;
        if found < 1_000 {
            break;
        }
    }
    let room = device.status()["room"].clone();
    assert_eq!(room["lost"][0]["samples"].as_u64(), Some(lost), "{room}");
    assert_eq!(rows as u64 + lost, 40 * SAMPLES as u64, "each sample is at the hub, or told to be lost");
}

/// Goal: a device that has no file descriptor left makes newcomers wait, and goes on by itself once there are some.
// faults: S-8, N-10
#[test]
fn a_device_without_file_descriptors_waits_for_them() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let folder = cluster.folder("pump");
    Cli::edge(&folder).args(["join", &cluster.invite("pump")]).run().expect_success();
    let address = quiet_address();
    let edge = binary("mobo-edge").display().to_string();
    let launch = Launch::program("prlimit", &folder).role("--nofile=64").role(&edge).set("http.listen", &address);
    let device = launch.boot();
    wait::until("the collection", CONVERGENCE_TIMEOUT, || {
        Client::new(&address).get("/rest/v1/work_orders").is_ok_and(|a| a.status == 200).then_some(())
    });
    // Who connects and says nothing takes a descriptor each.
    let silent: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert!(silent.len() >= 64, "the system takes connections that the device cannot: {}", silent.len());
    drop(silent);
    wait::until("the device to answer again", CONVERGENCE_TIMEOUT, || {
        let answer = Client::new(&address).post("/rest/v1/work_orders", &json!({ "id": "w", "title": "oil" }));
        answer.is_ok_and(|answer| matches!(answer.status, 201 | 409)).then_some(())
    });
    wait::until("the write to be at the hub", CONVERGENCE_TIMEOUT, || {
        cluster.api().get("/rest/v1/work_orders?id=eq.w").is_ok_and(|answer| answer.text().contains("oil")).then_some(())
    });
    drop(device);
}
