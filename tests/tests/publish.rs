//! Committed changes, published to another server of Pusher's protocol: here a second hub, heard by Pusher's own client.

#![allow(clippy::unwrap_used, reason = "a test: the panic is the report")]

use std::path::Path;
use std::time::Duration;

use mobo_tests::cluster::quiet_address;
use mobo_tests::http::Client;
use mobo_tests::process::{Launch, Node};
use mobo_tests::script::Script;
use mobo_tests::wait;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

fn secret(folder: &Path, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let file = folder.join(text);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The value of a metric, summed over its labels.
fn counted(hub: &Node, name: &str) -> f64 {
    let text = Client::new(&hub.address("metrics")).get("/metrics").unwrap().expect_status(200).text();
    let values = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How the part is, as `/readyz` says.
fn said(hub: &Node) -> String {
    hub.http().get("/readyz?verbose").unwrap().text()
}

/// Goal: a server gets each change once and in order while it is there, and what it missed when it is back; meanwhile the hub says so.
#[test]
fn changes_are_published_to_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let address = quiet_address();
    let other = Launch::hub(folder.path().join("other")).set("http.listen", &address).set("pusher.id", "1").set("pusher.key", "app-key");
    let other = other.env("MOBO_PUSHER__SECRET_FILE", &secret(folder.path(), "app-secret"));
    let mut server = other.clone().boot();

    let launch = Launch::hub(folder.path().join("hub")).set("metrics.listen", "127.0.0.1:0");
    let mut hub = launch.clone().boot();
    for name in ["orders", "secrets"] {
        hub.cli().args(["collection", "create", name, "title:text", "n:int"]).run().expect_success();
    }
    let key = hub.cli().args(["key", "create", "--role", "service", "--name", "writer"]).run().expect_success().text();
    hub.terminate();
    let to = [("publish.url", format!("http://{address}")), ("publish.app", "1".to_owned()), ("publish.key", "app-key".to_owned())];
    let publishing = to.iter().fold(launch.set("publish.collections", "orders"), |launch, (key, value)| launch.set(key, value));
    let hub = publishing.env("MOBO_PUBLISH__SECRET_FILE", &secret(folder.path(), "app-secret")).boot();

    let script = Script::new("publish.mjs").env("MOBO_URL", &format!("http://{}", hub.address("http"))).env("MOBO_KEY", &key);
    let heard = script.env("MOBO_SERVER", &format!("http://{address}")).run();
    assert!(heard.contains("changes: fine"), "{heard}");
    wait::until("three changes to be counted", SOON, || (counted(&hub, "mobo_publish_sent_total") >= 3.0).then_some(()));

    server.terminate();
    let mut api = hub.http().with_header("apikey", &key);
    api.post("/rest/v1/orders", &json!([{ "id": "b", "n": 1 }, { "id": "c", "n": 2 }])).unwrap().expect_status(201);
    wait::until("the hub to say that the server is away", SOON, || {
        (counted(&hub, "mobo_publish_failed_total") >= 1.0 && said(&hub).contains("cannot be reached")).then_some(())
    });
    let _server = other.boot();
    wait::until("the server to have the rest", SOON, || (counted(&hub, "mobo_publish_sent_total") >= 5.0).then_some(()));
    wait::until("the hub to say that all is well", SOON, || (!said(&hub).contains("cannot be reached")).then_some(()));
    assert!(counted(&hub, "mobo_publish_dropped_total") < 0.5, "nothing was given up");
}
