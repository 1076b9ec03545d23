//! Partial replication by hand: sites that see their own records only, records that move, rights that come and go, rules that change.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_tests::cli::Cli;
use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);
const PUMPS: &[&str] = &["pumps", "site:text", "speed:float", "runs:counter", "--bucket", "site:{site}"];
const TASKS: &[&str] = &["tasks", "--kind", "document", "title:text", "rank:int", "likes:counter", "--bucket", "rank:{rank}"];

/// A device that has joined with these buckets and claims, and how to boot it.
#[track_caller]
fn joined(cluster: &Cluster, name: &str, rights: &[&str]) -> Launch {
    let token = cluster.cli().args(["device", "invite", "--name", name]).args(rights).run().expect_success().text();
    let folder = cluster.folder(name);
    Cli::edge(&folder).args(["join", &token]).run().expect_success();
    Launch::edge(folder).set("http.listen", &quiet_address())
}

/// A verb on a device that succeeds.
#[track_caller]
fn run(device: &Node, words: &[&str]) -> Value {
    device.cli().args(words).args(["-o", "json"]).run().expect_success().json()
}

#[track_caller]
fn put(device: &Node, collection: &str, id: &str, fields: &Value) {
    run(device, &["put", collection, id, &fields.to_string()]);
}

#[track_caller]
fn hub(cluster: &Cluster, words: &[&str]) -> Value {
    cluster.cli().args(words).args(["-o", "json"]).run().expect_success().json()
}

/// The ids of a collection that a device shows.
#[track_caller]
fn ids(device: &Node, collection: &str) -> Vec<String> {
    let listed = device.cli().args(["list", collection, "-o", "json"]).run();
    // It learns of its collections when it has met its hub.
    let rows = if listed.code == Some(4) { json!([{"id": "unknown"}]) } else { listed.expect_success().json() };
    let mut ids: Vec<String> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

#[track_caller]
fn shows(device: &Node, collection: &str, want: &[&str]) {
    wait::until(&format!("{want:?} in {collection}"), SOON, || (ids(device, collection) == want).then_some(()));
}

/// Every bucket of a device has the digest that it has on the hub, and the device holds these buckets.
#[track_caller]
fn agrees(cluster: &Cluster, device: &Node, want: &[&str]) {
    wait::until(&format!("the same digests in {want:?}"), SOON, || {
        let (mine, theirs) = (device.status(), cluster.hub().status());
        let digest = |key: &Value| {
            theirs["buckets"].as_array().unwrap().iter().find(|bucket| bucket["key"] == *key).map(|bucket| bucket["digest"].clone())
        };
        let held = mine["buckets"].as_array().unwrap();
        let keys: Vec<&str> = held.iter().map(|bucket| bucket["key"].as_str().unwrap()).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        let same = held.iter().all(|bucket| digest(&bucket["key"]) == Some(bucket["digest"].clone()));
        (same && sorted == want && mine["pending"] == 0).then_some(())
    });
}

/// Goal: a device holds what its buckets hold and nothing else, whatever moves where and whoever may read what.
/// Method: two sites and one device that holds both; records move by hand, rights change while devices are connected and while not.
// faults: X-7
#[test]
fn sites_see_their_own_and_rights_change_live_on_sqlite() {
    sites(Place::Sqlite);
}

/// The same on Postgres.
// faults: X-7
#[test]
fn sites_see_their_own_and_rights_change_live_on_postgres() {
    sites(Place::Postgres);
}

fn sites(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[PUMPS, TASKS]);
    // By name, by claim, and both.
    let a = joined(&cluster, "a", &["--bucket", "site:a", "--bucket", "rank:1"]).boot();
    let b = joined(&cluster, "b", &["--bucket", "rank:2", "--claim", "site=b"]).boot();
    let both = joined(&cluster, "both", &["--bucket", "rank:1", "--bucket", "rank:2", "--claim", "site=a", "--claim", "site=b"]).boot();
    agrees(&cluster, &a, &["rank:1", "site:a"]);
    agrees(&cluster, &b, &["rank:2", "site:b"]);

    put(&a, "pumps", "p1", &json!({"site": "a", "runs": 1}));
    put(&a, "pumps", "p2", &json!({"site": "a", "runs": 2}));
    put(&b, "pumps", "p3", &json!({"site": "b"}));
    put(&a, "tasks", "t1", &json!({"title": "look", "rank": 1}));
    shows(&both, "pumps", &["p1", "p2", "p3"]);
    shows(&both, "tasks", &["t1"]);
    assert_eq!((ids(&a, "pumps"), ids(&b, "pumps")), (vec!["p1".to_owned(), "p2".to_owned()], vec!["p3".to_owned()]));

    // Records move: they leave here, arrive there, and stay with who holds both. A deletion is no leave: it stays one.
    run(&both, &["patch", "pumps", "p1", r#"{"site": "b"}"#]);
    run(&both, &["patch", "tasks", "t1", r#"{"rank": 2}"#]);
    run(&both, &["delete", "pumps", "p2"]);
    shows(&a, "pumps", &[]);
    shows(&a, "tasks", &[]);
    shows(&b, "pumps", &["p1", "p3"]);
    shows(&b, "tasks", &["t1"]);
    shows(&both, "pumps", &["p1", "p3"]);
    for (device, buckets) in
        [(&a, &["rank:1", "site:a"][..]), (&b, &["rank:2", "site:b"]), (&both, &["rank:1", "rank:2", "site:a", "site:b"])]
    {
        agrees(&cluster, device, buckets);
    }
    // What a device may not write, it may not move there either.
    put(&a, "pumps", "p4", &json!({"site": "a"}));
    run(&a, &["patch", "pumps", "p4", r#"{"site": "b"}"#]);
    wait::until("a refusal", SOON, || (a.status()["rejected"] == 1).then_some(()));
    shows(&a, "pumps", &["p4"]);
    assert_eq!(run(&a, &["get", "pumps", "p4"])["site"], "a");

    // A grant arrives live, and so does its end; reading does not mean writing.
    hub(&cluster, &["device", "grant", "a", "--bucket", "site:b", "--read-only"]);
    shows(&a, "pumps", &["p1", "p3", "p4"]);
    run(&a, &["patch", "pumps", "p3", r#"{"speed": 1.5}"#]);
    wait::until("another refusal", SOON, || (a.status()["rejected"] == 2).then_some(()));
    let shown = hub(&cluster, &["device", "grant", "a", "--bucket", "site:b"]);
    assert_eq!((&shown["buckets"], &shown["read_only"]), (&json!(["rank:1", "site:a", "site:b"]), &json!([])));
    run(&a, &["patch", "pumps", "p3", r#"{"speed": 2.5}"#]);
    wait::until("the write at the other site", SOON, || (run(&b, &["get", "pumps", "p3"])["speed"] == 2.5).then_some(()));
    hub(&cluster, &["device", "ungrant", "a", "--bucket", "site:b"]);
    shows(&a, "pumps", &["p4"]);
    // What its claims give it can be taken away by name.
    hub(&cluster, &["device", "ungrant", "b", "--bucket", "site:b"]);
    shows(&b, "pumps", &[]);
    agrees(&cluster, &b, &["rank:2"]);
    let missing = cluster.cli().args(["device", "ungrant", "b", "--bucket", "site:b"]).run();
    missing.expect_code(4);
    cluster.healthy();
    for device in [&a, &b, &both] {
        run(device, &["health", "check"]);
    }
}

/// Goal: what a device wrote before a right ended is not lost; the hub decides, and until then the device shows it as detached.
/// Method: a device writes while its hub is away, the right ends as the hub comes back, both policies.
#[test]
fn unsent_edits_survive_the_end_of_a_right() {
    for (policy, taken) in [("accept_if_made_before_revoke", true), ("reject", false)] {
        let mut cluster = Cluster::boot(Place::Sqlite);
        cluster.create(&[PUMPS, TASKS]);
        let launch = joined(&cluster, "a", &["--bucket", "site:a"]);
        let mut device = launch.clone().boot();
        shows(&device, "pumps", &[]);
        put(&device, "pumps", "p", &json!({"site": "a", "runs": 1}));
        put(&device, "pumps", "q", &json!({"site": "a"}));
        agrees(&cluster, &device, &["site:a"]);
        cluster.stop_hub();
        run(&device, &["patch", "pumps", "p", r#"{"runs": {"$inc": 10}}"#]);
        device.terminate();
        cluster.start_hub();
        hub(&cluster, &["device", "ungrant", "a", "--bucket", "site:a", "--late", policy]);
        let device = launch.boot();
        wait::until("the hub's decision", SOON, || {
            let status = device.status();
            let decided = status["pending"] == 0 && status["buckets"] == json!([]) && status["detached"] == json!([]);
            (decided && ids(&device, "pumps").is_empty()).then_some(())
        });
        assert_eq!(device.status()["rejected"], i32::from(!taken));
        let row = cluster.api().get("/rest/v1/pumps?id=eq.p").unwrap().expect_status(200).json();
        assert_eq!(row[0]["runs"], if taken { 11 } else { 1 }, "{policy}");
        if !taken {
            let refused = &run(&device, &["quarantine", "list"])[0];
            assert_eq!((&refused["code"], &refused["id"]), (&json!("forbidden"), &json!("p")));
            hub(&cluster, &["device", "grant", "a", "--bucket", "site:a"]);
            shows(&device, "pumps", &["p", "q"]);
            run(&device, &["quarantine", "retry", &refused["n"].to_string()]);
            agrees(&cluster, &device, &["site:a"]);
            assert_eq!(run(&device, &["get", "pumps", "p"])["runs"], 11);
        }
        cluster.healthy();
    }
}

/// Goal: a change of rules moves every record in the background, over the end of a hub in the middle of it; a device never has a record that it
/// may not read, and has all that it may when it is done. Between a leave and its arrival it may lack some.
/// Method: 3,000 records, a device that reads them by its claim, rules that change, a hub that is killed again and again until it is done.
#[test]
fn rules_change_under_a_fleet_on_sqlite() {
    rules(Place::Sqlite);
}

/// The same on Postgres.
#[test]
fn rules_change_under_a_fleet_on_postgres() {
    rules(Place::Postgres);
}

fn rules(place: Place) {
    const RECORDS: usize = 3_000;
    let mut cluster = Cluster::boot(place);
    cluster.create(&[PUMPS]);
    let rows: Vec<Value> = (0..RECORDS).map(|n| json!({"id": format!("p{n:04}"), "site": if n % 3 == 0 { "b" } else { "a" }})).collect();
    for some in rows.chunks(500) {
        cluster.api().post("/rest/v1/pumps", &json!(some)).unwrap().expect_status(201);
    }
    let device = joined(&cluster, "a", &["--claim", "site=a"]).boot();
    let count = |device: &Node| device.status()["records"].as_u64().unwrap();
    wait::until("its site's records", SOON, || (count(&device) == 2_000).then_some(()));
    let altered = hub(&cluster, &["collection", "alter", "pumps", "--bucket", "plant:{site}"]);
    assert_eq!((&altered["buckets"], &altered["rev"]), (&json!(["plant:{site}"]), &json!(2)));
    let mut kills = 0;
    let done = |cluster: &Cluster| cluster.hub().status()["rebucketing"] == json!([]);
    while !done(&cluster) {
        assert!(count(&device) <= 2_000, "a record of another site came");
        if kills < 3 {
            cluster.kill_hub();
            cluster.start_hub();
            kills += 1;
        }
    }
    agrees(&cluster, &device, &["all", "plant:a"]);
    assert_eq!(count(&device), 2_000);
    put(&device, "pumps", "fresh", &json!({"site": "a"}));
    agrees(&cluster, &device, &["all", "plant:a"]);
    cluster.healthy();
    run(&device, &["health", "check"]);
    assert_eq!(cluster.cli().args(["collection", "alter", "pumps", "--bucket", "plant:{nope}"]).run().code, Some(2));
    assert_eq!(cluster.cli().args(["collection", "alter", "nope", "--bucket", "all"]).run().code, Some(4));
}

/// Goal: what another hub of the same database does to rights reaches the sessions here: a right that it takes away, and a revocation.
/// Method: its words are written into the database by SQL, as they stand there whoever writes them.
// faults: SR-6
#[test]
fn rights_that_another_hub_takes_away_end_here() {
    let cluster = Cluster::boot(Place::Postgres);
    cluster.create(&[PUMPS]);
    let device = joined(&cluster, "a", &["--bucket", "site:a", "--bucket", "site:b"]).boot();
    let rows = json!([{"id": "p1", "site": "a"}, {"id": "p2", "site": "b"}]);
    cluster.api().post("/rest/v1/pumps", &rows).unwrap().expect_status(201);
    shows(&device, "pumps", &["p1", "p2"]);
    let database = cluster.database.as_ref().unwrap();
    database.rows("UPDATE mobo.grant SET ended_us = 1 WHERE bucket = 'site:b'");
    shows(&device, "pumps", &["p1"]);
    database.rows("UPDATE mobo.device SET revoked_us = 1");
    wait::until("the device to hear of it", SOON, || (device.status()["link"]["state"] == "refused").then_some(()));
}
