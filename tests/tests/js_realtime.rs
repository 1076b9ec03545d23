//! Clients that listen, unmodified from the npm registry: Supabase's realtime, and Pusher's client and server.
//!
//! Each script of `tests/js` says itself what it expects.

#![allow(clippy::unwrap_used, reason = "a test: the panic is the report")]

use std::path::{Path, PathBuf};

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::process::Node;
use mobo_tests::script::Script;

const ORDERS: &[&str] = &["orders", "title:text", "n:int", "open:bool"];
const PARTS: [&str; 4] = ["changes: fine", "broadcasts: fine", "presence: fine", "refusals: fine"];
const TALKS: [&str; 3] = ["servers: fine", "clients: fine", "resuming: fine"];

fn run(script: &str, node: &Node, key: &str, parts: &[&str]) {
    let url = format!("http://{}", node.address("http"));
    let said = Script::new(script).env("MOBO_URL", &url).env("MOBO_KEY", key).run();
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}

fn supabase_at_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[ORDERS]);
    let key = cluster.cli().args(["key", "create", "--role", "service", "--name", "js"]).run().expect_success().text();
    run("realtime.mjs", cluster.hub(), &key, &PARTS);
}

#[test]
fn supabase_js_follows_changes_at_a_hub_on_sqlite() {
    supabase_at_a_hub(Place::Sqlite);
}

#[test]
fn supabase_js_follows_changes_at_a_hub_on_postgres() {
    supabase_at_a_hub(Place::Postgres);
}

/// Goal: who listens to a device hears it without any network; so do the clients of Pusher's protocol.
#[test]
fn clients_listen_to_a_device_without_a_network() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let device = cluster.joined("pi").set("pusher.id", "1").set("pusher.key", "app-key");
    let device = device.env("MOBO_PUSHER__SECRET_FILE", secret(&cluster.folder("secret")).to_str().unwrap()).boot();
    device.wait_collection("orders");
    cluster.stop_hub();
    run("realtime.mjs", &device, "local", &PARTS);
    run("pusher.mjs", &device, "", &TALKS);
}

fn secret(file: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::write(file, "app-secret").unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_owned()
}
