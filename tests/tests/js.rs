//! Client libraries that people know with their fingers, unmodified from the npm registry, against a hub and against a device.
//!
//! Each script of `tests/js` gets `MOBO_URL` and `MOBO_KEY`, and says itself what it expects.

#![allow(clippy::unwrap_used, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::script::Script;
use mobo_tests::wait::until;

const TODOS: &[&str] =
    &["todos", "title:text", "done:bool", "rank:int", "score:float", "due:timestamp", "meta:json", "hours:counter", "owner:text"];
const STEPS: &[&str] = &["steps", "todo:ref:todos", "text:text"];
const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "tags:list", "likes:counter"];

fn service_key(cluster: &Cluster) -> String {
    cluster.cli().args(["key", "create", "--role", "service", "--name", "js"]).run().expect_success().text()
}

fn data(url: &str, key: &str) {
    let said = Script::new("data.mjs").env("MOBO_URL", url).env("MOBO_KEY", key).run();
    assert!(said.contains("checks held"), "{said}");
}

fn data_at_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[TODOS, NOTES, STEPS]);
    data(&format!("http://{}", cluster.hub().address("http")), &service_key(&cluster));
}

#[test]
fn supabase_js_reads_and_writes_at_a_hub_on_sqlite() {
    data_at_a_hub(Place::Sqlite);
}

#[test]
fn supabase_js_reads_and_writes_at_a_hub_on_postgres() {
    data_at_a_hub(Place::Postgres);
}

/// Goal: the script of the hub runs on a device whose hub is away, and the hub has the writes afterwards.
#[test]
fn supabase_js_reads_and_writes_at_a_device_without_a_network() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[TODOS, NOTES, STEPS]);
    let device = cluster.device("pi");
    let url = format!("http://{}", device.address("http"));
    device.wait_collection("todos");
    device.wait_collection("notes");
    device.wait_collection("steps");
    cluster.stop_hub();
    // A device needs no key from a program on it. The library insists on one: `local` is none.
    data(&url, "local");
    cluster.start_hub();
    let mut here = device.http();
    let written = here.get("/rest/v1/todos?order=id").unwrap().expect_status(200).json();
    assert_ne!(written.as_array().map(Vec::len), Some(0));
    cluster.converge(&[&device]);
    assert_eq!(cluster.api().get("/rest/v1/todos?order=id").unwrap().expect_status(200).json(), written);
}

/// Goal: clients of GraphQL that know nothing of mobo read its schema, ask, write and listen.
fn graphql_at_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[TODOS, NOTES]);
    let script = Script::new("graphql.mjs").env("MOBO_URL", &format!("http://{}", cluster.hub().address("http")));
    let said = script.env("MOBO_KEY", &service_key(&cluster)).run();
    assert!(said.contains("checks held"), "{said}");
}

#[test]
fn graphql_clients_work_at_a_hub_on_sqlite() {
    graphql_at_a_hub(Place::Sqlite);
}

#[test]
fn graphql_clients_work_at_a_hub_on_postgres() {
    graphql_at_a_hub(Place::Postgres);
}

/// Goal: a client of GraphQL over WebSockets asks and listens, misses nothing, and is let go with its key.
fn graphql_ws_at_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[TODOS, NOTES]);
    let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
    let other = run(&["key", "create", "--role", "anon", "--name", "other"]);
    run(&["policy", "set", "notes", "--role", "anon", "--allow", "read"]);
    let script = Script::new("graphql_ws.mjs").env("MOBO_URL", &format!("http://{}", cluster.hub().address("http")));
    let script = script.env("MOBO_KEY", &service_key(&cluster)).env("MOBO_OTHER_KEY", &other);
    let said = std::thread::scope(|scope| {
        let said = scope.spawn(|| script.run());
        let mut api = cluster.api();
        // The script asks for it with a row.
        let mut asks = || said.is_finished() || api.get("/rest/v1/todos?id=eq.revoke").is_ok_and(|found| found.text().contains("revoke"));
        until("the script", Duration::from_secs(240), || asks().then_some(()));
        run(&["key", "revoke", "other"]);
        said.join().unwrap()
    });
    assert!(said.contains("checks held"), "{said}");
}

#[test]
fn graphql_ws_listens_at_a_hub_on_sqlite() {
    graphql_ws_at_a_hub(Place::Sqlite);
}

#[test]
fn graphql_ws_listens_at_a_hub_on_postgres() {
    graphql_ws_at_a_hub(Place::Postgres);
}

/// Goal: a device, which has no GraphQL, says so to a client of it.
#[test]
fn graphql_ws_is_refused_by_a_device() {
    let cluster = Cluster::boot(Place::Sqlite);
    let device = cluster.device("pi");
    let script = Script::new("graphql_ws.mjs").env("MOBO_URL", &format!("http://{}", device.address("http")));
    let said = script.env("MOBO_KEY", "local").env("MOBO_REFUSED", "yes").run();
    assert!(said.contains("checks held"), "{said}");
}

fn accounts_at_a_hub(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[TODOS]);
    let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
    run(&["policy", "set", "todos", "--role", "authenticated", "--allow", "read,write", "--where", "owner=eq.auth.uid"]);
    let (app, admin) =
        (run(&["key", "create", "--role", "anon", "--name", "app"]), run(&["key", "create", "--role", "admin", "--name", "boss"]));
    let script = Script::new("auth.mjs").env("MOBO_URL", &format!("http://{}", cluster.hub().address("http")));
    let said = script.env("MOBO_KEY", &app).env("MOBO_ADMIN_KEY", &admin).run();
    assert!(said.contains("checks held"), "{said}");
    // What was done stands in the log, and the log is whole.
    let lines = cluster.cli().args(["audit", "export"]).run().expect_success().text();
    for event in ["user.created", "sign_in", "sign_in.refused", "policy.set"] {
        assert!(lines.contains(&format!("\"{event}\"")), "{event} is not in {lines}");
    }
    assert!(!lines.contains("horse"), "a password in the log");
    run(&["audit", "verify"]);
}

/// Goal: users are made by an administrator, sign in, stay signed in, change and sign out with the library that they know.
// faults, SR-18
#[test]
fn supabase_js_signs_in_at_a_hub_on_sqlite() {
    accounts_at_a_hub(Place::Sqlite);
}

#[test]
fn supabase_js_signs_in_at_a_hub_on_postgres() {
    accounts_at_a_hub(Place::Postgres);
}
