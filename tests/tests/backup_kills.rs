//! Backups and restores that are killed for real, and vaults that are full or away.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mobo_tests::cli::Outcome;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster};
use mobo_tests::lying::{Liar, Lie};
use mobo_tests::process::{Node, binary, clean_environment};
use mobo_tests::s3::S3;
use mobo_tests::seed::Seed;
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const ORDERS: &[&str] = &["orders", "title:text", "hours:counter"];

fn kills() -> u32 {
    std::env::var("MOBO_KILLS").map_or(3, |count| count.parse().unwrap())
}

/// How many objects there are in a vault.
fn objects(vault: &Path) -> usize {
    let count = |folder: &str| std::fs::read_dir(vault.join(folder)).map_or(0, Iterator::count);
    ["segments", "snapshots", "manifests"].iter().map(|folder| count(folder)).sum()
}

fn put(device: &Node, id: &str, wait: &str) -> Outcome {
    device.cli().args(["put", "orders", id, r#"{"title":"x","hours":1}"#, "--wait", wait, "--timeout", "60", "-o", "json"]).run()
}

/// Goal: a hub that is killed while it writes a backup leaves a repository that verifies, and goes on with it; what was safe is in it.
/// Method: the hub dies as soon as a new object is in the vault, whichever it is, again and again; in between, the repository is verified
/// against the last anchor that the hub had. `MOBO_KILLS` says how often; 3 by default.
// faults: B-3
#[test]
fn a_hub_that_dies_while_it_ships_leaves_a_whole_repository() {
    let elsewhere = tempfile::tempdir().unwrap();
    let vault = elsewhere.path().join("vault");
    let mut cluster = Cluster::boot_with("sqlite", None, &[("backup.url", vault.to_str().unwrap())]);
    cluster.create(&[ORDERS]);
    let device = cluster.device("one");
    device.wait_collection("orders");
    put(&device, "first", "safe").expect_success();
    let key = elsewhere.path().join("backup.key");
    std::fs::copy(cluster.folder("hub").join("backup.key"), &key).unwrap();
    let words = ["backup", "verify", vault.to_str().unwrap(), "--key-file", key.to_str().unwrap(), "-o", "json", "--anchor"];
    let mut last = 0;
    for round in 0..kills() {
        let anchor = cluster.hub().status()["backup"]["anchor"].as_str().unwrap().to_owned();
        let before = objects(&vault);
        let mut client = device.http();
        // Some rounds write a snapshot, which is more than one object.
        let snapshot = (round % 3 == 2).then(|| {
            let cli = cluster.cli();
            std::thread::spawn(move || drop(cli.args(["backup", "create", "--snapshot"]).run()))
        });
        let mut n = 0;
        wait::until_every("an object to come", SOON, Duration::from_millis(1), || {
            n += 1;
            let order = json!({ "id": format!("w-{round}-{n}"), "title": "x", "hours": 1 });
            assert_eq!(client.post("/rest/v1/orders", &order).unwrap().status, 201);
            (objects(&vault) > before).then_some(())
        });
        cluster.kill_hub();
        snapshot.into_iter().for_each(|asking| asking.join().unwrap());
        let verdict = cluster.cli().args(words).args([&anchor]).run().expect_success().json();
        assert_eq!(verdict["whole"], true, "{verdict}");
        let newest = verdict["newest"].as_str().unwrap().split(':').next().unwrap().parse::<u64>().unwrap();
        assert!(newest >= last, "{newest} after {last}");
        last = newest;
        cluster.start_hub();
        put(&device, &format!("safe-{round}"), "safe").expect_success();
    }
    cluster.converge(&[&device]);
    cluster.cli().args(["backup", "verify", vault.to_str().unwrap(), "--deep"]).run().expect_success();
    cluster.healthy();
}

/// Goal: a restore that is killed anywhere leaves a target that is empty or complete, and completes when it is run again. Method: SIGKILL after
/// a random part of the time that a whole one takes. `MOBO_KILLS` says how often; 3 by default.
// faults: B-4
#[test]
fn a_restore_that_dies_completes_when_it_is_run_again() {
    let seed = Seed::from_env();
    let mut rng = seed.rng();
    let elsewhere = tempfile::tempdir().unwrap();
    let (vault, key) = (elsewhere.path().join("vault"), elsewhere.path().join("backup.key"));
    let cluster = Cluster::boot_with("sqlite", None, &[("backup.url", vault.to_str().unwrap())]);
    cluster.create(&[ORDERS]);
    let rows: Vec<Value> = (0..2_000).map(|n| json!({ "id": format!("o-{n}"), "title": format!("order {n}"), "hours": n })).collect();
    for rows in rows.chunks(500) {
        cluster.api().post("/rest/v1/orders", &json!(rows)).unwrap().expect_status(201);
    }
    cluster.cli().args(["backup", "create"]).run().expect_success();
    std::fs::copy(cluster.folder("hub").join("backup.key"), &key).unwrap();
    let restore = |folder: &Path| {
        let mut command = Command::new(binary("mobo-hub"));
        clean_environment(&mut command);
        command.arg("restore").arg(&vault).arg("--key-file").arg(&key).arg("--data-dir").arg(folder).args(["--store", "sqlite"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let began = Instant::now();
    assert!(restore(&elsewhere.path().join("whole")).wait().unwrap().success());
    let whole = began.elapsed();
    let (folder, mut died) = (elsewhere.path().join("target"), 0);
    for round in 0..kills() {
        let mut running = restore(&folder);
        std::thread::park_timeout(whole.mul_f64(rng.below(1_000) as f64 / 1_000.0));
        let ended = running.try_wait().unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        died += u32::from(ended.is_none());
        if ended.is_some_and(|status| status.success()) {
            // It was quicker than the first one: begin again.
            std::fs::remove_dir_all(&folder).unwrap();
        } else if folder.join("hub.db").exists() {
            look(&folder, round);
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
    eprintln!("{died} of {} restores died", kills());
    assert!(restore(&folder).wait().unwrap().success());
    look(&folder, u32::MAX);
}

/// What has taken its place is complete.
fn look(folder: &Path, round: u32) {
    let copy = folder.with_extension("looked");
    let _ = std::fs::remove_dir_all(&copy);
    assert!(Command::new("cp").arg("-a").args([folder, copy.as_path()]).status().unwrap().success());
    let node = mobo_tests::process::Launch::hub(&copy).boot();
    let check = node.cli().args(["health", "check", "-o", "json"]).run();
    assert_eq!(check.code, Some(0), "round {round}: {}", check.stdout);
    assert_eq!(node.status()["records"], 2_000, "round {round}");
}

/// A hub that backs up into a bucket, through a way that can be told to lie.
struct Far {
    cluster: Cluster,
    way: Liar,
    store: S3,
    key: PathBuf,
}

impl Far {
    fn boot(seed: &Seed) -> Self {
        let store = S3::start();
        store.bucket("backups", false);
        let way = Liar::before(store.address(), (0, &[Lie::Busy]), seed.rng(), SOON);
        let endpoint = format!("http://{}", way.address);
        let settings = [
            ("backup.url", "s3://backups"),
            ("backup.endpoint", endpoint.as_str()),
            ("backup.key_id", "anybody"),
            ("backup.secret", "secret"),
        ];
        let cluster = Cluster::boot_with("sqlite", None, &settings);
        let key = cluster.folder("hub").join("backup.key");
        Self { cluster, way, store, key }
    }

    fn problem(&self) -> Option<String> {
        self.cluster.hub().status()["backup"]["problem"].as_str().map(str::to_owned)
    }
}

/// Goal: while the vault is full, writes go on and are acknowledged, nothing is dropped, nothing new is called safe, the devices keep what is
/// not, health and an event say so; and it catches up by itself, twice. Method: a bucket behind a way that refuses what is written.
/// `MOBO_OUTAGE_S` says how long it lasts at least; by default as long as 40 writes take.
// faults: B-11
#[test]
fn a_vault_that_is_full_costs_nothing_but_time() {
    costs_nothing_but_time(Lie::Full, "is full");
}

/// The same while the vault is away: the way refuses everything.
// faults: B-11
#[test]
fn a_vault_that_is_away_costs_nothing_but_time() {
    costs_nothing_but_time(Lie::Busy, "is not available");
}

fn costs_nothing_but_time(lie: Lie, words: &str) {
    let least = Duration::from_secs(std::env::var("MOBO_OUTAGE_S").map_or(0, |text| text.parse().unwrap()));
    let seed = Seed::from_env();
    let far = Far::boot(&seed);
    far.cluster.create(&[ORDERS]);
    let device = far.cluster.device("one");
    device.wait_collection("orders");
    put(&device, "first", "safe").expect_success();
    let safe = || device.status()["lanes"][0]["safe"].as_u64().unwrap_or(0);
    let mut written = 1_u64;
    // Once for as long as was asked for, and once more.
    for least in [least, Duration::ZERO] {
        let before = safe();
        far.way.only(lie);
        let began = Instant::now();
        let mut client = device.http();
        let mut writes = 0;
        while writes < 40 || began.elapsed() < least {
            let order = json!({ "id": format!("w-{written}"), "title": "x", "hours": 1 });
            assert_eq!(client.post("/rest/v1/orders", &order).unwrap().status, 201);
            (written, writes) = (written + 1, writes + 1);
            if began.elapsed() < least {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        let problem = wait::until("the hub to say so", SOON, || far.problem().filter(|problem| problem.contains(words)));
        assert!(problem.contains("catches up by itself"), "{problem}");
        put(&device, &format!("w-{written}"), "hub").expect_success();
        written += 1;
        wait::until("health to tell", SOON, || (far.cluster.hub().status()["health"] == "degraded").then_some(()));
        let status = device.status();
        assert_eq!((status["pending"].as_u64(), status["lanes"][0]["hub"].as_u64()), (Some(0), Some(written)), "{status}");
        assert_eq!(safe(), before, "nothing new is safe");
        let tail = far.cluster.hub().stderr();
        assert!(tail.contains("nothing new is safe: backups stand still"), "{tail}");
        far.way.set(0);
        wait::until("it catches up alone", CONVERGENCE_TIMEOUT, || (safe() == written).then_some(()));
        wait::until("the hub to be well", SOON, || far.problem().is_none().then_some(()));
    }
    far.cluster.converge(&[&device]);
    let (address, key) = (format!("backup.endpoint=http://{}", far.store.address()), far.key.to_str().unwrap());
    let direct = ["--set", &address, "--set", "backup.key_id=anybody", "backup", "verify", "s3://backups", "--key-file", key, "--deep"];
    far.cluster.cli().env("MOBO_BACKUP__SECRET", "secret").args(direct).run().expect_success();
}
