//! A stolen SD card: what a thief has, and what he has not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::process::Command;
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::process::Launch;
use mobo_tests::wait;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// Goal: once its device is revoked, a stolen card opens nothing at the hub: it learns nothing new, what it writes arrives nowhere, and no
/// other link, key or invitation can be made of what is on it. What was on the card when it was stolen stays readable: whoever needs more
/// encrypts the card.
/// Method: the card is a copy of the whole data folder; it is booted after the owner has revoked the device.
// faults: X-18
#[test]
fn a_stolen_card_opens_nothing_once_its_device_is_revoked() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["pumps", "site:text"]]);
    let mut device = cluster.device("one");
    device.wait_collection("pumps");
    device.cli().args(["put", "pumps", "1", r#"{"site":"before"}"#]).run().expect_success();
    cluster.converge(&[&device]);
    assert!(device.terminate().success());
    let stolen = cluster.folder("stolen");
    assert!(Command::new("cp").arg("-a").arg(cluster.folder("one")).arg(&stolen).status().unwrap().success());
    cluster.cli().args(["device", "revoke", "one"]).run().expect_success();
    let mut api = cluster.api();
    api.post("/rest/v1/pumps", &json!({ "id": "2", "site": "after" })).unwrap().expect_status(201);

    for transport in ["quic", "ws"] {
        let thief = Launch::edge(&stolen).set("http.listen", &quiet_address()).set("link.transport", transport);
        let thief =
            if transport == "ws" { thief.set("hub.url", &format!("ws://{}/sync/v1", cluster.hub().address("http"))) } else { thief };
        let mut thief = thief.boot();
        let refused = || (thief.status()["link"]["state"] == "refused").then_some(());
        wait::until("the hub to refuse the stolen card", PATIENCE, refused);
        thief.cli().args(["put", "pumps", transport, r#"{"site":"forged"}"#]).run().expect_success();
        thief.cli().args(["sync", "--timeout", "2"]).run().expect_code(1);
        let there = thief.cli().args(["list", "pumps", "-o", "json"]).run().expect_success().json();
        assert!(there.as_array().unwrap().iter().all(|row| row["site"] != "after"), "{transport}: {there}");
        assert!(thief.terminate().success());
    }
    let rows = api.get("/rest/v1/pumps?select=id,site&order=id").unwrap().expect_status(200).json();
    assert_eq!(rows, json!([{"id": "1", "site": "before"}, {"id": "2", "site": "after"}]));
    cluster.healthy();
}
