//! Backups of real hubs: what is safe comes back, on a machine that has nothing but the vault and the backup key.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobo_tests::cli::Outcome;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster, Place};
use mobo_tests::process::Node;
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const ORDERS: &[&str] = &["orders", "title:text", "hours:counter"];
const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "body:text", "likes:counter"];
const VITALS: &[&str] = &["vitals", "--kind", "stream", "cpu:float"];

/// A hub that backs up, and the backup key in a place of its own.
struct Rig {
    cluster: Cluster,
    vault: PathBuf,
    key: PathBuf,
    _elsewhere: tempfile::TempDir,
}

impl Rig {
    fn boot(place: Place) -> Self {
        let elsewhere = tempfile::tempdir().unwrap();
        let vault = elsewhere.path().join("vault");
        let settings = [("backup.url", vault.to_str().unwrap())];
        let cluster = match place {
            Place::Sqlite => Cluster::boot_with("sqlite", None, &settings),
            Place::Postgres => {
                let database = mobo_tests::postgres::Database::fresh();
                Cluster::boot_with(&database.url(), Some(database), &settings)
            }
        };
        cluster.create(&[ORDERS, NOTES, VITALS]);
        cluster.cli().args(["backup", "create"]).run().expect_success();
        let key = elsewhere.path().join("backup.key");
        let shown = cluster.cli().args(["backup", "key", "show", "-o", "json"]).run().expect_success().json();
        std::fs::write(&key, shown["key"].as_str().unwrap()).unwrap();
        Self { cluster, vault, key, _elsewhere: elsewhere }
    }

    fn hub_folder(&self) -> PathBuf {
        self.cluster.folder("hub")
    }

    /// A verb about the vault, with the key from elsewhere.
    fn about(&self, words: &[&str], more: &[&str]) -> Outcome {
        let (vault, key) = (self.vault.to_str().unwrap(), self.key.to_str().unwrap());
        self.cluster.cli().args(words.iter().copied()).args([vault, "--key-file", key, "-o", "json"]).args(more.iter().copied()).run()
    }

    fn verify(&self, more: &[&str]) -> Value {
        let verdict = self.about(&["backup", "verify"], more).expect_success().json();
        assert_eq!((verdict["whole"].clone(), verdict["damages"].clone()), (json!(true), json!([])), "{verdict}");
        verdict
    }

    /// SIGKILL, and the whole folder of the hub goes.
    fn destroy(&mut self) {
        self.cluster.kill_hub();
        std::fs::remove_dir_all(self.hub_folder()).unwrap();
    }
}

fn put(device: &Node, id: &str, hours: i64, wait: &str) -> Outcome {
    let body = json!({ "title": format!("order {id}"), "hours": hours }).to_string();
    device.cli().args(["put", "orders", id, &body, "--wait", wait, "--timeout", "60", "-o", "json"]).run()
}

fn has_collections(device: &Node) {
    wait::until("the collections on the device", SOON, || {
        let all = ["orders", "notes", "vitals"]
            .iter()
            .all(|name| device.http().get(&format!("/rest/v1/{name}")).is_ok_and(|got| got.status == 200));
        all.then_some(())
    });
}

/// Everything that readers see on a hub.
fn everything(cluster: &Cluster) -> Value {
    let mut api = cluster.api();
    let mut rows = |path: &str| api.get(path).unwrap().expect_status(200).json();
    json!({
        "orders": rows("/rest/v1/orders?select=id,title,hours&order=id"),
        "notes": rows("/rest/v1/notes?select=id,title,body,likes&order=id"),
        "vitals": rows("/rest/v1/vitals?select=device,cpu,at&order=device,at,cpu"),
    })
}

fn write_everything(rig: &Rig, device: &Node) {
    has_collections(device);
    put(device, "a", 3, "hub").expect_success();
    put(device, "doomed", 1, "hub").expect_success();
    device.cli().args(["delete", "orders", "doomed"]).run().expect_success();
    device.cli().args(["put", "notes", "n", r#"{"title":"pump","body":"It is loud.","likes":1}"#]).run().expect_success();
    device.cli().args(["append", "vitals", r#"[{"cpu":0.5},{"cpu":1.5}]"#]).run().expect_success();
    let order = json!({ "id": "of-the-hub", "title": "made in the API", "hours": 7 });
    rig.cluster.api().post("/rest/v1/orders", &order).unwrap().expect_status(201);
    rig.cluster.converge(&[device]);
}

/// Goal: what is safe is told to the writer as safe, and survives the loss of the whole hub: rows, documents, samples, tombstones, keys,
/// devices. Method: write on a device and through the API, kill the hub, delete its folder, restore, boot, and compare.
// faults: B-1, B-13
#[test]
fn a_hub_comes_back_on_sqlite() {
    comes_back(Place::Sqlite, Place::Sqlite);
}

/// The same on Postgres, into a fresh database.
// faults: B-1, B-13
#[test]
fn a_hub_comes_back_on_postgres() {
    comes_back(Place::Postgres, Place::Postgres);
}

/// From Postgres into SQLite: the hub's folder alone.
// faults: B-13
#[test]
fn a_hub_comes_back_in_the_other_store() {
    comes_back(Place::Postgres, Place::Sqlite);
}

fn comes_back(from: Place, to: Place) {
    let mut rig = Rig::boot(from);
    let device = rig.cluster.device("one");
    write_everything(&rig, &device);
    assert_eq!(put(&device, "last", 5, "safe").expect_success().json()["ack"], "safe");
    // Written through the hub alone: safe once a backup has it.
    let made = rig.cluster.cli().args(["backup", "create", "-o", "json"]).run().expect_success().json();
    let anchor = made["anchor"].as_str().unwrap().to_owned();
    rig.cluster.converge(&[&device]);
    let want = everything(&rig.cluster);
    rig.verify(&["--deep", "--anchor", &anchor]);
    let status = rig.cluster.hub().status();
    assert_eq!((&status["backup"]["problem"], status["backup"]["anchor"].is_string()), (&Value::Null, true), "{status}");

    rig.destroy();
    let fresh = (to == Place::Postgres).then(mobo_tests::postgres::Database::fresh);
    let store = fresh.as_ref().map_or("sqlite".to_owned(), mobo_tests::postgres::Database::url);
    let restored = rig.about(&["restore"], &["--store", &store, "--anchor", &anchor]).expect_success();
    assert!(restored.stderr.contains("Not recovered"), "it says before it begins what it promises: {}", restored.stderr);
    rig.cluster.move_store(&store, fresh);
    rig.cluster.start_hub();
    wait::until("the device has given back what it holds", CONVERGENCE_TIMEOUT, || {
        (rig.cluster.hub().status()["recovering"] == false).then_some(())
    });
    rig.cluster.converge(&[&device]);
    assert_eq!(everything(&rig.cluster), want);
    // It goes on: writes, and backups into the same repository.
    assert_eq!(put(&device, "after", 1, "safe").expect_success().json()["ack"], "safe");
    let verdict = rig.verify(&["--anchor", &anchor]);
    assert!(verdict["manifests"].as_u64().unwrap() > restored.json()["number"].as_u64().unwrap(), "{verdict}");
    rig.cluster.healthy();
}

/// Goal: every write that a device acknowledged at hub level is back exactly once after each of many losses of the hub. Method: a writer
/// waits for the hub with each write, and the hub is killed, deleted and restored under it. `MOBO_KILLS` says how often; 3 by default.
// faults: B-1
#[test]
fn acknowledged_writes_survive_the_loss_of_the_hub_again_and_again() {
    let kills: u32 = std::env::var("MOBO_KILLS").map_or(3, |count| count.parse().unwrap());
    let mut rig = Rig::boot(Place::Sqlite);
    let device = rig.cluster.device("one");
    has_collections(&device);
    let acknowledged = std::thread::scope(|scope| {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (stop, device) = (Arc::clone(&stop), &device);
            scope.spawn(move || {
                let mut acknowledged = Vec::new();
                for n in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = put(device, &format!("w-{n}"), 1, "hub");
                    device.cli().args(["patch", "orders", "count", r#"{"hours":{"$inc":1}}"#]).run().expect_success();
                    acknowledged.extend((outcome.code == Some(0)).then_some(n));
                }
                acknowledged
            })
        };
        put(&device, "count", 0, "hub").expect_success();
        for _ in 0..kills {
            let before = device.status()["lanes"][0]["hub"].as_u64().unwrap_or(0);
            wait::until("some writes", SOON, || (device.status()["lanes"][0]["hub"].as_u64().unwrap_or(0) > before + 5).then_some(()));
            rig.destroy();
            rig.about(&["restore"], &["--store", "sqlite"]).expect_success();
            rig.cluster.start_hub();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    rig.cluster.converge(&[&device]);
    let rows = rig.cluster.api().get("/rest/v1/orders?select=id,hours&limit=1000").unwrap().expect_status(200).json();
    let hours = |id: &str| rows.as_array().unwrap().iter().find(|row| row["id"] == id).map(|row| row["hours"].clone());
    for n in &acknowledged {
        assert_eq!(hours(&format!("w-{n}")), Some(json!(1)), "write {n} of {acknowledged:?}");
    }
    let local = device.http().get("/rest/v1/orders?id=eq.count&select=hours").unwrap().json();
    assert_eq!(hours("count"), Some(local[0]["hours"].clone()), "each increment once");
    rig.verify(&["--deep"]);
    rig.cluster.healthy();
}

/// Goal: the target of backups is swapped on a running board; where there is none, nothing is dropped, and what cannot be opened leaves the
/// old one in place.
// faults: B-11
#[test]
fn the_vault_is_swapped_while_the_hub_runs() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[ORDERS]);
    let device = cluster.device("one");
    wait::until("the collection on the device", SOON, || (device.http().get("/rest/v1/orders").ok()?.status == 200).then_some(()));
    put(&device, "a", 1, "hub").expect_success();
    cluster.cli().args(["backup", "create"]).run().expect_code(2);
    let swap = |address: &str| cluster.cli().args(["component", "swap", "store.vault", address]).run();
    let (first, second) = (cluster.folder("first"), cluster.folder("second"));
    let told = swap(&format!("folder://{}", first.display())).expect_success();
    assert!(told.stdout.contains("until the node stops"), "{}", told.stdout);
    assert_eq!(put(&device, "b", 1, "safe").expect_success().json()["ack"], "safe");
    swap("folder:///no/such/place").expect_code(1);
    assert_eq!(put(&device, "c", 1, "safe").expect_success().json()["ack"], "safe");
    swap(second.to_str().unwrap()).expect_success();
    assert_eq!(put(&device, "d", 1, "safe").expect_success().json()["ack"], "safe");
    for vault in [&first, &second] {
        let verdict = cluster.cli().args(["backup", "verify", vault.to_str().unwrap(), "-o", "json"]).run().expect_success().json();
        assert_eq!(verdict["whole"], true, "{verdict}");
    }
    // Nobody has to name the vault that a running hub backs up to.
    let list = cluster.cli().args(["backup", "list", "-o", "json"]).run().expect_success().json();
    assert_eq!(list.as_array().unwrap().last().unwrap()["kind"], "snapshot", "{list}");
    assert_eq!(cluster.hub().status()["health"], "healthy");
}

/// Goal: a repository that vanished, or went back, is found out by the hub's own record; the hub says so, nothing more becomes safe, and
/// nothing is dropped, until somebody brings it back or says to begin anew. A key that is not the one opens nothing.
// faults: B-6, B-10
#[test]
fn a_repository_that_goes_back_is_found_out() {
    let mut rig = Rig::boot(Place::Sqlite);
    let device = rig.cluster.device("one");
    has_collections(&device);
    put(&device, "a", 1, "safe").expect_success();
    let copy = rig.cluster.folder("copy");
    rig.cluster.stop_hub();
    copy_folder(&rig.vault, &copy);
    rig.cluster.start_hub();
    put(&device, "b", 1, "safe").expect_success();
    let anchor = rig.cluster.hub().status()["backup"]["anchor"].as_str().unwrap().to_owned();
    rig.cluster.stop_hub();
    std::fs::remove_dir_all(&rig.vault).unwrap();
    copy_folder(&copy, &rig.vault);
    let told = rig.about(&["backup", "verify"], &["--anchor", &anchor]).expect_code(1);
    assert!(told.stdout.contains("rolled back"), "{}", told.stdout);
    rig.cluster.start_hub();
    let problem = wait::until("the hub notices", SOON, || rig.cluster.hub().status()["backup"]["problem"].as_str().map(str::to_owned));
    assert!(problem.contains("has gone back"), "{problem}");
    put(&device, "c", 1, "hub").expect_success();
    rig.cluster.cli().args(["backup", "create", "--anew"]).run().expect_success();
    assert_eq!(put(&device, "d", 1, "safe").expect_success().json()["ack"], "safe");
    rig.verify(&["--deep"]);
    let wrong = rig.cluster.folder("wrong.key");
    std::fs::write(&wrong, "11".repeat(32)).unwrap();
    let (vault, wrong) = (rig.vault.to_str().unwrap(), wrong.to_str().unwrap());
    let told = rig.cluster.cli().args(["backup", "verify", vault, "--key-file", wrong]).run().expect_code(1);
    assert!(told.stderr.contains("backup key"), "{}", told.stderr);
    let rotated = rig.cluster.cli().args(["backup", "key", "rotate"]).run().expect_success();
    assert!(rotated.stderr.contains("note the new key"), "{}", rotated.stderr);
    rig.cluster.cli().args(["backup", "verify", vault, "--deep"]).run().expect_success();
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}
