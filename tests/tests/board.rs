//! The board of a running node: single parts stop and start, what it stands on stands still, and it says so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place, digest, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::postgres::{Database, Server};
use mobo_tests::process::{Launch, Node};
use mobo_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// The last events of a topic, oldest first.
fn events(node: &Node, topic: &str) -> Vec<Value> {
    let tail = ["events", "tail", "--no-follow", "--replay", "500", "--topic", topic, "-o", "json"];
    let told = node.cli().args(tail).run().expect_success();
    told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn component(node: &Node, name: &str) -> Value {
    let list = node.cli().args(["component", "list", "-o", "json"]).run().expect_success().json();
    list.as_array().unwrap().iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}")).clone()
}

/// 50 requests a second, until told to stop; counts the answers that were good, and those that did not come.
fn load(api: &mut Client, (good, bad): (&AtomicU64, &AtomicU64), stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let counter = match api.get("/rest/v1/orders?limit=1") {
            Ok(answer) if answer.status == 200 => good,
            _ => bad,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Goal: the gate of a hub is stopped, started and moved to another address under load, the target of its backups is swapped and swapped
/// again, and the sync sessions do not notice.
/// Method: 50 requests a second against the API while a device writes; the events of sessions and the hub's own count of them are looked at.
// faults: C-1
#[test]
fn the_gate_and_the_vault_are_swapped_under_load_and_sessions_do_not_notice() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["orders", "title:text"]]);
    let device = cluster.device("pump");
    cluster.converge(&[&device]);
    let hub = cluster.hub();
    let mut api = cluster.api();
    let (good, bad, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let more = |count: &AtomicU64| {
        let want = count.load(Ordering::Relaxed) + 20;
        wait::until("more answers", SOON, || (count.load(Ordering::Relaxed) >= want).then_some(()));
    };
    let mut written = 0_u64;
    let mut write = |level: &str| {
        written += 1;
        let order = ["put", "orders", &format!("o{written}"), r#"{"title": "x"}"#, "--wait", level, "--timeout", "60", "-o", "json"];
        let put = device.cli().args(order).run().expect_success().json();
        assert_eq!((&put["ack"], &hub.status()["records"]), (&json!(level), &json!(written)), "{put}");
    };
    let moved = std::thread::scope(|scope| {
        scope.spawn(|| load(&mut api, (&good, &bad), &stop));
        more(&good);
        let stopped = hub.cli().args(["component", "stop", "gate", "-o", "json"]).run().expect_success().json();
        assert_eq!(stopped, json!([{ "name": "gate", "state": "stopped", "said": null }]));
        more(&bad);
        write("hub");
        let status = hub.cli().args(["status", "-o", "json"]).run().expect_code(1).json();
        assert_eq!((&status["state"], &status["health"], &status["http"]), (&json!("degraded"), &json!("degraded"), &Value::Null));
        assert_eq!(component(hub, "gate")["enabled"], json!(false));
        hub.cli().args(["component", "start", "gate"]).run().expect_success();
        more(&good);
        for _ in 0..3 {
            hub.cli().args(["component", "restart", "gate"]).run().expect_success();
            write("hub");
        }
        for vault in ["first", "second"] {
            let folder = cluster.folder(vault);
            hub.cli().args(["component", "swap", "store.vault", folder.to_str().unwrap()]).run().expect_success();
            write("safe");
        }
        more(&good);
        let place = quiet_address();
        let swapped = hub.cli().args(["component", "swap", "gate", &place]).run().expect_success();
        assert!(swapped.stdout.contains(&format!("serving {place} until the node stops")), "{swapped:?}");
        stop.store(true, Ordering::Relaxed);
        place
    });
    write("hub");
    assert_eq!((hub.address("http"), &component(hub, "gate")["listen"]), (moved.clone(), &json!([format!("http://{moved}")])));
    assert_eq!(Client::new(&moved).get("/livez").unwrap().status, 200);
    let sessions: Vec<Value> = events(hub, "sync.session").into_iter().map(|event| event["data"]["live"].clone()).collect();
    assert_eq!(sessions, [json!(true)], "one session, from before all this");
    assert_eq!((hub.status()["health"].clone(), component(hub, "link.quic")["failures"].clone()), (json!("healthy"), json!(0)));
}

/// Goal: operators are told who needs whom, what cannot be, and why.
#[test]
fn operators_are_told_what_cannot_be() {
    let cluster = Cluster::boot(Place::Sqlite);
    let hub = cluster.hub();
    for (args, code, sentence) in [
        (&["stop", "store"][..], 1, "store is needed by"),
        (&["stop", "control"], 1, "control cannot be stopped by itself"),
        (&["stop", "gaet"], 4, "perhaps you meant \"gate\""),
        (&["swap", "store", "postgres://x"], 1, "one setting and one restart"),
        (&["swap", "gate", "here"], 1, "is no address"),
        (&["swap", "link.quic", "127.0.0.1:1"], 1, "set quic.listen"),
    ] {
        let told = hub.cli().args(["component"]).args(args.iter().copied()).run().expect_code(code);
        assert!(told.stderr.contains(sentence), "{args:?}: {told:?}");
    }
    let stopped = hub.cli().args(["component", "stop", "store", "--cascade"]).run().expect_success();
    assert!(stopped.stdout.contains("link.quic") && stopped.stdout.contains("gate"), "{stopped:?}");
    hub.cli().args(["component", "start", "gate"]).run().expect_code(1);
    hub.cli().args(["component", "start", "gate", "--cascade"]).run().expect_success();
    let list = hub.cli().args(["component", "list", "-o", "json"]).run().expect_success().json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    for name in &names {
        hub.cli().args(["component", "start", name]).run().expect_success();
    }
    assert_eq!(hub.status()["state"], "ready");
    let ready = hub.http().get("/readyz?verbose").unwrap().expect_status(200).text();
    for name in names {
        assert!(ready.contains(&format!("[+]{name} ok")), "{ready}");
    }
    let unknown = hub.cli().args(["events", "tail", "--topic", "component.stat"]).run().expect_code(4);
    assert!(unknown.stderr.contains("perhaps you meant \"component.state\""), "{unknown:?}");
    let topics = hub.cli().args(["events", "topics", "-o", "json"]).run().expect_success().json();
    assert!(topics.as_array().unwrap().iter().any(|topic| topic["topic"] == "health.changed"), "{topics}");
}

/// How long Postgres stands still at least, unless the environment says otherwise.
fn freeze() -> Duration {
    let seconds = std::env::var("MOBO_FREEZE_SECONDS").map_or(5, |text| text.parse().expect("MOBO_FREEZE_SECONDS is a number"));
    Duration::from_secs(seconds)
}

/// Goal: Postgres stands still for a while: the hub says so step by step, with no more changes than its thresholds allow; devices go on
/// writing; and everything is merged afterwards, without a restart of anything.
// faults: C-3, H-2
#[test]
fn postgres_stands_still_and_the_board_says_so_step_by_step() {
    let server = Server::start();
    let database = Database::fresh_on(&server);
    let folder = tempfile::tempdir().unwrap();
    let hub = Launch::hub(folder.path().join("hub"))
        .set("store.url", &database.url())
        .set("quic.listen", &quiet_address())
        .set("health.interval", "500ms")
        // Of a machine that is busy no answer takes so long.
        .set("health.timeout", "3s")
        .set("health.retries", "0")
        .boot();
    hub.cli().args(["collection", "create", "orders", "title:text"]).run().expect_success();
    let token = hub.cli().args(["device", "invite"]).run().expect_success().text();
    let launch = Launch::edge(folder.path().join("edge"));
    launch.cli().args(["join", &token]).run().expect_success();
    let device = launch.boot();
    device.cli().args(["sync"]).run().expect_success();
    let store = |node: &Node| -> Vec<String> {
        let changes = events(node, "health.changed").into_iter().filter(|event| event["data"]["component"] == "store");
        changes.map(|event| event["data"]["to"].as_str().unwrap().to_owned()).collect()
    };
    let until = |state: &str| wait::until(state, SOON, || (component(&hub, "store")["health"] == state).then_some(()));

    let frozen = std::time::Instant::now();
    server.freeze();
    until("failed");
    assert_eq!(store(&hub), ["degraded", "critical", "failed"]);
    let report = hub.cli().args(["health", "report", "-o", "json"]).run().expect_code(1).json();
    assert_eq!(report["health"], "failed", "{report}");
    for n in 0..20 {
        device.http().post("/rest/v1/orders", &json!({ "id": format!("o{n}"), "title": "x" })).unwrap().expect_status(201);
    }
    let ready = hub.http().get("/readyz").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());
    // Long enough to see that the states do not move to and fro: MOBO_FREEZE_SECONDS=60 is the whole run.
    std::thread::park_timeout(freeze().saturating_sub(frozen.elapsed()));
    assert_eq!(store(&hub).len(), 3, "it stays failed");
    server.thaw();
    until("healthy");
    assert_eq!(store(&hub), ["degraded", "critical", "failed", "recovering", "healthy"], "five changes, and not one more");
    assert_eq!(component(&hub, "store")["failures"], 0, "nothing was restarted");

    device.cli().args(["sync", "--timeout", "60"]).run().expect_success();
    wait::until("the same digest and every order", SOON, || {
        let (hub, device) = (hub.status(), device.status());
        (hub["records"] == 20 && digest(&hub) == digest(&device) && hub["health"] == "healthy").then_some(())
    });
}

/// Goal: a boot after a power cut says so and verifies; one after a clean stop does not; a torn memory of the board stops no boot.
// faults: S-14
#[test]
fn a_boot_after_a_power_cut_says_so_and_verifies_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let said = |node: &Node| (node.stderr().contains("was not shut down cleanly"), node.stderr().contains("database"));
    let report = |node: &Node| node.cli().args(["health", "report", "-o", "json"]).run().json()["unclean_boot"].clone();
    for launch in [Launch::hub(folder.path().join("hub")), Launch::edge(folder.path().join("edge"))] {
        let again = |_: &Node| launch.clone();
        let node = launch.clone().boot();
        assert_eq!((said(&node), report(&node)), ((false, false), json!(false)), "{}", node.stderr());
        let mut node = node.kill9().boot();
        assert_eq!((said(&node), report(&node)), ((true, true), json!(true)), "{}", node.stderr());
        assert_eq!(node.terminate().code(), Some(0), "{}", node.stderr());
        let state = node.folder().to_owned();
        let mut node = again(&node).boot();
        assert_eq!(said(&node), (false, false), "{}", node.stderr());
        assert_eq!(node.terminate().code(), Some(0));
        for slot in ["state.0", "state.1"] {
            std::fs::write(state.join(slot), "torn").unwrap();
        }
        let node = again(&node).boot();
        assert!(said(&node).0, "{}", node.stderr());
    }
}

/// Goal: each check of the power-on self-test that fails refuses the boot by name, with what to do, and exit code 1.
// faults: C-2
#[test]
fn a_failed_self_test_refuses_the_boot_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = |launch: Launch, want: &[&str]| {
        let mut node = launch.spawn();
        let code = node.wait_exit(SOON).unwrap().code();
        let told = node.stderr();
        assert_eq!(code, Some(1), "{told}");
        want.iter().for_each(|want| assert!(told.contains(want), "no {want} in {told}"));
    };
    let hub = || Launch::hub(folder.path().join("hub"));
    refused(hub().set("http.listen", &taken.local_addr().unwrap().to_string()), &["boot refused: gate: HTTP address", "http.listen"]);
    refused(hub().set("quic.listen", &udp.local_addr().unwrap().to_string()), &["boot refused: link.quic: QUIC address", "quic.listen"]);
    refused(hub().set("store.url", "postgres://x@127.0.0.1:9/x"), &["boot refused: store: Postgres", "check that Postgres is running"]);
    let key = folder.path().join("hub/hub.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut node = hub().spawn();
    assert_eq!(node.wait_exit(SOON).unwrap().code(), Some(1), "{}", node.stderr());
    assert!(node.stderr().contains("hub.key"), "{}", node.stderr());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::create_dir(folder.path().join("hub/control.sock")).unwrap();
    refused(hub(), &["boot refused: control: socket", "move that file away"]);
}

/// Goal: what happens in a fleet can be heard on the bus of the hub, and on that of the device.
#[test]
fn the_bus_tells_what_happens_in_a_fleet() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["orders", "title:text"]]);
    let device = cluster.device("pump");
    cluster.converge(&[&device]);
    device.http().post("/rest/v1/orders", &json!({ "id": "1", "title": "x" })).unwrap().expect_status(201);
    cluster.converge(&[&device]);
    let _api = cluster.api();
    cluster.cli().args(["key", "revoke", "test"]).run().expect_success();
    cluster.cli().args(["device", "revoke", "pump"]).run().expect_success();
    let hub = cluster.hub();
    wait::until("the session ends", SOON, || (events(hub, "sync.session").len() == 2).then_some(()));
    let topics: Vec<String> = events(hub, "*").iter().map(|event| event["topic"].as_str().unwrap().to_owned()).collect();
    for want in [
        "system.boot",
        "system.ready",
        "component.state",
        "data.collection",
        "security.enrolled",
        "sync.session",
        "api.key",
        "security.revoked",
    ] {
        assert!(topics.iter().any(|topic| topic == want), "no {want} in {topics:?}");
    }
    let numbers: Vec<u64> = events(hub, "*").iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without gaps: {numbers:?}");
    wait::until("the device hears that it is refused", SOON, || {
        let lives: Vec<Value> = events(&device, "sync.session").iter().map(|event| event["data"]["live"].clone()).collect();
        (lives == [json!(true), json!(false)]).then_some(())
    });
}
