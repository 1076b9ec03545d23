//! Time that goes back: a hub that is replaced by an older copy of itself, devices whose folder is copied or brought back from yesterday.
//!
//! Real processes; the copies are made as an operator makes them, of files and of databases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane};
use mobo_core::message::Hello;
use mobo_core::time::Eff;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster, Place, digest, quiet_address};
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use mobo_tests::wire::{WireDevice, dial, random};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

const ORDERS: &[&str] = &["orders", "title:text", "hours:counter"];
const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "body:text", "likes:counter"];
const VITALS: &[&str] = &["vitals", "--kind", "stream", "cpu:float"];
const LATER: &[&str] = &["later", "name:text"];

/// Goal: a hub whose file is replaced by an older copy gets back all that its devices have, exactly once, and nothing rises from the dead.
/// Method: see `go_back`; the copy is one of the stopped hub's file.
// faults: H-5
#[test]
fn a_hub_goes_back_in_time_on_sqlite() {
    go_back(Place::Sqlite);
}

/// The same on Postgres, whose database is replaced by an older one.
// faults: H-5
#[test]
fn a_hub_goes_back_in_time_on_postgres() {
    go_back(Place::Postgres);
}

/// Goal: a hub whose file was overwritten with an older one says so by itself, at its boot, before any device has told it.
/// Method: the file is written over in its place, so that it is the same file on the same machine; what the folder remembers beside it is newer.
// faults: H-5
#[test]
fn a_hub_file_that_is_put_back_in_its_place_is_recognised_at_boot() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    cluster.stop_hub();
    let file = cluster.folder("hub").join("hub.db");
    let older = std::fs::read(&file).unwrap();
    cluster.start_hub();
    let timeline = cluster.hub().status()["timeline"].clone();
    let order = json!({ "id": "later", "title": "after the copy" });
    cluster.api().post("/rest/v1/orders", &order).unwrap().expect_status(201);
    // The note follows the write by some seconds.
    let seen = cluster.folder("hub").join("store.seen");
    wait::until("the write is noted", SOON, || {
        let note: Value = serde_json::from_slice(&std::fs::read(&seen).ok()?).ok()?;
        (note["positions"] == 1).then_some(())
    });
    cluster.stop_hub();
    std::fs::write(&file, older).unwrap();
    cluster.start_hub();
    let status = cluster.hub().status();
    assert!(status["timeline"] != timeline && status["recovering"] == true, "{status}");
    cluster.stop_hub();
    let timeline = status["timeline"].clone();
    cluster.start_hub();
    assert_eq!(cluster.hub().status()["timeline"], timeline, "once");
}

/// What broke: a hub that had gone back twice was told when earlier entries were made by those entries alone. A device that keeps none of them
/// said nothing, and what it wrote then was made before what it had written earlier, and lost to that when it came back.
// faults: H-5
#[test]
fn what_a_device_writes_to_a_restored_hub_is_later_than_all_that_it_was_told_of() {
    for (told_us, is_believed) in [(300_000_000, true), (365 * 86_400_000_000, false)] {
        let mut cluster = Cluster::boot(Place::Sqlite);
        cluster.create(&[ORDERS]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut device = runtime.block_on(WireDevice::enrol(&cluster.invite("pump"))).unwrap();
        cluster.stop_hub();
        let copy = Copy::of(&cluster);
        cluster.start_hub();
        let write = async |device: &mut WireDevice, told: Option<Eff>, at: u64| {
            let link = dial(&device.token).await;
            let hello = device.sign(Hello { told, ..device.hello() }, &link.binding());
            let session = device.greet(link, hello).await.unwrap();
            device.write("orders", Intent::Put, (&format!("o{at}"), json!({ "title": "x" })));
            let pushed = session.push(device.push(Lane::State, at)).await.unwrap();
            session.close().await;
            *pushed.ack.effs.last().unwrap()
        };
        let made = runtime.block_on(write(&mut device, None, 1));
        cluster.stop_hub();
        copy.put_back(&cluster);
        cluster.start_hub();
        assert_eq!(cluster.hub().status()["recovering"], true);
        // It goes on in a new log, of which nothing was ever told; the log before it is kept nowhere.
        device.incarnation = Incarnation::from_entropy(random());
        device.sealed.clear();
        let told = Eff(made.0 + told_us);
        assert_eq!(runtime.block_on(write(&mut device, Some(told), 1)) > told, is_believed);
    }
}

/// Two devices and the API write, a copy of the hub is made, more is written, one device is destroyed, the hub alone is written to, and the
/// copy takes its place. The device that is left gives everything back: its own entries exactly, the other's by what it holds.
fn go_back(place: Place) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[ORDERS, NOTES, VITALS]);
    let (mut one, two) = (cluster.device("one"), cluster.device("two"));
    first_writes(&one, &two, &cluster);
    cluster.stop_hub();
    let copy = Copy::of(&cluster);
    cluster.start_hub();

    cluster.create(&[LATER]);
    more_writes(&one, &two);
    cluster.converge(&[&one, &two]);
    let (want, timeline) = (everything(&cluster), cluster.hub().status()["timeline"].clone());
    two.kill9();
    one.terminate();
    let lost = json!({ "id": "hub-only", "title": "nobody has it" });
    cluster.api().post("/rest/v1/orders", &lost).unwrap().expect_status(201);
    cluster.stop_hub();
    copy.put_back(&cluster);
    cluster.start_hub();

    let one = cluster_device(&cluster, "one");
    wait::until("the device has given back what it holds", CONVERGENCE_TIMEOUT, || {
        let status = cluster.hub().status();
        (status["recovering"] == true && status["devices"]["unseen"] == 1 && status["timeline"] != timeline).then_some(())
    });
    cluster.converge(&[&one]);
    assert_eq!(everything(&cluster), want, "exactly what there was, without what only the hub had");
    let status = cluster.hub().status();
    let recovery = &status["recovery"];
    assert_eq!(recovery["unseen"][0]["name"], "two", "{status}");
    assert_eq!(recovery["refused"], 0, "{status}");
    assert!(recovery["given_back"].as_u64().unwrap() > 0, "{status}");
    assert!(recovery["promise"].as_str().unwrap().contains("not recovered"), "{status}");
    let header = cluster.api().get("/rest/v1/orders").unwrap();
    assert_eq!(header.header("mobo-recovering"), Some("true"));
    cluster.cli().args(["collection", "create", "too_early", "x:text"]).run().expect_code(2);

    let two = cluster_device(&cluster, "two");
    wait::until("recovery has ended", CONVERGENCE_TIMEOUT, || (cluster.hub().status()["recovering"] == false).then_some(()));
    cluster.converge(&[&one, &two]);
    assert_eq!(everything(&cluster), want, "given back twice is given back once");
    assert_eq!(cluster.api().get("/rest/v1/orders").unwrap().header("mobo-recovering"), None);
    goes_on(&cluster, &one, &two);
    cluster.healthy();
    for device in [&one, &two] {
        device.cli().args(["health", "check"]).run().expect_success();
    }
}

fn cluster_device(cluster: &Cluster, name: &str) -> Node {
    Launch::edge(cluster.folder(name)).set("http.listen", &quiet_address()).boot()
}

fn first_writes(one: &Node, two: &Node, cluster: &Cluster) {
    for device in [one, two] {
        wait::until("the collections on the device", SOON, || {
            (device.http().get("/rest/v1/orders").ok()?.status == 200 && device.http().get("/rest/v1/notes").ok()?.status == 200)
                .then_some(())
        });
    }
    put(one, "orders", "shared", r#"{"title": "first", "hours": 1}"#);
    put(one, "orders", "doomed", r#"{"title": "goes", "hours": 5}"#);
    put(two, "orders", "of-two", r#"{"title": "of two", "hours": 2}"#);
    put(one, "notes", "n-1", r#"{"title": "pump", "body": "It is loud.", "likes": 1}"#);
    run(one, &["append", "vitals", r#"[{"cpu": 0.5}, {"cpu": 1.5}]"#]);
    cluster.converge(&[one, two]);
}

/// What only the fleet will remember.
fn more_writes(one: &Node, two: &Node) {
    run(one, &["patch", "orders", "shared", r#"{"hours": {"$inc": 10}}"#]);
    run(two, &["patch", "orders", "shared", r#"{"title": "second", "hours": {"$inc": 100}}"#]);
    run(one, &["delete", "orders", "doomed"]);
    put(two, "orders", "new-of-two", r#"{"title": "new", "hours": 7}"#);
    run(two, &["patch", "notes", "n-1", r#"{"body": "It is loud. Call Ada.", "likes": {"$inc": 4}}"#]);
    run(one, &["append", "vitals", r#"[{"cpu": 2.5}]"#]);
    wait::until("the later collection on the device", SOON, || (one.http().get("/rest/v1/later").ok()?.status == 200).then_some(()));
    put(one, "later", "l-1", r#"{"name": "made after the copy"}"#);
}

fn goes_on(cluster: &Cluster, one: &Node, two: &Node) {
    run(one, &["patch", "orders", "shared", r#"{"hours": {"$inc": 1000}}"#]);
    run(two, &["patch", "orders", "shared", r#"{"hours": {"$inc": 10000}}"#]);
    cluster.converge(&[one, two]);
    assert_eq!(record(cluster, "orders", "shared")["hours"], 11_111);
}

fn run(device: &Node, args: &[&str]) {
    device.cli().args(args.iter().copied()).run().expect_success();
}

fn put(device: &Node, collection: &str, id: &str, body: &str) {
    run(device, &["put", collection, id, body]);
}

fn record(cluster: &Cluster, collection: &str, id: &str) -> Value {
    cluster.api().get(&format!("/rest/v1/{collection}?id=eq.{id}")).unwrap().expect_status(200).json()[0].clone()
}

/// Every record of every collection, and the values of all samples.
fn everything(cluster: &Cluster) -> Value {
    let mut api = cluster.api();
    let mut rows = |path: &str| api.get(path).unwrap().expect_status(200).json();
    let (orders, notes, later) = (rows("/rest/v1/orders?order=id"), rows("/rest/v1/notes?order=id"), rows("/rest/v1/later?order=id"));
    let samples = rows("/rest/v1/vitals?select=cpu&order=cpu");
    assert_eq!(orders[1]["id"], "of-two", "{orders}");
    assert_eq!(orders[2]["hours"], 111, "{orders}");
    json!({ "orders": orders, "notes": notes, "later": later, "samples": samples })
}

/// A copy of a stopped hub's store.
enum Copy {
    Files(PathBuf),
    Database { name: String, at: Database },
}

impl Copy {
    fn of(cluster: &Cluster) -> Self {
        let Some(database) = &cluster.database else {
            let copy = cluster.folder("hub-copy");
            copy_folder(&cluster.folder("hub"), &copy);
            return Self::Files(copy);
        };
        let (at, from) = (Database::fresh(), name_of(database));
        let name = format!("{from}_copy");
        at.rows(&format!("create database {name} template {from}"));
        Self::Database { name, at }
    }

    fn put_back(&self, cluster: &Cluster) {
        match (self, &cluster.database) {
            (Self::Files(copy), _) => {
                let hub = cluster.folder("hub");
                for file in ["hub.db", "hub.db-wal", "hub.db-shm"] {
                    let _ = std::fs::remove_file(hub.join(file));
                    if copy.join(file).exists() {
                        std::fs::copy(copy.join(file), hub.join(file)).unwrap();
                    }
                }
            }
            (Self::Database { name, at }, Some(database)) => {
                let of = name_of(database);
                at.rows(&format!("drop database {of} with (force)"));
                at.rows(&format!("create database {of} template {name}"));
                at.rows(&format!("drop database {name}"));
            }
            (Self::Database { .. }, None) => unreachable!("the hub was on Postgres when it was copied"),
        }
    }
}

fn name_of(database: &Database) -> String {
    database.value("select current_database()")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Goal: when a device's folder is copied and both run, both people's writes reach the hub, the operator hears of it once, and both work on.
/// Method: a device is stopped, its folder copied, both write while the hub is away, and sync in turn; then both run at the same time.
// faults: I-1, I-2
#[test]
fn a_copied_device_and_its_original_both_keep_their_writes() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let mut original = cluster.device("one");
    wait::until("the collection on the device", SOON, || (original.http().get("/rest/v1/orders").ok()?.status == 200).then_some(()));
    put(&original, "orders", "before", r#"{"title": "before", "hours": 1}"#);
    cluster.converge(&[&original]);
    original.terminate();
    copy_folder(&cluster.folder("one"), &cluster.folder("copy"));
    cluster.stop_hub();

    let mut original = cluster_device(&cluster, "one");
    let mut copy = cluster_device(&cluster, "copy");
    for (device, name) in [(&original, "of-original"), (&copy, "of-copy")] {
        put(device, "orders", name, r#"{"title": "mine", "hours": 1}"#);
        run(device, &["patch", "orders", "before", r#"{"hours": {"$inc": 10}}"#]);
    }
    original.terminate();
    copy.terminate();
    cluster.start_hub();
    for folder in ["one", "copy", "one", "copy"] {
        let mut device = cluster_device(&cluster, folder);
        device.cli().args(["sync", "--timeout", "60"]).run().expect_success();
        device.terminate();
    }
    let (original, copy) = (cluster_device(&cluster, "one"), cluster_device(&cluster, "copy"));
    cluster.converge(&[&original, &copy]);
    for id in ["before", "of-original", "of-copy"] {
        assert_eq!(record(&cluster, "orders", id)["id"], id);
    }
    assert_eq!(record(&cluster, "orders", "before")["hours"], 21);
    let twice = cluster.hub().status()["devices"]["twice"].clone();
    assert_eq!(twice.as_array().unwrap().len(), 1, "one alarm: {twice}");
    assert_eq!(twice[0]["name"], "one");

    // Both are connected, and neither ends the other's session.
    put(&original, "orders", "live-of-original", r#"{"title": "live"}"#);
    put(&copy, "orders", "live-of-copy", r#"{"title": "live"}"#);
    cluster.converge(&[&original, &copy]);
    let stays = |device: &Node| device.status()["link"]["state"] == "live" && digest(&device.status()) == digest(&cluster.hub().status());
    assert!(stays(&original) && stays(&copy));
    assert_eq!(cluster.hub().status()["devices"]["twice"].as_array().unwrap().len(), 1, "still one alarm");
    cluster.healthy();
}

/// Goal: yesterday's copy of a device's folder, put in its place, loses nothing and repeats nothing.
/// Method: a device writes, is copied, writes more and syncs; then the copy takes its place and writes again.
// faults: I-3
#[test]
fn a_device_goes_back_to_yesterdays_folder() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let mut device = cluster.device("one");
    wait::until("the collection on the device", SOON, || (device.http().get("/rest/v1/orders").ok()?.status == 200).then_some(()));
    put(&device, "orders", "tally", r#"{"title": "a", "hours": 1}"#);
    cluster.converge(&[&device]);
    device.terminate();
    copy_folder(&cluster.folder("one"), &cluster.folder("yesterday"));

    let mut device = cluster_device(&cluster, "one");
    for _ in 0..3 {
        run(&device, &["patch", "orders", "tally", r#"{"hours": {"$inc": 10}}"#]);
    }
    put(&device, "orders", "today", r#"{"title": "made today"}"#);
    cluster.converge(&[&device]);
    device.terminate();
    std::fs::remove_dir_all(cluster.folder("one")).unwrap();
    copy_folder(&cluster.folder("yesterday"), &cluster.folder("one"));

    let device = cluster_device(&cluster, "one");
    run(&device, &["patch", "orders", "tally", r#"{"hours": {"$inc": 100}}"#]);
    cluster.converge(&[&device]);
    assert_eq!(record(&cluster, "orders", "tally")["hours"], 131);
    let here = device.http().get("/rest/v1/orders?order=id&select=id").unwrap().json();
    assert_eq!(here, json!([{ "id": "tally" }, { "id": "today" }]), "what was lost here came back from the hub");
    cluster.healthy();
    device.cli().args(["health", "check"]).run().expect_success();
}
