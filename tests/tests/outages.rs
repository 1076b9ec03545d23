//! What a hub stands on goes away and comes back, while everybody keeps writing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mobo_tests::cluster::Cluster;
use mobo_tests::http::Client;
use mobo_tests::postgres::{Database, Server};
use mobo_tests::process::Node;
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// Crashes of the database.
const CRASHES: u64 = 2;
/// Writes of each device before the next thing happens.
const WRITES: u64 = 30;

/// Goal: Postgres crashes in the middle of the writing and comes back: nothing that was acknowledged anywhere is lost, nothing is done twice,
/// `status` says what is wrong meanwhile, and the hub needs no restart.
/// Method: a server of the test's own is stopped as by a crash and started again, twice, while two devices write without a pause. In the end
/// the rows are counted: each device's own, and the increments of both on one.
// faults: H-2, H-4
#[test]
fn postgres_goes_away_and_comes_back() {
    let server = Server::durable();
    let database = Database::fresh_on(&server);
    let cluster = Cluster::boot_on(&format!("{}&password=canary-sekret", database.url()), None);
    cluster.create(&[&["work_orders", "title:text", "hours:counter"], &["notes", "--kind", "document", "likes:counter"]]);
    let mut api = cluster.api();
    api.post("/rest/v1/work_orders", &json!({"id": "total"})).unwrap().expect_status(201);
    api.post("/rest/v1/notes", &json!({"id": "total"})).unwrap().expect_status(201);
    let devices = [cluster.device("one"), cluster.device("two")];
    cluster.converge(&[&devices[0], &devices[1]]);

    let pid = cluster.hub().pid();
    let (stop, written) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        for (device, written) in devices.iter().zip(&written) {
            let address = device.address("http");
            let (stop, name) = (&stop, device.folder().file_name().unwrap().to_string_lossy().into_owned());
            scope.spawn(move || keep_writing(&mut Client::new(&address), &name, written, stop));
        }
        for crash in 0..CRASHES {
            more(&written);
            server.crash();
            more(&written);
            while_it_is_away(&cluster, &mut api, &devices);
            server.start_again();
            more(&written);
            wait::until("the hub to take writes again", SOON, || {
                let answer = api.post("/rest/v1/work_orders", &json!({"id": format!("hub-{crash}"), "hours": 1})).ok()?;
                (answer.status == 201).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    cluster.converge(&[&devices[0], &devices[1]]);

    let [one, two] = written.map(AtomicU64::into_inner);
    let counts = "select count(*) filter (where id like 'one-%'), count(*) filter (where id like 'two-%'),
                  count(*) filter (where id like 'hub-%'), min(hours), max(hours) from work_orders where id <> 'total'";
    let want = [one, two, CRASHES, 1, 1].map(|number| number.to_string());
    assert_eq!(database.rows(counts), [want], "every order once, every hour once");
    assert_eq!(database.value("select hours from work_orders where id = 'total'"), (one + two).to_string());
    assert_eq!(database.value("select likes from notes"), (one + two).to_string());
    // The monitor wants to see a part well for some time before it says so.
    let status =
        wait::until("the hub to be well again", SOON, || Some(cluster.hub().status()).filter(|status| status["health"] == "healthy"));
    assert_eq!((&status["problem"], &status["quarantined"]), (&Value::Null, &json!(0)), "{status}");
    assert_eq!(cluster.hub().pid(), pid, "the same process all the time");
    cluster.healthy();
    let stderr = cluster.hub().stderr();
    assert!(!stderr.contains("panicked at") && !stderr.contains("canary-sekret"), "{stderr}");
}

/// The hub says what is wrong, takes no write that it could lose, and lives; the devices go on.
fn while_it_is_away(cluster: &Cluster, api: &mut Client, devices: &[Node]) {
    let outcome = cluster.cli().args(["status", "-o", "json"]).run().expect_code(1);
    let status = outcome.json();
    assert_eq!(status["health"], "failed", "{status}");
    assert!(status["problem"].as_str().unwrap().starts_with("the store is not available"), "{status}");
    assert!(!outcome.stdout.contains("canary-sekret") && !outcome.stderr.contains("canary-sekret"), "{outcome:?}");
    let refused = api.post("/rest/v1/work_orders", &json!({"id": "hub-lost"})).unwrap();
    // Without its store the hub cannot even tell whether the key is good.
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some() && refused.text().contains("try again in a moment"), "{}", refused.text());
    let mut probe = cluster.hub().http();
    assert_eq!(probe.get("/livez").unwrap().status, 200);
    assert_eq!(probe.get("/readyz").unwrap().status, 503);
    let health = cluster.cli().args(["health", "check"]).run().expect_code(1);
    assert!(health.stderr.contains("the store is not available"), "{health:?}");
    for device in devices {
        let status = device.status();
        assert!(status["pending"].as_u64().unwrap() > 0, "{status}");
    }
}

/// Waits for more writes of each device.
fn more(written: &[AtomicU64; 2]) {
    let want = written.each_ref().map(|count| count.load(Ordering::Relaxed) + WRITES);
    wait::until("more writes of both devices", SOON, || {
        written.iter().zip(want).all(|(count, want)| count.load(Ordering::Relaxed) >= want).then_some(())
    });
}

/// An order of its own, an hour on the order of all, and a like on the note of all; again and again, each acknowledged.
fn keep_writing(http: &mut Client, name: &str, written: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let n = written.load(Ordering::Relaxed);
        http.post("/rest/v1/work_orders", &json!({"id": format!("{name}-{n}"), "hours": 1})).unwrap().expect_status(201);
        http.patch("/rest/v1/work_orders?id=eq.total", &json!({"hours": {"$inc": 1}})).unwrap().expect_status(204);
        http.patch("/rest/v1/notes?id=eq.total", &json!({"likes": {"$inc": 1}})).unwrap().expect_status(204);
        written.store(n + 1, Ordering::Relaxed);
    }
}
