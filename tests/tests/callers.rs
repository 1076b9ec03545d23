//! Callers of a device: keys, users and policies hold as on the hub, also with the network cut, by what the hub said last.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::wait;
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    cluster: Cluster,
    /// What each caller shows, by name.
    callers: Vec<(&'static str, Vec<(&'static str, String)>)>,
    ada: String,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::boot(Place::Sqlite);
        let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
        cluster.create(&[&["orders", "owner:text", "title:text", "cost:int"], &["secrets", "title:text"]]);
        run(&["role", "create", "clerk"]);
        run(&["policy", "set", "orders", "--role", "anon", "--allow", "read", "--where", "owner=is.null", "--field", "title"]);
        run(&["policy", "set", "orders", "--role", "authenticated", "--allow", "read,write", "--where", "owner=eq.auth.uid"]);
        run(&["policy", "set", "orders", "--role", "clerk", "--allow", "read,update", "--field", "owner,title"]);
        let key = |words: &[&str]| run(&[&["key", "create"], words].concat());
        let app = key(&["--role", "anon", "--name", "app"]);
        let admin = key(&["--role", "admin", "--name", "boss"]);
        let gone = key(&["--role", "service", "--name", "gone"]);
        run(&["key", "revoke", "gone"]);
        run(&["project", "create", "other"]);
        let mut api = cluster.hub().http().with_header("apikey", &admin);
        let mut user = |name: &str, role: &str| {
            let user = json!({ "email": format!("{name}@example.com"), "password": PASSWORD, "role": role });
            let made = api.post("/auth/v1/admin/users", &user).unwrap().expect_status(200).json();
            let sign_in = json!({ "email": format!("{name}@example.com"), "password": PASSWORD });
            let signed_in = api.post("/auth/v1/token?grant_type=password", &sign_in).unwrap().expect_status(200).json();
            (made["id"].as_str().unwrap().to_owned(), format!("Bearer {}", signed_in["access_token"].as_str().unwrap()))
        };
        let ((ada, ada_token), (_, clerk_token)) = (user("ada", "authenticated"), user("clerk", "clerk"));
        let forged = format!("{}x", &ada_token[..ada_token.len() - 1]);
        let orders = json!([
            { "id": "a", "owner": ada, "title": "Ada's", "cost": 1 },
            { "id": "b", "owner": "bob", "title": "Bob's", "cost": 2 },
            { "id": "n", "title": "Nobody's", "cost": 3 },
        ]);
        api.post("/rest/v1/orders", &orders).unwrap().expect_status(201);
        let shown = |key: &str| vec![("apikey", key.to_owned())];
        let both = |token: String| vec![("authorization", token), ("apikey", app.clone())];
        let unknown = mobo_gate::key::ApiKey::generate(mobo_gate::key::KeyKind::Secret, [9; 20]).text().to_owned();
        let callers = vec![
            ("anon", shown(&app)),
            ("admin", shown(&admin)),
            ("service", shown(&key(&["--role", "service", "--name", "job"]))),
            ("scoped", shown(&key(&["--role", "service", "--name", "reader", "--scope", "read:orders"]))),
            ("ended", shown(&key(&["--role", "service", "--name", "short", "--ttl", "1s"]))),
            ("revoked", shown(&gone)),
            ("unknown", shown(&unknown)),
            ("elsewhere", shown(&key(&["--role", "service", "--name", "far", "--project", "other"]))),
            ("ada", both(ada_token)),
            ("clerk", both(clerk_token)),
            ("forged", both(forged)),
        ];
        Self { cluster, callers, ada }
    }
}

/// Calls that change nothing, or are refused.
const CALLS: [(&str, &str, &str); 12] = [
    ("GET", "orders?order=id", ""),
    ("GET", "orders?select=id,title&order=id", ""),
    ("GET", "orders?select=id&cost=gt.1&order=id", ""),
    ("GET", "orders?select=owner", ""),
    ("GET", "secrets", ""),
    ("GET", "missing", ""),
    ("POST", "secrets", r#"{"id":"x","titel":"?"}"#),
    ("POST", "orders", r#"{"id":"a","title":"again"}"#),
    ("PATCH", "orders?id=eq.b", r#"{"cost":"many"}"#),
    ("PATCH", "orders?id=eq.nothing", r#"{"title":"x"}"#),
    ("DELETE", "orders?id=eq.nothing", ""),
    ("DELETE", "secrets?id=eq.nothing", ""),
];

/// What a node answers to everybody's calls; what names the request or the node's own commands is left out.
fn answers(node: &mut Client, world: &World) -> Vec<(String, u16, Value)> {
    let mut answers = Vec::new();
    for (who, shown) in &world.callers {
        // Bad credentials are counted, and a second of them is as bad as twelve.
        let is_bad = ["ended", "revoked", "unknown", "elsewhere", "forged"].contains(who);
        for (method, path, body) in CALLS.into_iter().take(if is_bad { 2 } else { CALLS.len() }) {
            let mut headers: Vec<(&str, &str)> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
            headers.push(("content-type", "application/json"));
            let answer = node.send(method, &format!("/rest/v1/{path}"), &headers, body.as_bytes()).unwrap();
            let mut said = if answer.text().is_empty() { Value::Null } else { answer.json() };
            if *who == "elsewhere" {
                // The hub tells a key of another project from one of none; a device hears of its own project only.
                said = Value::Null;
            }
            if let Some(problem) = said.as_object_mut().filter(|problem| problem.contains_key("instance")) {
                problem.retain(|name, _| ["code", "message"].contains(&name.as_str()));
            }
            answers.push((format!("{who}: {method} {path}"), answer.status, said));
        }
    }
    answers
}

/// Goal: the same call of the same caller gets the same answer from the hub, and from a device whose network is cut.
#[test]
fn a_device_judges_callers_as_the_hub_does() {
    let mut world = World::new();
    let device = world.cluster.joined("pi");
    let mut pi = device.clone().boot();
    world.cluster.converge(&[&pi]);
    let ended = &world.callers.iter().find(|(name, _)| *name == "ended").unwrap().1[0].1.clone();
    wait::until("the short key has ended", PATIENCE, || {
        let status = world.cluster.hub().http().with_header("apikey", ended).get("/rest/v1/orders").unwrap().status;
        (status == 401).then_some(())
    });
    let want = answers(&mut world.cluster.hub().http(), &world);
    let granted = want.iter().filter(|(_, status, _)| *status < 300).count();
    assert!(granted > 20 && want.len() - granted > 40, "it is a mixture: {granted} of {}", want.len());
    let anon = &world.callers[0].1[0].1;
    wait::until("the device has heard of keys and policies", PATIENCE, || {
        (pi.http().with_header("apikey", anon).get("/rest/v1/orders").unwrap().status == 200).then_some(())
    });
    world.cluster.stop_hub();
    for ((call, status, said), (_, want_status, want)) in answers(&mut pi.http(), &world).iter().zip(&want) {
        assert_eq!((status, said), (want_status, want), "{call}");
    }
    // What was said last holds over a restart, too.
    assert_eq!(pi.terminate().code(), Some(0));
    let pi = device.boot();
    for ((call, status, said), (_, want_status, want)) in answers(&mut pi.http(), &world).iter().zip(&want) {
        assert_eq!((status, said), (want_status, want), "{call}, after a restart");
    }

    // Writes are held to the policies with the row as it is, and carry who wrote them.
    let client = |who: &str| {
        let shown = &world.callers.iter().find(|(name, _)| *name == who).unwrap().1;
        shown.iter().fold(pi.http(), |client, (name, value)| client.with_header(name, value))
    };
    client("ada").post("/rest/v1/orders", &json!({ "id": "own", "owner": world.ada, "title": "new" })).unwrap().expect_status(201);
    client("ada").patch("/rest/v1/orders?id=eq.a", &json!({ "title": "mine" })).unwrap().expect_status(204);
    client("clerk").patch("/rest/v1/orders?id=eq.b", &json!({ "title": "seen" })).unwrap().expect_status(204);
    for (who, id, fields, status) in [
        ("ada", "other", json!({ "owner": "bob" }), 403),
        ("ada", "a", json!({ "owner": "bob" }), 403),
        // What a policy hides is no field for him, and refused as one that nobody has.
        ("clerk", "b", json!({ "cost": 9 }), 400),
        ("anon", "n", json!({ "title": "x" }), 401),
    ] {
        let answer = if id == "other" {
            client(who).post("/rest/v1/orders", &json!({ "id": id, "owner": fields["owner"] }))
        } else {
            client(who).patch(&format!("/rest/v1/orders?id=eq.{id}"), &fields)
        };
        answer.unwrap().expect_status(status);
    }

    // The hub has the writes afterwards, and the device what was decided meanwhile.
    world.cluster.start_hub();
    world.cluster.converge(&[&pi]);
    let admin = &world.callers.iter().find(|(name, _)| *name == "admin").unwrap().1[0].1;
    let mut hub = world.cluster.hub().http().with_header("apikey", admin);
    let titles = hub.get("/rest/v1/orders?select=title&id=in.(a,b,own)&order=id").unwrap().expect_status(200).json();
    assert_eq!(titles, json!([{ "title": "mine" }, { "title": "seen" }, { "title": "new" }]));
    let history = hub.get("/rest/v1/orders/a/history").unwrap().expect_status(200).json();
    assert_eq!(
        (&history["changes"][0]["device"], &history["changes"][0]["by"]),
        (&json!("pi"), &json!(format!("user:{}", world.ada))),
        "{history}"
    );
    world.cluster.cli().args(["key", "revoke", "job"]).run().expect_success();
    wait::until("the device has heard of the revocation", PATIENCE, || {
        (client("service").get("/rest/v1/orders").unwrap().status == 401).then_some(())
    });
    client("scoped").get("/rest/v1/orders").unwrap().expect_status(200);
}
