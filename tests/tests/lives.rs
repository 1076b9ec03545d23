//! The lives of a device: wiped, replaced, sent away.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::{Duration, Instant};

use mobo_tests::cli::Cli;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster, Place};
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::json;

fn write(device: &Node, id: &str) {
    let answer = device.http().post("/rest/v1/work_orders", &json!({ "id": id, "title": "oil" })).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn shows(device: &Node, ids: &[&str]) -> bool {
    let rows = device.http().get("/rest/v1/work_orders?select=id&order=id").unwrap().expect_status(200).json();
    let found: Vec<String> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    found == ids
}

/// Goal: what let a device in ends, and its work does not: its own key says who it is, for as long as nobody revokes it.
// faults: X-8
#[test]
fn a_device_outlives_the_token_that_it_joined_with() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let token = cluster.cli().args(["device", "invite", "--name", "pump", "--ttl", "12s"]).run().expect_success().text();
    let expired = Instant::now() + Duration::from_secs(12);
    Cli::edge(cluster.folder("pump")).args(["join", &token]).run().expect_success();
    let device = Launch::edge(cluster.folder("pump")).boot();
    device.wait_collection("work_orders");
    cluster.kill_hub();
    write(&device, "written-offline");
    wait::until("the token to expire", CONVERGENCE_TIMEOUT, || (Instant::now() >= expired).then_some(()));
    cluster.start_hub();
    cluster.converge(&[&device]);
    assert!(shows(&device, &["written-offline"]));
    let again = Cli::edge(cluster.folder("late")).args(["join", &token]).run();
    assert_eq!(again.code, Some(1), "{again:?}");
}

/// Goal: a device that was wiped joins again under the old name and has its data back from the hub; what it wrote in its first life stays; the
/// old key is dead once the operator says so, also in a copy of the old folder.
// faults: I-4, I-5, X-7
#[test]
fn a_wiped_device_comes_back_and_its_old_key_is_dead() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let first = cluster.device("pump");
    first.wait_collection("work_orders");
    write(&first, "a");
    cluster.converge(&[&first]);
    let old = first.status()["device"].as_str().unwrap().to_owned();
    let folder = first.folder().to_owned();
    let launch = first.kill9();
    // The folder of the first life turns up again later.
    std::fs::rename(&folder, cluster.folder("attic")).unwrap();

    Cli::edge(&folder).args(["join", &cluster.invite("pump")]).run().expect_success();
    let second = launch.boot();
    wait::until("the data of the first life", CONVERGENCE_TIMEOUT, || {
        (second.http().get("/rest/v1/work_orders").is_ok_and(|a| a.status == 200) && shows(&second, &["a"])).then_some(())
    });
    assert_ne!(second.status()["device"], json!(old), "another life has a key of its own");
    write(&second, "b");
    cluster.converge(&[&second]);

    cluster.cli().args(["device", "revoke", &old]).run().expect_success();
    let ghost = Launch::edge(cluster.folder("attic")).boot();
    write(&ghost, "c");
    let refused = wait::until("the hub to refuse the old key", CONVERGENCE_TIMEOUT, || {
        let link = ghost.status()["link"].clone();
        (link["state"] == "refused").then_some(link)
    });
    assert!(refused["last_error"].as_str().unwrap().contains("revoked"), "{refused}");
    assert!(shows(&ghost, &["a", "c"]), "it works on by itself");
    write(&second, "d");
    cluster.converge(&[&second]);
    let rows = cluster.api().get("/rest/v1/work_orders?select=id&order=id").unwrap().expect_status(200).json();
    assert_eq!(rows, json!([{ "id": "a" }, { "id": "b" }, { "id": "d" }]), "both lives, and nothing of the ghost");
}

/// Goal: a device whose database is gone, and whose key is not, says that it has not joined; it joins again under its own name and has everything
/// back that the hub had.
// faults: S-10, I-4
#[test]
fn a_device_without_its_database_says_so_and_joins_again() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let device = cluster.device("pump");
    device.wait_collection("work_orders");
    write(&device, "a");
    cluster.converge(&[&device]);
    let id = device.status()["device"].clone();
    let folder = device.folder().to_owned();
    let launch = device.kill9();
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        if file.file_name().to_string_lossy().contains(".db") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    let bare = launch.clone().boot();
    assert_eq!(bare.status()["link"]["state"], "not_joined");
    bare.cli().args(["join", &cluster.invite("pump")]).run().expect_success();
    wait::until("what the hub had", CONVERGENCE_TIMEOUT, || {
        (bare.http().get("/rest/v1/work_orders").is_ok_and(|a| a.status == 200) && shows(&bare, &["a"])).then_some(())
    });
    assert_eq!(bare.status()["device"], id, "the key says who it is");
    write(&bare, "b");
    cluster.converge(&[&bare]);
}

/// Goal: a hub that was put back to a day before it met a device takes it back on the certificate that it gave it, and on nothing else (rule R23).
// faults: B-1
#[test]
fn a_hub_that_has_forgotten_a_device_takes_it_back_on_its_certificate() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let device = cluster.device("pump");
    device.wait_collection("work_orders");
    write(&device, "a");
    cluster.converge(&[&device]);
    cluster.stop_hub();
    let hub = rusqlite::Connection::open(cluster.folder("hub").join("hub.db")).unwrap();
    hub.execute_batch("DELETE FROM mobo_grant; DELETE FROM mobo_device").unwrap();
    drop(hub);
    write(&device, "b");
    cluster.start_hub();
    cluster.converge(&[&device]);
    assert!(shows(&device, &["a", "b"]));
    let known = cluster.cli().args(["device", "list", "-o", "json"]).run().expect_success().json().to_string();
    assert!(known.contains("\"pump\""), "{known}");
}
