//! A hub that comes back from an older backup than its fleet: what the restore has promised is back, exactly.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use mobo_tests::cli::Outcome;
use mobo_tests::cluster::{CONVERGENCE_TIMEOUT, Cluster, Place, digest, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node};
use mobo_tests::seed::{Rng, Seed};
use mobo_tests::wait;
use serde_json::{Value, json};

const LOAD_TIMEOUT: Duration = Duration::from_secs(1_200);
const DEVICES: usize = 4;
/// The note that all devices write.
const SHARED: &str = "n";

/// What a fleet has written, as its writers know it.
#[derive(Default)]
struct Written {
    /// The orders that must be there.
    orders: BTreeSet<String>,
    /// How often the tally was counted up.
    counted: i64,
    /// Samples of each device.
    samples: BTreeMap<usize, u64>,
}

struct Rig {
    cluster: Cluster,
    vault: PathBuf,
    key: PathBuf,
    place: Place,
    written: Written,
    _elsewhere: tempfile::TempDir,
}

impl Rig {
    fn boot(place: Place) -> (Self, Vec<Node>) {
        let elsewhere = tempfile::tempdir().unwrap();
        let vault = elsewhere.path().join("vault");
        let settings = [("backup.url", vault.to_str().unwrap()), ("backup.schedule", "never"), ("backup.drill", "never")];
        let database = (place == Place::Postgres).then(Database::fresh);
        let store = database.as_ref().map_or_else(|| "sqlite".to_owned(), Database::url);
        let cluster = Cluster::boot_with(&store, database, &settings);
        cluster.create(&[
            &["orders", "title:text", "hours:counter"],
            &["notes", "--kind", "document", "title:text", "likes:counter"],
            &["vitals", "--kind", "stream", "cpu:float"],
        ]);
        let key = elsewhere.path().join("backup.key");
        cluster.cli().args(["backup", "create"]).run().expect_success();
        std::fs::copy(cluster.folder("hub").join("backup.key"), &key).unwrap();
        let devices: Vec<Node> = (0..DEVICES).map(|n| cluster.device(&format!("d{n}"))).collect();
        for device in &devices {
            ["orders", "notes", "vitals"].iter().for_each(|name| device.wait_collection(name));
        }
        // What all of them count in is there first.
        upsert(&mut devices[0].http(), "orders", &json!({ "id": "tally", "hours": 0 }));
        cluster.converge(&devices.iter().collect::<Vec<_>>());
        (Self { cluster, vault, key, place, written: Written::default(), _elsewhere: elsewhere }, devices)
    }

    /// The number of a backup of now, and how many entries are in it.
    fn backup(&self) -> (u64, u64) {
        self.cluster.cli().args(["backup", "create"]).run().expect_success();
        let backup = self.cluster.hub().status()["backup"].clone();
        let number = backup["anchor"].as_str().unwrap().split(':').next().unwrap().parse().unwrap();
        (number, backup["safe"].as_u64().unwrap())
    }

    /// The hub is killed, everything that it had goes, and an older backup takes its place.
    fn lose(&mut self, number: u64) -> Outcome {
        self.cluster.kill_hub();
        std::fs::remove_dir_all(self.cluster.folder("hub")).unwrap();
        let (vault, key) = (self.vault.to_str().unwrap(), self.key.to_str().unwrap());
        let fresh = (self.place == Place::Postgres).then(Database::fresh);
        let store = fresh.as_ref().map_or_else(|| "sqlite".to_owned(), Database::url);
        let words = ["restore", vault, "--key-file", key, "--store", &store, "-o", "json"];
        let restored = self.cluster.cli().args(words).args(["--at", &number.to_string()]).run().expect_success();
        assert!(restored.stderr.contains("deliberate fork") && restored.stderr.contains("Not recovered"), "{}", restored.stderr);
        self.cluster.move_store(&store, fresh);
        self.cluster.start_hub();
        restored
    }

    /// Samples that the hub has, by the devices that took them.
    fn samples(&self, ids: &[String]) -> BTreeMap<usize, u64> {
        let rows = all(&mut self.cluster.api(), "vitals?select=device&order=device");
        let of = |id: &String| rows.iter().filter(|row| row["device"] == *id).count() as u64;
        ids.iter().map(of).enumerate().filter(|(_, count)| *count > 0).collect()
    }

    /// Exactly what was written is there, once.
    fn check(&self, device: &Node) {
        let mut api = self.cluster.api();
        let rows = all(&mut api, "orders?select=id&order=id&id=neq.tally");
        let there: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        let want: Vec<&str> = self.written.orders.iter().map(String::as_str).collect();
        assert_eq!(there, want);
        let tally = |client: &mut Client| client.get("/rest/v1/orders?id=eq.tally&select=hours").unwrap().json()[0]["hours"].clone();
        assert_eq!((tally(&mut api), tally(&mut device.http())), (json!(self.written.counted), json!(self.written.counted)));
        let mut likes = |note: &str| api.get(&format!("/rest/v1/notes?select=likes&id=eq.{note}")).unwrap().json()[0]["likes"].clone();
        for (device, count) in &self.written.samples {
            assert_eq!(likes(&format!("n-{device}")), json!(count), "a like of device {device} went with each of its samples");
        }
        // Nobody has made it where nobody has taken a sample yet.
        let (shared, want) = (likes(SHARED).as_u64().unwrap_or(0), self.written.samples.values().sum::<u64>());
        let parked = || self.cluster.cli().args(["quarantine", "list", "-o", "json"]).run().text();
        assert_eq!(shared, want, "and one in the note that all of them write; quarantine: {}", parked());
        self.cluster.healthy();
    }
}

/// All rows of a question, whatever a page holds.
fn all(api: &mut Client, question: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let page = api.get(&format!("/rest/v1/{question}&limit=1000&offset={}", rows.len())).unwrap().expect_status(200).json();
        let page = page.as_array().unwrap();
        rows.extend(page.iter().cloned());
        if page.len() < 1_000 {
            return rows;
        }
    }
}

/// A device writes so many entries: orders that come and go, a tally that all count up, a document of its own, samples.
fn load(device: &Node, (name, number): (&str, usize), entries: usize, mut rng: Rng) -> Written {
    let (mut client, mut written, mut kept) = (device.http(), Written::default(), Vec::new());
    let mut n = 0;
    for _ in 0..entries {
        n += 1;
        match rng.below(10) {
            0 if !kept.is_empty() => {
                let id: String = kept.swap_remove(rng.below(kept.len() as u64) as usize);
                client.delete(&format!("/rest/v1/orders?id=eq.{id}")).unwrap();
                written.orders.remove(&id);
            }
            1 | 2 => {
                let count = json!({ "id": "tally", "hours": { "$inc": 1 } });
                upsert(&mut client, "orders", &count);
                written.counted += 1;
            }
            3 => {
                let answer = client.post("/rest/v1/vitals", &json!([{ "cpu": n as f64 }])).unwrap();
                assert_eq!(answer.status, 201, "{}", answer.text());
                for id in [format!("n-{number}"), SHARED.to_owned()] {
                    upsert(&mut client, "notes", &json!({ "id": id, "likes": { "$inc": 1 } }));
                }
                *written.samples.entry(number).or_default() += 1;
            }
            _ => {
                let id = format!("{name}-{n}");
                let answer = client.post("/rest/v1/orders", &json!({ "id": id, "title": format!("order {n}"), "hours": 1 })).unwrap();
                assert_eq!(answer.status, 201, "{}", answer.text());
                written.orders.insert(id.clone());
                kept.push(id);
            }
        }
    }
    written
}

fn upsert(client: &mut Client, collection: &str, row: &Value) {
    let headers = [("content-type", "application/json"), ("prefer", "resolution=merge-duplicates")];
    let answer = client.send("POST", &format!("/rest/v1/{collection}"), &headers, row.to_string().as_bytes()).unwrap();
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

/// All devices write at once; `meanwhile` happens while they do.
fn load_all(rig: &mut Rig, devices: &[Node], (phase, entries): (&str, usize), rng: &mut Rng, meanwhile: impl FnOnce(&mut Rig)) {
    let rngs: Vec<Rng> = devices.iter().map(|_| rng.fork()).collect();
    let written: Vec<Written> = std::thread::scope(|scope| {
        let writers: Vec<_> = devices
            .iter()
            .zip(rngs)
            .enumerate()
            .map(|(number, (device, rng))| {
                scope.spawn(move || load(device, (&format!("{phase}-{number}"), number), entries / DEVICES, rng))
            })
            .collect();
        meanwhile(rig);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for more in written {
        rig.written.orders.extend(more.orders);
        rig.written.counted += more.counted;
        more.samples.into_iter().for_each(|(device, count)| *rig.written.samples.entry(device).or_default() += count);
    }
}

fn entries(rig: &Rig) -> u64 {
    let backup = rig.cluster.hub().status()["backup"].clone();
    backup["safe"].as_u64().unwrap_or(0)
}

/// Goal: a hub that is restored from a backup many entries older than its fleet gets everything back, each entry once; and where half of the
/// devices are gone for good, exactly what rule R22 promises, which the restore has said with figures. Method: four devices write all the
/// time, orders that come and go, counters, a document, samples; the hub is killed under the load, deleted, and restored from before the load.
/// Then the same once more, with two devices destroyed and a write that only the hub had. `MOBO_OLDER` says how many entries; 300 by default.
// faults: B-1, B-2
#[test]
fn an_older_backup_gives_back_what_was_promised() {
    gives_back(Place::Sqlite);
}

/// The same where the hub's rows are in Postgres, and come back into another database.
// faults: B-1, B-2
#[test]
fn an_older_backup_gives_back_what_was_promised_on_postgres() {
    gives_back(Place::Postgres);
}

fn gives_back(place: Place) {
    let older: usize = std::env::var("MOBO_OLDER").map_or(300, |count| count.parse().unwrap());
    let seed = Seed::from_env();
    let mut rng = seed.rng();
    let (mut rig, mut devices) = Rig::boot(place);
    load_all(&mut rig, &devices, ("a", 40), &mut rng, |_| {});
    rig.cluster.converge(&devices.iter().collect::<Vec<_>>());
    rig.check(&devices[0]);
    let (number, before) = rig.backup();

    // Under load: the fleet is ahead by all of it when the hub comes back, and goes on writing.
    load_all(&mut rig, &devices, ("b", older), &mut rng, |rig| {
        let half = before + older as u64 / 2;
        wait::until("half of the load to be safe", LOAD_TIMEOUT, || (entries(rig) >= half).then_some(()));
        let restored = rig.lose(number).json();
        assert!(restored["left_out"].as_u64().unwrap() >= older as u64 / 2, "{restored}");
    });
    wait::until("all devices have given back what they hold", LOAD_TIMEOUT, || {
        (rig.cluster.hub().status()["recovering"] == false).then_some(())
    });
    rig.cluster.converge(&devices.iter().collect::<Vec<_>>());
    let ids: Vec<String> = devices.iter().map(|device| device.status()["device"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rig.samples(&ids), rig.written.samples, "samples are exact: each is in its device's kept tail");
    rig.check(&devices[0]);

    half_is_lost(&mut rig, &mut devices, (older, &ids), &mut rng);
}

fn half_is_lost(rig: &mut Rig, devices: &mut Vec<Node>, (older, ids): (usize, &[String]), rng: &mut Rng) {
    let ((number, before), samples_before) = (rig.backup(), rig.written.samples.clone());
    load_all(rig, devices, ("c", older), rng, |_| {});
    rig.cluster.api().post("/rest/v1/orders", &json!({ "id": "z-delivered", "title": "of the hub" })).unwrap().expect_status(201);
    rig.written.orders.insert("z-delivered".to_owned());
    rig.cluster.converge(&devices.iter().collect::<Vec<_>>());
    rig.check(&devices[0]);
    let want = digest(&rig.cluster.hub().status());
    for doomed in devices.drain(DEVICES / 2..) {
        doomed.kill9();
    }
    devices.drain(..).for_each(|mut device| {
        device.terminate();
    });
    rig.cluster.api().post("/rest/v1/orders", &json!({ "id": "z-hub-only", "title": "nobody has it" })).unwrap().expect_status(201);
    let (newest, after) = rig.backup();
    let told = rig.lose(number);
    let (restored, left_out) = (told.json(), after - before);
    assert!(left_out >= older as u64, "{left_out}");
    assert_eq!((&restored["number"], &restored["left_out"]), (&json!(number), &json!(left_out)), "{restored}");
    let said = format!("left out are {} later backups", newest - number);
    assert!(told.stderr.contains(&said) && told.stderr.contains(&format!("with {left_out} entries")), "{}", told.stderr);

    let launch = |n: usize| Launch::edge(rig.cluster.folder(&format!("d{n}"))).set("http.listen", &quiet_address());
    devices.extend((0..DEVICES / 2).map(|n| launch(n).boot()));
    wait::until("the devices that are left have given back what they hold", CONVERGENCE_TIMEOUT.max(LOAD_TIMEOUT), || {
        (rig.cluster.hub().status()["devices"]["unseen"] == DEVICES / 2).then_some(())
    });
    rig.cluster.converge(&devices.iter().collect::<Vec<_>>());
    assert_eq!(digest(&rig.cluster.hub().status()), want, "records, documents and deletions are what they were, to the bit");
    let survivors = rig.written.samples.iter().filter(|(device, _)| **device < DEVICES / 2);
    let mut samples: BTreeMap<usize, u64> = survivors.map(|(device, count)| (*device, *count)).collect();
    samples.extend(samples_before.into_iter().filter(|(device, _)| *device >= DEVICES / 2));
    assert_eq!(rig.samples(ids), samples, "those of the lost devices up to the backup, those of the others all");
    rig.check(&devices[0]);
    rig.cluster.cli().args(["recover", "finish"]).run().expect_success();
    assert_eq!(rig.cluster.hub().status()["recovering"], false);
}
