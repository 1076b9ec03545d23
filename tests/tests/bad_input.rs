//! Bad input: a sentence that says what is wrong and what to do, the right exit code or status, and nothing lost.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use mobo_tests::cli::{Cli, Outcome};
use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::process::{Launch, Node, binary};
use mobo_tests::wait;
use serde_json::json;

const TABLE: &[&str] = &["work_orders", "title:text", "n:int", "hours:counter"];

/// A verb that fails: its words, its exit code, and what it tells people on stderr.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

#[track_caller]
fn refused(run: impl Fn() -> Cli, cases: &[Case<'_>]) {
    for (words, code, told) in cases {
        let outcome = run().args(*words).run().expect_code(*code);
        says(&outcome, told);
        assert_eq!(outcome.stdout, "", "{}: stdout is for data", outcome.line);
    }
}

#[track_caller]
fn says(outcome: &Outcome, told: &[&str]) {
    for words in told {
        assert!(outcome.stderr.contains(words), "{} does not say {words:?}: {}", outcome.line, outcome.stderr);
    }
}

fn has_the_collection(device: &Node) {
    wait::until("the collection on the device", Duration::from_secs(90), || {
        (device.cli().args(["list", "work_orders"]).run().code == Some(0)).then_some(())
    });
}

/// Goal: a command that cannot be done says why and what to do, with the exit codes of the contract.
/// Method: every verb with arguments that cannot be right; afterwards nothing was made and nothing was written.
// faults
#[test]
fn commands_that_cannot_be_done() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[TABLE]);
    refused(|| cluster.cli(), ON_THE_HUB);
    let device = cluster.device("one");
    has_the_collection(&device);
    refused(|| device.cli(), ON_THE_DEVICE);
    for name in ["mobo-hub", "mobo-edge"] {
        refused(|| Cli::new(name), &[(&["frobnicate"], 2, &["unrecognized subcommand"])]);
    }
    let nowhere = cluster.folder("nowhere");
    let not_running: &[&str] = &["no node is running in", "start one there with `boot`"];
    for words in [&["status"][..], &["health", "check"], &["shutdown"], &["component", "list"], &["quarantine", "list"]] {
        refused(|| Cli::hub(&nowhere), &[(words, 3, not_running)]);
        refused(|| Cli::edge(&nowhere), &[(words, 3, not_running)]);
    }
    refused(|| Cli::hub(&nowhere), &[(&["collection", "create", "x", "a:text"], 3, not_running), (&["device", "invite"], 3, not_running)]);
    refused(
        || Cli::edge(&nowhere),
        &[(&["put", "work_orders", "w", "{}"], 3, not_running), (&["get", "work_orders", "w"], 3, not_running)],
    );
    assert!(!nowhere.exists(), "a verb that only asks makes no folder");

    let (hub, edge) = (cluster.hub().status(), device.status());
    assert_eq!((&hub["records"], &edge["records"], &edge["pending"], &edge["lanes"]), (&json!(0), &json!(0), &json!(0), &json!([])));
    let names = cluster.cli().args(["collection", "list", "-o", "json"]).run().expect_success().json();
    assert_eq!(names.as_array().unwrap().len(), 1, "{names}");
}

const ON_THE_HUB: &[Case<'_>] = &[
    (&["collection", "create", "x", "title:varchar"], 2, &["\"varchar\" is not a type; the types are text, int, float"]),
    (&["collection", "create", "x", "title"], 2, &["\"title\" is not a field: write NAME:TYPE, such as title:text"]),
    (&["collection", "create", "x", "title:text", "title:int"], 2, &["title"]),
    (&["collection", "create", "x", "id:text"], 2, &["id"]),
    (&["collection", "create", "x", "tags:list"], 2, &["use json, or make a document"]),
    (&["collection", "create", "x", "--kind", "stream", "n:counter"], 2, &["use int: each sample stands for itself"]),
    (&["collection", "create", "x", "--kind", "rocket"], 2, &["\"rocket\" is not a kind: use table, document or stream"]),
    (&["collection", "create", "x", "a:text", "--bucket", "site:{site}"], 2, &["site"]),
    (&["collection", "create", "x", "a:text", "--lane", "events"], 2, &["--lane events"]),
    (&["collection", "create", "Work Orders", "a:text"], 2, &["\"Work Orders\" cannot be a name: use 1 to 63 of a-z, 0-9 and _"]),
    (&["collection", "create", "x\"; drop table y --", "a:text"], 2, &["cannot be a name"]),
    (&["collection", "create", "work_orders", "a:text"], 2, &["collection \"work_orders\" exists already"]),
    (
        &["collection", "show", "work_order"],
        4,
        &["\"work_order\" does not exist; perhaps you meant \"work_orders\"", "mobo-hub collection list"],
    ),
    (&["device", "show", "nobody"], 4, &["device \"nobody\" does not exist", "mobo-hub device list"]),
    (&["device", "revoke", "nobody"], 4, &["device \"nobody\" does not exist"]),
    (&["device", "invite", "--ttl", "5"], 2, &["'5'", "a time with its unit, as in 250ms, 10s, 5m, 2h or 14d"]),
    (&["device", "invite", "--ttl", "0s"], 2, &["a token lives for more than nothing"]),
    (&["device", "invite", "--ttl", "400d"], 2, &["at most 366 days"]),
    (&["device", "invite", "--bucket", "a b"], 2, &["\"a b\" cannot be a bucket's key"]),
    (&["key", "create", "--role", "king"], 4, &["role \"king\" does not exist", "mobo-hub role list"]),
    (&["key", "revoke", "nobody"], 4, &["key \"nobody\" does not exist", "mobo-hub key list"]),
    (&["record", "show", "work_orders", "nope"], 4, &["record \"nope\" does not exist", "GET /rest/v1/{collection}"]),
    (&["record", "show", "nope", "nope"], 4, &["collection \"nope\" does not exist"]),
    (&["status", "-o", "yaml"], 2, &["use table or json"]),
];

const ON_THE_DEVICE: &[Case<'_>] = &[
    (&["put", "work_order", "w-1", "{}"], 4, &["this device knows no collection \"work_order\"", "perhaps you meant \"work_orders\""]),
    (&["put", "work_orders", "w-1", "{\"title\": "], 2, &["this is not JSON", "write the fields like"]),
    (&["put", "work_orders", "w-1", "{\"title\": \"a\", \"title\": \"b\"}"], 2, &["\"title\" is there twice at line 1 column 22"]),
    (&["put", "work_orders", "w-1", "[]"], 2, &["a record is a JSON object of its fields"]),
    (&["put", "work_orders", "w-1", "{\"titel\": \"x\"}"], 2, &["work_orders has no field \"titel\"; perhaps you meant \"title\""]),
    (&["put", "work_orders", "w-1", "{\"n\": \"ten\"}"], 2, &["field \"n\": takes an integer of 64 bits"]),
    (&["put", "work_orders", "w-1", "{\"hours\": {\"$inc\": 0.5}}"], 2, &["a counter takes {\"$inc\": n} or an integer"]),
    (&["put", "work_orders", "", "{}"], 2, &["id"]),
    (&["patch", "work_orders", "w-1", "{\"n\": 1}"], 4, &["\"w-1\" does not exist in work_orders", "mobo-edge list work_orders"]),
    (&["get", "work_orders", "w-1"], 4, &["\"w-1\" does not exist in work_orders"]),
    (&["delete", "work_orders", "w-1"], 4, &["\"w-1\" does not exist in work_orders"]),
    (&["append", "work_orders", "{\"n\": 1}"], 2, &["\"work_orders\" is a table: put records into it"]),
    (&["list", "nope"], 4, &["this device knows no collection \"nope\"", "mobo-hub collection create"]),
];

/// Goal: a request that cannot be done gets its status and a problem that says what to do.
/// Method: raw requests to a device and to the hub.
// faults: SR-9, X-13
#[test]
fn requests_that_cannot_be_done() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[TABLE]);
    let device = cluster.device("one");
    has_the_collection(&device);
    let big = format!("[{{\"id\": \"big\", \"title\": \"{}\"}}]", "x".repeat(10_000_000));
    let (orders, json) = ("/rest/v1/work_orders", ("content-type", "application/json"));
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("GET", "/rest/v1/work_order", "", 404, "Perhaps you meant 'work_orders'"),
        ("GET", "/rest/v2/work_orders", "", 404, "there is nothing at this path"),
        ("GET", "/rest/v1/work_orders?titel=eq.x", "", 400, "title"),
        ("GET", "/rest/v1/work_orders?n=eq.ten", "", 400, "ten"),
        ("GET", "/rest/v1/work_orders?limit=many", "", 400, "many"),
        ("PUT", orders, "{}", 405, "filters of PUT must be its key and nothing else"),
        ("POST", orders, "{\"title\": ", 400, "the body is not JSON"),
        ("POST", orders, "17", 400, ""),
        ("POST", orders, "[{\"id\": \"a\"}, 17]", 400, ""),
        ("POST", orders, "{\"titel\": \"x\"}", 400, "Perhaps you meant the column 'title'"),
        ("POST", orders, "{\"n\": 1.5}", 400, "takes an integer of 64 bits"),
        ("POST", orders, "{\"n\": 9223372036854775808}", 400, "takes an integer of 64 bits"),
        ("POST", orders, "{\"title\": \"a\\u0000b\"}", 400, "title"),
        ("POST", orders, "{\"id\": null}", 400, "leave id out, and one is made"),
        ("POST", orders, &big, 413, "a request body has at most 4194304 bytes"),
        ("PATCH", "/rest/v1/work_orders?id=eq.x", "{\"hours\": \"many\"}", 400, "a counter takes"),
    ];
    let mut hub = cluster.api();
    let mut edge = device.http();
    // What is not there cannot be patched wrongly: there must be a row.
    for client in [&mut hub, &mut edge] {
        client.post(orders, &json!({"id": "x"})).unwrap();
        for (method, path, body, status, told) in cases {
            let answer = client.send(method, path, &[json], body.as_bytes()).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            assert_eq!(answer.status, *status, "{method} {path} {}: {}", &body[..body.len().min(40)], answer.text());
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
            let problem = answer.json();
            assert!(problem["code"].is_string() && problem["status"] == *status, "{problem}");
            assert!(problem.to_string().contains(told), "{method} {path} does not say {told:?}: {problem}");
        }
    }
    // The hub is closed to everybody without a key, with a wrong one, and with a public one (SR-9).
    let anon = cluster.cli().args(["key", "create", "--role", "anon", "--name", "page"]).run().expect_success().text();
    for (header, value) in [("x", "y"), ("apikey", "mobo_sec_nonsense"), ("authorization", "Basic abc"), ("apikey", anon.as_str())] {
        let answer = cluster.hub().http().send("GET", orders, &[(header, value)], b"").unwrap();
        assert_eq!(answer.status, 401, "{header}: {}", answer.text());
        assert!(!answer.json()["message"].as_str().unwrap().is_empty());
    }
    let rows = json!([{"id": "x", "title": null, "n": null, "hours": 0}]);
    assert_eq!(hub.get(orders).unwrap().json(), rows);
    cluster.converge(&[&device]);
    assert_eq!(edge.get(orders).unwrap().json(), rows, "nothing of all that was written");
}

/// Goal: a token works once, in time, on the hub that gave it; all others are refused by their reason, and a second try with the right one works.
/// Method: tokens that are noise, cut, used, too old, and of a hub that does not answer; on fresh folders.
// faults, SR-3, N-13
#[test]
fn tokens_that_cannot_be_used() {
    let cluster = Cluster::boot(Place::Sqlite);
    let used = cluster.invite("first");
    let join = |folder: &str, token: &str| Cli::edge(cluster.folder(folder)).args(["join", token]).run();
    join("first", &used).expect_success();
    let old = cluster.cli().args(["device", "invite", "--ttl", "1ms"]).run().expect_success().text();
    let cut = &used[..used.len() - 3];
    let cases = [
        ("hello", 2, "this is not a join token: a token starts with mobo1."),
        (cut, 2, "the join token is damaged: copy the whole line"),
        ("mobo1.", 2, "the join token is damaged"),
        (used.as_str(), 1, "this join token has been used; make another with `mobo-hub device invite`"),
        (old.as_str(), 1, "this join token has expired; make another with `mobo-hub device invite`"),
    ];
    for (token, code, told) in cases {
        says(&join("second", token).expect_code(code), &[told, "hint: "]);
    }
    says(
        &join("first", &cluster.invite("first again")).expect_code(1),
        &["this device has joined the hub", "start with an empty data folder"],
    );
    join("second", &cluster.invite("second")).expect_success();

    // Another hub at the address of the token: its key is not the pinned one.
    let mut other = Cluster::boot(Place::Sqlite);
    let theirs = other.invite("third");
    let address = other.hub().status()["quic"].as_str().unwrap().to_owned();
    other.stop_hub();
    let impostor = Launch::hub(cluster.folder("impostor")).set("quic.listen", &address).boot();
    says(&join("third", &theirs).expect_code(1), &["its key is not the pinned one", "get a new token"]);
    drop(impostor);
}

/// Goal: a node that cannot boot says which check failed and which setting to change, and leaves with 1, or 2 for a setting that is none.
/// Method: real ports in use, real folders, real processes.
// faults: C-2, I-6
#[test]
fn boots_that_are_refused() {
    let cluster = Cluster::boot(Place::Sqlite);
    let device = cluster.device("one");
    let status = cluster.hub().status();
    let (http, quic) = (status["http"].as_str().unwrap(), status["quic"].as_str().unwrap());
    let fresh = || Launch::hub(cluster.folder("fresh"));
    let elsewhere = |key: &str, value: &str| fresh().set(key, value);
    let here = |pid: u32| format!("is in use by process {pid}: stop that one first, or choose another folder with --data-dir");
    let (hub_pid, edge_pid) = (cluster.hub().pid(), device.pid());
    let cases: Vec<(Launch, i32, Vec<String>)> = vec![
        (elsewhere("http.listen", http), 1, vec![format!("{http}: Address already in use"), "set http.listen to another address".into()]),
        (elsewhere("quic.listen", quic), 1, vec![format!("{quic}: Address already in use"), "set quic.listen to another address".into()]),
        (elsewhere("http.listen", "203.0.113.7:80"), 1, vec!["203.0.113.7:80".into(), "set http.listen".into()]),
        (elsewhere("http.listen", "nonsense"), 2, vec!["http.listen: \"nonsense\" is not an address with its port".into()]),
        (elsewhere("http.listn", "127.0.0.1:0"), 2, vec!["there is no setting http.listn: did you mean http.listen?".into()]),
        (elsewhere("http.tls_cert", "/nowhere/cert.pem"), 1, vec!["http.tls_cert and http.tls_key go together".into(), "set both".into()]),
        (
            elsewhere("http.tls_cert", "/nowhere/cert.pem").set("http.tls_key", "/nowhere/key.pem"),
            1,
            vec!["/nowhere/cert.pem".into(), "look at the files of http.tls_cert and http.tls_key".into()],
        ),
        (Launch::edge(cluster.folder("fresh edge")).set("http.listen", http), 1, vec!["set http.listen to another address".into()]),
        (Launch::hub(cluster.folder("hub")), 1, vec![here(hub_pid)]),
        (Launch::edge(cluster.folder("one")), 1, vec![here(edge_pid)]),
        (Launch::hub("/proc/mobo"), 1, vec!["the data folder /proc/mobo cannot be written".into(), "--data-dir".into()]),
        (
            fresh().set("store.url", "postgres://ada:canary-sekret@127.0.0.1:1/db"),
            1,
            vec![
                "Postgres at ada@127.0.0.1:1/db cannot be reached".into(),
                "check that Postgres is running and that store.url is right".into(),
            ],
        ),
        (fresh().set("store.url", "postgres://ada:canary-sekret@nowhere.invalid/db"), 1, vec!["ada@nowhere.invalid".into()]),
        (fresh().set("store.url", "postgres://ada:canary-sekret@127.0.0.1:port/db"), 1, vec!["store.url cannot be read".into()]),
        (
            fresh().set("store.url", "mysql://ada:canary-sekret@127.0.0.1/db"),
            2,
            vec!["store.url: its value is not `sqlite`, or postgres://".into()],
        ),
    ];
    for (launch, code, told) in cases {
        let mut node = launch.clone().spawn();
        let ended = node.wait_exit(Duration::from_secs(60));
        let stderr = node.stderr();
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{launch:?}: {stderr}");
        assert!(told.iter().all(|words| stderr.contains(words)), "{launch:?} does not say {told:?}: {stderr}");
        assert!(!stderr.contains("canary-sekret"), "a password is on stderr: {stderr}");
    }
    // Nothing of it has disturbed those who run.
    cluster.converge(&[&device]);
    as_nobody(&cluster.folder("locked"));
}

/// A folder of somebody else's: root has every right, so another user must try.
fn as_nobody(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let copy = tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir_in("/tmp").unwrap();
    let program = copy.path().join("mobo-hub");
    fs::copy(binary("mobo-hub"), &program).unwrap();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let locked = copy.path().join("hub");
    let boot = ["--set", "http.listen=127.0.0.1:0", "--set", "quic.listen=127.0.0.1:0", "--set", "mqtt.listen=127.0.0.1:0", "boot"];
    let outcome = if is_root {
        let program = program.to_string_lossy();
        Cli::program("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", &program]).data_dir(&locked).args(boot).run()
    } else {
        fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        Cli::program(&program).data_dir(&locked).args(boot).run()
    };
    says(&outcome.expect_code(1), &["cannot be written (Permission denied", "--data-dir"]);
}

/// Goal: SIGTERM drains and leaves with 0; a second one leaves at once.
/// Method: a request that never ends keeps the drain waiting; the second signal does not wait for it.
#[test]
fn a_second_sigterm_does_not_wait() {
    let cluster = Cluster::boot(Place::Sqlite);
    let mut calm = cluster.device("calm");
    assert_eq!(calm.terminate().code(), Some(0), "{}", calm.stderr());

    let address = quiet_address();
    cluster.create(&[&["work_orders", "title:text"]]);
    let mut busy = cluster.joined("busy").set("http.listen", &address).boot();
    busy.wait_collection("work_orders");
    let mut request = std::net::TcpStream::connect(&address).unwrap();
    request.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = "content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue";
    let head = format!("POST /rest/v1/work_orders HTTP/1.1\r\nhost: {address}\r\n{length}\r\n\r\n");
    std::io::Write::write_all(&mut request, head.as_bytes()).unwrap();
    // It is in work once its body is asked for.
    let mut asked = [0; 12];
    std::io::Read::read_exact(&mut request, &mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100");
    let mark = busy.lines_seen();
    busy.signal(mobo_tests::process::Signal::TERM);
    busy.wait_line_after(mark, Duration::from_secs(60), |line| line.starts_with("stopping"));
    assert_eq!(busy.wait_exit(Duration::from_millis(500)), None, "it waits for the request: {}", busy.stderr());
    busy.signal(mobo_tests::process::Signal::TERM);
    // The drain would take 8 s.
    let ended = busy.wait_exit(Duration::from_secs(6)).expect("it leaves at once");
    assert_eq!(ended.code(), Some(1), "{}", busy.stderr());
}
