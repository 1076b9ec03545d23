//! Secrets stay where they were made: files have one reader, databases hold hashes, and no output holds any of them.
//!
//! faults: X-17, SR-1, SR-2, SR-8, SR-28

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mobo_core::trust::KeyPair;
use mobo_hub::identity::offer_key;
use mobo_protocol::JoinToken;
use mobo_tests::cli::Cli;
use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node};
use serde_json::json;

const PASSWORD: &str = "canary-password";
/// What people write is no business of a log (SR-28).
const CONTENT: &str = "canary-content";
const EVERYTHING: &str = "debug,mobo_core=trace,mobo_runtime=trace,mobo_adapters=trace,mobo_gate=trace,mobo_hub=trace,mobo_edge=trace";

/// A secret in each form in which it might leak.
struct Canary {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    fn text(name: &'static str, text: &str) -> Self {
        Self { name, forms: vec![text.as_bytes().to_vec()] }
    }

    fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        let lower: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name, forms: vec![bytes.to_vec(), lower.to_uppercase().into_bytes(), lower.into_bytes()] }
    }

    #[track_caller]
    fn is_not_in(&self, place: &str, text: &[u8]) {
        let found = self.forms.iter().any(|form| text.windows(form.len()).any(|window| window == form));
        assert!(!found, "{} is in {place}", self.name);
    }
}

/// Goal: enrolment leaves nothing secret of the hub's on the device, keys and passwords are in no database, log or answer.
/// Method: both nodes run at their most talkative; then every file, every table and every output is searched for every secret, raw and in hex.
#[test]
fn secrets_stay_where_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::fresh();
    let url = format!("{}&password={PASSWORD}", database.url());
    let hub = Launch::hub(folder.path().join("hub")).set("store.url", &url).set("log.level", EVERYTHING).boot();
    hub.cli().args(["collection", "create", "work_orders", "title:text"]).run().expect_success();
    let token = hub.cli().args(["device", "invite", "--name", "one"]).run().expect_success().text();
    let key = hub.cli().args(["key", "create", "--role", "service", "--name", "app"]).run().expect_success().text();
    let edge = folder.path().join("one");
    let joined = Cli::edge(&edge).args(["join", &token]).run().expect_success();
    let edge = Launch::edge(edge).set("log.level", EVERYTHING).set("http.listen", &quiet_address()).boot();
    work(&hub, &edge, &key);

    let (hub_secret, edge_secret) = (secret_in(hub.folder(), "hub.key"), secret_in(edge.folder(), "device.key"));
    let invitation = JoinToken::parse(&token).unwrap().secret;
    let secrets = [
        Canary::bytes("the hub's key", &hub_secret),
        Canary::bytes("the offer key", &offer_key(&KeyPair::from_secret(&hub_secret)).0),
        Canary::bytes("the device's key", &edge_secret),
        Canary::bytes("the invitation's secret", &invitation),
        Canary::text("the join token", &token),
        Canary::text("the API key", &key),
        Canary::text("the password", PASSWORD),
    ];
    let dump = dump(&database);
    assert!(String::from_utf8_lossy(&dump).contains(CONTENT), "the dump holds what was written");
    let said = format!("{}{}{}{}", outputs(&hub, &url), outputs(&edge, &url), joined.stdout, joined.stderr).into_bytes();
    let mut places = vec![("the hub's database".to_owned(), dump), ("an output".to_owned(), said)];
    places.extend(files(hub.folder(), "hub.key"));
    places.extend(files(edge.folder(), "device.key"));
    for (place, text) in &places {
        secrets.iter().for_each(|secret| secret.is_not_in(place, text));
    }
    Canary::text("what somebody wrote", CONTENT).is_not_in("an output", &places[1].1);
}

/// Everything happens once: writes on both sides, a sync, a mistake, a wrong key.
fn work(hub: &Node, edge: &Node, key: &str) {
    edge.cli().args(["sync"]).run().expect_success();
    edge.cli().args(["put", "work_orders", "wo-1", &json!({"title": CONTENT}).to_string()]).run().expect_success();
    let mut api = hub.http().with_header("apikey", key);
    api.post("/rest/v1/work_orders", &json!({"id": "wo-2", "title": CONTENT})).unwrap().expect_status(201);
    api.get(&format!("/rest/v1/work_orders?title=eq.{CONTENT}")).unwrap().expect_status(200);
    api.post("/rest/v1/work_orders", &json!({"id": "wo-3", "titel": CONTENT})).unwrap().expect_status(400);
    hub.http().send("GET", "/rest/v1/work_orders", &[("apikey", &key[..key.len() - 1])], b"").unwrap().expect_status(401);
    edge.cli().args(["sync"]).run().expect_success();
}

/// The secret in a key file, which nobody else may read.
fn secret_in(folder: &Path, name: &str) -> [u8; 32] {
    assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(name), mode("control.sock")), (0o600, 0o600));
    let hex = fs::read_to_string(folder.join(name)).unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    std::array::from_fn(byte)
}

/// Everything in every table, with bytes in hex.
fn dump(database: &Database) -> Vec<u8> {
    let tables = database.rows("select schemaname, tablename from pg_tables where schemaname in ('mobo', 'public')");
    assert!(tables.len() > 15, "{tables:?}");
    let rows = tables.iter().flat_map(|table| database.rows(&format!("select * from \"{}\".\"{}\"", table[0], table[1])));
    rows.flatten().collect::<Vec<_>>().join("\n").into_bytes()
}

/// The files of a folder, but for the one that holds its secret.
fn files(folder: &Path, secret: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let plain = entries.filter(|entry| entry.file_type().unwrap().is_file() && entry.file_name() != secret);
    plain.map(|entry| (entry.path().display().to_string(), fs::read(entry.path()).unwrap())).collect()
}

/// Everything that a node says: its log, and the answers of its verbs but those that print a secret once.
fn outputs(node: &Node, url: &str) -> String {
    let mut said = node.stderr();
    assert!(said.contains("DEBUG"), "it is talkative: {said}");
    let verbs: [&[&str]; 9] = [
        &["status"],
        &["health", "check"],
        &["component", "list"],
        &["config", "show", "--origin"],
        &["config", "check"],
        &["quarantine", "list"],
        &["device", "list"],
        &["key", "list"],
        &["conflict", "list"],
    ];
    for verb in verbs {
        for output in ["json", "table"] {
            let mut cli = node.cli().args(verb).args(["-o", output]);
            if verb[0] == "config" && node.folder().ends_with("hub") {
                cli = cli.env("MOBO_STORE__URL", url);
            }
            let outcome = cli.run();
            said.push_str(&outcome.stdout);
            said.push_str(&outcome.stderr);
        }
    }
    said
}

/// Goal: a hub has no key of its own that everybody knows, and no door is open to strangers.
/// Method: what a fresh hub tells somebody without a key, and on which addresses it listens unless it is told otherwise.
// faults: SR-22
#[test]
fn a_fresh_hub_is_closed() {
    let cluster = Cluster::boot(Place::Sqlite);
    let keys = cluster.cli().args(["key", "list", "-o", "json"]).run().expect_success().json();
    assert_eq!(keys, json!([]), "no key is there before somebody makes one");
    cluster.create(&[&["work_orders", "title:text"]]);
    let mut stranger = cluster.hub().http();
    stranger.get("/rest/v1/work_orders").unwrap().expect_status(401);
    let about = stranger.get("/openapi.json").unwrap().text();
    assert!(!about.contains("work_orders"), "a stranger is told of collections: {about}");
    for (setting, node) in
        [("http.listen", "mobo-hub"), ("quic.listen", "mobo-hub"), ("mqtt.listen", "mobo-hub"), ("http.listen", "mobo-edge")]
    {
        let shown = Cli::new(node).data_dir(cluster.folder("none")).args(["config", "show", "-o", "json"]).run().expect_success().json();
        let setting = shown.as_array().unwrap().iter().find(|shown| shown["key"] == setting).unwrap();
        assert!(setting["value"].as_str().unwrap().starts_with("127.0.0.1:"), "{node}: {setting}");
    }
}
