//! Power cuts: nodes are killed with SIGKILL at random moments, and nothing that was acknowledged is lost or done twice.
//!
//! `MOBO_KILLS=50` kills that often; `MOBO_SEED` plays the moments of a run again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::process::Node;
use mobo_tests::seed::Seed;
use mobo_tests::wait;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Writers at the same time, so that a kill meets writes on their way in, in commit and on their way out.
const WRITERS: u64 = 4;
/// Writes that must be acknowledged before the device may rest.
const ACKNOWLEDGED: usize = 2_000;
/// Records that are made while the hub is away, for each kill of it: more than a few transactions take, or it is done before the first.
const RECORDS_PER_KILL: u64 = 4_000;
/// Records of one such write.
const RECORDS_PER_ENTRY: u64 = 2;

const TABLE: &[&str] =
    &["work_orders", "title:text", "status:text", "site:text", "assignee:text", "n:int", "cost:float", "meta:json", "hours:counter"];

/// Goal: a device that dies at any moment has every write that it acknowledged, and the hub gets each once.
/// Method: four connections put records, each with a counter of 1, while the device syncs; it is killed at seeded random moments and booted
/// again until 2,000 puts were acknowledged. After each boot all acknowledged records are read back over HTTP. In the end the hub must hold
/// exactly what the device holds, and every counter must be 1: an entry that was applied twice would show.
// faults: S-1
#[test]
fn a_device_that_is_killed_keeps_every_acknowledged_write() {
    let seed = Seed::from_env();
    let mut rng = seed.rng();
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[TABLE]);
    let address = quiet_address();
    let launch = cluster.joined("one").set("http.listen", &address);
    let mut device = launch.clone().boot();
    wait::until("the collection on the device", Duration::from_secs(90), || {
        (Client::new(&address).get("/rest/v1/work_orders").ok()?.status == 200).then_some(())
    });

    let log = Arc::new(Log::default());
    let kills = kills(10);
    for kill in 1..=kills {
        // As many writes as it takes to spread the kills over all of them, and a moment more.
        let enough = ACKNOWLEDGED * kill / (kills + 1);
        let writers = Writers::start(&address, &log);
        log.wait_for(enough, &device);
        std::thread::park_timeout(Duration::from_micros(rng.below(20_000)));
        device.kill9();
        writers.join();
        device = launch.clone().boot();
        log.all_there(&address);
    }
    let writers = Writers::start(&address, &log);
    log.wait_for(ACKNOWLEDGED, &device);
    log.rest.store(1, Ordering::Relaxed);
    writers.join();

    cluster.converge(&[&device]);
    let there = log.all_there(&address);
    assert_eq!(rows(&mut cluster.api()), there, "the hub holds what the device holds");
    assert!(there.iter().all(|(_, hours)| *hours == 1), "each write is counted once");
    cluster.healthy();
    device.cli().args(["health", "check"]).run().expect_success();
    let unanswered = log.unanswered.load(Ordering::Relaxed);
    assert!(unanswered >= kills, "{kills} kills interrupted only {unanswered} requests: they came at the wrong moments");
    println!(
        "{} acknowledged, {unanswered} without an answer, {} there, {kills} kills",
        log.acknowledged.lock().unwrap().len(),
        there.len()
    );
}

/// Goal: a hub that dies during a catch-up has merged each entry whole or not at all, and in the end each once.
/// Method: a device makes thousands of records while the hub is away; the hub is killed again and again while it takes them, a seeded random
/// moment after it has merged the next share. Its database is read past it after each kill: an entry that was merged by half would show there.
// faults: H-1, H-2
#[test]
fn a_hub_that_is_killed_merges_every_entry_once_on_sqlite() {
    kill_the_hub(Place::Sqlite);
}

/// The same on Postgres: the hub dies, the database lives on.
// faults: H-1, H-2
#[test]
fn a_hub_that_is_killed_merges_every_entry_once_on_postgres() {
    kill_the_hub(Place::Postgres);
}

fn kill_the_hub(place: Place) {
    let seed = Seed::from_env();
    let mut rng = seed.rng();
    let mut cluster = Cluster::boot(place);
    cluster.create(&[TABLE]);
    let device = cluster.device("one");
    cluster.converge(&[&device]);
    cluster.stop_hub();
    let (mut partly, kills) = (0, kills(3));
    let records = kills as u64 * RECORDS_PER_KILL;
    let entries = records / RECORDS_PER_ENTRY;
    write_offline(&device, records);
    assert_eq!(device.status()["pending"], entries);

    for kill in 1..=kills {
        cluster.start_hub();
        // Woken, because a device waits longer and longer for a hub that does not answer.
        let syncing = device.cli().args(["sync", "--timeout", "1"]);
        let waker = std::thread::spawn(move || drop(syncing.run()));
        // The kills are spread over the catch-up by what was merged: by the clock, a fast machine would be done before the first.
        let (begun, due) = (merged(&cluster).0, entries * kill as u64 / (kills as u64 + 1));
        wait::until("the hub to merge", Duration::from_secs(90), || {
            let now = merged(&cluster).0;
            (now == entries || now > begun && now >= due).then_some(())
        });
        std::thread::park_timeout(Duration::from_micros(rng.below(20_000)));
        cluster.kill_hub();
        let (entries_merged, rows) = merged(&cluster);
        assert_eq!(rows, entries_merged * RECORDS_PER_ENTRY, "an entry is merged whole or not at all");
        partly += u64::from(entries_merged > 0 && entries_merged < entries);
        waker.join().unwrap();
    }
    assert!(partly > 0, "no kill came during the catch-up");

    cluster.start_hub();
    cluster.converge(&[&device]);
    let status = cluster.hub().status();
    assert_eq!((&status["records"], &status["quarantined"]), (&json!(records), &json!(0)), "{status}");
    assert_eq!(merged(&cluster), (entries, records));
    let there = rows(&mut cluster.api());
    assert!(there.iter().all(|(_, hours)| *hours == 1), "each increment is counted once");
    let lanes = lanes(&cluster.healthy());
    assert_eq!(lanes, [(entries, entries)], "R28: a lane's head counts its entries");
    let lane = &device.status()["lanes"][0];
    assert_eq!((&lane["last"], &lane["hub"]), (&json!(entries), &json!(entries)));
    device.cli().args(["health", "check"]).run().expect_success();
}

/// How often to kill, unless the environment says otherwise.
fn kills(default: usize) -> usize {
    std::env::var("MOBO_KILLS").map_or(default, |text| text.parse().expect("MOBO_KILLS is a number"))
}

fn record(id: &str, n: u64) -> Value {
    json!({
        "id": id, "title": format!("Check pump {n} and its seal"), "status": "open", "site": format!("plant-{}", n % 7), "assignee": "ada@example.org",
        "n": n, "cost": n as f64 / 4.0, "meta": {"parts": ["seal", "bolt"], "batch": n}, "hours": {"$inc": 1},
    })
}

/// What four writers were told.
#[derive(Debug, Default)]
struct Log {
    acknowledged: Mutex<BTreeSet<String>>,
    unanswered: AtomicUsize,
    next: AtomicU64,
    rest: AtomicUsize,
}

impl Log {
    /// Waits until so many writes were acknowledged.
    #[track_caller]
    fn wait_for(&self, acknowledged: usize, device: &Node) {
        wait::until(&format!("{acknowledged} acknowledged writes from {}", device.pid()), Duration::from_secs(120), || {
            (self.acknowledged.lock().unwrap().len() >= acknowledged).then_some(())
        });
    }

    /// All rows of the device, once every acknowledged one was found among them.
    #[track_caller]
    fn all_there(&self, address: &str) -> BTreeSet<(String, i64)> {
        let there = rows(&mut Client::new(address));
        let ids: BTreeSet<&String> = there.iter().map(|(id, _)| id).collect();
        let acknowledged = self.acknowledged.lock().unwrap();
        let lost: Vec<&String> = acknowledged.iter().filter(|id| !ids.contains(id)).collect();
        assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
        there
    }
}

struct Writers(Vec<std::thread::JoinHandle<()>>);

impl Writers {
    /// Writers that put one record after the other until the device is gone, or they may rest.
    fn start(address: &str, log: &Arc<Log>) -> Self {
        let write = |_| {
            let (log, mut client) = (Arc::clone(log), Client::new(address));
            std::thread::spawn(move || {
                while log.rest.load(Ordering::Relaxed) == 0 {
                    let n = log.next.fetch_add(1, Ordering::Relaxed);
                    let id = format!("wo-{n:06}");
                    match client.post("/rest/v1/work_orders", &record(&id, n)) {
                        Ok(answer) => {
                            answer.expect_status(201);
                            log.acknowledged.lock().unwrap().insert(id);
                        }
                        Err(_) => {
                            log.unanswered.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            })
        };
        Self((0..WRITERS).map(write).collect())
    }

    fn join(self) {
        for writer in self.0 {
            writer.join().unwrap();
        }
    }
}

/// Id and hours of every row.
fn rows(client: &mut Client) -> BTreeSet<(String, i64)> {
    let mut rows = BTreeSet::new();
    loop {
        let page = format!("/rest/v1/work_orders?select=id,hours&order=id&limit=1000&offset={}", rows.len());
        let page = client.get(&page).unwrap().expect_status(200).json();
        let page = page.as_array().unwrap();
        rows.extend(page.iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row["hours"].as_i64().unwrap())));
        if page.len() < 1_000 {
            return rows;
        }
    }
}

/// Makes records on a device.
fn write_offline(device: &Node, records: u64) {
    let address = device.address("http");
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = Client::new(&address);
                loop {
                    let first = next.fetch_add(RECORDS_PER_ENTRY, Ordering::Relaxed);
                    if first >= records {
                        return;
                    }
                    let batch: Vec<Value> = (first..first + RECORDS_PER_ENTRY).map(|n| record(&format!("wo-{n:06}"), n)).collect();
                    client.post("/rest/v1/work_orders", &json!(batch)).unwrap().expect_status(201);
                }
            });
        }
    });
}

/// Entries and records in the hub's database, read past the hub, in one snapshot.
fn merged(cluster: &Cluster) -> (u64, u64) {
    let (entries, records) = match &cluster.database {
        Some(database) => {
            let rows = database.rows("select (select count(*) from mobo.entry), (select count(*) from work_orders)");
            (rows[0][0].parse().unwrap(), rows[0][1].parse().unwrap())
        }
        None => {
            let path = cluster.folder("hub").join("hub.db");
            let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let counts = "SELECT (SELECT count(*) FROM mobo_entry), (SELECT count(*) FROM work_orders)";
            reader.query_row(counts, [], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))).unwrap()
        }
    };
    (entries, records)
}

/// Entries and head of each lane of a health report.
fn lanes(report: &Value) -> Vec<(u64, u64)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check.get("entries").is_some());
    checks.map(|check| (check["entries"].as_u64().unwrap(), check["last"].as_u64().unwrap())).collect()
}
