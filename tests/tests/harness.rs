//! The harness tests itself: what end-to-end tests stand on must fail when it should.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use mobo_tests::cli::Cli;
use mobo_tests::http::Client;
use mobo_tests::postgres::{Database, Server};
use mobo_tests::process::{Launch, Node, Signal};
use mobo_tests::wait;
use serde_json::json;

const SHORT: Duration = Duration::from_millis(200);
/// In which a shell has begun also on a machine that is busy.
const ENOUGH_TO_BEGIN: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(60);

/// A shell script in place of a node: it is given `boot --data-dir DIR …` like one.
fn script(text: &str) -> (tempfile::TempDir, Launch) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    std::fs::write(&path, text).unwrap();
    (folder, Launch::program("/bin/sh", path.with_extension("folder")).role(path.to_str().unwrap()))
}

#[track_caller]
fn panics(what: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(what).expect_err("it went on");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
}

/// Whether a process has this pid (also one that nobody has waited for yet).
fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn a_node_is_ready_when_it_says_so_and_drains_when_asked() {
    let (_folder, launch) =
        script("trap 'kill $!; echo drained >&2; exit 7' TERM\necho first >&2\ntail -f /dev/null &\necho \"ready $*\" >&2\nwait");
    let mut node = launch.set("http.listen", "a").set("http.listen", "b").boot();
    let line = node.wait_line(LONG, |line| line.starts_with("ready"));
    let folder = node.folder().display().to_string();
    assert_eq!(line, format!("ready boot --data-dir {folder} --set http.listen=b"));
    let mark = node.lines_seen();
    assert_eq!(node.terminate().code(), Some(7));
    assert_eq!(node.wait_line_after(mark, LONG, |_| true), "drained");
}

#[test]
fn a_node_that_ends_before_ready_is_reported_with_its_words() {
    let (_folder, launch) = script("echo 'the port is taken' >&2; exit 1");
    let message = panics(move || drop(launch.boot()));
    assert!(message.contains("the process ended") && message.contains("the port is taken"), "{message}");
}

#[test]
fn a_silent_node_runs_out_of_time_and_dies_with_its_handle() {
    let (_folder, launch) = script("echo up >&2; exec tail -f /dev/null");
    let mut node: Node = launch.spawn();
    node.wait_line(LONG, |line| line == "up");
    node.signal(Signal::STOP);
    assert_eq!(node.wait_exit(SHORT), None, "a frozen process has not ended");
    let pid = node.pid();
    assert!(lives(pid));
    let launch = node.kill9();
    assert!(!lives(pid), "kill9 returns when the process is gone");
    let pid = {
        let node = launch.spawn();
        node.pid()
    };
    assert!(!lives(pid), "a node dies with its handle");
}

#[test]
fn a_verb_keeps_its_output_apart_and_its_code() {
    let verb = |text: &str| Cli::program("/bin/sh").args(["-c", text]);
    let outcome = verb("read word; echo \"{\\\"said\\\": \\\"$word\\\"}\"; echo hint >&2; exit 4").input("pump\n").run();
    assert_eq!(outcome.json(), json!({ "said": "pump" }));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(4), "hint\n"));
    let message = panics(|| drop(outcome.expect_success()));
    assert!(message.contains("hint"), "{message}");
    assert_eq!(verb("kill -9 $$").run().code, None);
    let message = panics(move || drop(verb("echo begun; exec cat /dev/zero >/dev/null").timeout(ENOUGH_TO_BEGIN).run()));
    assert!(message.contains("still running") && message.contains("begun"), "{message}");
}

/// Answers each accepted connection with the next of `answers`, one for each request head that arrives; then closes.
fn server(connections: Vec<Vec<&'static str>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for answers in connections {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut request = [0; 4096];
                let bytes = stream.read(&mut request).unwrap();
                heard.push(String::from_utf8_lossy(&request[..bytes]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
        heard
    });
    (address, heard)
}

#[test]
fn the_client_reads_every_kind_of_answer_and_keeps_the_connection() {
    let (address, heard) = server(vec![
        vec![
            "HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{\"a\": 1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
        ],
        vec!["HTTP/1.1 200 OK\r\n\r\nuntil the end"],
        vec!["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut"],
    ]);
    let mut client = Client::new(&address).with_header("apikey", "k").with_timeout(LONG);
    assert_eq!(client.post("/a", &json!({ "b": 2 })).unwrap().expect_status(201).json(), json!({ "a": 1 }));
    assert_eq!(client.get("/b").unwrap().text(), "abcde");
    assert_eq!(client.delete("/c").unwrap().status, 204);
    assert_eq!(client.send("GET", "/d", &[("APIKEY", "own")], b"").unwrap().header("Content-Length"), Some("2"));
    assert_eq!(client.get("/e").unwrap().text(), "until the end");
    assert!(client.get("/f").is_err(), "a body that is cut off is no answer");
    let heard = heard.join().unwrap();
    let host = format!("host: {address}\r\n");
    assert_eq!(
        heard[0],
        format!("POST /a HTTP/1.1\r\n{host}content-type: application/json\r\napikey: k\r\ncontent-length: 7\r\n\r\n{{\"b\":2}}")
    );
    assert_eq!(heard[3], format!("GET /d HTTP/1.1\r\n{host}APIKEY: own\r\n\r\n"));
}

#[test]
fn databases_are_fresh_and_private() {
    let (a, b) = (Database::fresh(), Database::fresh());
    a.rows("create table pumps (id text primary key, rpm int); insert into pumps values ('p-7', 1450), ('p-8', null)");
    assert_eq!(a.rows("select id, rpm from pumps order by id"), [["p-7", "1450"], ["p-8", ""]]);
    assert_eq!(b.value("select count(*) from pg_tables where tablename = 'pumps'"), "0");
    let message = panics(std::panic::AssertUnwindSafe(|| drop(b.rows("select * from pumps"))));
    assert!(message.contains("does not exist"), "{message}");
    let name = a.value("select current_database()");
    drop(a);
    assert_eq!(b.value(&format!("select count(*) from pg_database where datname = '{name}'")), "0");
}

// faults: H-4
#[test]
fn a_server_of_ones_own_crashes_and_comes_back_and_leaves_nothing() {
    let server = Server::durable();
    let database = Database::fresh_on(&server);
    database.rows("create table t (x int); insert into t values (7)");
    let folder = database.value("show data_directory");
    server.crash();
    assert!(panics(std::panic::AssertUnwindSafe(|| drop(database.rows("select 1")))).contains("select 1"));
    server.start_again();
    assert_eq!(database.value("select x from t"), "7");
    drop(database);
    drop(server);
    assert!(!Path::new(&folder).exists());
}

#[test]
fn waiting_ends_with_the_answer_or_with_a_sentence() {
    let mut looks = 0;
    let answer = wait::until("the third look", LONG, || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(answer, 3);
    let message = panics(|| wait::until("rain", SHORT, || None));
    assert!(message.contains("in vain for rain"), "{message}");
}
