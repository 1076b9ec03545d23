//! Parts of a backup in a hub that runs, and what is final only once it is safe.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mobo_tests::cli::{Cli, Outcome};
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const COLLECTIONS: &[&[&str]] = &[
    &["orders", "title:text", "hours:counter"],
    &["notes", "--kind", "document", "title:text", "body:text", "likes:counter"],
    &["vitals", "--kind", "stream", "cpu:float"],
];

struct Rig {
    cluster: Cluster,
    vault: PathBuf,
    key: PathBuf,
    _elsewhere: tempfile::TempDir,
}

impl Rig {
    fn boot() -> (Self, Node) {
        let elsewhere = tempfile::tempdir().unwrap();
        let (vault, key) = (elsewhere.path().join("vault"), elsewhere.path().join("backup.key"));
        let cluster = Cluster::boot_with("sqlite", None, &[("backup.url", vault.to_str().unwrap())]);
        cluster.create(COLLECTIONS);
        cluster.cli().args(["backup", "create"]).run().expect_success();
        std::fs::copy(cluster.folder("hub").join("backup.key"), &key).unwrap();
        let device = cluster.device("one");
        ["orders", "notes", "vitals"].iter().for_each(|name| device.wait_collection(name));
        (Self { cluster, vault, key, _elsewhere: elsewhere }, device)
    }

    fn backup(&self) -> String {
        self.cluster.cli().args(["backup", "create"]).run().expect_success();
        let anchor = self.cluster.hub().status()["backup"]["anchor"].as_str().unwrap().to_owned();
        anchor.split(':').next().unwrap().to_owned()
    }

    fn restore(&self, at: &str, cli: Cli, more: &[&str]) -> Outcome {
        let (vault, key) = (self.vault.to_str().unwrap(), self.key.to_str().unwrap());
        cli.args(["restore", vault, "--key-file", key, "--at", at, "-o", "json"]).args(more.iter().copied()).run()
    }
}

fn orders(api: &mut Client) -> Value {
    api.get("/rest/v1/orders?select=id,title,hours&order=id").unwrap().expect_status(200).json()
}

/// The figures of one collection.
#[track_caller]
fn figures(outcome: Outcome, collection: &str) -> [Value; 4] {
    let rows = outcome.expect_success().json();
    let row = rows.as_array().unwrap().iter().find(|row| row["collection"] == collection).unwrap_or_else(|| panic!("{rows}"));
    ["made", "back", "changed", "same"].map(|name| row[name].clone())
}

/// Goal: what somebody has spoilt on a hub that runs comes back as it was, by collection or by the device that wrote it, everywhere; what is
/// newer stays, nothing else is touched, and a trial says the same figures and writes nothing. A new hub takes collections out of another's
/// backup. What cannot be is refused by name.
#[test]
fn records_come_back_into_a_hub_that_runs() {
    let (rig, device) = Rig::boot();
    let mut api = rig.cluster.api();
    let write = |api: &mut Client, row: Value| api.post("/rest/v1/orders", &row).unwrap().expect_status(201);
    for id in ["a", "b", "c"] {
        write(&mut api, json!({ "id": id, "title": format!("was {id}"), "hours": 3 }));
    }
    device.cli().args(["put", "orders", "of-one", r#"{"title":"of one","hours":5}"#]).run().expect_success();
    device.cli().args(["put", "notes", "n", r#"{"title":"pump","body":"It is loud.","likes":2}"#]).run().expect_success();
    rig.cluster.converge(&[&device]);
    let (want, at) = (orders(&mut api), rig.backup());

    // Spoilt: gone, changed, and something new.
    api.delete("/rest/v1/orders?id=in.(a,of-one)").unwrap();
    api.patch("/rest/v1/orders?id=eq.b", &json!({ "title": "spoilt", "hours": {"$inc": 40} })).unwrap();
    api.patch("/rest/v1/notes?id=eq.n", &json!({ "body": "Somebody wiped it.", "likes": {"$inc": 1} })).unwrap();
    write(&mut api, json!({ "id": "z-new", "title": "newer than the backup", "hours": 1 }));
    let spoilt = orders(&mut api);

    let restore = |more: &[&str]| rig.restore(&at, rig.cluster.cli(), more);
    let expected = [json!(false), json!(2), json!(1), json!(1)];
    assert_eq!(figures(restore(&["--collection", "orders", "--dry-run"]), "orders"), expected);
    assert_eq!(orders(&mut api), spoilt, "a trial writes nothing");
    assert_eq!(figures(restore(&["--device", "one"]), "orders"), [json!(false), json!(1), json!(0), json!(0)]);
    assert_eq!(figures(restore(&["--collection", "orders"]), "orders"), [json!(false), json!(1), json!(1), json!(2)]);
    let mut now = orders(&mut api);
    let newer = now.as_array_mut().unwrap().pop().unwrap();
    assert_eq!((now, &newer["id"]), (want.clone(), &json!("z-new")));
    assert_eq!(figures(restore(&["--collection", "orders"]), "orders"), [json!(false), json!(0), json!(0), json!(4)], "twice is once");
    assert_eq!(figures(restore(&["--project", "default"]), "notes"), [json!(false), json!(0), json!(0), json!(1)]);
    let note = api.get("/rest/v1/notes?select=body,likes").unwrap().json();
    assert_eq!(note, json!([{ "body": "It is loud.", "likes": 2 }]));
    rig.cluster.converge(&[&device]);
    rig.cluster.healthy();

    for (more, why) in [
        (&["--collection", "vitals"][..], "is a stream"),
        (&["--collection", "nothing"], "there is no collection nothing"),
        (&["--device", "nobody"], "there is no device nobody"),
        (&["--project", "other"], "holds the records of the project default"),
        (&["--collection", "orders", "--force"], "boot the hub first"),
        (&["--dry-run"], "is for a part"),
    ] {
        let refused = restore(more);
        assert!(refused.code != Some(0) && refused.stderr.contains(why), "{more:?}: {}", refused.stderr);
    }
    let elsewhere = rig.cluster.folder("nothing-runs-here");
    rig.restore(&at, Cli::hub(elsewhere), &["--collection", "orders"]).expect_code(3);

    let other = Cluster::boot(Place::Sqlite);
    assert_eq!(figures(rig.restore(&at, other.cli(), &["--project", "default"]), "orders"), [json!(true), json!(4), json!(0), json!(0)]);
    assert_eq!(orders(&mut other.api()), want);
    other.healthy();
}

/// Goal: a device that was revoked is out at once, and its revocation is called final only when a backup has it (rule R23).
#[test]
fn a_revocation_is_final_when_it_is_safe() {
    let cluster = Cluster::boot(Place::Sqlite);
    for name in ["one", "two"] {
        drop(cluster.joined(name));
    }
    let revoke = |name: &str| cluster.cli().args(["device", "revoke", name, "-o", "json"]).run().expect_success().json();
    let shown = |name: &str| cluster.cli().args(["device", "show", name, "-o", "json"]).run().expect_success().json();
    let told = revoke("one");
    assert_eq!((&told["final"], told["note"].as_str().unwrap().contains("backups are off")), (&json!(false), true), "{told}");
    assert_eq!((&shown("one")["final"], &shown("two")["final"]), (&json!(false), &Value::Null));
    let vault = cluster.folder("vault");
    cluster.cli().args(["component", "swap", "store.vault", vault.to_str().unwrap()]).run().expect_success();
    wait::until("a backup to have it", SOON, || (shown("one")["final"] == true).then_some(()));
    let told = revoke("two");
    assert_eq!((&told["final"], &told["note"]), (&json!(true), &Value::Null), "{told}");
    assert_eq!(shown("two")["final"], json!(true));
}

/// Goal: what backups have of a project that was erased, nobody can read any more, with whatever key; everything else verifies, and comes back.
/// Method: a project with an API key of its own is backed up, and restored; then it is erased, and the same moment is restored again.
// faults: B-12
#[test]
fn an_erased_project_is_gone_from_every_backup() {
    let (rig, _device) = Rig::boot();
    rig.cluster.cli().args(["project", "create", "acme"]).run().expect_success();
    rig.cluster.cli().args(["key", "create", "--role", "service", "--name", "theirs", "--project", "acme"]).run().expect_success();
    rig.cluster.cli().args(["key", "create", "--role", "service", "--name", "ours"]).run().expect_success();
    rig.cluster.cli().args(["backup", "create", "--snapshot"]).run().expect_success();
    let at = rig.backup();
    let keyrings = || {
        let folder = std::fs::read_dir(rig.vault.join("keys")).unwrap();
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let (before, now) = (restored_keys(&rig, &at, "before"), keyrings());
    assert_eq!(before, (json!(["ours"]), json!(["theirs"])));

    let erased = rig.cluster.cli().args(["project", "erase", "acme", "--yes", "-o", "json"]).run().expect_success().json();
    assert_eq!(erased["backups"], "unreadable", "{erased}");
    assert_eq!((keyrings().len(), keyrings().intersection(&now).count()), (1, 0), "every keyring that had the key is gone");
    let words = ["backup", "verify", rig.vault.to_str().unwrap(), "--deep", "-o", "json"];
    let verdict = rig.cluster.cli().args(words).run().expect_success().json();
    assert!(verdict["whole"] == true && verdict["erased"].as_u64().unwrap() > 0, "{verdict}");
    assert_eq!(restored_keys(&rig, &at, "after"), (json!(["ours"]), json!([])), "at the same moment");
    rig.cluster.cli().args(["backup", "prune"]).run().expect_success();
    rig.cluster.cli().args(["backup", "drill"]).run().expect_success();
}

/// The names of the keys of both projects in a hub that is restored from a moment.
fn restored_keys(rig: &Rig, at: &str, name: &str) -> (Value, Value) {
    let folder = rig.cluster.folder(name);
    rig.restore(at, Cli::hub(&folder), &["--store", "sqlite"]).expect_success();
    let hub = Launch::hub(&folder).boot();
    let keys = |project: &str| {
        let list = hub.cli().args(["key", "list", "--project", project, "-o", "json"]).run().expect_success().json();
        let rows = list.as_array().or_else(|| list["items"].as_array()).unwrap().clone();
        Value::Array(rows.into_iter().map(|row| row["name"].clone()).collect())
    };
    (keys("default"), keys("acme"))
}
