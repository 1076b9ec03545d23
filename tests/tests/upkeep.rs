//! What keeps backups in order: old ones go, held ones stay, and somebody tries to restore them; in a folder and in a bucket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use mobo_core::trust::KeyPair;
use mobo_hub::backup::{BackupFailure, Drills};
use mobo_runtime::key_file;
use mobo_tests::cli::{Cli, Outcome};
use mobo_tests::cluster::{Cluster, quiet_address};
use mobo_tests::process::Launch;
use mobo_tests::s3::S3;
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const ORDERS: &[&str] = &["collection", "create", "orders", "title:text", "hours:counter"];

fn run(hub: &dyn Fn() -> Cli, words: &[&str]) -> Outcome {
    hub().args(words.iter().copied()).args(["-o", "json"]).run()
}

/// The numbers of four snapshots, with something new in each.
#[track_caller]
fn four_snapshots(hub: &dyn Fn() -> Cli, write: &mut dyn FnMut(u32)) -> Vec<u64> {
    let shipped = |number: u32, write: &mut dyn FnMut(u32)| {
        write(number);
        let made = run(hub, &["backup", "create", "--snapshot"]).expect_success().json();
        assert_eq!(made["snapshot"], true, "{made}");
        made["anchor"].as_str().unwrap().split(':').next().unwrap().parse().unwrap()
    };
    (0..4).map(|number| shipped(number, write)).collect()
}

fn stays(pruned: &Value) -> Vec<u64> {
    let points = pruned["points"].as_array().unwrap().iter();
    points.filter(|point| point["stays"] == true).map(|point| point["number"].as_u64().unwrap()).collect()
}

fn whole(hub: &dyn Fn() -> Cli, vault: &Path) {
    let verdict = run(hub, &["backup", "verify", vault.to_str().unwrap()]).expect_success().json();
    assert_eq!(verdict["whole"], true, "{verdict}");
}

fn objects(vault: &Path) -> usize {
    ["manifests", "segments", "snapshots"].iter().map(|folder| fs::read_dir(vault.join(folder)).map_or(0, Iterator::count)).sum()
}

/// Goal: pruning keeps what the policy and a hold say, and nothing that stays is harmed: it verifies, and restores. What was dropped is gone, and
/// is said to be. Pruning twice does nothing the second time.
// faults: B-8, B-9
#[test]
fn old_snapshots_go_and_held_ones_come_back() {
    let elsewhere = tempfile::tempdir().unwrap();
    let vault = elsewhere.path().join("vault");
    let settings = [
        ("backup.url", vault.to_str().unwrap()),
        ("backup.retention", "log=1 min=1"),
        ("backup.schedule", "never"),
        ("backup.drill", "never"),
    ];
    let cluster = Cluster::boot_with("sqlite", None, &settings);
    let hub = || cluster.cli();
    run(&hub, ORDERS).expect_success();
    let mut api = cluster.api();
    let mut write = |number: u32| {
        api.post("/rest/v1/orders", &json!({ "id": format!("o-{number}"), "title": "x" })).unwrap().expect_status(201);
    };
    let numbers = four_snapshots(&hub, &mut write);
    let held = numbers[1];
    let bad = run(&hub, &["backup", "hold", "999999"]);
    assert!(bad.code != Some(0) && bad.stderr.contains("is no snapshot"), "{}", bad.stderr);
    assert_eq!(run(&hub, &["backup", "hold", &held.to_string()]).expect_success().json()["held"], json!([held]));

    let before = objects(&vault);
    let dry = run(&hub, &["backup", "prune", "--dry-run"]).expect_success().json();
    assert_eq!((stays(&dry), dry["swept"].clone()), (vec![numbers[3], held], Value::Null), "{dry}");
    assert!(objects(&vault) >= before, "a dry run removes nothing");
    let pruned = run(&hub, &["backup", "prune"]).expect_success().json();
    assert_eq!(stays(&pruned), [numbers[3], held]);
    assert!(pruned["swept"]["removed"].as_u64().unwrap() > 4, "{pruned}");
    assert!(objects(&vault) < before);
    let again = run(&hub, &["backup", "prune"]).expect_success().json();
    assert_eq!((&again["swept"]["removed"], stays(&again)), (&json!(0), vec![numbers[3], held]), "{again}");
    whole(&hub, &vault);
    let listed = run(&hub, &["backup", "list", vault.to_str().unwrap()]).expect_success().json();
    // What was shipped a moment ago may be newer than the look.
    assert!(listed.as_array().unwrap().iter().any(|row| row["verified"].is_string()), "{listed}");

    // What stays comes back, the newest and the held one; what went does not.
    write(4);
    run(&hub, &["backup", "create"]).expect_success();
    let key = cluster.folder("hub").join("backup.key");
    let restore = |name: &str, more: &[&str]| {
        let target = elsewhere.path().join(name);
        let words = ["restore", vault.to_str().unwrap(), "--key-file", key.to_str().unwrap(), "-o", "json"];
        (Cli::hub(&target).args(words).args(more.iter().copied()).run(), target)
    };
    let orders = |folder: &Path| {
        let mut booted = Launch::hub(folder).set("http.listen", &quiet_address()).set("quic.listen", &quiet_address());
        booted = booted.set("mqtt.listen", &quiet_address());
        let node = booted.boot();
        let secret = node.cli().args(["key", "create", "--name", "look"]).run().expect_success().text();
        node.http().with_header("apikey", &secret).get("/rest/v1/orders").unwrap().json().as_array().unwrap().len()
    };
    let (newest, folder) = restore("newest", &[]);
    newest.expect_success();
    assert_eq!(orders(&folder), 5);
    let (old, folder) = restore("held", &["--at", &held.to_string()]);
    old.expect_success();
    assert_eq!(orders(&folder), 2);
    let (gone, _) = restore("gone", &["--at", &numbers[0].to_string()]);
    assert!(gone.expect_code(1).stderr.contains("no backup that old"));

    // A kept snapshot that vanishes is missed.
    fs::remove_file(vault.join(format!("manifests/{held:016x}"))).unwrap();
    let verdict = run(&hub, &["backup", "verify", vault.to_str().unwrap()]).expect_code(1).json();
    assert!(verdict["damages"].to_string().contains("is kept"), "{verdict}");
}

/// Goal: a drill proves that a backup comes back, in a report that the hub signs; a damaged one is named; and health tells when there was none
/// for too long, until there is. Method: an old report of a failed drill makes one due at boot.
// faults: B-5, B-10
#[test]
fn a_drill_is_made_when_it_is_due_and_tells_the_truth() {
    let elsewhere = tempfile::tempdir().unwrap();
    let vault = elsewhere.path().join("vault");
    let settings =
        [("backup.url", vault.to_str().unwrap()), ("backup.drill", "@daily"), ("backup.jitter", "0s"), ("backup.drill_age", "2d")];
    let mut cluster = Cluster::boot_with("sqlite", None, &settings);
    cluster.cli().args(ORDERS.iter().copied()).run().expect_success();
    cluster.cli().args(["backup", "create"]).run().expect_success();
    let drilled = cluster.cli().args(["backup", "drill", "-o", "json"]).run().expect_success().json();
    assert_eq!((&drilled["ok"], &drilled["what"]), (&json!(true), &json!("mobo drill 1")), "{drilled}");
    assert!(!cluster.folder("hub").join("drill").exists(), "scratch space is cleared");
    assert!(cluster.hub().status()["backup"]["drilled"].is_string());
    cluster.stop_hub();

    // Three days ago somebody tried and failed: one is due, and is made by itself.
    let folder = cluster.folder("hub");
    let keys: KeyPair = key_file::load(&folder.join("hub.key")).unwrap().unwrap();
    let drills = Drills::of(&folder, keys.public());
    let good = drills.last_good().unwrap();
    fs::remove_dir_all(folder.join("drills")).unwrap();
    let long_ago = good.at_us - 3 * 86_400_000_000;
    drills.keep(&keys, (long_ago, long_ago), "folder:///elsewhere", &Err(BackupFailure::Refused("a test".to_owned()))).unwrap();
    assert_eq!(drills.last_good(), None);
    cluster.start_hub();
    let now = wait::until("a drill by schedule", SOON, || drills.last_good());
    assert!(now.at_us > long_ago);

    // Damage is found by trying.
    cluster.cli().args(["backup", "create", "--snapshot"]).run().expect_success();
    for part in fs::read_dir(vault.join("snapshots")).unwrap() {
        let path = part.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let failed = cluster.cli().args(["backup", "drill", "-o", "json"]).run().expect_code(1).json();
    assert_eq!(failed["ok"], false);
    assert!(failed["error"].as_str().unwrap().contains("snapshots/"), "{failed}");
    assert!(!drills.all().last().unwrap().ok);
}

/// Goal: a hub backs up into a bucket that it cannot delete from, and prunes with a credential that only the command has.
// faults: B-9
#[test]
fn a_bucket_is_pruned_with_a_credential_of_its_own() {
    let store = S3::start();
    store.bucket("backups", false);
    let rights = ["s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"];
    let writer = store.user("writer", &rights);
    let pruner = store.user("pruner", &[&rights[..], &["s3:DeleteObject", "s3:DeleteObjectVersion"]].concat());
    store.enforce();
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::hub(folder.path().join("hub")).set("http.listen", &quiet_address()).set("quic.listen", &quiet_address());
    let launch =
        launch.set("mqtt.listen", &quiet_address()).set("backup.url", "s3://backups/plant-4").set("backup.retention", "log=1 min=1");
    let launch = launch.set("backup.endpoint", &format!("http://{}", store.address())).set("backup.key_id", &writer.key_id);
    let hub = launch.env("MOBO_BACKUP__SECRET", &writer.secret).boot();
    let cli = || hub.cli().env("MOBO_BACKUP__SECRET", &writer.secret);
    cli().args(ORDERS.iter().copied()).run().expect_success();
    let secret = cli().args(["key", "create", "--name", "write"]).run().expect_success().text();
    let mut api = hub.http().with_header("apikey", &secret);
    let mut write = |number: u32| {
        api.post("/rest/v1/orders", &json!({ "id": format!("o-{number}") })).unwrap().expect_status(201);
    };
    let numbers = four_snapshots(&cli, &mut write);
    let refused = run(&cli, &["backup", "prune"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("backup.prune_secret"), "{}", refused.stderr);
    let thief = || cli().env("MOBO_BACKUP__PRUNE_KEY_ID", &writer.key_id).env("MOBO_BACKUP__PRUNE_SECRET", &writer.secret);
    let refused = run(&thief, &["backup", "prune"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("refuses"), "{}", refused.stderr);
    let allowed = || cli().env("MOBO_BACKUP__PRUNE_KEY_ID", &pruner.key_id).env("MOBO_BACKUP__PRUNE_SECRET", &pruner.secret);
    let pruned = run(&allowed, &["backup", "prune"]).expect_success().json();
    assert_eq!(stays(&pruned), [numbers[3]], "{pruned}");
    assert!(pruned["swept"]["removed"].as_u64().unwrap() > 3, "{pruned}");
    let drilled = run(&cli, &["backup", "drill"]).expect_success().json();
    assert_eq!(drilled["vault"], "s3://backups/plant-4");
}
